"""Reads meters while nobody knows what time it is.

Until the head-end's own clock is believed no instant is due and nothing can be born. Meters are
read all the same, each point so often that one reading lies within the tolerance of whatever
instant it may turn out to have been due at. What came is kept in the journal with the elapsed time
and the name of this boot, and is published by nobody (`adoption.py` dates it). Daily freezes are
left: meters hold them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from headend.acquisition.meter_reader import MeterSession
from headend.acquisition.parked import payload_of
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.bus import Priority
from headend.domain.errors import JournalError
from headend.domain.meter import Meter
from headend.drivers import PointResult
from headend.journal import Journal

if TYPE_CHECKING:
    from headend.domain.exchange import Exchange

log = logging.getLogger(__name__)

EVERY_MIN_S = 10.0
ROUND_MIN_S = 1.0
PARKED_MAX = 200_000  # rows; about 100 MB, which a day of a large district does not fill


class Elapsed(Protocol):
    """A clock that is held: what it shows means nothing, its differences do."""

    def elapsed(self) -> float:
        """Seconds that go on evenly."""
        ...

    def at_elapsed(self, elapsed_s: float) -> int:
        """What it shows at an elapsed time."""
        ...


@dataclass(slots=True)
class WaitingCounts:
    """What has been done since the start. `kept`, `full`: readings kept, and given up for room."""

    kept: int = 0
    full: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Turn:
    """One meter's points that are read at one pace."""

    meter: Meter
    points: tuple[str, ...]
    every_s: float
    next_s: float = 0.0


@dataclass(slots=True)
class WaitingRoom:
    """`run` for each bus, supervised; `rest` before the clock is followed again."""

    journal: Journal
    registry: Registry
    plans: dict[str, ReadPlan]
    open_session: Callable[[Meter], MeterSession]
    clock: Elapsed
    boot: str
    counts: WaitingCounts = field(default_factory=WaitingCounts)
    _rows: int = -1
    _resting: bool = False
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def run(self, bus: str) -> None:
        """Read the meters of a bus, the longest waiting first, for ever."""
        turns = self._turns_of(bus)
        while True:
            now_s = self.clock.elapsed()
            turn = min(turns, key=lambda t: t.next_s, default=None)
            wait_s = 60.0 if turn is None else turn.next_s - now_s
            if turn is None or wait_s > 0:
                await asyncio.sleep(max(0.01, min(wait_s, 60.0)))
                continue
            turn.next_s = now_s + max(turn.every_s, ROUND_MIN_S)
            await self.read(turn.meter, turn.points, priority=Priority.DUE)

    async def read(
        self,
        meter: Meter,
        points: Sequence[str],
        *,
        priority: Priority,
        deadline: float | None = None,
    ) -> list[PointResult]:
        """Read points now and keep what came; what the meter said, stamped by the held clock."""
        async with self._turns.setdefault(meter.id, asyncio.Lock()):
            if self._resting:
                return []
            session = self.open_session(meter)
            results = await session.read(list(points), priority=priority, deadline=deadline)
            self.counts.failed += sum(r.error is not None for r in results)
            try:
                await self._keep(meter, [r for r in results if r.error is None])
            except JournalError as error:
                log.warning("meter=%s what was read could not be kept: %s", meter.id, error)
            return results

    async def rest(self) -> None:
        """Finish what is being read; begin nothing more."""
        self._resting = True
        for turn in list(self._turns.values()):
            async with turn:
                pass

    async def _keep(self, meter: Meter, results: Sequence[PointResult]) -> None:
        if self._rows < 0:
            self._rows = len(await self.journal.parked())
        together: dict[tuple[Exchange, int], list[PointResult]] = {}
        for result in results:
            if result.exchange is not None and result.time_ms is not None:
                together.setdefault((result.exchange, result.time_ms), []).append(result)
        zero_ms = self.clock.at_elapsed(0.0)
        for (exchange, time_ms), same in together.items():
            if self._rows >= PARKED_MAX:
                self.counts.full += len(same)
                continue
            elapsed_s = (time_ms - zero_ms) / 1000
            await self.journal.park(self.boot, elapsed_s, exchange, payload_of(meter.id, same))
            self._rows += 1
            self.counts.kept += len(same)

    def _turns_of(self, bus: str) -> list[_Turn]:
        turns = []
        for meter in self.registry.on_bus(bus):
            paces: dict[float, list[str]] = {}
            for entry in self.plans[meter.plan].entries:
                if entry.source == "live":
                    paces.setdefault(pace_s(entry), []).extend(entry.points)
            turns += [
                _Turn(meter, tuple(dict.fromkeys(points)), every_s)
                for every_s, points in paces.items()
            ]
        return turns


def pace_s(entry: PlanEntry) -> float:
    """So often a point must be read for one reading to serve any instant of the line."""
    tolerance_s = 2 * entry.tolerance_ms / 1000
    every_s = tolerance_s if entry.interval_s is None else min(entry.interval_s, tolerance_s)
    return max(EVERY_MIN_S, every_s)
