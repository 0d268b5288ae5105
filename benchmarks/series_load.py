"""What the meters of `series.py` say, and a journal filled with it."""

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from headend.domain.clock import SystemClock, from_iso
from headend.domain.reading import Reading
from headend.journal import Birth, ConsumerSpec, Journal, JournalSettings
from headend.journal.model import TIMESERIES_PREFIX
from headend.timeseries.service import CLASSES
from protocols.quantities import quantity

POINTS = (
    "active_import_total",
    "active_export_total",
    "active_import_t1",
    "active_import_t2",
    "active_power_total",
    "voltage_a",
    "current_a",
    "power_factor_total",
)
METERS = 100
START_MS = from_iso("2026-03-01T00:00:00Z")
STEP_MS = 900_000
HEADEND = "bench"
SERIES = "bench"
CONSUMER = TIMESERIES_PREFIX + SERIES
BIRTHS_A_COMMIT = 200


def value_of(point: str, meter: int, cycle: int) -> Decimal:
    """A plausible value that moves."""
    decimals = quantity(point).decimals
    if quantity(point).kind == "register":
        return Decimal(100_000 * meter + 7 * cycle + 1_234_567).scaleb(-decimals)
    return Decimal(1000 + (meter * 31 + cycle * 7) % 2999).scaleb(-decimals)


def cycles_of(readings: int) -> int:
    """How many instants make so many readings, rounded down, at least one."""
    return max(1, readings // (METERS * len(POINTS)))


def values_of(readings: int) -> int:
    """How many values that are."""
    return cycles_of(readings) * METERS * len(POINTS)


def births(readings: int) -> Iterator[tuple[Reading, ...]]:
    """What each meter gives for each instant, instant by instant."""
    for cycle in range(cycles_of(readings)):
        time_ms = START_MS + cycle * STEP_MS
        for meter in range(1, METERS + 1):
            yield tuple(
                Reading(
                    f"M-{meter:04d}",
                    f"SP-{meter:04d}",
                    point,
                    value_of(point, meter, cycle),
                    quantity(point).unit,
                    time_ms,
                    time_ms + 80,
                )
                for point in POINTS
            )


def by_kind(birth: Sequence[Reading]) -> Iterator[tuple[Reading, ...]]:
    """The registers, then the rest: two measurements, so two lines."""
    for register in (True, False):
        part = tuple(r for r in birth if (quantity(r.point).kind == "register") is register)
        if part:
            yield part


async def open_journal(path: Path) -> Journal:
    """With the cursor of the series' writer."""
    return await Journal.open(
        path,
        clock=SystemClock(),
        software="benchmark",
        consumers=[ConsumerSpec(CONSUMER, CLASSES)],
        settings=JournalSettings(reserve_bytes_telemetry=1, reserve_bytes_billing=1),
    )


def fill_journal(path: Path, readings: int) -> int:
    """A journal of them all, nothing of it written anywhere yet; how many there are."""
    return asyncio.run(_fill(path, readings))


async def _fill(path: Path, readings: int) -> int:
    count = 0
    waiting: list[Birth] = []
    async with await open_journal(path) as journal:
        for birth in births(readings):
            waiting.append(Birth(birth))
            count += len(birth)
            if len(waiting) == BIRTHS_A_COMMIT:
                await journal.append_many(waiting)
                waiting.clear()
        await journal.append_many(waiting)
    return count
