"""Dates what was read before the time was known, and has the journal bear it.

Every reading keeps its distance to the others: the elapsed time it was kept with and the clock that
is believed now give its instant. It settles what was due then, where it lies within the tolerance;
of several the nearest. What another boot has left has no distance to anything that is known: it is
told and given up.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from headend.acquisition.meter_reader import Due, MeterReader, Wanted
from headend.acquisition.parked import Waiting, waiting_of
from headend.acquisition.plans import ReadPlan, instants
from headend.acquisition.registry import Registry
from headend.domain.due import DueKey
from headend.domain.meter import Event
from headend.journal import Birth, Journal

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 200
UNDATED = "readings_undated"

_Served = Mapping[tuple[int, str], Due]  # row and point -> what it serves


@dataclass(slots=True)
class Adopted:
    """What became of what waited. `gone`: of meters that are there no more."""

    born: int = 0
    settled: int = 0
    undated: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Adoption:
    """`run` before anything else is read. `at_elapsed`: the time at an elapsed time of `boot`."""

    journal: Journal
    registry: Registry
    plans: Mapping[str, ReadPlan]
    reader: MeterReader
    zone: ZoneInfo
    boot: str
    at_elapsed: Callable[[float], int]

    async def run(self, now_ms: int) -> Adopted:
        """Bear what waited, oldest first. Can be repeated after an error."""
        done = Adopted()
        rows = await self.journal.parked()
        if not rows:
            return done
        ours = [row for row in rows if row.boot_id == self.boot]
        lost = [row.id for row in rows if row.boot_id != self.boot]
        if lost:
            await self._give_up(lost, now_ms, done)
        ours.sort(key=lambda row: (row.monotonic_s, row.id))
        dated = [waiting_of(row, self.at_elapsed(row.monotonic_s)) for row in ours]
        served = self._served(dated)
        for start in range(0, len(dated), ROWS_AT_ONCE):
            some = dated[start : start + ROWS_AT_ONCE]
            births: list[Birth] = []
            for waiting in some:
                births += await self._births(waiting, served, done)
            await self.journal.adopt([waiting.number for waiting in some], births)
        log.warning(
            "readings that waited for the time: born=%d settled=%d undated=%d gone=%d",
            done.born, done.settled, done.undated, done.gone,
        )  # fmt: skip
        return done

    async def _births(self, waiting: Waiting, served: _Served, done: Adopted) -> list[Birth]:
        try:
            meter = self.registry.get(waiting.meter)
        except KeyError:
            done.gone += len(waiting.results)
            return []
        births = []
        for result in waiting.results:
            want = Wanted(result.point, served.get((waiting.number, result.point)))
            taken = await self.reader.judge_past(meter, want, result)
            if taken.reading is not None:
                births.append(Birth((taken.reading,), taken.events))
                done.born += 1
                done.settled += taken.settled
        return births

    def _served(self, dated: Sequence[Waiting]) -> _Served:
        """Which reading serves which instant that was due: the nearest one, within tolerance."""
        nearest: dict[DueKey, tuple[int, int, Due]] = {}
        for waiting in dated:
            points = [result.point for result in waiting.results]
            for key, due in self._fitting(waiting.meter, waiting.at_ms, points):
                far_ms = abs(waiting.at_ms - due.due_ms)
                known = nearest.get(key)
                if known is None or far_ms < known[0]:
                    nearest[key] = (far_ms, waiting.number, due)
        return {(number, key.point): due for key, (_far, number, due) in nearest.items()}

    def _fitting(self, meter: str, at_ms: int, points: Sequence[str]) -> list[tuple[DueKey, Due]]:
        try:
            plan = self.plans[self.registry.get(meter).plan]
        except KeyError:
            return []
        found = []
        for entry in plan.entries:
            served = [p for p in points if p in entry.points]
            if entry.source != "live" or not served:
                continue
            first, end = at_ms - entry.tolerance_ms, at_ms + entry.tolerance_ms + 1
            for due_ms in instants(entry, first, end, self.zone):
                due = Due(due_ms, entry.tolerance_ms, due_ms + entry.window_ms)
                found += [(DueKey(meter, point, due_ms), due) for point in served]
        return found

    async def _give_up(self, numbers: Sequence[int], now_ms: int, done: Adopted) -> None:
        done.undated = len(numbers)
        reason = "the machine was started again before its clock was believed"
        log.warning("alarm=%s count=%d", UNDATED, len(numbers))
        fields = {"alarm": UNDATED, "count": len(numbers), "reason": reason}
        await self.journal.append_event(Event("alarm", now_ms, fields))
        await self.journal.adopt(list(numbers), [])
