"""The real daemon in compressed time: its buses are lines in memory, its journal is on the disk.

The daemon runs on a loop whose timers do not wait (`simulators.schedule`). mosquitto and billing
are the real ones, in processes of their own and in real time; virtual time stands while anything
is on its way to or from them, and waits for the journal's writer, so nobody is overtaken by a
clock that runs hundreds of times as fast as theirs.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from unittest import mock
from zoneinfo import ZoneInfo

from headend.commands import Parts
from headend.config import Config, load_config
from headend.config.profiles import PACKAGED, load_profile
from headend.daemon import run_daemon
from headend.domain.clock import to_ms
from headend.domain.errors import PortGone
from headend.domain.link import LinkSpec, SerialSpec
from headend.messages.pipe import Pipe
from headend.notify import Notifier
from simulators.curves import Constant
from simulators.energy import EnergyModel, Supply, Timeline, exact_kwh, shown_kwh
from simulators.measured import Measured, Register
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.modbus_line import ModbusBus
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.schedule import LoopSchedule, VirtualTimeLoop
from simulators.wire import Station, WireLink
from tests.support.mosquitto import Mosquitto
from tests.support.server import ServerProcess

IMPORT, EXPORT = "active_import_total", "active_export_total"
FIRST_TARIFF = "active_import_t1"
ZONE = ZoneInfo("Asia/Shanghai")
PROFILE = "acrel_adl400"
NAME = "soak"
WRITER_SLACK_S = 0.2  # virtual: so long a commit may take; buses that wait share one
START_SLACK_S = 5.0
END_SLACK_S = 60.0  # more than going down waits for anything
CONSUMER_SLACK_S = 2.0
THINKS_MS = 40  # every meter, before it answers
WATTS_IMPORT, WATTS_EXPORT = 1800, 700
CAPACITY_KW = Decimal("13.2")


def local_ms(text: str) -> int:
    """The stamp of a local time of the head-end's zone."""
    return to_ms(datetime.fromisoformat(text).replace(tzinfo=ZONE))


class Steady(Measured):
    """A meter with a constant load and constant panels on two phases apart: both registers count.

    What it shows is worked out from the time alone, so that a thousand of them hold no tables and
    the memory that grows is not theirs.
    """

    def __init__(self, timeline: Timeline, number: int) -> None:
        super().__init__(EnergyModel(Supply((Constant(WATTS_IMPORT),), (None,)), timeline))
        self._number = number

    def register(self, point: str, at_ms: int) -> Register | None:
        """The two totals and the first tariff, which is always on; nothing else."""
        watts = {IMPORT: WATTS_IMPORT, EXPORT: WATTS_EXPORT, FIRST_TARIFF: WATTS_IMPORT}.get(point)
        if watts is None:
            return None
        since_ms = at_ms - self.model.timeline.origin_ms
        # One watt for one millisecond is 2500 / 9 nWh.
        nwh = self._number * 10**12 + watts * since_ms * 2500 // 9
        return Register(exact_kwh(nwh), shown_kwh(nwh))


@dataclass
class Hung:
    """One meter, where it hangs, and what it really counts."""

    id: str
    bus: str
    device: Meter645 | ModbusDevice
    source: Steady

    def silence(self) -> None:
        """It says nothing from now on."""
        self.device.add_fault_text("silent", 1)

    def speak(self) -> None:
        """It answers again."""
        self.device.clear_faults()


class Estate:
    """So many buses with so many meters each; the last bus may be of Modbus devices."""

    def __init__(
        self, loop: VirtualTimeLoop, *, buses: int, each: int, baud: int, modbus_buses: int = 0
    ) -> None:
        self.loop = loop
        self.baud = baud
        self.meters: dict[str, Hung] = {}
        self.links: dict[str, WireLink] = {}
        timeline = Timeline(loop.now_ms() - 3 * 86_400_000)
        for number in range(buses):
            name = f"bus-{number + 1:02d}"
            is_modbus = number >= buses - modbus_buses
            devices = [
                self._device(name, number * each + index, index, timeline, is_modbus=is_modbus)
                for index in range(each)
            ]
            station: Station = ModbusBus(devices) if is_modbus else MeterBus(devices)
            self.links[name] = WireLink(
                station,
                name=name,
                schedule=LoopSchedule(loop),
                baud=baud,
                gone=lambda text, bus=name: PortGone(text, bus=bus),
            )

    def _device(
        self, bus: str, number: int, index: int, timeline: Timeline, *, is_modbus: bool
    ) -> Meter645 | ModbusDevice:
        source = Steady(timeline, number + 1)
        device: Meter645 | ModbusDevice
        if is_modbus:
            profile = load_profile(PROFILE, PACKAGED.parent)
            settings = ModbusSettings(index + 1, reply_delay_ms=THINKS_MS)
            device = ModbusDevice(settings, profile, source, clock=self.loop.now_ms)
        else:
            settings = MeterSettings(f"2026{number + 1:08d}", reply_delay_ms=THINKS_MS)
            device = Meter645(settings, source, clock=self.loop.now_ms)
        name = f"M-{number + 1:05d}"
        self.meters[name] = Hung(name, bus, device, source)
        return device

    def on_bus(self, bus: str) -> list[Hung]:
        """The meters of a bus, in order."""
        return [hung for hung in self.meters.values() if hung.bus == bus]

    def open_link(self, spec: LinkSpec) -> WireLink:
        """The line that a configured link means; what `run_daemon` is handed."""
        assert isinstance(spec, SerialSpec)
        return self.links[Path(spec.path).name]

    def configure(self, folder: Path, plans: str, *, broker: str | None) -> Config:
        """The configuration of it all. `plans`: the lines of plan `p` (645) and `m` (Modbus)."""
        rows = ["id,service_point,bus,protocol,address,unit,profile,plan,capacity_kw"]
        for hung in self.meters.values():
            where = f"dlt645-2007,{hung.device.address},,,p"
            if isinstance(hung.device, ModbusDevice):
                where = f"modbus-rtu,,{hung.device.address},{PROFILE},m"
            rows.append(f"{hung.id},SP-{hung.id},{hung.bus},{where},{CAPACITY_KW}")
        (folder / "meters.csv").write_text("\n".join(rows) + "\n")
        reserve = "reserve_mb: {telemetry: 1, billing: 1}"
        lines = [
            f"headend: {{name: {NAME}, zone: {ZONE.key}, data: data, {reserve}}}",
            "buses:",
            *(
                f'  {name}: {{link: "serial:///wire/{name}?baud={self.baud}&parity=even",'
                f" turnaround_ms: {THINKS_MS}, loss_percent: 0}}"
                for name in self.links
            ),
            "meters: {file: meters.csv}",
            "plans:",
            plans,
            "retention: {telemetry_days: 1}",
        ]
        if broker is not None:
            consumer = "{name: billing, classes: [billing, telemetry, events]}"
            database = 'database: "sqlite:///billing.db"'
            lines += [
                f'feed: {{broker: "{broker}", consumers: [{consumer}]}}',
                f"billing: {{{database}, name: billing, headends: [{NAME}]}}",
            ]
        file = folder / "headend.yaml"
        file.write_text("\n".join(lines) + "\n")
        return load_config(file)


class HeldPipe(Pipe):
    """The real pipe to a real broker; virtual time stands while it waits for an answer of it."""

    def __init__(self, *args, **more) -> None:
        super().__init__(*args, **more)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.hold(self._waits_for)

    def _waits_for(self) -> object:
        if self._lost is not None or self._client is None:
            return None
        if not self._connack.done():
            return "connack"
        if self._subscribing:
            return min(self._subscribing)
        return min(self._sent, default=None)


@contextmanager
def billing_process(config: Path, log: Path) -> Iterator[ServerProcess]:
    """`headend billing run`, in real time."""
    process = ServerProcess("billing", log)
    command = [sys.executable, "-m", "headend.cli.main", "billing", "run", "--config", str(config)]
    process.start(command, lambda: "READY" in log.read_text(errors="replace"))
    try:
        yield process
    finally:
        process.end(signal.SIGTERM)


@asynccontextmanager
async def daemon(
    config: Config,
    estate: Estate,
    *,
    writer_slack_s: float = WRITER_SLACK_S,
    start_slack_s: float = START_SLACK_S,
    pipe: type[Pipe] = HeldPipe,
    awaited: Callable[[Parts], object] | None = None,
    notifier: Notifier | None = None,
) -> AsyncIterator[Parts]:
    """The daemon on the estate's loop, stopped at the end. Whatever ends it before is raised.

    `pipe`: what the feed reaches its broker with. `awaited`: what a consumer is waited for by,
    while it changes; by default until everything is receipted.
    """
    loop = estate.loop
    stop, up = asyncio.Event(), asyncio.Event()
    standing: list[Parts] = []

    def stood_up(parts: Parts) -> None:
        standing.append(parts)
        journal = parts.journal
        loop.hold(
            lambda: journal.statistics["commits"] if journal.is_awaited else None,
            slack_s=writer_slack_s,
        )
        if config.feed is not None:
            loop.hold(lambda: (awaited or unreceipted)(parts), slack_s=CONSUMER_SLACK_S)

    # Until there is a journal to look at: its writer is at work, and nobody could tell how far.
    loop.hold(lambda: None if standing else "standing up", slack_s=start_slack_s)
    with mock.patch("headend.feed.publisher.Pipe", pipe):
        task = asyncio.ensure_future(
            run_daemon(
                config,
                stop=stop,
                ready=up.set,
                clock=loop,
                notifier=notifier,
                links=estate.open_link,
                stood_up=stood_up,
            )
        )
        waiting = asyncio.ensure_future(up.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done():
                task.result()
            (parts,) = standing
            yield parts
        finally:
            # The journal's threads let go of its files: time must not run away meanwhile.
            loop.hold(lambda: None if task.done() else "going down", slack_s=END_SLACK_S)
            stop.set()
            await task


def unreceipted(parts: Parts) -> object:
    """Where billing stands while it has something to take and is connected."""
    if parts.publisher is None or not parts.publisher.connected:
        return None
    cursor = parts.journal.cursors()["billing"]
    return cursor.receipted_seq if cursor.backlog else None


__all__ = [
    "EXPORT",
    "FIRST_TARIFF",
    "IMPORT",
    "Estate",
    "HeldPipe",
    "Hung",
    "Mosquitto",
    "billing_process",
    "daemon",
    "local_ms",
    "unreceipted",
]
