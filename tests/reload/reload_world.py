"""A small street on real ptys and sockets, and the real daemon as a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from headend.cli.daemon_client import ask_daemon
from headend.config.loader import local_socket
from headend.domain.clock import SystemClock, from_iso, iso
from headend.domain.due import DueState
from headend.domain.meter import Event
from headend.journal import DueLine, JournalReader
from headend.messages.records import ReadRecord
from simulators.energy import Timeline
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.serve import PtyServer, TcpServer
from simulators.wire import Transmission
from tests.support.mosquitto import free_port
from tests.support.waiting import eventually

IMPORT = "active_import_total"
CYCLE_MS = 2000
DURATION_MS = 10 * 60_000
WAIT_S = 60.0
CLOCK = SystemClock()


class CountedTcp(TcpServer):
    """Knows how often somebody has connected."""

    opened = 0

    def connected(self, client: asyncio.Transport) -> None:
        self.opened += 1
        super().connected(client)


class HeardBus(MeterBus):
    """Remembers what was said to it."""

    def __init__(self, meters: Iterable[Meter645] = ()) -> None:
        super().__init__(meters)
        self.heard = bytearray()

    def receive(self, data: bytes, bad: Sequence[int]) -> list[Transmission]:
        self.heard += data
        return super().receive(data, bad)

    def was_asked(self, number: int) -> bool:
        """Whether anything was addressed to a meter."""
        return b"\x68" + bytes.fromhex(address(number))[::-1] + b"\x68" in self.heard


def address(number: int) -> str:
    return f"{number:012d}"


def bus_of(*numbers: int) -> HeardBus:
    """Meters that answer at once."""
    start_ms = CLOCK.now_ms() - 86_400_000
    return HeardBus(
        [
            make_meter(
                "pv",
                MeterSettings(address(number), reply_delay_ms=1, seed=number),
                timeline=Timeline(start_ms),
                clock=CLOCK.now_ms,
            )
            for number in numbers
        ]
    )


@dataclass
class Text:
    """The configuration, a part for every section; tests replace parts of it."""

    headend: str = "{name: he1, zone: Asia/Shanghai, data: data}"
    buses: dict[str, str] = field(default_factory=dict)
    meters: dict[str, tuple[str, int, str]] = field(default_factory=dict)  # bus, number, plan
    plans: dict[str, str] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"headend: {self.headend}", "buses:"]
        lines += [f"  {name}: {{{text}}}" for name, text in self.buses.items()]
        lines += ["meters:"]
        lines += [
            f"  - {{id: {name}, service_point: SP-{name}, bus: {bus}, protocol: dlt645-2007, "
            f'address: "{address(number)}", plan: {plan}}}'
            for name, (bus, number, plan) in self.meters.items()
        ]
        lines += ["plans:"]
        lines += [f"  {name}: {{{text}}}" for name, text in self.plans.items()]
        lines += [f"{name}: {text}" for name, text in self.sections.items()]
        return "\n".join(lines) + "\n"


class World:
    """Buses `a` (TCP; M-1, and 5 hangs there), `p` (pty; M-2), `b` (TCP; M-9, never touched)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "headend.yaml"
        self.a = CountedTcp(bus_of(1, 5))
        self.b = CountedTcp(bus_of(9))
        self.station_p = bus_of(2)
        self.p = PtyServer(self.station_p, folder / "port-p", baud=9600)
        self.broker_port = free_port()
        self.text = Text()
        self.log_path = folder / "daemon.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        for server in (self.a, self.b, self.p):
            await server.start()
        now_ms = CLOCK.now_ms()
        self.bounds = f'from: "{iso(now_ms)}", until: "{iso(now_ms + DURATION_MS)}"'
        self.text.buses = {
            "a": f'link: "{self.a.where}", gap_ms: 0',
            "p": f'link: "{self.p.where}", gap_ms: 0',
            "b": f'link: "{self.b.where}", gap_ms: 0',
        }
        self.text.meters = {"M-1": ("a", 1, "x"), "M-2": ("p", 2, "x"), "M-9": ("b", 9, "y")}
        self.text.plans = {"x": self.every(2), "y": self.every(2)}
        self.text.sections = {
            "feed": f'{{broker: "embedded://127.0.0.1:{self.broker_port}", consumers: '
            "[{name: billing, classes: [billing, events]}]}"
        }
        self.write()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        for server in (self.a, self.b, self.p):
            await server.close()

    def every(self, seconds: int) -> str:
        return f"every: [{{seconds: {seconds}, points: [{IMPORT}]}}], {self.bounds}"

    def write(self, text: str | None = None) -> None:
        """Save the configuration whole, as an editor does."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(self.text) if text is None else text, encoding="utf-8")
        fresh.replace(self.file)

    # -- the daemon

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headend.cli.main", "run", "--config", str(self.file),
                stdout=asyncio.subprocess.PIPE, stderr=log,
                env=dict(os.environ) | dict(environment or {}),
            )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            assert await self._process.stdout.readline() == b"READY\n", self.log()

    async def stop(self) -> None:
        """A clean end."""
        assert self._process is not None
        self._process.terminate()
        assert await self._process.wait() == 0, self.log()

    @property
    def started(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def hang_up(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    async def status(self) -> dict[str, Any]:
        return await asyncio.to_thread(ask_daemon, self.socket, {"command": "status"})

    @property
    def socket(self) -> Path:
        """The daemon's, whatever stands in the file just now."""
        whole = self.folder / "whole.yaml"
        whole.write_text(str(self.text), encoding="utf-8")
        return local_socket(whole)

    async def reloads(self, *, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """SIGHUP, and what came of it."""
        earlier = (await self.status())["reload"] if before is None else before
        self.hang_up()

        async def done() -> dict[str, Any] | None:
            now = (await self.status())["reload"]
            return None if now == earlier else now

        found: dict[str, Any] = await eventually(done, timeout_s=WAIT_S, every_s=0.1)
        return found

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """A `headend` command: exit code, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def reload_command(self) -> dict[str, Any]:
        """`headend reload --json` that succeeds."""
        code, out, err = await self.command("reload", "--config", str(self.file), "--json")
        assert code == 0, err + self.log()
        found: dict[str, Any] = json.loads(out)
        return found

    def ports(self) -> set[str]:
        """The devices that the daemon holds open."""
        found = set()
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
        return found

    # -- what the journal says

    async def journal(self, look: Callable[[JournalReader], Any]) -> Any:
        def work() -> Any:
            with JournalReader(self.folder / "data" / "journal.db") as reader:
                return look(reader)

        return await asyncio.to_thread(work)

    async def readings(self, meter: str, *, since_ms: int = 0) -> list[ReadRecord]:
        found: list[ReadRecord] = await self.journal(
            lambda reader: list(reader.readings(meter=meter, from_ms=since_ms or None))
        )
        return found

    async def due(self, meter: str) -> list[DueLine]:
        """The meter's lines of the frozen lists."""
        found: list[DueLine] = await self.journal(
            lambda reader: [
                line
                for day in reader.due_days()
                for line in reader.due_lines(day)
                if line.key.meter == meter
            ]
        )
        return found

    async def alarms(self, name: str = "configuration_refused") -> list[Event]:
        found: list[Event] = await self.journal(
            lambda reader: [
                event
                for event in reader.events(kinds=("alarm", "alarm_cleared"))
                if event.fields["alarm"] == name
            ]
        )
        return found

    async def read_after(self, meter: str, at_ms: int, count: int = 2) -> list[ReadRecord]:
        """Wait until so many readings for instants after `at_ms` are there."""

        async def enough() -> list[ReadRecord]:
            found = await self.readings(meter, since_ms=at_ms)
            return found if len(found) >= count else []

        found: list[ReadRecord] = await eventually(
            enough, timeout_s=WAIT_S, every_s=0.2, what=f"{meter} is read"
        )
        return found

    async def lost(self, meter: str, from_ms: int, until_ms: int) -> list[DueLine]:
        """Due points in [from_ms, until_ms) that were not read. Empty = no cycle was lost."""
        lines = [line for line in await self.due(meter) if from_ms <= line.key.due_ms < until_ms]
        assert len(lines) >= (until_ms - from_ms) // CYCLE_MS - 1, "nothing was due"
        return [line for line in lines if line.state is not DueState.READ]

    @asynccontextmanager
    async def untouched(self, *meters: str) -> AsyncIterator[None]:
        """Bus `b`, and the meters named, lose no cycle inside; b's port is not opened again."""
        names = ("M-9", *meters)
        start_ms = CLOCK.now_ms()
        for name in names:
            await self.read_after(name, start_ms, 1)
        opened = (self.b.opened, self.b.clients)
        yield
        end_ms = CLOCK.now_ms()
        for name in names:
            await self.read_after(name, end_ms, 2)
            # The first and the last instant may be read on either side of it.
            assert await self.lost(name, start_ms + CYCLE_MS, end_ms) == [], self.log()
        assert (self.b.opened, self.b.clients) == opened
        assert opened[1] == 1


def due_ms(reading: ReadRecord) -> int:
    assert reading.due_at is not None
    return from_iso(reading.due_at) if isinstance(reading.due_at, str) else reading.due_at
