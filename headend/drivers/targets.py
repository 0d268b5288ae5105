"""What a point name stands for on a DL/T 645-2007 meter, and its values as text."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from protocols.dlt645.catalogue import Item, di_of, lookup
from protocols.dlt645.formats import MeterTime, Value
from protocols.errors import LocalProtocolError
from protocols.quantities import quantity

RAW_PREFIX = "di:"
CLOCK = "clock"
DATE_DI = "04000101"
TIME_DI = "04000102"

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
def target_of(point: str) -> Target:
    """The live register of a point name, or a raw identifier (`di:00010000`).

    LocalProtocolError(code="no_such_point") when there is none.
    """
    if point.startswith(RAW_PREFIX):
        return _raw(point)
    try:
        known = quantity(point)
        di = DATE_DI if point == CLOCK else di_of(point)
    except KeyError as error:
        message = str(error.args[0]) if type(error) is KeyError else str(error)
        raise LocalProtocolError(message, code="no_such_point") from error
    return Target(point, di, lookup(di), known.unit, known.kind, frozen=False)


def _raw(point: str) -> Target:
    di = point.removeprefix(RAW_PREFIX).upper()
    if len(di) != 8 or any(c not in "0123456789ABCDEF" for c in di):
        message = f"{point}: an identifier has eight hex digits, such as di:00010000"
        raise LocalProtocolError(message, code="no_such_point")
    item = lookup(di)
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
            return value
