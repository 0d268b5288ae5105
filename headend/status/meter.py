"""What the page of one meter shows beside what is at hand: its day, and its newest readings.

Blocking; runs in a thread of the desk. Bounded: a day is read up to READINGS_MAX, and the newest
readings are looked for in growing spans, two days back at most.
"""

from collections import deque
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import islice
from zoneinfo import ZoneInfo

from headend.domain.clock import from_iso
from headend.domain.due import day_bounds_ms
from headend.journal import JournalReader
from headend.messages.records import ReadRecord
from headend.status.curves import Curve, Sample, day_curve
from headend.status.gather import EXPORT, IMPORT, YIELD

READINGS_MAX = 20_000  # one in ten seconds, two points
RECENT_MAX = 30
_SPANS_MS = (900_000, 4 * 3_600_000, 24 * 3_600_000, 48 * 3_600_000)


@dataclass(frozen=True, slots=True)
class MeterDay:
    """One meter on one local day. `span_ms`: the day's start and end. Curves by point."""

    day: date
    span_ms: tuple[int, int]
    curves: dict[str, Curve]
    is_cut: bool  # there were more readings than are looked at


@dataclass(frozen=True, slots=True)
class MeterPast:
    """What the journal says of one meter."""

    day: MeterDay
    recent: tuple[ReadRecord, ...]  # the newest first


def meter_past(
    reader: JournalReader, meter: str, day: date, zone: ZoneInfo, now_ms: int
) -> MeterPast:
    """A meter's day and its newest readings."""
    return MeterPast(_day(reader, meter, day, zone), _recent(reader, meter, now_ms))


def _day(reader: JournalReader, meter: str, day: date, zone: ZoneInfo) -> MeterDay:
    span_ms = day_bounds_ms(day, zone)
    curves: dict[str, Curve] = {}
    is_cut = False
    for point in (IMPORT, EXPORT, YIELD):
        found = reader.readings(meter=meter, point=point, from_ms=span_ms[0], to_ms=span_ms[1] + 1)
        records = list(islice(found, READINGS_MAX + 1))
        is_cut |= len(records) > READINGS_MAX
        samples = [s for record in records[:READINGS_MAX] if (s := _sample(record)) is not None]
        if samples:
            curves[point] = day_curve(samples, span_ms)
    return MeterDay(day, span_ms, curves, is_cut)


def _sample(record: ReadRecord) -> Sample | None:
    """A believed register value, of the primary side; None for anything else."""
    if record.value is None or record.verdict != "ok" or record.interval_s is not None:
        return None
    value = Decimal(record.value)
    if record.side == "secondary":
        value *= Decimal(record.multiplier)
    return Sample(from_iso(record.time), value)


def _recent(reader: JournalReader, meter: str, now_ms: int) -> tuple[ReadRecord, ...]:
    newest: deque[ReadRecord] = deque(maxlen=RECENT_MAX)
    for span_ms in _SPANS_MS:
        # A reading may be stamped a little ahead by a meter's own clock.
        found = reader.readings(meter=meter, from_ms=now_ms - span_ms, to_ms=now_ms + 3_600_000)
        newest = deque(islice(found, READINGS_MAX), maxlen=RECENT_MAX)
        if len(newest) == RECENT_MAX:
            break
    return tuple(reversed(newest))


def days_to_choose(today: date, count: int = 7) -> list[date]:
    """The days a page offers, the newest first."""
    return [today - timedelta(days=n) for n in range(count)]
