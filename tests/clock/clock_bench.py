"""Simulated meters on a line in memory, a bus, and what watches and sets their clocks: no journal.

Days pass in compressed time, so nothing else runs here that would have to live through them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from headend.acquisition.clock_watch import ClockWatch
from headend.acquisition.meter_clocks import MeterClock
from headend.bus import Bus, BusSettings
from headend.config.sections.control import ControlSection
from headend.control.clock import ClockControl, ClockOutcome, Place
from headend.control.clock_policy import forbidden
from headend.domain.clock import to_ms
from headend.domain.errors import PortGone
from headend.domain.meter import Event, Meter
from headend.drivers import Dlt645Session
from headend.journal import ClockMeasured
from headend.supervisor import Supervisor
from simulators.energy import Timeline
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.schedule import LoopSchedule, run_virtual
from simulators.wire import WireLink
from tests.support.waiting import eventually

ZONE = ZoneInfo("Asia/Shanghai")


def local_ms(text: str) -> int:
    """The stamp of a local time."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZONE))


START_MS = local_ms("2026-03-10T10:20:00")
DAY_S = 86_400
BAUD = 9600


@dataclass
class Kept:
    """What the journal would have."""

    rows: dict[str, list[ClockMeasured]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    async def clocks_measured(self, found: Any) -> None:
        for meter, row in found:
            self.rows.setdefault(meter, []).append(row)

    async def append_event(self, event: Event) -> int:
        self.events.append(event)
        return len(self.events)

    def told(self, kind: str, alarm: str | None = None) -> list[Event]:
        return [e for e in self.events if e.kind == kind and e.fields.get("alarm") == alarm]


class ClockBench:
    """`each` meters on one bus; `settings` are those of `control.clock`."""

    def __init__(
        self,
        loop: Any,
        folder: Path,
        *,
        policy: str = "sync",
        each: int = 1,
        enabled: bool = True,
        timeout_ms: int = 600,
        password: str = "04 000000",
        **settings: Any,
    ) -> None:
        self.loop = loop
        self.kept = Kept()
        timeline = Timeline(loop.now_ms() - 3 * 86_400_000)
        self.devices = [
            make_meter(
                "pv",
                MeterSettings(f"2026{number:08d}", reply_delay_ms=40, seed=number),
                timeline=timeline,
                clock=loop.now_ms,
            )
            for number in range(1, each + 1)
        ]
        self.link = WireLink(
            MeterBus(self.devices),
            name="bus-01",
            schedule=LoopSchedule(loop),
            baud=BAUD,
            gone=lambda text: PortGone(text, bus="bus-01"),
        )
        bus_settings = BusSettings(reply_timeout_ms=timeout_ms)
        self.bus = Bus(
            "bus-01", self.link, bus_settings, clock=loop, observer=lambda _exchange: None
        )
        self.meters = [
            Meter(f"M-{n:05d}", f"SP-{n}", "bus-01", "dlt645-2007", device.address, "p")
            for n, device in enumerate(self.devices, 1)
        ]
        self.sessions = {m.id: Dlt645Session(self.bus, m.address, zone=ZONE) for m in self.meters}
        file = folder / "password"
        file.write_text(password)
        file.chmod(0o600)
        self.section = ControlSection(enabled=enabled, clock=settings)
        self.control = ClockControl(
            self.section, file, folder / "audit.jsonl", clock=loop, zone=ZONE,
            told=self.kept.append_event,
        )  # fmt: skip
        self.policy = policy
        self.watch = self.watching()

    def watching(self) -> ClockWatch:
        """A watch as after a start: it knows what was kept."""
        turn = asyncio.Lock()
        policy: Any = self.policy
        watch = ClockWatch(
            self.kept,
            self.loop,
            meters=lambda: self.meters,
            holds=self.meters.__contains__,
            turn=lambda _meter: turn,
            open_session=lambda meter: self.sessions[meter.id],
            policy=lambda _meter: policy,
            section=self.section.clock,
            set_clock=self.set_one if self.section.enabled else None,
            guarded=lambda offset_ms: forbidden(
                self.loop.now_ms(), offset_ms, self.section.clock, ZONE
            ),
        )
        watch.restore(self.kept.rows, self.kept.events)
        return watch

    async def set_one(self, meter: Meter, reason: str) -> ClockOutcome:
        place = Place(meter, self.sessions[meter.id], self.bus, 4, 11 / BAUD)
        (outcome,) = await self.control.set([place], by="headend", reason=reason)
        return outcome

    def device(self, number: int = 1) -> Meter645:
        return self.devices[number - 1]

    def put(self, error_ms: int, drift_ppm: int = 0, number: int = 1) -> None:
        """This meter's clock is wrong by so much from now on."""
        device = self.device(number)
        device.set_clock(self.loop.now_ms() + 480 * 60_000 + error_ms)
        device.meter_clock.drift_ppm = drift_ppm

    def off_ms(self, number: int = 1) -> int:
        """By how much it is wrong, really."""
        now_ms = self.loop.now_ms()
        return self.device(number).meter_clock.local_ms(now_ms) - now_ms - 480 * 60_000

    def known(self, number: int = 1) -> MeterClock:
        return self.watch.clocks[f"M-{number:05d}"]

    async def measured(self, times: int = 1, number: int = 1, *, now: bool = False) -> MeterClock:
        """Wait until the watch has measured this meter so often; `now`: without waiting a day."""
        name = f"M-{number:05d}"

        def enough() -> bool:
            clock = self.watch.clocks.get(name)
            if clock is not None and now:
                clock.next_ms = 0
            return len(self.kept.rows.get(name, ())) >= times

        await eventually(enough, timeout_s=40 * DAY_S, every_s=1 if now else 600)
        return self.known(number)


def clock_story(
    folder: Path,
    story: Callable[[ClockBench], Awaitable[Any]],
    *,
    start: str | None = None,
    watching: bool = True,
    **settings: Any,
) -> Any:
    """Run a story about meters' clocks; `start`: a local time."""

    async def run(loop: Any) -> Any:
        bench = ClockBench(loop, folder, **settings)
        async with Supervisor() as supervisor:
            supervisor.start("bus", bench.bus.run)
            if watching:
                supervisor.start("clocks", bench.watch.run)
            try:
                return await story(bench)
            finally:
                await bench.link.close()

    return run_virtual(run, start_ms=START_MS if start is None else local_ms(start))
