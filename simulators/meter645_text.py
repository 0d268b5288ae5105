"""What can be told of a simulated 645 meter in words: spans it kept nothing of, events, damage.

Times are of the meter's clock, without an offset: `2026-11-20T03:00`. ValueError says what is wrong
and what is known.
"""

import datetime as dt
from random import Random

from protocols.dlt645.formats import MeterTime
from simulators.damage import RandomDamage
from simulators.meter645_clock import local_ms_of
from simulators.meter645_events import KINDS, Event
from simulators.meter645_store import Effect, Gap

_EFFECTS: dict[str, Effect] = {"missing": "missing", "bad": "bad", "ff": "ff"}
STORES = (
    "load", "daily_freeze", "hourly_freeze", "step_freeze", "settlement", "timed_freeze",
)  # fmt: skip
_RATES = ("flip", "lost", "doubled", "cut", "burst")


def wall_ms(text: str, utc_offset_min: int) -> int:
    """Wall time of a time as the meter's clock should show it."""
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        msg = f"a time of the meter's clock has no offset, not {text!r}"
        raise ValueError(msg)
    return local_ms_of(MeterTime(moment.date(), moment.time())) - utc_offset_min * 60_000


def parse_gap(text: str, utc_offset_min: int) -> Gap:
    """`FROM/UNTIL[,missing|bad|ff][,STORE...]`: a span of which nothing good was kept."""
    span, *words = (part.strip() for part in text.split(","))
    first, slash, last = span.partition("/")
    if not slash:
        msg = f"a gap is FROM/UNTIL, not {span!r}"
        raise ValueError(msg)
    effects = [word for word in words if word in _EFFECTS]
    stores = frozenset(word for word in words if word not in _EFFECTS)
    unknown = stores - set(STORES)
    if unknown or len(effects) > 1:
        msg = f"{text!r}: known are one of {', '.join(_EFFECTS)}, and {', '.join(STORES)}"
        raise ValueError(msg)
    return Gap(
        wall_ms(first, utc_offset_min),
        wall_ms(last, utc_offset_min),
        _EFFECTS[effects[0]] if effects else "missing",
        stores,
    )


def parse_event(text: str, utc_offset_min: int) -> Event:
    """`KIND:from=TIME[,until=TIME][,phase=1]`: something that the meter records."""
    kind, _, rest = text.partition(":")
    options = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    unknown = set(options) - {"from", "until", "phase"}
    if kind not in KINDS or unknown or "from" not in options:
        msg = f"{text!r} is not KIND:from=TIME,until=TIME,phase=1; kinds: {', '.join(KINDS)}"
        raise ValueError(msg)
    until = options.get("until")
    return Event(
        kind,
        wall_ms(options["from"], utc_offset_min),
        None if until is None else wall_ms(until, utc_offset_min),
        int(options.get("phase", "0")),
    )


def parse_damage(text: str, rng: Random) -> RandomDamage:
    """`flip=0.0001,lost=0.001,doubled=..,cut=..,burst=..`: shares of bits, characters, replies."""
    rates: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        if name not in _RATES or not 0.0 <= float(share or "nan") <= 1.0:
            msg = f"{part!r} is not NAME=SHARE with a share of 0..1; names: {', '.join(_RATES)}"
            raise ValueError(msg)
        rates[f"{name}_rate"] = float(share)
    return RandomDamage(rng, **rates)  # type: ignore[arg-type]  # all of them are rates
