"""What the journal has to know of a point: what it is kept for, and how the feed names it.

A point that the table of quantities does not know (a raw register of one maker) counts as
billing: kept longest, shed last.
"""

from functools import lru_cache
from typing import NamedTuple

from headend.journal.model import RecordClass
from protocols.quantities import quantity

_BILLING_KINDS = frozenset({"register", "interval", "demand"})


class PointFacts(NamedTuple):
    """Class, OBIS code and unit of a point. `unit` None: unknown here, so it must be sent."""

    record_class: RecordClass
    obis: str | None
    unit: str | None
    register: bool


@lru_cache(maxsize=4096)
def point_facts(point: str) -> PointFacts:
    """The facts of one point name; never fails."""
    try:
        known = quantity(point)
    except KeyError:
        return PointFacts(RecordClass.BILLING, None, None, register=False)
    billing = known.kind in _BILLING_KINDS
    return PointFacts(
        RecordClass.BILLING if billing else RecordClass.TELEMETRY,
        known.obis,
        known.unit,
        register=known.kind == "register",
    )
