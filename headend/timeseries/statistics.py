"""What the head-end says about itself, for charts: each bus's share, the day's due points, and
how far each writer is.

Three measurements, whole minutes as their times:

    bus,headend=he1,bus=street-a share=0.4375,answered=52i,failed=1i,attempts=54i,queue_len=0i
    due,headend=he1 frozen=1200i,read=1150i,late=4i,backfilled=0i,estimated=0i,missing=0i,open=46i
    writer,headend=he1,writer=influxdb1 lag_s=0.000,backlog=0i,dead_letters=0i,dropped=0i

`bus` speaks of the time since the line before it: `share` of it (0..1) that was spent in attempts,
how many requests were answered and failed, how many attempts reached the wire. `due` holds what was
due on the running local day up to then and what had become of it; `frozen` is their sum. The day
before is counted again each time, its last millisecond as its time: that point ends up final.
`writer` goes to its own database only: how old the oldest reading is that is not written there, how
many records wait, and how many lines were refused, or lost from these statistics, so far.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar
from zoneinfo import ZoneInfo

from headend.bus import BusStatistics
from headend.domain.clock import Clock
from headend.domain.due import DueState, day_bounds_ms, local_day
from headend.domain.errors import JournalError
from headend.journal import JournalReader
from headend.timeseries.extra import ExtraLines
from headend.timeseries.lines import escape

log = logging.getLogger(__name__)

PERIOD_MS = 60_000
DUE_EVERY = 5  # periods

_T = TypeVar("_T")


class HasStatistics(Protocol):
    """What is wanted of a bus."""

    def statistics(self) -> BusStatistics:
        """Counters since the bus was made."""
        ...


class Outlet(Protocol):
    """What is wanted of a writer."""

    name: str
    extra: ExtraLines

    def report(self) -> dict[str, Any]:
        """How it stands: `lag_s`, `backlog`, `dead_letters`."""
        ...


@dataclass(slots=True)
class _Seen:
    """A bus and its counters at the line before; `over_s`: busy time beyond its share."""

    bus: HasStatistics
    at: BusStatistics
    over_s: float = 0.0


class StatisticsSampler:
    """One supervised task: `run`. Lines go to every writer; nothing waits for them."""

    def __init__(
        self,
        *,
        headend: str,
        clock: Clock,
        zone: ZoneInfo,
        journal_path: Path,
        buses: Mapping[str, HasStatistics],
        writers: Sequence[Outlet],
        period_ms: int = PERIOD_MS,
    ) -> None:
        self._headend = escape(headend)
        self._clock = clock
        self._zone = zone
        self._journal_path = journal_path
        self._buses = buses
        self._writers = writers
        self._period_ms = period_ms
        self._seen: dict[str, _Seen] = {}

    async def run(self) -> None:
        """Sample at every whole period, for ever."""
        self.sample_buses(0)  # what was before is not of the first minute
        at_ms = 0
        while True:
            now_ms = self._clock.now_ms()
            # A timer may come a little early by the wall clock: no period is sampled twice.
            next_ms = max(at_ms, now_ms - now_ms % self._period_ms) + self._period_ms
            if next_ms - now_ms > self._period_ms:  # the clock was set back
                next_ms = now_ms - now_ms % self._period_ms + self._period_ms
            await asyncio.sleep((next_ms - now_ms) / 1000)
            at_ms = next_ms
            self._put(self.sample_buses(at_ms))
            for writer in self._writers:
                writer.extra.put([self.sample_writer(writer, at_ms)])
            if at_ms // self._period_ms % DUE_EVERY == 0:
                self._put(await self.sample_due(at_ms))

    def sample_buses(self, at_ms: int) -> list[bytes]:
        """A line for every bus that ran since the sample before."""
        lines = []
        for name, bus in self._buses.items():
            now = bus.statistics()
            before = self._seen.get(name)
            self._seen[name] = _Seen(bus, now)
            # Another bus under the name of one that was stopped counts from 0.
            if before is None or before.bus is not bus or now.elapsed_s <= before.at.elapsed_s:
                continue
            elapsed_s = now.elapsed_s - before.at.elapsed_s
            # An attempt counts when it ends: what began before belongs to the time before.
            busy_s = now.busy_s - before.at.busy_s + before.over_s
            self._seen[name].over_s = max(0.0, busy_s - elapsed_s)
            lines.append(
                f"bus,headend={self._headend},bus={escape(name)} "
                f"share={min(busy_s / elapsed_s, 1.0):.6f},"
                f"answered={now.answered - before.at.answered}i,"
                f"failed={now.failed - before.at.failed}i,"
                f"attempts={now.exchanges - before.at.exchanges}i,"
                f"queue_len={now.queue_len}i {at_ms}".encode()
            )
        return lines

    def sample_writer(self, writer: Outlet, at_ms: int) -> bytes:
        """How far a writer is, for its own database."""
        told = writer.report()
        return (
            f"writer,headend={self._headend},writer={escape(writer.name)} "
            f"lag_s={told['lag_s']:.3f},backlog={told['backlog']}i,"
            f"dead_letters={told['dead_letters']}i,dropped={writer.extra.dropped}i {at_ms}"
        ).encode()

    async def sample_due(self, at_ms: int) -> list[bytes]:
        """The lines of the due points: of the day before as a whole, and of today so far.

        None for a day on which nothing is written down as due.
        """
        today = local_day(at_ms, self._zone)
        yesterday = today - timedelta(days=1)
        wanted = [(yesterday, day_bounds_ms(today, self._zone)[0] - 1), (today, at_ms)]

        def count() -> list[dict[DueState, int]]:
            with JournalReader(self._journal_path) as journal:
                return [journal.due_counts(day, until_ms=until_ms) for day, until_ms in wanted]

        try:
            found = await _in_thread(count)
        except JournalError as error:
            # The journal's own task ends the daemon when it has to: a chart does not.
            log.warning("statistics: due points were not counted: %s", error)
            return []
        return [
            f"due,headend={self._headend} frozen={frozen}i,{_fields(counts)} {until_ms}".encode()
            for counts, (_day, until_ms) in zip(found, wanted, strict=True)
            if (frozen := sum(counts.values()))
        ]

    def _put(self, lines: Sequence[bytes]) -> None:
        for writer in self._writers:
            writer.extra.put(lines)


def _fields(counts: Mapping[DueState, int]) -> str:
    return ",".join(f"{state.value}={counts[state]}i" for state in DueState)


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Run in a thread; when cancelled, only after the thread has let go of the file."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait((future,))
        raise
