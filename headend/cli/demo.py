"""`headend demo`: a small street, the real daemon and real billing, for people who are new here.

The street's meters answer on real ptys and sockets. The daemon and billing are processes of
their own, as in a real installation, joined by an embedded broker. The demo switches the street
on after the first round of readings and off before the last one, so that what the meters counted
in between is known to the last digit and can be held against what billing makes of it.
"""

import argparse
import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from headend.cli.demo_view import COUNTED, YIELD, DemoView, Progress, show_live, table_text
from headend.cli.output import add_json, print_json, say
from headend.cli.simulate_options import street_profiles
from headend.cli.staging import HEADEND, Children, empty_folder, free_port
from headend.domain.clock import SystemClock, iso
from headend.domain.errors import HeadendError
from simulators.street import PlannedBus, PlannedMeter, Street, StreetPlan, plan_street

MARK = ".headend-demo"
METERS = 12
BUSES_PTY, BUSES_TCP = 4, 2  # two meters a bus: a round takes a fraction of the shortest interval
SPEED = 60
SEED = 2026
POINTS = ("active_import_total", "active_export_total", "active_power_total", "voltage_a")
INVERTER_POINTS = (YIELD, "active_power_total")
START_UP_S = 5.0
START_UP_CHECKS = 5  # the two processes need about this many times what a check of the file needs
GOING_DOWN_S = 12.0
INTERVALS_S = (10, 6, 5, 4)
ROUNDS_MIN = 2


class DemoFailed(HeadendError):
    """The demo did not show what it is there to show."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend demo`."""
    parser.add_argument(
        "--for", dest="duration", type=_duration, metavar="60s",
        help="end by itself after this long (at least 30s); without it: Ctrl-C ends it",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=Path, default=Path("demo"), metavar="D",
        help="where configuration and data are left for other commands (default: ./demo)",
    )  # fmt: skip
    add_json(parser)


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+)(s|m|h)?", text)
    if match is None:
        msg = f"{text!r} is not a duration such as 60s or 5m"
        raise argparse.ArgumentTypeError(msg)
    seconds = int(match[1]) * {None: 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds < 30:
        msg = "a demo needs at least 30s to start, read twice and end"
        raise argparse.ArgumentTypeError(msg)
    return float(seconds)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 only if every due point was read, stored, delivered and receipted."""
    directory = prepare(args.dir)
    return asyncio.run(_Demo(directory, args.duration, is_json=args.json).run())


def prepare(directory: Path) -> Path:
    """An empty directory for this run; what an earlier demo left is removed, nothing else is."""
    return empty_folder(directory, MARK, "demo")


@dataclass(frozen=True, slots=True)
class Rounds:
    """When the street is read: every `interval_s` from `from_ms` on; `until_ms` None = for ever."""

    interval_s: int
    from_ms: int
    until_ms: int | None

    @property
    def last_ms(self) -> int | None:
        """The last round's instant."""
        return None if self.until_ms is None else self.until_ms - self.interval_s * 1000


def plan_rounds(now_ms: int, duration_s: float | None, start_up_s: float) -> Rounds:
    """Rounds on whole intervals of the clock, as many as the duration has room for."""
    ready_ms = now_ms + int(start_up_s * 1000)
    for interval_s in INTERVALS_S:
        step_ms = interval_s * 1000
        from_ms = -(-ready_ms // step_ms) * step_ms
        if duration_s is None:
            return Rounds(interval_s, from_ms, None)
        end_ms = now_ms + int((duration_s - GOING_DOWN_S) * 1000)
        rounds = (end_ms - from_ms) // step_ms + 1
        if rounds >= ROUNDS_MIN + (interval_s > INTERVALS_S[-1]):
            return Rounds(interval_s, from_ms, from_ms + rounds * step_ms)
    return Rounds(step_ms // 1000, from_ms, from_ms + ROUNDS_MIN * step_ms)


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def configuration(plan: StreetPlan, rounds: Rounds, broker_port: int, status_port: int) -> str:
    """The demo's configuration file: what a small real one looks like."""
    lines = [
        "# Written by `headend demo`. The same commands work on it as on a real installation.",
        # Nothing is waited for: its meters go by the same clock.
        "headend: {name: demo, zone: Asia/Shanghai, data: data, clock: {trust: machine}}",
        "buses:",
        *(f'  {bus.name}: {{link: "{bus.link}"{_pace(bus)}}}' for bus in plan.buses),
        "meters:",
        *(f"  - {_meter(meter)}" for meter in plan.meters),
        "plans:",
        *_plan("demo", POINTS, rounds),
        *_plan("inverter", INVERTER_POINTS, rounds),
        "feed:",
        f'  broker: "embedded://127.0.0.1:{broker_port}"',
        "  receipt_timeout_s: 5",
        "  consumers: [{name: billing, classes: [billing, telemetry, events]}]",
        'billing: {database: "sqlite:///data/billing.db", name: billing, headends: [demo]}',
        f'status: {{bind: "127.0.0.1:{status_port}"}}',
    ]
    return "\n".join(lines) + "\n"


def _pace(bus: PlannedBus) -> str:
    """A line is read faster than most real ones, and loses nothing; a gateway has its own gaps.

    On a busy machine a round may be late all the same: it is read then as well.
    """
    line = "" if bus.is_gateway else ", gap_ms: 10, turnaround_ms: 60, loss_percent: 0"
    return f"{line}, allow_overload: true"


def _meter(meter: PlannedMeter) -> str:
    where = f'address: "{meter.address}"'
    if meter.profile is not None:
        where = f"unit: {meter.address}, profile: {meter.profile}"
        where += f', ct: "{meter.ct}"' if meter.ct != 1 else ""
    return (
        f"{{id: {meter.asset_id}, service_point: {meter.service_point}, bus: {meter.bus}, "
        f"protocol: {meter.protocol}, {where}, "
        f"plan: {'inverter' if meter.is_inverter else 'demo'}, "
        f'capacity_kw: "{meter.capacity_kw}"}}'
    )


def _plan(name: str, points: Sequence[str], rounds: Rounds) -> list[str]:
    return [
        f"  {name}:",
        f'    from: "{iso(rounds.from_ms)}"',
        *([] if rounds.until_ms is None else [f'    until: "{iso(rounds.until_ms)}"']),
        f"    every: [{{seconds: {rounds.interval_s}, points: [{', '.join(points)}]}}]",
    ]


def _told(plan: StreetPlan) -> str:
    inverters = sum(meter.is_inverter for meter in plan.meters)
    meters = len(plan.meters) - inverters
    return (
        f"street of {meters} simulated meters and {inverters} inverter on "
        f"{len(plan.buses)} buses is up"
    )


class _Demo:
    """One run."""

    def __init__(self, directory: Path, duration_s: float | None, *, is_json: bool) -> None:
        self._directory = directory
        self._duration_s = duration_s
        self._is_json = is_json
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._page = ""
        self._children = Children(directory)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        now_ms = self._clock.now_ms()
        plan = plan_street(
            seed=SEED, start_ms=now_ms, meters=METERS, buses_pty=BUSES_PTY, buses_tcp=BUSES_TCP,
            directory=self._directory, speed=SPEED, modbus=True, sunny=True,
        )  # fmt: skip
        street = Street(plan, clock=self._clock.now_ms, profiles=street_profiles(plan))
        street.switch_off(now_ms)
        try:
            async with street:
                config = self._directory / "headend.yaml"
                rounds = await self._configure(config, street.plan, now_ms)
                say(_told(plan))
                await self._start("run", config)
                await self._start("billing", config)
                say(f"the status page is {self._page} (?lang=zh for Chinese)")
                view = DemoView(config, street.plan)
                return await self._watch(street, view, rounds)
        finally:
            await self._children.end_all()

    async def _configure(self, config: Path, plan: StreetPlan, now_ms: int) -> Rounds:
        """Write the file, and learn from checking it how fast this machine starts things."""
        broker, status = free_port(), free_port()
        rounds = plan_rounds(now_ms, self._duration_s, START_UP_S)
        text = configuration(plan, rounds, broker, status)
        _write(config, text)
        started = self._clock.monotonic()
        check = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", "check", "--config", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await check.wait():
            raise DemoFailed(f"the demo's own configuration is refused; see {config}")
        took_s = self._clock.monotonic() - started
        left_s = None if self._duration_s is None else self._duration_s - took_s
        start_up_s = START_UP_S + START_UP_CHECKS * took_s
        rounds = plan_rounds(self._clock.now_ms(), left_s, start_up_s)
        _write(config, configuration(plan, rounds, broker, status))
        self._page = f"http://127.0.0.1:{status}"
        return rounds

    async def _start(self, command: str, config: Path) -> None:
        arguments = [command, "run"] if command == "billing" else [command]
        pid = await self._children.start(command, [*HEADEND, *arguments, "--config", str(config)])
        what = "billing" if command == "billing" else "the daemon"
        say(f"{what} is process {pid}, its log is {self._children.log_of(command)}")

    # -- the story

    async def _watch(self, street: Street, view: DemoView, rounds: Rounds) -> int:
        async with show_live(view, is_shown=not self._is_json) as refresh:
            is_on = False
            truth: dict[str, Any] = {}
            while not self._stop.is_set():
                self._children.check()
                looked_ms = self._clock.now_ms()
                progress = await asyncio.to_thread(view.update, looked_ms)
                refresh()
                now_ms = self._clock.now_ms()
                if not is_on and not truth and progress.settled >= progress.per_round > 0:
                    truth["start"] = self._shown(street)
                    street.switch_on()
                    is_on = True
                    say("first round read: the street is switched on")
                if rounds.last_ms is not None:
                    if is_on and now_ms >= rounds.last_ms - 500:
                        street.switch_off()
                        truth["end"] = self._shown(street)
                        is_on = False
                        say("the street is switched off, last round of readings")
                    if rounds.until_ms is not None and self._is_over(progress, looked_ms, rounds):
                        break
                await self._pause(0.5)
            final = await asyncio.to_thread(view.update, self._clock.now_ms())
        await self._children.end_all()
        return self._conclude(view, final, truth, rounds)

    def _is_over(self, progress: Progress, looked_ms: int, rounds: Rounds) -> bool:
        """Whether the last round, as seen at `looked_ms`, is done with; or will never be."""
        assert rounds.until_ms is not None
        if looked_ms < rounds.until_ms - rounds.interval_s * 1000:
            return False
        return progress.is_complete or looked_ms > rounds.until_ms + int(GOING_DOWN_S * 1000)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _shown(self, street: Street) -> dict[str, dict[str, Decimal]]:
        # These alone: sums over all registers would keep the meters from answering.
        points = {"import": POINTS[0], "export": POINTS[1], "yield": YIELD}
        shown: dict[str, dict[str, Decimal]] = {}
        for meter in street.meters:
            registers = street.truth(meter, points=points.values())
            shown[meter] = {d: registers[p].shown for d, p in points.items() if p in registers}
        return shown

    def _conclude(
        self, view: DemoView, progress: Progress, truth: dict[str, Any], rounds: Rounds
    ) -> int:
        result = view.result(truth.get("start", {}), truth.get("end", {}))
        if self._is_json:
            print_json(result)
        else:
            print(table_text(view))
        say(f"look around: headend readings --config {self._directory / 'headend.yaml'}")
        if rounds.until_ms is None or self._stop.is_set():
            return 0
        wrong = sorted(
            {
                meter
                for counted in COUNTED
                for meter, kwh in result[f"truth_{counted}_kwh"].items()
                if result[f"{counted}_kwh"][meter] != kwh
            }
        )
        if wrong or not progress.is_complete or not result["truth_import_kwh"]:
            say(f"not complete: {progress}; differs from the truth: {', '.join(wrong) or 'none'}")
            return 1
        return 0
