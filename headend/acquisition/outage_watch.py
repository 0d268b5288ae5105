"""Feeds `outages` with what the running daemon sees, and writes its events into the journal.

What is to be watched comes through callables that are asked at every step: buses and meters come
and go while the daemon runs. An event that cannot be written is tried again, and nothing new is
decided before it is: alarms reach the journal in order, and none is lost or doubled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from headend.acquisition.meter_reader import REGISTER_HELD, MeterSession
from headend.acquisition.outage_state import CLEAR_S_MAX, TOGETHER_S, OutageSettings, Seen
from headend.acquisition.outages import Outages
from headend.acquisition.sessions import Read, SessionAround
from headend.bus import BusState, BusStatistics, Priority
from headend.config.sections.headend import AlarmsSection
from headend.domain.alarms import CLEARED, RAISED, alarm_kind, standing, subject_of
from headend.domain.clock import Clock
from headend.domain.errors import (
    BadReply,
    Busy,
    JournalError,
    NoAnswer,
    PortBusy,
    PortGone,
    Refused,
)
from headend.domain.kept_clock import KeptClock
from headend.domain.meter import Event, Meter
from headend.drivers import PointResult
from protocols.errors import ProtocolError

log = logging.getLogger(__name__)

STEP_S = 5.0
RETRY_S = 5.0
CLOCK_JUMP_S = 10.0
HELD_EVERY_S = 60.0
CLOCK_JUMP = "clock_jump"
_AWAY = frozenset({BusState.GONE, BusState.BUSY})

SessionOf = Callable[[Meter], MeterSession]


def outage_settings(section: AlarmsSection) -> OutageSettings:
    """What the configuration says of alarms."""
    return OutageSettings(
        port_s=section.port_s,
        bus_silent_s=section.bus_silent_s,
        meter_silent_s=section.meter_silent_s,
        clear_s=section.clear_s,
        clear_s_max=max(section.clear_s, CLEAR_S_MAX),
        together_s=min(section.port_s, TOGETHER_S),
    )


class WatchedBus(Protocol):
    """What is asked of a bus."""

    def statistics(self) -> BusStatistics:
        """Its counters and the state of its port."""
        ...


def seen_in(results: Sequence[PointResult]) -> tuple[Seen, str] | None:
    """What one read of a meter shows, and why; None when it shows nothing (it was not asked)."""
    found: tuple[Seen, str] | None = None
    for result in results:
        match result.error:
            case None:
                return Seen.GOOD, ""
            case Busy():
                found = Seen.ALIVE, "busy"
            case Refused(reasons=reasons):
                found = found or (Seen.REFUSED, "refused: " + ", ".join(reasons))
            case BadReply(code=code):
                found = found or (Seen.UNUSABLE, f"bad reply: {code}")
            case ProtocolError():
                found = found or (Seen.UNUSABLE, "bad reply")
            case NoAnswer(attempts=attempts, diagnosis=diagnosis) if attempts:
                found = found or (Seen.NO_ANSWER, f"no answer: {diagnosis}")
            case PortGone() | PortBusy():
                found = found or (Seen.NO_PORT, "port gone")
            case _:
                continue
    return found


class OutageWatch:
    """Owner of the state machine. `run` is a supervised task."""

    def __init__(
        self,
        append: Callable[[Event], Awaitable[int]],
        clock: Clock,
        *,
        buses: Callable[[], Mapping[str, WatchedBus]],
        meters: Callable[[], Iterable[Meter]],
        told: Iterable[Event] = (),
        settings: OutageSettings | None = None,
        journalled: Callable[[], Awaitable[Sequence[Event]]] | None = None,
        step_s: float = STEP_S,
    ) -> None:
        """`told`: alarms and clearings in the journal; `journalled` asks for them again."""
        self._append = append
        self._clock = clock
        self._buses = buses
        self._meters = meters
        self._journalled = journalled
        self._step_s = step_s
        # The registers that are held now; set when there is somebody who knows.
        self.held: Callable[[], Collection[tuple[str, str]]] | None = None
        self._held_at_s = clock.monotonic()
        self.outages = Outages(settings)
        self._look()
        self.outages.restore(told, clock.monotonic())
        self._unwritten: list[Event] = []
        self._jumps = ClockJumps(clock)

    def use(self, settings: OutageSettings) -> None:
        """Other bounds from the next step on."""
        self.outages.settings = settings

    def sessions(self, open_session: SessionOf) -> SessionOf:
        """`open_session`, whose sessions tell what became of every read."""

        def opened(meter: Meter) -> MeterSession:
            return _Watched(meter.id, open_session(meter), self.saw)

        return opened

    def saw(self, meter: str, results: Sequence[PointResult]) -> None:
        """A meter was read."""
        found = seen_in(results)
        if found is not None:
            seen, why = found
            self.outages.saw(meter, seen, why, self._clock.monotonic(), self._clock.now_ms())

    def clock_is_known(self) -> None:
        """The machine's clock may have been set until now: that is told elsewhere."""
        self._jumps.look()

    async def run(self) -> None:
        """Look, decide and write, every few seconds, until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._step_s)

    async def step(self) -> None:
        """One look; what it brings about is in the journal when this returns."""
        await self._write()
        self._look()
        self._unwritten = self.outages.step(self._clock.monotonic(), self._clock.now_ms())
        jump = self._jumps.look()
        self._unwritten += [] if jump is None else [jump]
        self._unwritten += await self._decided()
        for event in self._unwritten:
            _tell(event)
        await self._write()

    def _look(self) -> None:
        buses: dict[str, list[str]] = {name: [] for name in self._buses()}
        for meter in self._meters():
            buses.setdefault(meter.bus, []).append(meter.id)
        self.outages.topology(buses)
        now_s = self._clock.monotonic()
        for name, bus in self._buses().items():
            statistics = bus.statistics()
            state, opens = statistics.state, statistics.opens
            if state in _AWAY:
                self.outages.port(name, opens, f"port {state}", now_s, is_there=False)
            elif state is BusState.OPEN:
                self.outages.port(name, opens, "", now_s, is_there=True)

    async def _decided(self) -> list[Event]:
        """Clearings of held registers: a believable value followed, or the meter has gone."""
        now_s = self._clock.monotonic()
        if self.held is None or self._journalled is None or now_s - self._held_at_s < HELD_EVERY_S:
            return []
        self._held_at_s = now_s
        try:
            told = standing(await self._journalled())
        except JournalError as error:
            log.warning("held registers were not looked up: %s", error)
            return []
        held = self.held()
        events = []
        for alarm in told:
            if alarm.name != REGISTER_HELD:
                continue
            key = (str(alarm.fields.get("meter")), str(alarm.fields.get("point")))
            if key not in held:
                fields = {"alarm": REGISTER_HELD, "meter": key[0], "point": key[1]}
                fields["reason"] = "a believable value followed, or another meter hangs there"
                events.append(Event(CLEARED, self._clock.now_ms(), fields))
        return events

    async def _write(self) -> None:
        while self._unwritten:
            try:
                await self._append(self._unwritten[0])
            except JournalError as error:
                log.warning("alarm %s not kept: %s", self._unwritten[0].fields["alarm"], error)
                await asyncio.sleep(RETRY_S)
                continue
            del self._unwritten[0]


class ClockJumps:
    """The machine's wall clock against its monotonic one, from one look to the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._machine = clock.machine if isinstance(clock, KeptClock) else clock
        self._offset_s = self._difference()

    def look(self) -> Event | None:
        """The alarm of a clock that was set since the last look; slewing is no jump."""
        before, self._offset_s = self._offset_s, self._difference()
        jump_s = self._offset_s - before
        if abs(jump_s) < CLOCK_JUMP_S:
            return None
        message = f"the head-end's clock was set {'forward' if jump_s > 0 else 'back'}"
        fields = {
            "alarm": CLOCK_JUMP,
            "jump_s": round(jump_s),
            "message": f"{message} by {abs(round(jump_s))} s",
        }
        return Event(RAISED, self._clock.now_ms(), fields)

    def _difference(self) -> float:
        return self._machine.now_ms() / 1000 - self._machine.monotonic()


class _Watched(SessionAround):
    """A session that tells what it saw."""

    def __init__(
        self, meter: str, inner: MeterSession, saw: Callable[[str, Sequence[PointResult]], None]
    ) -> None:
        super().__init__(inner)
        self._meter = meter
        self._saw = saw

    async def around(
        self, _points: Sequence[str], _priority: Priority, read: Read, /
    ) -> list[PointResult]:
        """The read, told."""
        results = await read()
        self._saw(self._meter, results)
        return results


def _tell(event: Event) -> None:
    """One log line; the message of the event says the rest."""
    name = str(event.fields["alarm"])
    shown = " ".join(
        f"{key}={event.fields[key]}"
        for key in (*alarm_kind(name).about, "reason", "count", "flaps")
        if key in event.fields
    )
    about = {"about": (name, subject_of(event))}
    if event.kind == RAISED:
        log.warning("alarm=%s %s: %s", name, shown, event.fields.get("message", ""), extra=about)
    else:
        log.warning("alarm=%s cleared %s", name, shown, extra=about)
