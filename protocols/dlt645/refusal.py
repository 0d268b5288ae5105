"""The error bytes of refusals, as names.

2007 edition, one byte (`refusal_reasons`): `other` (bit 0: any other error), `no_data` (1: the
meter has no such identifier), `password` (2: password wrong or not authorised), `speed` (3: the
speed cannot be changed), `year_zones` (4: too many), `day_slots` (5: too many), `tariffs` (6: too
many), `reserved` (7). The byte carries 33H on the wire like all data.
"""

REASONS = (
    "other",
    "no_data",
    "password",
    "speed",
    "year_zones",
    "day_slots",
    "tariffs",
    "reserved",
)
REASONS_1997 = (
    "illegal_data",
    "no_data",
    "password",
    "reserved",
    "year_zones",
    "day_slots",
    "tariffs",
    "reserved",
)
REASONS_SECURITY = (  # two bytes, low byte first, in the refusal of a security command (C3H)
    "other",
    "repeated_top_up",
    "esam_verification",
    "identity_authentication",
    "customer_number",
    "top_up_count",
    "hoarding_limit",
    "address_range",
    "remote_account_closed",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "password_setting",
)
REASONS_RELAY = (  # two bytes, low byte first, in the extended refusal of relay control (DCH)
    "meter_suspended",
    "mac",
    "password",
    "authentication_expired",
    "command_expired",
    "protected_supply",
    "recovery_protected_supply",
    "recovery_time",
    "already_open",
)

RELAY_DONE = (  # two bytes, low byte first, in the extended reply of relay control (9CH)
    "relay_closed",
    "closing_permitted",
    "relay_opened",
    "opening_delayed",
    "opened_for_a_time",
    "opening_delayed_by_load",
    "reserved",
    "reserved",
    "protected_supply_on",
    "protected_supply_off",
    "alarm_on",
    "alarm_off",
)


def reasons_of(word: int, names: tuple[str, ...] = REASONS) -> tuple[str, ...]:
    """The names of the bits that are set, lowest first."""
    return tuple(name for bit, name in enumerate(names) if word >> bit & 1)


def error_byte(*reasons: str) -> int:
    """The error byte of these reasons (2007); ValueError for a name that is none."""
    byte = 0
    for reason in reasons:
        byte |= 1 << REASONS.index(reason)
    return byte
