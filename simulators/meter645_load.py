"""The load records of a simulated meter: what it keeps of each instant, and what it gives out.

The six classes have intervals of their own; an instant is kept when at least one class is due, and
holds the classes that are. The shape of the bytes is the codec's (`load_profile.LoadShape`); which
records there are, and which of them answer a request, is decided here.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from protocols.dlt645.fields import Value
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.load_profile import (
    ALL_CLASSES,
    CLASS_POINTS,
    CLASSES,
    LoadShape,
    encode_record,
)
from protocols.dlt645.meter import ReadAsked
from simulators.meter645_clock import MeterClock
from simulators.meter645_store import Freeze, Gap, Store

REGIONAL_DI = "060000FF"
_ASKED_TIME = "01"
_MINUTES_A_DAY = 1440
ValueAt = Callable[[str, Freeze], Value]


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What load records a meter keeps and how it gives them.

    `intervals_min`: of class 1 to 6, each a divisor of a day. `mode`: bit i = class i + 1 is on.
    `depth`: records kept at most; of a quarter of an hour 3840 are forty days. `shape`: how the
    maker writes them. `wrong_sum`: added to the sum of each record, for makers that count in
    another way. `empty`: what a request for records that are not there gets: the identifier alone,
    or a refusal. `regional`: whether 060000FF, all classes in some provinces, is answered.
    """

    intervals_min: tuple[int, int, int, int, int, int] = (15, 15, 15, 15, 15, 15)
    mode: int = 0x3F
    depth: int = 3840
    shape: LoadShape = field(default_factory=LoadShape)
    wrong_sum: int = 0
    empty: Literal["di_only", "refuse"] = "di_only"
    regional: bool = False

    def __post_init__(self) -> None:
        """Refuse an interval that divides no day."""
        for minutes in self.intervals_min:
            if minutes < 1 or _MINUTES_A_DAY % minutes:
                msg = f"an interval divides a day, {minutes} minutes do not"
                raise ValueError(msg)

    def classes_at(self, time: MeterTime) -> tuple[int, ...]:
        """The classes that are on and due at a time."""
        minute = time.time.hour * 60 + time.time.minute
        return tuple(
            number
            for number in CLASSES
            if self.mode >> (number - 1) & 1 and minute % self.intervals_min[number - 1] == 0
        )


class LoadProfile:
    """The load records of one meter. `value_at(point, kept)`: what it had of a quantity then."""

    def __init__(self, settings: LoadSettings, *, from_ms: int, gaps: Sequence[Gap] = ()) -> None:
        self.settings = settings
        self.store = Store("load", self._due, settings.depth, from_ms=from_ms, gaps=gaps)

    def _due(self, after: int, until: int, most: int) -> Iterable[int]:
        """Every instant at which a class that is on is due."""
        on = [
            minutes
            for at, minutes in enumerate(self.settings.intervals_min)
            if self.settings.mode >> at & 1
        ]
        found: set[int] = set()
        for minutes in set(on):
            step = minutes * 60_000
            last = until // step
            found.update(n * step for n in range(max(after // step, last - most) + 1, last + 1))
        return sorted(found)[-most:] if most else ()

    def take(self, clock: MeterClock, now_ms: int) -> None:
        """Keep every instant the meter's clock has passed."""
        self.store.take(clock, now_ms)

    def records(self, number: int, asked: ReadAsked) -> list[Freeze]:
        """The instants that answer a request for class `number` (0 = all), oldest first.

        At most as many as were asked for. From a time on: the first one that is not before it, so
        that a hole shows in the time of what comes.
        """
        count = asked.count or 0
        having: Iterable[Freeze] = self.store
        if asked.moment is not None:
            time = asked_time(asked.moment)
            having = self.store.from_time(time) if time is not None else ()
        found = [
            kept
            for kept in having
            if number == ALL_CLASSES or number in self.settings.classes_at(kept.time)
        ]
        is_latest = asked.moment is None and asked.di[6:] not in ("00", _ASKED_TIME)
        if is_latest:
            return found[-count:] if count else []
        return found[:count]

    def payload(self, number: int, records: Iterable[Freeze], value_at: ValueAt) -> bytes:
        """The bytes of records as a reply for class `number` holds them."""
        return b"".join(self._record(number, kept, value_at) for kept in records)

    def _record(self, number: int, kept: Freeze, value_at: ValueAt) -> bytes:
        classes = self.classes(number, kept, value_at)
        raw = encode_record(
            kept.time,
            classes,
            number=number,
            shape=self.settings.shape,
            bad=kept.effect == "bad",
        )
        if self.settings.wrong_sum:
            raw = raw[:-2] + bytes(((raw[-2] + self.settings.wrong_sum) & 0xFF,)) + raw[-1:]
        return raw

    def classes(self, number: int, kept: Freeze, value_at: ValueAt) -> dict[int, Sequence[Value]]:
        """The values of an instant, by class: of one, or of all that were due then."""
        wanted = self.settings.classes_at(kept.time)
        return {
            one: [None if kept.effect == "ff" else value_at(point, kept) for point in points]
            for one, points in CLASS_POINTS.items()
            if one in wanted and number in (ALL_CLASSES, one)
        }


def asked_time(moment: str) -> MeterTime | None:
    """The time of a request (YYMMDDhhmm); None for one that does not exist."""
    year, month, day, hour, minute = (int(moment[at : at + 2]) for at in range(0, 10, 2))
    try:
        return MeterTime(dt.date(2000 + year, month, day), dt.time(hour, minute))
    except ValueError:
        return None
