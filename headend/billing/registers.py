"""What differences are made of: registers, dated events, and why something is not known. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from headend.domain.meter import Event
from headend.domain.reading import Side, Status, Verdict

GOOD_VERDICTS = frozenset({Verdict.OK, Verdict.SUSPECT})


class Unknown(StrEnum):
    """Why a difference is not known."""

    NO_START = "no_start"  # no usable register for the beginning
    NO_END = "no_end"  # no usable register for the end
    BACKWARD = "backward"  # the register ran back and no event says why
    METER_CHANGED = "meter_changed"  # another meter, and no exchange was declared
    RATIO_CHANGED = "ratio_changed"  # the multiplier changed in between
    NO_RATIO = "no_ratio"  # no reading says what the register is multiplied by
    UNIT_CHANGED = "unit_changed"
    BAD_EVENT = "bad_event"  # an event that lacks what is needed
    NO_READINGS = "no_readings"


class NotKnown(Exception):
    """A difference cannot be given, for this reason."""

    def __init__(self, reason: Unknown) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class RegisterReading:
    """A current value of a register. `value` None = there is none (withdrawn, for instance)."""

    meter: str
    service_point: str
    point: str
    time_ms: int
    value: Decimal | None
    unit: str
    read_id: str
    due_ms: int | None = None
    status: str = Status.ACTUAL
    verdict: str = Verdict.OK
    flags: tuple[str, ...] = ()
    multiplier: Decimal = Decimal(1)
    side: str = Side.SECONDARY

    @property
    def is_good(self) -> bool:
        """Whether it may be billed."""
        return (
            self.value is not None and self.status != Status.NULL and self.verdict in GOOD_VERDICTS
        )

    @property
    def factor(self) -> Decimal:
        """What the register is multiplied by to get the primary quantity."""
        return self.multiplier if self.side == Side.SECONDARY else Decimal(1)


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """A dated event as it came on the feed. `id` names it where a reading id would stand."""

    id: str
    kind: str
    at_ms: int
    fields: Mapping[str, Any]

    @property
    def told(self) -> Event:
        """The event alone."""
        return Event(self.kind, self.at_ms, dict(self.fields))


@dataclass(frozen=True, slots=True)
class Stand:
    """One register value that a difference stands on.

    `source`: the read id, or `event:` and the id of the event that declared the value.
    """

    meter: str
    time_ms: int
    value: Decimal
    unit: str
    factor: Decimal | None  # None: an event's value, multiplied like the reading it is paired with
    source: str
    status: str
    verdict: str = Verdict.OK
    flags: tuple[str, ...] = ()
    side: str = Side.SECONDARY
    is_event: bool = False


def stand_of(reading: RegisterReading) -> Stand:
    """A good reading as something to stand on."""
    assert reading.value is not None
    return Stand(
        reading.meter,
        reading.time_ms,
        reading.value,
        reading.unit,
        reading.factor,
        reading.read_id,
        reading.status,
        reading.verdict,
        reading.flags,
        reading.side,
    )
