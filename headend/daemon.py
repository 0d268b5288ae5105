"""The one place where the parts of the daemon are put together.

Order of standing up: journal, registry and due points, buses, pollers, feed, local socket.
Going down is the reverse: first nothing new is read, then what was read is committed, then the
feed says goodbye. Everything between is supervised.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

from headend import __version__
from headend.acquisition.device_watch import DeviceWatch
from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.engine import Engine
from headend.acquisition.memory import MeterMemory
from headend.acquisition.meter_reader import REGISTER_HELD
from headend.acquisition.outage_watch import OutageWatch, outage_settings
from headend.acquisition.poller import Poller
from headend.acquisition.registry import Registry
from headend.acquisition.sessions import KeptSessions
from headend.acquisition.waiting_room import WaitingRoom
from headend.api import ApiServer
from headend.assembly import Assembly, consumer_specs, hurrying, make_bus, read_plans
from headend.backfill_desk import BackfillDesk
from headend.clock_commands import ClockDesk
from headend.commands import Parts, commands
from headend.config import Config
from headend.declaration_commands import DeclarationDesk
from headend.domain import alarms
from headend.domain.clock import Clock
from headend.domain.errors import JournalDamaged
from headend.domain.exchange import Exchange
from headend.domain.link import LinkSpec
from headend.domain.meter import Event
from headend.drivers.configured import ConfiguredSessions
from headend.durable import make_folder
from headend.journal import Base as JournalBase
from headend.journal import Journal, JournalSettings
from headend.journal.newest import newest_stamp
from headend.liveness import status_line, watched
from headend.machine_clock import OwnClock, boot_id, is_synchronised, machine_clock
from headend.messages.configured import configured_broker
from headend.notify import Notifier, Watchdog
from headend.overload import PlanWatch
from headend.reload import Reloader
from headend.supervisor import Supervisor, TaskState
from headend.transport import Link, make_link
from headend.undated import Undated, guarded, trust_command
from headend.vee import Base, RuleSet

log = logging.getLogger(__name__)

MIB = 1024 * 1024
CLOCK_MARKER = "clock_believed.json"  # in the data directory, for the next start in this boot
FINISH_S = 6.0  # a clean end has 10 s
SOCKET_WAIT_S = 10.0  # a daemon whose socket cannot be made reads meters all the same
SETTLED_LOOK_BACK = timedelta(days=2)


async def run_daemon(
    config: Config,
    *,
    stop: asyncio.Event,
    ready: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
    own_clock: OwnClock | None = None,
    notifier: Notifier | None = None,
    links: Callable[[LinkSpec], Link] = make_link,
    free_bytes: Callable[[], int] | None = None,
    stood_up: Callable[[Parts], None] = lambda _parts: None,
    reload: asyncio.Event | None = None,
    config_file: Path | None = None,
) -> None:
    """Run until `stop` is set; then end cleanly. Raises only what prevents standing up.

    What comes from the machine can be handed in: the time, the `links` of the buses, the free
    bytes of the journal's disk; `own_clock` is one that has to be believed first, a `clock` is
    right. `stood_up` is given the parts as soon as they are there. Whenever
    `reload` is set the configuration is read again from `config_file` (default: where it was).
    """
    if clock is None:
        own_clock = own_clock or _own_clock(config)
        clock = own_clock.clock
    # Before anything is opened: a file of the feed's identity that cannot be used.
    broker = None if config.feed is None else configured_broker(config)
    notifier = notifier or Notifier(None)
    # Readings are nobody else's business: a directory of our own making is closed to others.
    make_folder(config.data_path, mode=0o700)
    if own_clock is not None:
        own_clock.begin(await asyncio.to_thread(newest_stamp, config.journal_path))
    journal = await Journal.open(
        config.journal_path,
        clock=clock,
        software=f"headend {__version__}",
        consumers=consumer_specs(config),
        settings=_journal_settings(config, free_bytes),
    )
    try:
        async with Supervisor(on_death=_log_death, fatal=(JournalDamaged,)) as supervisor:
            supervisor.start("journal", journal.wait_damaged)
            assembly, keeper = await _stand_up(config, clock, journal, supervisor, links, own_clock)
            parts = assembly.parts
            told = await journal.meter_events(alarms.KINDS)
            reloads = Reloader(
                assembly,
                file=config_file or config.path,
                notifier=notifier,
                status=lambda: _status(parts),
                told=told,
                wanted=reload,
            )

            def begin_rest() -> None:
                parts.reloads = reloads
                supervisor.start("reload", reloads.run)
                assembly.start_timeseries(told)

            desk, fetcher = ClockDesk(parts), BackfillDesk(assembly)
            begin = partial(_begin, assembly, keeper, desk, fetcher)
            undated = Undated(parts, begin, begin_rest)
            if not undated.waits:
                await begin()
                await undated.over()
            stood_up(parts)
            await assembly.start_feed(config, broker, told)
            await assembly.start_status(config)
            await _listening(_start_api(parts, desk, fetcher))
            _start_watchdog(parts, notifier)
            if undated.waits:
                undated.start()
            else:
                begin_rest()
            ready()
            log.warning(
                "headend=%s version=%s epoch=%s meters=%d buses=%d: up",
                config.headend.name, __version__, journal.epoch,
                len(parts.registry.all()), len(parts.buses),
            )  # fmt: skip
            # A damaged journal ends the process: only a new start can set it aside.
            await supervisor.run_until(stop)
            log.warning("headend=%s: going down", config.headend.name)
            notifier.stopping()
            await _let_finish(parts)
            parts.memory.flush()
    finally:
        await journal.close()


async def _let_finish(parts: Parts) -> None:
    """What a meter is saying right now is still taken down; for as long as that may last."""
    try:
        async with asyncio.timeout(FINISH_S):
            await asyncio.gather(*(poller.rest() for poller in parts.engine.pollers.values()))
    except TimeoutError:
        log.warning("headend=%s: a read takes too long, it is given up", parts.config.name)


async def _stand_up(
    config: Config,
    clock: Clock,
    journal: Journal,
    supervisor: Supervisor,
    links: Callable[[LinkSpec], Link],
    own_clock: OwnClock | None,
) -> tuple[Assembly, DueKeeper]:
    """Make everything, and open the ports. Nothing here may need to know what day it is."""
    zone = config.headend.zone_info
    registry = Registry(config.meters, await journal.meter_events())
    plans = read_plans(config)
    keeper = DueKeeper(journal, registry, plans, zone=zone, clock=clock)

    def observe(exchange: Exchange) -> None:
        if own_clock is None or own_clock.distrusted is None:
            journal.record_exchange(exchange)

    buses = {
        name: make_bus(name, section, links, clock, observe)
        for name, section in config.buses.items()
    }

    outages = OutageWatch(
        journal.append_event,
        clock,
        buses=lambda: buses,
        meters=registry.all,
        told=await journal.meter_events(alarms.KINDS),
        settings=outage_settings(config.headend.alarms),
        journalled=lambda: journal.meter_events(alarms.KINDS),
    )
    bases = await journal.bases()
    memory = MeterMemory(journal, await journal.learned(), clock=clock)
    await memory.keep_only(meter.id for meter in registry.all())
    told = await journal.meter_events(alarms.KINDS)
    devices = DeviceWatch(journal.append_event, clock, meters=registry.all, told=told)
    opener = ConfiguredSessions(
        config, buses, clock=clock, recall=memory.recall, notice=devices.tell
    )
    sessions = KeptSessions(outages.sessions(memory.sessions(opener)))
    memory.reopen = sessions.forget
    engine = Engine(
        journal,
        registry,
        plans,
        sessions,
        bases={key: Base(base.value, base.time_ms) for key, base in bases.items()},
        held=held_registers(bases, await journal.meter_events(alarms.KINDS)),
        settled=frozenset(),
        zone=zone,
        clock=clock,
        rules=RuleSet(),
    )
    outages.held = lambda: engine.held
    engine.hurry = hurrying(buses)
    parts = Parts(config, clock, journal, registry, engine, buses, supervisor, outages, memory)
    parts.devices = devices
    parts.plans = PlanWatch(parts, told)
    if own_clock is not None:
        parts.own_clock = own_clock
        parts.waiting = WaitingRoom(
            journal, registry, plans, sessions, own_clock.clock, own_clock.boot
        )
    for name, bus in buses.items():
        supervisor.start(f"bus:{name}", bus.run)
    return Assembly(parts, plans, opener, sessions, links), keeper


async def _begin(
    assembly: Assembly, keeper: DueKeeper, desk: ClockDesk, fetcher: BackfillDesk
) -> None:
    """Begin everything that needs to know what day it is. Can be repeated after an error."""
    parts, clock = assembly.parts, assembly.parts.clock
    await keeper.prepare()
    if parts.own_clock is not None:
        own = parts.own_clock
        await parts.engine.adopt(own.boot, own.clock.at_elapsed)
    since_ms = clock.now_ms() - int(SETTLED_LOOK_BACK.total_seconds() * 1000)
    parts.engine.begin(await parts.journal.settled_due(since_ms), keeper.begun_ms)
    await assembly.start_retention(parts.config)
    assert parts.plans is not None
    await parts.plans.begin()
    parts.clocks = await desk.watch()
    tasks = {
        "due-points": keeper.run,
        "outages": parts.outages.run,
        "plans": parts.plans.run,
        "clocks": parts.clocks.run,
        "backfill": (await fetcher.begin()).run,
        "meter-numbers": DeclarationDesk(parts).watch(assembly.opener).run,
    }
    if parts.devices is not None:
        tasks["devices"] = parts.devices.run
    tasks |= {f"poll:{name}": poller.run for name, poller in parts.engine.pollers.items()}
    for name, run in tasks.items():
        parts.supervisor.start(name, run)


def held_registers(
    bases: Mapping[tuple[str, str], JournalBase], told: Sequence[Event]
) -> dict[tuple[str, str], Decimal]:
    """Registers whose unbelievable value was confirmed and that nothing good has followed since.

    `told`: alarms and their clearings; what was declared about a meter has cleared its own.
    """
    held: dict[tuple[str, str], Decimal] = {}
    for alarm in alarms.standing(told):
        if alarm.name != REGISTER_HELD:
            continue
        key = (str(alarm.fields["meter"]), str(alarm.fields["point"]))
        base = bases.get(key)
        if base is None or base.time_ms <= alarm.since_ms:
            held[key] = Decimal(alarm.fields["value"])
    return held


def _journal_settings(config: Config, free_bytes: Callable[[], int] | None) -> JournalSettings:
    reserve = config.headend.reserve_mb
    return JournalSettings(
        zone=config.headend.zone_info,
        reserve_bytes_telemetry=reserve.telemetry * MIB,
        reserve_bytes_billing=reserve.billing * MIB,
        free_bytes=free_bytes,
    )


def _log_death(state: TaskState) -> None:
    about = {"about": state.name}
    log.error(
        "task=%s restarts=%d cause=%s", state.name, state.restarts, state.last_error, extra=about
    )


async def _listening(server: ApiServer) -> None:
    """Wait until commands are taken."""
    try:
        async with asyncio.timeout(SOCKET_WAIT_S):
            await server.listening.wait()
    except TimeoutError:
        log.error("the local socket is not there yet: commands that speak to the daemon fail")  # noqa: TRY400 - its own task says why


def _start_watchdog(parts: Parts, notifier: Notifier) -> None:
    """From now on the service manager is told how it goes."""
    watchdog = Watchdog(
        notifier,
        tasks=lambda: watched(parts.buses, _polling(parts)),
        status=lambda: _status(parts),
        clock=parts.clock,
    )
    notifier.ready(_status(parts))
    parts.supervisor.start("watchdog", watchdog.run)


def _polling(parts: Parts) -> dict[str, Poller]:
    """The pollers that run; none while nobody knows what is due."""
    running = parts.supervisor.running()
    return {n: poller for n, poller in parts.engine.pollers.items() if f"poll:{n}" in running}


def _own_clock(config: Config) -> OwnClock:
    """The clock of the machine we run on."""
    section = config.headend.clock
    file = section.synchronised_file
    return OwnClock(
        machine_clock(),
        trust=section.trust,
        marker=config.data_path / CLOCK_MARKER,
        boot=boot_id(),
        synchronised=partial(is_synchronised, None if file is None else config.file(file)),
    )


def _status(parts: Parts) -> str:
    line = status_line(
        parts.config.name,
        meters=len(parts.registry.all()),
        buses=parts.buses,
        feed_connected=None if parts.publisher is None else parts.publisher.connected,
        held_back=parts.engine.held_back,
    )
    distrusted = None if parts.own_clock is None else parts.own_clock.distrusted
    return line if distrusted is None else f"{line}; its clock is not believed: {distrusted}"


def _start_api(parts: Parts, desk: ClockDesk, fetcher: BackfillDesk) -> ApiServer:
    declared = DeclarationDesk(parts).commands()
    offered = {**commands(parts), **declared, **desk.commands(), **trust_command(parts)}
    offered |= fetcher.commands()
    server = ApiServer(parts.config.socket_path, guarded(parts, offered))
    parts.supervisor.start("api", server.run)
    return server
