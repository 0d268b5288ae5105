"""Puts acquisition together: sessions, pollers, reads that somebody asks for, meter exchanges.

Any reading, on-demand too, is journalled and settles the open due point it fits.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from zoneinfo import ZoneInfo

from headend.acquisition.adoption import Adopted, Adoption
from headend.acquisition.changeover import Changeover
from headend.acquisition.declarations import Declarations, bases_by_events
from headend.acquisition.meter_reader import Due, MeterReader, MeterSession, Taken, Wanted
from headend.acquisition.overtaking import Overtaking
from headend.acquisition.plans import ReadPlan
from headend.acquisition.poller import Carried, Poller
from headend.acquisition.registry import Registry
from headend.bus import Priority
from headend.domain.clock import Clock
from headend.domain.due import DueKey
from headend.domain.meter import Event, Meter, MeterExchange
from headend.domain.reading import Source
from headend.journal import Journal
from headend.vee import Base, RuleSet

log = logging.getLogger(__name__)

ON_DEMAND_TIMEOUT_S = 60.0


class Engine:
    """Owner of the registry, the meter reader and the pollers.

    `plans` is looked into anew each time; a changeover changes it, and the registry, in place.
    `changing` is held by whatever changes which meters are in force. `held_back`: buses that are
    not polled though something is due there, see `hold_back`. `hurry`: what makes a bus serve
    everything that concerns a meter first, as long as somebody waits for that meter.
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plans: dict[str, ReadPlan],
        open_session: Callable[[Meter], MeterSession],
        *,
        bases: Mapping[tuple[str, str], Base],
        held: Mapping[tuple[str, str], Decimal],
        settled: frozenset[DueKey],
        zone: ZoneInfo,
        clock: Clock,
        rules: RuleSet,
        not_before_ms: int = 0,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._plans = plans
        self._zone = zone
        self._clock = clock
        self._rules = rules
        self._settled = settled
        self._not_before_ms = not_before_ms
        self.open_session = open_session
        self.changing = asyncio.Lock()
        self.held_back: frozenset[str] = frozenset()
        self._overtaking = Overtaking()
        self.hurry: Callable[[Meter], AbstractContextManager[None]] = lambda _meter: nullcontext()
        self._reader = MeterReader(
            journal,
            self._overtaking.sessions(open_session),
            clock=clock,
            rules=rules,
            bases=bases_by_events(bases, registry.lives, registry.all()),
            held=held,
            alarm=self.alarm,
            in_force=registry.holds,
            multiplier_at=registry.multiplier_at,
            hung_at=registry.hung_at,
        )
        self.pollers = {
            bus: self._poller(bus) for bus in dict.fromkeys(meter.bus for meter in registry.all())
        }
        self.declarations = Declarations(
            journal, registry, plans, self._reader, self.pollers, clock, rules, self.changing
        )

    def _poller(self, bus: str, *, plan_first: bool = True) -> Poller:
        return Poller(
            bus,
            self._registry,
            self._plans,
            self._reader,
            self._journal,
            zone=self._zone,
            clock=self._clock,
            already_settled=self._settled.__contains__,
            not_before_ms=self._not_before_ms,
            plan_first=plan_first,
            held_back=lambda: bus in self.held_back,
        )

    def hold_back(self, buses: Collection[str]) -> None:
        """Poll every bus but these from now on. What falls due there ends as `overload`.

        Somebody who asks for a meter there is answered as ever, and that settles what it fits.
        """
        self.held_back = frozenset(buses)
        for poller in self.pollers.values():
            poller.look_again()

    def begin(self, settled: frozenset[DueKey], not_before_ms: int) -> None:
        """The time is known: plan from now on, but for what is settled. Before pollers run."""
        self._settled = settled
        self._not_before_ms = not_before_ms
        for bus in self.pollers:
            self.pollers[bus] = self._poller(bus)

    async def adopt(self, boot: str, at_elapsed: Callable[[float], int]) -> Adopted:
        """Bear what was read in this `boot` while nobody knew the time, before anything else."""
        adoption = Adoption(
            self._journal, self._registry, self._plans, self._reader, self._zone, boot, at_elapsed
        )
        return await adoption.run(self._clock.now_ms())

    def clock_known(self, meter_id: str, offset_s: float) -> None:
        """How far off a meter's clock is: what it stamps is judged by that."""
        self._reader.know_clock(meter_id, offset_s)

    def clock_jumped(self, event: Event) -> None:
        """A meter's clock was set (`clock_jump`): what it stamped around that is marked."""
        self._reader.jumps.add(event)

    @property
    def reader(self) -> MeterReader:
        """What judges and bears readings."""
        return self._reader

    def turn(self, meter_id: str) -> asyncio.Lock:
        """Held while a meter is read."""
        return self._reader.turn(meter_id)

    def change_over(self, change: Changeover) -> list[Poller]:
        """Other meters and plans hold from now on; the pollers that are new and not started.

        The pollers that are concerned should rest, or a meter may be read twice. Pollers without
        meters stay.
        """
        concerned = change.meters()
        carried: dict[str, Carried] = {meter: Carried() for meter in concerned}
        before: dict[str, list[str]] = {}
        for name in concerned:
            if name in change.old:
                before.setdefault(change.old[name].bus, []).append(name)
        for bus, meters in before.items():
            carried |= self.pollers[bus].give_up(meters)
        self._registry.become(change.new)
        self._plans.clear()
        self._plans.update(change.new_plans)
        fresh = []
        for bus in sorted(change.buses()):
            if bus not in self.pollers and self._registry.on_bus(bus):
                self.pollers[bus] = self._poller(bus, plan_first=False)
                fresh.append(self.pollers[bus])
            if bus in self.pollers:
                self.pollers[bus].take_over(carried)
        return fresh

    async def alarm(self, name: str, fields: dict[str, object]) -> None:
        """Raise an alarm: on the feed and in the log, once, at the time it is seen."""
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        about = {"about": (name, fields.get("meter"), fields.get("point"))}
        log.warning("alarm=%s %s", name, shown, extra=about)
        await self._journal.append_event(
            Event("alarm", self._clock.now_ms(), {"alarm": name, **fields})
        )

    @property
    def held(self) -> frozenset[tuple[str, str]]:
        """Meter and point of every register that is held: its alarm stands as long as this."""
        return self._reader.held

    def last_good(self, meter_id: str, point: str) -> Base | None:
        """The last good value of a register of a meter, with its instant; None without one."""
        return self._reader.last_good(meter_id, point)

    async def read_now(
        self, meter_id: str, points: Sequence[str], *, timeout_s: float = ON_DEMAND_TIMEOUT_S
    ) -> list[Taken]:
        """Read points of a meter at once, ahead of the schedule; KeyError for an unknown meter.

        What was read is in the journal when this returns.
        """
        meter = self._registry.get(meter_id)
        poller = self.pollers[meter.bus]
        now_ms = self._clock.now_ms()
        wanted = [Wanted(point, self._fit(poller, meter, point, now_ms)) for point in points]
        with self._overtaking.ahead(meter.id), self.hurry(meter):
            taken = await self._reader.read(
                meter,
                wanted,
                priority=Priority.ON_DEMAND,
                deadline=self._clock.monotonic() + timeout_s,
                source=Source.ON_DEMAND,
            )
        for outcome in taken:
            if outcome.settled and outcome.wanted.due is not None:
                key = DueKey(meter.id, outcome.wanted.point, outcome.wanted.due.due_ms)
                poller.settled(key)
        return taken

    def _fit(self, poller: Poller, meter: Meter, point: str, now_ms: int) -> Due | None:
        """The open due instant that a live reading taken now would serve, the newest first."""
        fitting = [
            due
            for due in poller.open_due(meter.id, point)
            if 0 <= now_ms - due.due_ms <= due.tolerance_ms
        ]
        return max(fitting, key=lambda due: due.due_ms, default=None)

    async def exchange_meter(self, exchange: MeterExchange) -> tuple[Meter, int]:
        """Declare a meter exchange: the new meter, and how many readings it touched.

        ConfigError when the exchange cannot be.
        """
        declared = await self.declarations.exchange(exchange)
        return declared.meter, declared.withdrawn
