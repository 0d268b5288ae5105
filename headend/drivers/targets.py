"""What a point name stands for on a DL/T 645 meter, and its values as text."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from protocols.dlt645.catalogue import DIGITS_1997, DIGITS_2007, Item, di_of
from protocols.dlt645.fields import MeterTime, Value
from protocols.dlt645.functions import Edition
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.errors import LocalProtocolError
from protocols.quantities import quantity

RAW_PREFIX = "di:"
CLOCK = "clock"
# Date, time: what the clock consists of.
CLOCK_DIS: dict[Edition, tuple[str, str]] = {
    "dlt645-2007": ("04000101", "04000102"),
    "dlt645-1997": ("C010", "C011"),
}

# What goes to a bill: read twice where the link cannot see a damaged byte.
READ_TWICE_KINDS = frozenset({"register", "demand"})


@dataclass(frozen=True, slots=True)
class Target:
    """One identifier to be read for a point. `kind` is the quantity's; `frozen`: of the past."""

    point: str
    di: str
    item: Item | None
    unit: str
    kind: str
    frozen: bool

    @property
    def counts_up(self) -> bool:
        """Two reads a moment apart may differ by what flowed in between."""
        return self.kind == "register" and not self.frozen


@lru_cache(maxsize=4096)
def _named(point: str, edition: Edition) -> Target:
    try:
        known = quantity(point)
        di = CLOCK_DIS[edition][0] if point == CLOCK else di_of(point, edition)
    except KeyError as error:
        message = str(error.args[0]) if type(error) is KeyError else str(error)
        raise LocalProtocolError(message, code="no_such_point") from error
    return Target(point, di, GENERIC.item(di), known.unit, known.kind, frozen=False)


def target_of(point: str, profile: MeterProfile = GENERIC) -> Target:
    """The live register of a point name, or a raw identifier (`di:00010000`, 1997: `di:9010`).

    LocalProtocolError(code="no_such_point") when there is none.
    """
    if point.startswith(RAW_PREFIX):
        return _raw(point, profile)
    own = profile.di_of(point) if profile.items else None
    if own is None:
        return _named(point, profile.edition)
    known = quantity(point)
    return Target(point, own, profile.item(own), known.unit, known.kind, frozen=False)


def _raw(point: str, profile: MeterProfile) -> Target:
    di = point.removeprefix(RAW_PREFIX).upper()
    wanted = DIGITS_2007 if profile.edition == "dlt645-2007" else DIGITS_1997
    if len(di) != wanted or any(c not in "0123456789ABCDEF" for c in di):
        example = "eight hex digits, such as di:00010000"
        if wanted == DIGITS_1997:
            example = "four hex digits, such as di:9010"
        message = f"{point}: an identifier of {profile.edition} has {example}"
        raise LocalProtocolError(message, code="no_such_point")
    item = profile.item(di)
    kind = "state"
    if item is not None and item.points:
        name = item.points[0].replace("{k}", "1")
        kind = quantity(name).kind
    unit = "" if item is None else item.unit
    frozen = item is not None and item.snapshot is not None
    return Target(point, di, item, unit, kind, frozen)


def value_text(value: Value, zone: dt.tzinfo) -> str | None:
    """A member as text: numbers with their decimals, meter times with the zone's offset."""
    match value:
        case None:
            return None
        case Decimal():
            return format(value, "f")
        case MeterTime():
            return value.at(zone).isoformat()
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return str(value)
