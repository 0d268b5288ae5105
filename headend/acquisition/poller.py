"""Works through what is due on one bus, in order, one meter at a time.

At most one job of a meter and plan line waits: when the next instant comes before the last one
was read, the older one is counted as `overrun` and skipped, never piled up. A job that fails is
tried again with back-off for as long as its instant can still be served. Where a round does not fit
into its interval, the meter that has waited longest goes first: none is left out for good.

What is read for the first time goes before what has failed, so a noisy meter costs the others
nothing they need; but where first tries never end, what has failed still has a fifth of the time
(`RETRY_PATIENCE`), the one that has waited longest first.

When meters or plans change, what is known of a meter's work is carried over: a line that stays is
neither read again nor left out, and an instant that waits is still served.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from headend.acquisition.meter_reader import Due, MeterReader, Taken, Wanted, failed_keys
from headend.acquisition.overtaking import was_overtaken
from headend.acquisition.plans import PlanEntry, ReadPlan, instants
from headend.acquisition.registry import Registry
from headend.bus import Priority, Shares
from headend.domain.clock import Clock
from headend.domain.due import DueKey
from headend.domain.errors import JournalFull
from headend.domain.meter import Meter
from headend.journal import Journal

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
RETRY_FIRST_MS = 5_000
RETRY_MAX_MS = 300_000
FREEZE_SERVED_MS = DAY_MS  # a daily freeze can be fetched until the next one is taken
WAIT_MAX_S = 30.0
RETRY_PATIENCE = 4.0  # a retry waits so many times as long as the one before it took
CLOCK_BACK_MS = 10_000  # a clock that goes back by more was set
NO_ROOM = "no_room"
OVERLOAD = "overload"  # the bus's plan does not fit and is not polled


@dataclass(slots=True)
class Job:
    """What one meter still owes for one instant of one plan line."""

    meter: str
    entry: PlanEntry
    due_ms: int
    points: list[str]
    not_before_ms: int
    tries: int = 0
    told: bool = False  # that its bus is held back

    @property
    def serves_until_ms(self) -> int:
        """Nothing read later than this can serve the instant."""
        if self.entry.source == "freeze":
            return self.due_ms + FREEZE_SERVED_MS
        return self.due_ms + self.entry.tolerance_ms

    def due(self) -> Due:
        """The instant with its bounds, as the reader needs it."""
        return Due(self.due_ms, self.entry.tolerance_ms, self.due_ms + self.entry.window_ms)


@dataclass(frozen=True, slots=True)
class Carried:
    """One meter's work on its way to another plan or poller: each line's next instant, and what
    waits to be read."""

    upcoming: Mapping[PlanEntry, int] = field(default_factory=dict)
    jobs: Sequence[Job] = ()


@dataclass(slots=True)
class PollerCounts:
    """Work done since the start."""

    jobs: int = 0
    retries: int = 0
    overruns: int = 0
    steps: int = 0


class Poller:
    """One supervised task a bus: `run`.

    `plan_first`: its first run begins with every meter of the bus. Otherwise it begins with what
    it takes over. While `held_back` says so nothing is read: what falls due waits as long as its
    instant could be served, for whoever else reads it, and ends as `overload`.
    """

    def __init__(
        self,
        bus: str,
        registry: Registry,
        plans: Mapping[str, ReadPlan],
        reader: MeterReader,
        journal: Journal,
        *,
        zone: ZoneInfo,
        clock: Clock,
        already_settled: Callable[[DueKey], bool] = lambda _key: False,
        not_before_ms: int = 0,
        plan_first: bool = True,
        held_back: Callable[[], bool] = lambda: False,
    ) -> None:
        self.bus = bus
        self.counts = PollerCounts()
        self._registry = registry
        self._plans = plans
        self._reader = reader
        self._journal = journal
        self._zone = zone
        self._clock = clock
        self._already_settled = already_settled
        self._not_before_ms = not_before_ms  # nothing was due before the first list was frozen
        self._ready: dict[tuple[str, int], Job] = {}
        # due_ms, order on the bus, meter, index of the entry in its plan, entry
        self._upcoming: list[tuple[int, int, str, int, PlanEntry]] = []
        self._plan_first = plan_first
        self._held_back = held_back
        self._retries_wait = False
        self._now_ms = 0  # the latest time seen
        # The bus's time between first tries (False) and retries (True).
        self._shares = Shares[bool]({True: RETRY_PATIENCE})
        self._served: dict[str, int] = {}  # meter: the number of the job that was its last
        self._wake = asyncio.Event()
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    def open_due(self, meter: str, point: str) -> list[Due]:
        """The instants of a point that wait to be read now (for a read that somebody asked for)."""
        return [
            job.due()
            for (owner, _), job in self._ready.items()
            if owner == meter and point in job.points
        ]

    @property
    def is_busy(self) -> bool:
        """Something is due now and is not read yet, or is being read again."""
        if self._held_back():
            return False
        now_ms = self._clock.now_ms()
        if self._upcoming and self._upcoming[0][0] <= now_ms:
            return True
        return any(job.not_before_ms <= now_ms for job in self._ready.values())

    def settled(self, key: DueKey) -> None:
        """Somebody else's read has served this due point: do not read it again."""
        for slot, job in list(self._ready.items()):
            if slot[0] == key.meter and job.due_ms == key.due_ms and key.point in job.points:
                job.points.remove(key.point)
                if not job.points:
                    self._ready.pop(slot, None)

    async def rest(self) -> None:
        """Finish the meter that is being read, so that what it said is kept; begin no other.

        Until `go_on`.
        """
        self._may_go_on.clear()
        self._wake.set()
        await self._at_rest.wait()

    def look_again(self) -> None:
        """Whether the bus is held back may have changed."""
        self._wake.set()

    def go_on(self) -> None:
        """The rest is over."""
        self._may_go_on.set()

    def give_up(self, meters: Collection[str]) -> dict[str, Carried]:
        """Take the work of these meters out of here; what can be carried on elsewhere."""
        upcoming: dict[str, dict[PlanEntry, int]] = {meter: {} for meter in meters}
        jobs: dict[str, list[Job]] = {meter: [] for meter in meters}
        for due_ms, _order, meter, _index, entry in self._upcoming:
            if meter in upcoming:
                upcoming[meter][entry] = due_ms
        for (meter, _index), job in self._ready.items():
            if meter in jobs:
                jobs[meter].append(job)
        self._upcoming = [line for line in self._upcoming if line[2] not in upcoming]
        heapq.heapify(self._upcoming)
        self._ready = {slot: job for slot, job in self._ready.items() if slot[0] not in jobs}
        self._served = {meter: n for meter, n in self._served.items() if meter not in jobs}
        return {meter: Carried(upcoming[meter], jobs[meter]) for meter in meters}

    def take_over(self, carried: Mapping[str, Carried]) -> None:
        """Take up the work of meters that hang here now, by the plans that hold now.

        A line that was planned goes on with its next instant; a new one begins with the first
        from now on. What waits is served, whether or not its line is still planned.
        """
        now_ms = self._clock.now_ms()
        for order, meter in enumerate(self._registry.on_bus(self.bus)):
            known = carried.get(meter.id)
            if known is None:
                continue
            entries = self._plans[meter.plan].entries
            for index, entry in enumerate(entries):
                due_ms = known.upcoming.get(entry)
                if due_ms is None:
                    self._push_next(meter.id, index, entry, now_ms, order)
                else:
                    heapq.heappush(self._upcoming, (due_ms, order, meter.id, index, entry))
            for number, job in enumerate(known.jobs, start=1):
                # A line that is no longer planned has no index: below 0 it is in nobody's way.
                index = entries.index(job.entry) if job.entry in entries else -number
                self._ready[meter.id, index] = job
        self._wake.set()

    def replaced(self, old: str, new: str) -> None:
        """A meter was exchanged: what can still be served is its successor's to read."""
        self._ready = {slot: job for slot, job in self._ready.items() if slot[0] != old}
        self._served.pop(old, None)
        self._upcoming = [line for line in self._upcoming if line[2] != old]
        heapq.heapify(self._upcoming)
        for order, meter in enumerate(self._registry.on_bus(self.bus)):
            if meter.id == new:
                self._plan_meter(meter, order)
        self._wake.set()

    async def run(self) -> None:
        """Read what is due, for ever."""
        if self._plan_first:
            self._plan_all()
        self._plan_first = True  # after a death nothing is known any more
        self._at_rest.clear()
        try:
            while True:
                self.counts.steps += 1
                if not self._may_go_on.is_set():
                    self._at_rest.set()
                    await self._may_go_on.wait()
                    self._at_rest.clear()
                await self._step()
        finally:
            self._at_rest.set()

    async def _step(self) -> None:
        """Read the meter that is next, or wait for one."""
        await self._release()
        if self._held_back():
            await self._tell_held_back()
            await self._wait()
            return
        job = self._next_job()
        if job is None:
            await self._wait()
            return
        try:
            await self._work(job)
        except JournalFull:
            # What was read is not accepted and stays due; the disk needs time, not more reads.
            job.not_before_ms = self._clock.now_ms() + RETRY_FIRST_MS
            job.tries += 1
            refused = [(DueKey(job.meter, point, job.due_ms), NO_ROOM) for point in job.points]
            await self._journal.due_failed_many(refused)

    async def _tell_held_back(self) -> None:
        waiting = [job for job in self._ready.values() if not job.told]
        for job in waiting:
            job.told = True
        await self._journal.due_failed_many(
            [(DueKey(j.meter, p, j.due_ms), OVERLOAD) for j in waiting for p in j.points]
        )

    # -- planning

    def _plan_all(self) -> None:
        """Fill the heap with each line's first instant that can still be served."""
        self._ready = {}
        self._upcoming = []
        for order, meter in enumerate(self._registry.on_bus(self.bus)):
            self._plan_meter(meter, order)

    def _plan_meter(self, meter: Meter, order: int) -> None:
        for index, entry in enumerate(self._plans[meter.plan].entries):
            served_ms = FREEZE_SERVED_MS if entry.source == "freeze" else entry.tolerance_ms
            since_ms = max(self._clock.now_ms() - served_ms + 1, self._not_before_ms)
            # Of the time when another meter hung there it has nothing, and owes nothing.
            until_ms = self._clock.now_ms() + DAY_MS
            passed = instants(entry, since_ms, until_ms, self._zone)
            own_ms = next((at for at in passed if self._registry.hung_at(meter, at)), until_ms)
            self._push_next(meter.id, index, entry, own_ms, order)

    def _push_next(
        self, meter: str, index: int, entry: PlanEntry, since_ms: int, order: int
    ) -> None:
        horizon_ms = max(since_ms, self._clock.now_ms()) + 2 * DAY_MS
        due_ms = next(instants(entry, since_ms, horizon_ms, self._zone), None)
        if due_ms is not None:
            heapq.heappush(self._upcoming, (due_ms, order, meter, index, entry))

    async def _release(self) -> None:
        """Move what has become due into the ready set; count what it pushes out."""
        now_ms = self._clock.now_ms()
        if now_ms < self._now_ms - CLOCK_BACK_MS:
            self._clock_was_set_back(now_ms)
        self._now_ms = now_ms
        failed: list[tuple[DueKey, str]] = []
        while self._upcoming and self._upcoming[0][0] <= now_ms:
            due_ms, order, meter_id, index, entry = heapq.heappop(self._upcoming)
            self._push_next(meter_id, index, entry, due_ms + 1, order)
            points = [
                point
                for point in entry.points
                if not self._already_settled(DueKey(meter_id, point, due_ms))
            ]
            old = self._ready.pop((meter_id, index), None)
            if old is not None:
                self.counts.overruns += len(old.points)
                if not (old.tries or old.told):  # else why it failed is known, and better
                    failed += [(DueKey(meter_id, p, old.due_ms), "overrun") for p in old.points]
            if points:
                self._ready[meter_id, index] = Job(meter_id, entry, due_ms, points, due_ms)
        for slot, job in list(self._ready.items()):
            if job.serves_until_ms < now_ms:
                del self._ready[slot]
                self.counts.overruns += len(job.points)
                if not (job.tries or job.told):
                    failed += [(DueKey(job.meter, p, job.due_ms), "overrun") for p in job.points]
        await self._journal.due_failed_many(failed)

    def _clock_was_set_back(self, now_ms: int) -> None:
        """Go on from now: instants that come again are read again, none is waited for in vain."""
        lines = self._upcoming
        self._upcoming = []
        for due_ms, order, meter, index, entry in lines:
            self._push_next(meter, index, entry, min(due_ms, now_ms), order)
        self._ready = {slot: job for slot, job in self._ready.items() if job.due_ms <= now_ms}
        log.warning("bus=%s the clock was set back: planned anew", self.bus)

    def _next_job(self) -> Job | None:
        now_ms = self._clock.now_ms()
        served = self._served
        first: list[Job] = []
        again: list[Job] = []
        for job in self._ready.values():
            if job.not_before_ms <= now_ms:
                (again if job.tries else first).append(job)
        self._retries_wait = bool(again)
        if again and (not first or self._shares.owed(True) >= 1):  # noqa: FBT003 - a key
            return min(again, key=lambda job: (served.get(job.meter, 0), job.due_ms))
        return min(first, key=lambda job: (job.due_ms, served.get(job.meter, 0)), default=None)

    async def _wait(self) -> None:
        now_ms = self._clock.now_ms()
        is_held = self._held_back()
        moments = [
            job.serves_until_ms + 1 if is_held else job.not_before_ms
            for job in self._ready.values()
        ]
        moments += [self._upcoming[0][0]] if self._upcoming else []
        wait_s = min(WAIT_MAX_S, max(0.001, (min(moments) - now_ms) / 1000)) if moments else None
        self._wake.clear()
        if not self._may_go_on.is_set():
            return
        try:
            async with asyncio.timeout(WAIT_MAX_S if wait_s is None else wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    # -- working

    async def _work(self, job: Job) -> None:
        meter = self._registry.get(job.meter)
        self.counts.jobs += 1
        self._served[job.meter] = self.counts.jobs
        self.counts.retries += job.tries > 0
        wanted = [Wanted(point, job.due()) for point in job.points]
        last_ms = job.serves_until_ms - self._clock.now_ms()
        is_retry, began_s = job.tries > 0, self._clock.monotonic()
        taken = await self._reader.read(
            meter,
            wanted,
            priority=Priority.DUE,
            frozen=job.entry.source == "freeze",
            deadline=self._clock.monotonic() + max(0, last_ms) / 1000,
        )
        took_s = self._clock.monotonic() - began_s
        self._shares.used(is_retry, took_s, (True,) if self._retries_wait else ())
        await self._after(meter, job, taken)

    async def _after(self, meter: Meter, job: Job, taken: Sequence[Taken]) -> None:
        failed = failed_keys(meter, taken)
        if was_overtaken(taken) and failed:
            job.points = [key.point for key, _reason in failed]
            return  # somebody else's read came first: at once again, and nothing has failed
        job.tries += 1
        job.points = [key.point for key, _reason in failed]
        slot = next((slot for slot, waiting in self._ready.items() if waiting is job), None)
        if not job.points:
            if slot is not None:
                del self._ready[slot]
            return
        await self._journal.due_failed_many(failed)
        wait_ms = min(RETRY_FIRST_MS * 2 ** min(job.tries - 1, 10), RETRY_MAX_MS)
        job.not_before_ms = self._clock.now_ms() + wait_ms
        if slot is not None and job.not_before_ms > job.serves_until_ms:
            del self._ready[slot]
