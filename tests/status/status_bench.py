"""Two real daemons with their status pages, in a thread of their own: one well, one in trouble.

The well one reads a simulated street, and billing receipts what it is sent; its journal holds the
street's own truth since midnight, so that a day's curves are there. The other has a bus without a
port, a meter that is silent, a broker that is away, alarms, and due points of yesterday that nobody
read. It is afternoon for both, whatever the machine's clock says.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from headend.assembly import consumer_specs
from headend.billing.consumer import BillingConsumer
from headend.billing.store import Store
from headend.cli.demo import configuration
from headend.cli.demo import plan_rounds as rounds_of
from headend.cli.simulate_options import street_profiles
from headend.commands import Parts
from headend.config import Config, load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock, to_datetime
from headend.domain.due import DueKey, DuePoint, day_bounds_ms, local_day
from headend.domain.meter import Event
from headend.domain.reading import Reading
from headend.journal import Birth, Journal, JournalSettings
from headend.messages.configured import configured_broker
from simulators.street import Street, plan_street
from tests.support.waiting import eventually

IMPORT, EXPORT = "active_import_total", "active_export_total"
AFTERNOON = 16
QUARTER_MS = 900_000
METERS, BUSES_PTY, BUSES_TCP = 8, 2, 1
SECRETS = ("feed-secret-4711", "series-secret-4711")


def free_port() -> int:
    """A port of this machine that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def afternoon_zone(now_ms: int) -> ZoneInfo:
    """A zone without summer time in which it is some minutes past four in the afternoon."""
    ahead = (AFTERNOON - to_datetime(now_ms).hour + 11) % 24 - 11
    return ZoneInfo(f"Etc/GMT{-ahead:+d}")


@dataclass
class Page:
    """A running daemon: where its page is, and its parts."""

    url: str
    config: Config
    parts: Parts


@dataclass
class Running:
    """Both daemons. `call` runs something on their loop and gives what it gives."""

    well: Page
    ill: Page
    loop: asyncio.AbstractEventLoop
    street: Street
    meters: list[str] = field(default_factory=list)
    sunny: str = ""  # a meter with panels behind it

    def call(self, make: Callable[[], Awaitable], timeout_s: float = 30.0):
        """What a coroutine on the daemons' loop gives."""
        return asyncio.run_coroutine_threadsafe(_awaited(make), self.loop).result(timeout_s)


async def _awaited(make):
    return await make()


class Bench:
    """Use as a context manager; gives a `Running`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = SystemClock()
        self._up = threading.Event()
        self._running: Running | None = None
        self._error: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="status-bench")

    def __enter__(self) -> Running:
        self._thread.start()
        self._up.wait(60)
        if self._running is None:
            self._thread.join(10)
            raise AssertionError(f"the bench did not come up: {self._error!r}") from self._error
        return self._running

    def __exit__(self, *_exc: object) -> None:
        if self._running is not None and self._stop is not None:
            self._running.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            self._error = error
        finally:
            self._up.set()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        now_ms = self._clock.now_ms()
        zone = afternoon_zone(now_ms)
        offset = to_datetime(now_ms).astimezone(zone).utcoffset() or timedelta(0)
        plan = plan_street(
            seed=2026, start_ms=now_ms, meters=METERS, buses_pty=BUSES_PTY, buses_tcp=BUSES_TCP,
            directory=self._folder, speed=1, utc_offset_min=offset // timedelta(minutes=1),
            modbus=True,
        )  # fmt: skip
        street = Street(plan, clock=self._clock.now_ms, profiles=street_profiles(plan))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(street)
            well = await self._well(stack, street, zone)
            ill = await self._ill(stack, zone)
            self._running = Running(
                well, ill, asyncio.get_running_loop(), street,
                sorted(meter.asset_id for meter in plan.meters),
                next(m.asset_id for m in plan.meters if m.has_pv and m.profile is None),
            )  # fmt: skip
            self._up.set()
            await self._stop.wait()

    # -- the well one

    async def _well(self, stack: AsyncExitStack, street: Street, zone: ZoneInfo) -> Page:
        folder = self._folder / "well"
        folder.mkdir()
        port = free_port()
        rounds = rounds_of(self._clock.now_ms(), 3600.0, 0.0)
        text = configuration(street.plan, rounds, free_port(), port)
        text = text.replace("Asia/Shanghai", zone.key).replace("name: demo", "name: street")
        text = text.replace("headends: [demo]", "headends: [street]")
        (folder / "headend.yaml").write_text(text)
        config = load_config(folder / "headend.yaml")
        await self._remember(config, street, zone)
        parts = await stack.enter_async_context(running(config, self._clock))
        store = Store(
            str(config.billing_database_url), name="billing", clock=self._clock, software="t"
        )
        consumer = BillingConsumer(
            broker=configured_broker(config, for_billing=True), store=store, name="billing",
            headends=["street"], clock=self._clock,
        )  # fmt: skip
        task = asyncio.ensure_future(consumer.run())
        stack.push_async_callback(_end, task, consumer)
        page = Page(f"http://127.0.0.1:{port}", config, parts)
        meters = parts.registry.all()
        await eventually(
            lambda: all(
                parts.engine.last_good(m.id, p)
                for m in meters
                for p in ([IMPORT, EXPORT] if m.profile != "sungrow_sg" else ["pv_yield_total"])
            )
            and all(c.backlog == 0 for c in parts.journal.cursors().values()),
            timeout_s=40, what="the street is read and receipted",
        )  # fmt: skip
        return page

    async def _remember(self, config: Config, street: Street, zone: ZoneInfo) -> None:
        """What the meters showed since midnight, a quarter of an hour apart."""
        config.data_path.mkdir(parents=True)
        now_ms = self._clock.now_ms()
        start_ms, _end_ms = day_bounds_ms(local_day(now_ms, zone), zone)
        async with await open_journal(config, self._clock) as journal:
            for meter in street.plan.meters:
                if meter.is_inverter or meter.ct != 1:  # truth is of the primary side
                    continue
                births = []
                for at_ms in range(start_ms, now_ms - QUARTER_MS, QUARTER_MS):
                    truth = street.truth(meter.asset_id, at_ms, (IMPORT, EXPORT))
                    births.append(
                        Birth(
                            tuple(
                                reading(meter.asset_id, meter.service_point, p, r.shown, at_ms)
                                for p, r in truth.items()
                            )
                        )
                    )
                await journal.append_many(births)
            cursor = journal.cursors()["billing"]
            await journal.receipt("billing", cursor.last_seq)

    # -- the one in trouble

    async def _ill(self, stack: AsyncExitStack, zone: ZoneInfo) -> Page:
        folder = self._folder / "ill"
        folder.mkdir()
        for name, secret in zip(("feed-password", "series-token"), SECRETS, strict=True):
            (folder / name).write_text(secret)
            (folder / name).chmod(0o600)
        port, away = free_port(), free_port()
        silent = await asyncio.start_server(_say_nothing, "127.0.0.1", 0)
        await stack.enter_async_context(silent)
        silent_port = silent.sockets[0].getsockname()[1]
        now_ms = self._clock.now_ms()
        lines = [
            f"headend: {{name: ill, zone: {zone.key}, data: data}}",
            "buses:",
            f'  silent: {{link: "tcp://127.0.0.1:{silent_port}", timeout_ms: 50}}',
            '  unplugged: {link: "serial:///dev/no-such-adapter?baud=2400"}',
            "meters:",
            *(_ill_meter(f"M-{n:04d}", f"SP-{n}", "unplugged", n) for n in range(1, 121)),
            _ill_meter("M-<b>&1", 'SP-\\"x\\"', "silent", 999),
            "plans:",
            "  p: {every: [{minutes: 15, points: [active_import_total, active_export_total]}]}",
            "feed:",
            f'  broker: "mqtt://127.0.0.1:{away}"',
            "  username: he",
            "  password_file: feed-password",
            "  consumers: [{name: billing, classes: [billing, events]}]",
            "timeseries:",
            f'  - {{kind: influxdb2, name: charts, url: "http://127.0.0.1:{away}", org: o,',
            "     bucket: b, token_file: series-token}",
            f'status: {{bind: "127.0.0.1:{port}"}}',
        ]
        (folder / "headend.yaml").write_text("\n".join(lines) + "\n")
        config = load_config(folder / "headend.yaml")
        config.data_path.mkdir(parents=True)
        yesterday = local_day(now_ms, zone) - timedelta(days=1)
        async with await open_journal(config, self._clock) as journal:
            noon_ms = day_bounds_ms(yesterday, zone)[0] + 12 * 3_600_000
            due = [
                DuePoint(DueKey(f"M-{n:04d}", p, noon_ms), "unplugged", None, noon_ms + QUARTER_MS)
                for n in range(1, 121)
                for p in (IMPORT, EXPORT)
            ]
            await journal.freeze_due(yesterday, due)
            await journal.due_failed_many([(point.key, "port_gone") for point in due[:200]])
            for hours, fields in (
                (5, {"alarm": "bus_down", "bus": "unplugged", "reason": "the port is not there"}),
                (4, {"alarm": "register_held", "meter": "M-0007", "point": IMPORT, "value": "9.1"}),
                (
                    3,
                    {
                        "alarm": "broker_refused",
                        "broker": f"127.0.0.1:{away}",
                        "reason": "mqtt://u:pw4711@b no",
                    },
                ),
                (2, {"alarm": "new_epoch", "reason": "<script>alert(1)</script>"}),
            ):
                await journal.append_event(Event("alarm", now_ms - hours * 3_600_000, fields))
            readings = [
                reading(f"M-{n:04d}", f"SP-{n}", IMPORT, Decimal("12.34"), now_ms - 7_200_000)
                for n in range(1, 9)
            ]
            await journal.append_many([Birth((r,)) for r in readings])
        parts = await stack.enter_async_context(running(config, self._clock))
        assert parts.timeseries is not None
        series = parts.timeseries
        await eventually(lambda: all(one["failures"] for one in series.report()), timeout_s=30)
        return Page(f"http://127.0.0.1:{port}", config, parts)


def _ill_meter(name: str, place: str, bus: str, number: int) -> str:
    return (
        f'  - {{id: "{name}", service_point: "{place}", bus: {bus}, protocol: dlt645-2007, '
        f'address: "{number:012d}", plan: p}}'
    )


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A converter behind which nobody answers."""
    try:
        while await reader.read(1024):
            pass
    finally:
        writer.close()


async def _end(task: "asyncio.Future[None]", consumer: BillingConsumer) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await consumer.close()


def reading(meter: str, place: str, point: str, value: Decimal, at_ms: int) -> Reading:
    """A good register value of the primary side."""
    return Reading(meter, place, point, value, "kWh", at_ms, at_ms + 300)


async def open_journal(config: Config, clock: SystemClock) -> Journal:
    """The journal of a daemon that does not run yet."""
    return await Journal.open(
        config.journal_path,
        clock=clock,
        software="bench",
        consumers=consumer_specs(config),
        settings=JournalSettings(zone=config.zone),
    )


@asynccontextmanager
async def running(config: Config, clock: SystemClock):
    """A daemon whose page listens; its parts."""
    stop, up = asyncio.Event(), asyncio.Event()
    standing: list[Parts] = []
    task = asyncio.ensure_future(
        run_daemon(config, stop=stop, ready=up.set, clock=clock, stood_up=standing.append)
    )
    waiting = asyncio.ensure_future(up.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        await eventually(lambda: _answers(config), timeout_s=20, what="the page listens")
        yield standing[0]
    finally:
        stop.set()
        await task


async def _answers(config: Config) -> bool:
    assert config.status is not None
    try:
        _reader, writer = await asyncio.open_connection(*config.status.address)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
