"""The simulated installation of a drill: a street, a broker, the daemon and billing.

The street's meters answer on real ptys and a socket, in this process. Broker, daemon and billing
are processes of their own. What the drill sees it sees as an operator does: through the local
socket, the journal's file and billing's database.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headend.cli.daemon_client import ask_daemon
from headend.cli.drills.report import Degraded, DrillReport, Step
from headend.cli.drills.words import word
from headend.cli.output import say
from headend.cli.staging import HEADEND, Children, StageFailed, free_port
from headend.domain.alarms import RAISED
from headend.domain.clock import SystemClock, iso
from headend.domain.errors import HeadendError
from headend.feed.embedded_broker import embedded_broker
from headend.journal import DueLine, JournalReader
from simulators.serve import PtyServer
from simulators.street import PlannedMeter, Street, StreetPlan, plan_street

NAME = "drill"
METERS, BUSES_PTY, BUSES_TCP = 6, 2, 1
SPEED, SEED = 60, 2027
IMPORT, EXPORT, POWER = "active_import_total", "active_export_total", "active_power_total"
REGISTERS = (IMPORT, EXPORT)
INTERVAL_S = 5
START_UP_S = 4.0
SEEN_S, BACK_S, UP_S = 60.0, 120.0, 90.0
LOOK_S = 0.5
DATABASE = "sqlite:///data/billing.db"
CLOCK = "clock: {trust: machine}"  # the meters here go by it too
ALARMS = "alarms: {port_s: 2, bus_silent_s: 4, meter_silent_s: 15, clear_s: 2}"


class DrillFailed(StageFailed):
    """The drill could not be held."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a drill's installation differs from the usual.

    `headend`: more keys of section `headend`; `timeseries`: that section. `daemon`: arguments of
    Python for the daemon's process, None = `headend run`; `billing`: the same for billing.
    `room_s`: how far the list of due points reaches beyond the fault.
    """

    headend: str = ""
    timeseries: str = ""
    daemon: Sequence[str] | None = None
    billing: Sequence[str] | None = None
    room_s: float = 900.0


@dataclass(slots=True)
class Look:
    """The due list up to now, and how many records wait for a consumer."""

    lines: list[DueLine] = field(default_factory=list)
    waiting: int = 0

    def between(self, from_ms: int, until_ms: int) -> list[DueLine]:
        """Of the instants from one time to before another."""
        return [line for line in self.lines if from_ms <= line.key.due_ms < until_ms]

    def full_rounds(self, meters: int, points: int) -> list[int]:
        """The instants at which every point of every meter was read."""
        read: dict[int, int] = {}
        for line in self.lines:
            read[line.key.due_ms] = read.get(line.key.due_ms, 0) + (line.read_id is not None)
        return sorted(due_ms for due_ms, count in read.items() if count >= meters * points)


class World:
    """What a drill acts on. Use `world()`."""

    def __init__(
        self, directory: Path, street: Street, report: DrillReport, setting: Setting, language: str
    ) -> None:
        self.directory = directory
        self.street = street
        self.report = report
        self.clock = SystemClock()
        self.config = directory / "headend.yaml"
        self.journal = directory / "data" / "journal.db"
        self.until_ms = 0
        self._setting = setting
        self._language = language
        self._children = Children(directory)
        self._broker_port = free_port()
        self._embedded: contextlib.AsyncExitStack | None = None
        self._alarms_seen: dict[str, None] = {}

    # -- what stands there

    @property
    def plan(self) -> StreetPlan:
        """What hangs where."""
        return self.street.plan

    @property
    def points(self) -> tuple[str, ...]:
        """What is read of every meter."""
        return (*REGISTERS, POWER)

    def now_ms(self) -> int:
        """The right time."""
        return self.clock.now_ms()

    def meters_of(self, bus: str) -> list[PlannedMeter]:
        """The meters of a bus."""
        return [meter for meter in self.plan.meters if meter.bus == bus]

    def port(self, bus: str) -> PtyServer:
        """The pty of a bus."""
        server = self.street.servers[bus]
        assert isinstance(server, PtyServer)
        return server

    # -- standing up and going down

    async def stand_up(self, fault_s: float) -> None:
        """Everything runs, and every meter was read once."""
        now_ms = self.now_ms()
        self.until_ms = now_ms + int((fault_s + self._setting.room_s) * 1000)
        self._from_ms = now_ms + int(START_UP_S * 1000)
        self.write_configuration()
        await self.start_broker()
        await self.start_daemon()
        arguments = self._setting.billing or (*HEADEND, "billing", "run")
        await self._children.start("billing", [*arguments, "--config", str(self.config)])
        self.step("street_up", meters=len(self.plan.meters), buses=len(self.plan.buses))
        if not await self.comes_true(self.is_read_and_delivered, UP_S):
            raise DrillFailed(f"the street was not read in {UP_S:.0f} s; see {self.directory}")
        self.step("first_round")

    def write_configuration(self) -> None:
        """The file, as it has to be now."""
        more = f", {self._setting.headend}" if self._setting.headend else ""
        # Nobody wants to wait for the back-off of meters that were silent for a moment.
        # Nor for a plan that a busy machine may keep late.
        of_a_bus = (
            "gap_ms: 10, silence_after_timeout_ms: 100, dead_after: 20, turnaround_ms: 60,"
            " loss_percent: 0, allow_overload: true"
        )
        points = ", ".join(self.points)
        lines = [
            "# Written by `headend drill`.",
            f"headend: {{name: {NAME}, zone: Asia/Shanghai, data: data, {CLOCK}, {ALARMS}{more}}}",
            "buses:",
            *(f'  {bus.name}: {{link: "{bus.link}", {of_a_bus}}}' for bus in self.plan.buses),
            "meters:",
            *(
                f"  - {{id: {m.asset_id}, service_point: {m.service_point}, bus: {m.bus}, "
                f'protocol: {m.protocol}, address: "{m.address}", plan: p, '
                f'capacity_kw: "{m.capacity_kw}"}}'
                for m in self.plan.meters
            ),
            "plans:",
            "  p:",
            f'    from: "{iso(self._from_ms)}"',
            f'    until: "{iso(self.until_ms)}"',
            f"    every: [{{seconds: {INTERVAL_S}, points: [{points}]}}]",
            "feed:",
            f'  broker: "mqtt://127.0.0.1:{self._broker_port}"',
            "  receipt_timeout_s: 2",
            "  receipts_missing_s: 3",
            "  consumers: [{name: billing, classes: [billing, telemetry, events]}]",
            f'billing: {{name: billing, headends: [{NAME}], database: "{DATABASE}"}}',
        ]
        if self._setting.timeseries:
            lines.append(f"timeseries: [{self._setting.timeseries}]")
        self.config.write_text("\n".join(lines) + "\n")

    async def start_daemon(self) -> None:
        """The daemon's process."""
        arguments = self._setting.daemon or (*HEADEND, "run")
        await self._children.start("run", [*arguments, "--config", str(self.config)])

    async def start_broker(self) -> None:
        """mosquitto where it is installed, else the embedded one in this process."""
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            self._embedded = contextlib.AsyncExitStack()
            await self._embedded.enter_async_context(
                embedded_broker("127.0.0.1", self._broker_port)
            )
            return
        file = self.directory / "mosquitto.conf"
        lines = [f"listener {self._broker_port} 127.0.0.1", "allow_anonymous true"]
        file.write_text("\n".join([*lines, "persistence false", "max_queued_messages 0"]) + "\n")
        await self._children.start_program("broker", [binary, "-c", str(file)])

    async def stop_broker(self) -> None:
        """Without a goodbye; what it held is gone."""
        if self._embedded is not None:
            await self._embedded.aclose()
            self._embedded = None
        await self._children.end("broker", signal.SIGKILL)

    async def close_books(self) -> None:
        """The last round: loads off, no instant after it, everything delivered; then all ends."""
        self.step("closing")
        self.street.switch_off()
        step_ms = INTERVAL_S * 1000
        self.until_ms = (self.now_ms() // step_ms + 2) * step_ms
        self._last_ms = self.until_ms - step_ms
        self.write_configuration()
        await self.ask({"command": "reload"})
        if not await self.comes_true(self._is_closed, BACK_S):
            say(word("step.not_seen", self._language).format(detail=self.said("step.closing")))
        await self._children.end("run")

    async def end(self) -> None:
        """Every process and the broker."""
        await self._children.end_all()
        if self._embedded is not None:
            await self._embedded.aclose()

    # -- what can be seen

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One command of the daemon's socket; HeadendError."""
        socket = self.directory / "data" / "headend.sock"
        return await asyncio.to_thread(ask_daemon, socket, request, timeout_s=30.0)

    async def status(self) -> dict[str, Any]:
        """What the daemon says of itself; empty while it cannot be asked."""
        try:
            status = await self.ask({"command": "status"})
        except HeadendError:
            return {}
        for alarm in status.get("alarms", ()):
            self._alarms_seen.setdefault(" ".join((alarm["alarm"], alarm["subject"])).strip())
        return status

    async def alarms(self) -> dict[str, list[dict[str, Any]]]:
        """The standing alarms by name; those that another one speaks for left out."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alarm in (await self.status()).get("alarms", ()):
            if alarm["under"] is None:
                found.setdefault(alarm["alarm"], []).append(alarm)
        return found

    async def alarms_ever(self) -> frozenset[str]:
        """The names of all alarms there were, also those that only tell what has happened."""
        return await asyncio.to_thread(self._alarms_ever)

    def _alarms_ever(self) -> frozenset[str]:
        with JournalReader(self.journal) as journal:
            events = journal.events(kinds=(RAISED,))
        names = [str(event.fields.get("alarm")) for event in events]
        self._alarms_seen.update(dict.fromkeys(names))
        return frozenset(names)

    @property
    def alarms_seen(self) -> list[str]:
        """Every alarm that stood when somebody looked."""
        return list(self._alarms_seen)

    async def look(self, until_ms: int | None = None) -> Look:
        """The due list up to now; empty before there is one."""
        return await asyncio.to_thread(self._look, until_ms or self.now_ms())

    def _look(self, until_ms: int) -> Look:
        try:
            with JournalReader(self.journal) as journal:
                days = journal.due_days()
                lines = [x for d in days for x in journal.due_lines(d, until_ms=until_ms)]
                waiting = sum(state.backlog for state in journal.feed_status().values())
                return Look(lines, waiting)
        except (HeadendError, OSError):
            return Look()

    async def is_read_and_delivered(self, since_ms: int = 0) -> bool:
        """Every meter was read at one instant since then, and nothing waits."""
        look = await self.look()
        rounds = look.full_rounds(len(self.plan.meters), len(self.points))
        return bool(rounds) and rounds[-1] >= since_ms and not look.waiting

    async def _is_closed(self) -> bool:
        if self.now_ms() < self.until_ms:
            return False
        look = await self.look(self.until_ms - 1)
        served = self.now_ms() > self.until_ms + INTERVAL_S * 1000  # nothing is tried any more
        is_over = all(
            line.read_id or (line.reason and (served or line.key.due_ms < self._last_ms))
            for line in look.lines
        )
        return is_over and not look.waiting

    # -- waiting and telling

    async def comes_true(
        self, condition: Callable[[], Any], timeout_s: float, *, every_s: float = LOOK_S
    ) -> bool:
        """Whether a condition (a coroutine function) comes true in time."""
        end = self.clock.monotonic() + timeout_s
        while True:
            self._children.check()
            if await condition():
                return True
            if self.clock.monotonic() > end:
                return False
            await asyncio.sleep(every_s)

    async def see(self, what: str, condition: Callable[[], Any], timeout_s: float = SEEN_S) -> None:
        """Wait until it shows itself and say so; else it is a finding of the report."""
        seen = await self.comes_true(condition, timeout_s)
        self.tell_seen(what, seen=seen)

    def tell_seen(self, what: str, *, seen: bool) -> None:
        """It showed itself, or did not."""
        detail = self.said(f"seen.{what}")
        if seen:
            self.step("seen", detail=detail)
        else:
            self.report.unseen.append(what)
            self.step("not_seen", detail=detail)

    async def recover(self, what: str, condition: Callable[[], Any]) -> None:
        """As `see`, for the end of the fault."""
        if await self.comes_true(condition, BACK_S):
            self.step("recovered", detail=self.said(f"seen.{what}"))
        else:
            self.tell_seen(what, seen=False)

    def step(self, what: str, **values: object) -> None:
        """Something was done or seen: on stderr, and in the report."""
        text = word(f"step.{what}", self._language).format(**values)
        now_ms = self.now_ms()
        say(f"{iso(now_ms // 1000 * 1000)[11:19]}  {text}")
        english = word(f"step.{what}", "en").format(**values) if not values else text
        self.report.steps.append(Step(now_ms, what, english))

    def degraded(self, what: str, from_ms: int, detail: str = "") -> None:
        """Something did not work as usual from then to now."""
        self.report.degraded.append(Degraded(what, from_ms, self.now_ms(), detail))

    def said(self, key: str) -> str:
        """A text in the language of this run."""
        return word(key, self._language)


@asynccontextmanager
async def world(
    directory: Path, report: DrillReport, setting: Setting, language: str
) -> AsyncIterator[World]:
    """A street that is up; the world on it is ended at the end, whatever happens."""
    clock = SystemClock()
    plan = plan_street(
        seed=SEED, start_ms=clock.now_ms(), meters=METERS, buses_pty=BUSES_PTY,
        buses_tcp=BUSES_TCP, directory=directory, speed=SPEED, sunny=True,
    )  # fmt: skip
    async with Street(plan, clock=clock.now_ms) as street:
        made = World(directory, street, report, setting, language)
        try:
            yield made
        finally:
            await made.end()
            report.alarms = made.alarms_seen
