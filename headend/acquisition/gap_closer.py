"""Closes what is owed and can no longer be read, from what the meters keep themselves.

After an outage of a meter, a bus or the head-end due points stay open, or were closed as missing.
As far back as the meter holds, their values are fetched: daily ones from its frozen registers, the
others from its load records where the plan wants that. It is work of low urgency: a step is one or
two questions, asked behind everything that is due, and takes a stated part of a bus's time at most.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any, Protocol

from headend.acquisition.backfill import LoadFill, classes_of
from headend.acquisition.backfill_freeze import MONTHLY_FREEZE, FreezeFill
from headend.acquisition.plans import Backfilling, instants
from headend.acquisition.poller import FREEZE_SERVED_MS
from headend.acquisition.workbench import Progress, Workbench, history_of
from headend.domain.clock import iso
from headend.domain.due import DueState, day_bounds_ms, local_day
from headend.domain.errors import BadReply, BusError, HeadendError, JournalError, Refused
from headend.domain.meter import Meter
from headend.journal import Owed
from headend.journal.history import owed_days, owed_of_day
from protocols.dlt645.catalogue import DAILY_FREEZE
from protocols.errors import ProtocolError
from protocols.quantities import quantity

log = logging.getLogger(__name__)

LOOK_EVERY_S = 300.0  # a look goes over the lists of all days that are not closed
LOOK_AGAIN_AT_OLD_DAYS_S = 6 * 3600.0
OWED_MOST = 20_000  # of a day, at once; the rest when these are served
AT_ONCE = 200  # due points looked at before others have their turn
GRACE_MS = 60_000  # a poller that is reading just now shall have finished
METER_REST_FIRST_S = 60.0
METER_REST_MAX_S = 3600.0
STEPS_A_TURN = 32  # then it is another meter's turn
SHARE = 0.25  # of a bus's time, at most
PATIENCE = 9.0  # a step waits for what is due so many times as long as the last one took
WAIT_S_MIN = 1.0
LOOK_AT_BUS_S = 0.05


class Fill(Protocol):
    """Something that is done in steps."""

    progress: Progress

    @property
    def is_done(self) -> bool:
        """Nothing is left to ask."""
        ...

    async def step(self) -> None:
        """One or two questions, and what they brought kept."""
        ...


@dataclass(slots=True)
class BusWork:
    """What was done on one bus since the start. `waiting`: meters that are owed something."""

    waiting: int = 0
    meter: str | None = None  # at work just now
    steps: int = 0
    born: int = 0
    held: int = 0
    gaps: int = 0
    failures: int = 0
    at_ms: int | None = None  # the last step's

    def report(self, bus: str) -> dict[str, Any]:
        """As the daemon's status shows it."""
        return {
            "bus": bus,
            "meters_waiting": self.waiting,
            "meter": self.meter,
            "steps": self.steps,
            "born": self.born,
            "held": self.held,
            "gaps": self.gaps,
            "failures": self.failures,
            "at": None if self.at_ms is None else iso(self.at_ms),
        }


@dataclass(slots=True)
class _Rest:
    """A meter that did not answer is left alone for a while."""

    until_s: float
    length_s: float


@dataclass(slots=True)
class _Round:
    """The owed points of every meter, by bus."""

    by_bus: dict[str, dict[str, list[Owed]]] = field(default_factory=dict)


class GapCloser:
    """One supervised task: `run`. `is_busy`: whether something due waits on a bus.

    Bounded: what is owed is taken from the journal a day and OWED_MOST points at a time; a meter
    that does not answer rests, longer each time, up to an hour.
    """

    def __init__(
        self,
        bench: Workbench,
        *,
        is_busy: Callable[[str], bool],
        share: float = SHARE,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self.work: dict[str, BusWork] = {}
        self.steps = 0
        self._bench = bench
        self._is_busy = is_busy
        self._share = share
        self._look_every_s = look_every_s
        self._rests: dict[str, _Rest] = {}
        self._clean: dict[date, float] = {}  # closed days where nothing is left, and since when
        self._took_s: dict[str, float] = {}
        # Of one look: until when a due point is the poller's, and where it may be found after.
        self._lines: dict[tuple[str, str, int], int | None] = {}
        self._places: dict[tuple[str, str, int], list[str]] = {}
        self._left_over = False  # a meter was owed more than one turn could give

    def report(self) -> list[dict[str, Any]]:
        """What was done on each bus, by name."""
        return [self.work[bus].report(bus) for bus in sorted(self.work)]

    async def run(self) -> None:
        """Look for what is owed and close it, for ever."""
        while True:
            is_over = await self.round()
            await asyncio.sleep(self._look_every_s if is_over else WAIT_S_MIN)

    async def round(self) -> bool:
        """Close what can be closed now, on all buses side by side; whether nothing is left over."""
        self._left_over = False
        found = await self._look()
        for bus, work in self.work.items():
            work.waiting = len(found.by_bus.get(bus, ()))
        async with asyncio.TaskGroup() as group:
            for bus, meters in found.by_bus.items():
                work = self.work.setdefault(bus, BusWork())
                work.waiting = len(meters)
                group.create_task(self._work_bus(bus, meters, work), name=f"backfill:{bus}")
        return not self._left_over

    # -- what is owed

    async def _look(self) -> _Round:
        """What is owed, can no longer be read by plan, and was not denied by the meter."""
        now_ms, now_s = self._bench.clock.now_ms(), self._bench.clock.monotonic()
        wanted = [
            plan.backfill.days for plan in self._bench.plans.values() if _wants(plan.backfill)
        ]
        found = _Round()
        self._lines.clear()
        self._places.clear()
        if not wanted:
            return found
        first = local_day(now_ms, self._bench.zone) - timedelta(days=max(wanted))
        for day in await self._bench.journal.look(partial(owed_days, first=first)):
            clean_s = self._clean.get(day)
            if clean_s is not None and now_s - clean_s < LOOK_AGAIN_AT_OLD_DAYS_S:
                continue
            owed = await self._bench.journal.look(
                partial(owed_of_day, day=day, until_ms=now_ms - GRACE_MS, most=OWED_MOST)
            )
            if not await self._sort(owed.owed, found, now_ms) and owed.is_whole:
                self._nothing_left(day, owed.owed, now_ms, now_s)
        self._clean = {day: at for day, at in self._clean.items() if day >= first}
        return found

    def _nothing_left(self, day: date, owed: Sequence[Owed], now_ms: int, now_s: float) -> None:
        """A day that is over for good is not looked at each minute."""
        end_ms = day_bounds_ms(day, self._bench.zone)[1]
        is_over = end_ms + FREEZE_SERVED_MS + GRACE_MS < now_ms
        if is_over and all(one.state is not DueState.OPEN for one in owed):
            self._clean[day] = now_s

    async def _sort(self, owed: Sequence[Owed], found: _Round, now_ms: int) -> int:
        """Put what can be asked for to its bus and meter; how many there are."""
        count = 0
        meters: dict[str, Meter | None] = {}
        for number, one in enumerate(owed):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # the buses must go on
            name = one.key.meter
            if name not in meters:
                meters[name] = self._meter(name)
            meter = meters[name]
            if meter is None or not self._can_be_had(meter, one, now_ms):
                continue
            count += 1
            found.by_bus.setdefault(meter.bus, {}).setdefault(name, []).append(one)
        return count

    def _meter(self, name: str) -> Meter | None:
        """A meter in force that keeps its past, of a plan that wants it."""
        try:
            meter = self._bench.registry.get(name)
        except KeyError:
            return None
        if not _wants(self._bench.plans[meter.plan].backfill):
            return None
        session = history_of(self._bench.open_session(meter))
        return None if session is None or session.load.is_without else meter

    def _can_be_had(self, meter: Meter, one: Owed, now_ms: int) -> bool:
        due_ms, point = one.key.due_ms, one.key.point
        later = self._bench.plans[meter.plan].backfill
        if due_ms < now_ms - later.days * 86_400_000:
            return False
        until_ms = self._served_until_ms(meter, point, due_ms)
        if until_ms is None or until_ms + GRACE_MS >= now_ms:
            return False
        return any(
            self._bench.gaps.reason(meter.id, store, point, due_ms) is None
            for store in self._stores(meter, point, due_ms)
        )

    def _served_until_ms(self, meter: Meter, point: str, due_ms: int) -> int | None:
        """Until when the poller may still read it; None when no line of the plan asks for it."""
        key = (meter.plan, point, due_ms)  # the same for every meter of the plan
        if key not in self._lines:
            found = [
                due_ms + (FREEZE_SERVED_MS if entry.source == "freeze" else entry.tolerance_ms)
                for entry in self._bench.plans[meter.plan].entries
                if point in entry.points
                and next(instants(entry, due_ms, due_ms + 1, self._bench.zone), None) is not None
            ]
            self._lines[key] = max(found, default=None)
        return self._lines[key]

    def _stores(self, meter: Meter, point: str, due_ms: int) -> list[str]:
        """Where a due point may be found, the likeliest first."""
        key = (meter.plan, point, due_ms)
        if key not in self._places:
            self._places[key] = self._stores_of(meter, point, due_ms)
        return self._places[key]

    def _stores_of(self, meter: Meter, point: str, due_ms: int) -> list[str]:
        later = self._bench.plans[meter.plan].backfill
        stores = []
        if later.daily and is_daily(self._bench, meter, point, due_ms):
            stores.append(DAILY_FREEZE)
            if _is_first_of_month(due_ms, self._bench):
                stores.append(MONTHLY_FREEZE)
        if later.load_records:
            stores += [f"load_records_{number}" for number in classes_of([point])]
        return stores

    # -- one bus

    async def _work_bus(self, bus: str, meters: Mapping[str, list[Owed]], work: BusWork) -> None:
        """One meter after the other, each for a while; what is left waits for the next look."""
        for name, owed in meters.items():
            rest = self._rests.get(name)
            if rest is not None and rest.until_s > self._bench.clock.monotonic():
                continue
            meter = self._meter(name)
            if meter is None:
                continue  # it no longer hangs there
            work.meter = name
            try:
                await self._work_meter(bus, meter, owed, work)
            except JournalError as error:
                log.warning("bus=%s nothing is fetched afterwards now: %s", bus, error)
                break
            except (BusError, Refused, BadReply, ProtocolError) as error:
                self._let_rest(name, error, work)
            except _NothingCame as error:
                self._let_rest(name, error, work)
            except HeadendError as error:
                log.warning("meter=%s nothing is fetched afterwards: %s", name, error)
                self._let_rest(name, error, work)
            else:
                self._rests.pop(name, None)
            finally:
                work.meter = None
        work.waiting = 0

    async def _work_meter(
        self, bus: str, meter: Meter, owed: Sequence[Owed], work: BusWork
    ) -> None:
        steps_left = STEPS_A_TURN
        open_points = list(owed)
        brought = work.born + work.gaps
        for make in (self._daily, self._monthly, self._load):
            for fill in make(meter, open_points):
                before = (fill.progress.born, fill.progress.held, len(fill.progress.gaps))
                while not fill.is_done and steps_left:
                    await self._wait_for_turn(bus)
                    began_s = self._bench.clock.monotonic()
                    try:
                        await fill.step()
                    finally:
                        took_s = self._bench.clock.monotonic() - began_s
                        self._took_s[bus] = took_s
                        self.steps += 1
                        work.steps += 1
                        work.at_ms = self._bench.clock.now_ms()
                        progress = fill.progress
                        work.born += progress.born - before[0]
                        work.held += progress.held - before[1]
                        work.gaps += len(progress.gaps) - before[2]
                        before = (progress.born, progress.held, len(progress.gaps))
                    steps_left -= 1
                    await asyncio.sleep(took_s * (1 / self._share - 1))
                if not steps_left:
                    self._left_over = True
                    return
            # What the first store served is no longer looked for in the next.
            open_points = await self._still_owed(meter, open_points)
            if not open_points:
                return
        if work.born + work.gaps == brought:
            msg = f"{len(open_points)} due points of meter {meter.id} could not be closed now"
            raise _NothingCame(msg)

    def _tolerance_ms(self, meter: Meter, owed: Sequence[Owed]) -> int:
        found = [self._bench.tolerance_ms(meter, o.key.point, o.key.due_ms) or 0 for o in owed]
        return max(found, default=0)

    async def _still_owed(self, meter: Meter, before: Sequence[Owed]) -> list[Owed]:
        if not before:
            return []
        stamps = [one.key.due_ms for one in before]
        keys = {one.key for one in before}
        found = await self._bench.owed(meter, min(stamps), max(stamps) + 1)
        return [one for one in found if one.key in keys]

    async def _wait_for_turn(self, bus: str) -> None:
        """Behind what is due; where that never ends, after a time that grows with our own."""
        patience_s = max(WAIT_S_MIN, PATIENCE * self._took_s.get(bus, 0.0))
        began_s = self._bench.clock.monotonic()
        while self._is_busy(bus):
            if self._bench.clock.monotonic() - began_s >= patience_s:
                return
            await asyncio.sleep(LOOK_AT_BUS_S)

    def _let_rest(self, name: str, error: Exception, work: BusWork) -> None:
        known = self._rests.get(name)
        length_s = METER_REST_FIRST_S if known is None else known.length_s * 2
        length_s = min(length_s, METER_REST_MAX_S)
        self._rests[name] = _Rest(self._bench.clock.monotonic() + length_s, length_s)
        work.failures += 1
        log.info("meter=%s rests %.0f s before more is fetched: %s", name, length_s, error)

    # -- which fills

    def _daily(self, meter: Meter, owed: Sequence[Owed]) -> list[Fill]:
        return self._frozen(meter, owed, DAILY_FREEZE)

    def _monthly(self, meter: Meter, owed: Sequence[Owed]) -> list[Fill]:
        first = [one for one in owed if _is_first_of_month(one.key.due_ms, self._bench)]
        return self._frozen(meter, first, MONTHLY_FREEZE)

    def _frozen(self, meter: Meter, owed: Sequence[Owed], kind: str) -> list[Fill]:
        wanted = [
            one
            for one in owed
            if kind in self._stores(meter, one.key.point, one.key.due_ms)
            and self._bench.gaps.reason(meter.id, kind, one.key.point, one.key.due_ms) is None
        ]
        return [FreezeFill(self._bench, meter, wanted, kind=kind)] if wanted else []

    def _load(self, meter: Meter, owed: Sequence[Owed]) -> list[Fill]:
        """A fill for each local day and class, the oldest first."""
        if not self._bench.plans[meter.plan].backfill.load_records:
            return []
        days: dict[date, list[Owed]] = {}
        for one in owed:
            days.setdefault(local_day(one.key.due_ms, self._bench.zone), []).append(one)
        fills: list[Fill] = []
        for day in sorted(days):
            for number, points in classes_of({o.key.point for o in days[day]}).items():
                own = [one for one in days[day] if one.key.point in points]
                stamps = [one.key.due_ms for one in own]
                fills.append(
                    LoadFill(
                        self._bench,
                        meter,
                        number,
                        sorted(points),
                        min(stamps) - self._tolerance_ms(meter, own),
                        max(stamps) + self._tolerance_ms(meter, own) + 1,
                        owed=own,
                        only_owed=True,
                    )
                )
        return fills


class _NothingCame(HeadendError):
    """A meter was asked and gave neither a value nor a reason for good."""


def is_daily(bench: Workbench, meter: Meter, point: str, due_ms: int) -> bool:
    """Whether a due point is a register of a daily line."""
    try:
        is_register = quantity(point).kind == "register"
    except KeyError:
        return False
    return is_register and any(
        entry.interval_s is None
        and point in entry.points
        and next(instants(entry, due_ms, due_ms + 1, bench.zone), None) is not None
        for entry in bench.plans[meter.plan].entries
    )


def _wants(later: Backfilling) -> bool:
    return later.daily or later.load_records


def _is_first_of_month(due_ms: int, bench: Workbench) -> bool:
    day = local_day(due_ms, bench.zone)
    return day.day == 1 and day_bounds_ms(day, bench.zone)[0] == due_ms
