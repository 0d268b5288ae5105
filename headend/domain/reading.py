"""A reading: one quantity of one meter for one instant or interval, and what is known of it."""

from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from headend.domain.exchange import Exchange

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from headend.domain.values import dataclass


class Status(StrEnum):
    """Where a value comes from. An estimate never looks like a reading."""

    ACTUAL = "actual"
    ESTIMATED = "estimated"
    SUBSTITUTED = "substituted"
    MANUAL = "manual"
    NULL = "null"

    __hash__ = str.__hash__  # of a plain Enum it would be a call into Python


class Verdict(StrEnum):
    """What validation says of a value."""

    OK = "ok"
    SUSPECT = "suspect"  # published with its flags
    HELD = "held"  # not published until a second read or a person decides
    FAIL = "fail"  # published, never billed

    __hash__ = str.__hash__


class Side(StrEnum):
    """On which side of the instrument transformers the value was measured."""

    PRIMARY = "primary"
    SECONDARY = "secondary"  # value x multiplier is the primary quantity

    __hash__ = str.__hash__


class Source(StrEnum):
    """Why we read. Never part of a reading's identity."""

    PLANNED = "planned"
    ON_DEMAND = "on_demand"
    BACKFILL = "backfill"
    DERIVED = "derived"  # born again from an earlier reading by a meter event

    __hash__ = str.__hash__


class ReadKey(NamedTuple):
    """What a reading is of. Everything with the same key speaks of the same fact.

    `time_ms`: the instant held for, UTC; the start when `interval_s` is given.
    """

    meter: str
    point: str
    time_ms: int
    interval_s: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One value with its key, its content and its circumstances.

    Key: meter (asset id), point, time_ms, interval_s. Content (decides the revision): value, unit,
    status, verdict, multiplier, side. The rest is circumstance. `value` None is "no value", never
    zero. `flags` are the names of the rules that spoke, sorted. `late`: read after its window.
    """

    meter: str
    service_point: str
    point: str
    value: Decimal | None
    unit: str
    time_ms: int
    received_ms: int
    interval_s: int | None = None
    due_ms: int | None = None
    status: Status = Status.ACTUAL
    verdict: Verdict = Verdict.OK
    flags: tuple[str, ...] = ()
    multiplier: Decimal = Decimal(1)
    side: Side = Side.SECONDARY
    late: bool = False
    final: bool = False
    source: Source = Source.PLANNED
    meter_time_ms: int | None = None
    exchange: Exchange | None = None

    @property
    def key(self) -> ReadKey:
        """The key this reading has one current value for."""
        return ReadKey(self.meter, self.point, self.time_ms, self.interval_s)
