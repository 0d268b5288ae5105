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
from pathlib import Path

from headend import __version__
from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.engine import Engine
from headend.acquisition.memory import MeterMemory
from headend.acquisition.meter_reader import REGISTER_HELD
from headend.acquisition.outage_watch import OutageWatch, outage_settings
from headend.acquisition.registry import Registry
from headend.acquisition.sessions import KeptSessions
from headend.api import ApiServer
from headend.assembly import Assembly, consumer_specs, make_bus, read_plans
from headend.clock_commands import ClockDesk
from headend.commands import Parts, commands
from headend.config import Config
from headend.domain import alarms
from headend.domain.clock import Clock
from headend.domain.errors import JournalDamaged
from headend.domain.link import LinkSpec
from headend.domain.meter import Event
from headend.drivers.configured import ConfiguredSessions
from headend.durable import make_folder
from headend.journal import Base as JournalBase
from headend.journal import Journal, JournalSettings
from headend.liveness import status_line, watched
from headend.machine_clock import machine_clock
from headend.messages.configured import configured_broker
from headend.notify import Notifier, Watchdog
from headend.reload import Reloader
from headend.supervisor import Supervisor, TaskState
from headend.transport import Link, make_link
from headend.vee import Base, RuleSet

log = logging.getLogger(__name__)

MIB = 1024 * 1024
FINISH_S = 6.0  # a clean end has 10 s
SOCKET_WAIT_S = 10.0  # a daemon whose socket cannot be made reads meters all the same
SETTLED_LOOK_BACK = timedelta(days=2)


async def run_daemon(
    config: Config,
    *,
    stop: asyncio.Event,
    ready: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
    notifier: Notifier | None = None,
    links: Callable[[LinkSpec], Link] = make_link,
    free_bytes: Callable[[], int] | None = None,
    stood_up: Callable[[Parts], None] = lambda _parts: None,
    reload: asyncio.Event | None = None,
    config_file: Path | None = None,
) -> None:
    """Run until `stop` is set; then end cleanly. Raises only what prevents standing up.

    What comes from the machine can be handed in: the time, the `links` of the buses, the free
    bytes of the journal's disk. `stood_up` is given the parts as soon as they are there. Whenever
    `reload` is set the configuration is read again from `config_file` (default: where it was).
    """
    clock = clock or machine_clock()
    # Before anything is opened: a file of the feed's identity that cannot be used.
    broker = None if config.feed is None else configured_broker(config)
    notifier = notifier or Notifier(None)
    # Readings are nobody else's business: a directory of our own making is closed to others.
    make_folder(config.data_path, mode=0o700)
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
            assembly = await _stand_up(config, clock, journal, supervisor, links)
            parts = assembly.parts
            stood_up(parts)
            told = await journal.meter_events(alarms.KINDS)
            await assembly.start_feed(config, broker, told)
            assembly.start_timeseries(told)
            await assembly.start_status(config)
            parts.reloads = reloads = Reloader(
                assembly,
                file=config_file or config.path,
                notifier=notifier,
                status=lambda: _status(parts),
                told=told,
                wanted=reload,
            )
            await _listening(_start_api(parts))
            _start_watchdog(parts, notifier)
            supervisor.start("reload", reloads.run)
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
) -> Assembly:
    zone = config.headend.zone_info
    registry = Registry(config.meters, await journal.meter_events())
    plans = read_plans(config)
    keeper = DueKeeper(journal, registry, plans, zone=zone, clock=clock)
    await keeper.prepare()
    buses = {
        name: make_bus(name, section, links, clock, journal)
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
    since_ms = clock.now_ms() - int(SETTLED_LOOK_BACK.total_seconds() * 1000)
    memory = MeterMemory(journal, await journal.learned(), clock=clock)
    await memory.keep_only(meter.id for meter in registry.all())
    opener = ConfiguredSessions(config, buses, clock=clock, recall=memory.recall)
    sessions = KeptSessions(outages.sessions(memory.sessions(opener)))
    memory.reopen = sessions.forget
    engine = Engine(
        journal,
        registry,
        plans,
        sessions,
        bases={key: Base(base.value, base.time_ms) for key, base in bases.items()},
        held=held_registers(bases, await journal.meter_events(("alarm",))),
        settled=await journal.settled_due(since_ms),
        zone=zone,
        clock=clock,
        rules=RuleSet(),
        not_before_ms=keeper.begun_ms,
    )
    outages.held = lambda: engine.held
    parts = Parts(config, clock, journal, registry, engine, buses, supervisor, outages, memory)
    assembly = Assembly(parts, plans, opener, sessions, links)
    await assembly.start_retention(config)
    supervisor.start("due-points", keeper.run)
    for name, bus in buses.items():
        supervisor.start(f"bus:{name}", bus.run)
    for name, poller in engine.pollers.items():
        supervisor.start(f"poll:{name}", poller.run)
    supervisor.start("outages", outages.run)
    return assembly


def held_registers(
    bases: Mapping[tuple[str, str], JournalBase], alarms: Sequence[Event]
) -> dict[tuple[str, str], Decimal]:
    """Registers whose unbelievable value was confirmed and that nothing good has followed since."""
    held: dict[tuple[str, str], Decimal] = {}
    for event in alarms:
        if event.fields.get("alarm") != REGISTER_HELD:
            continue
        key = (str(event.fields["meter"]), str(event.fields["point"]))
        base = bases.get(key)
        if base is None or base.time_ms <= event.at_ms:
            held[key] = Decimal(event.fields["value"])
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
        tasks=lambda: watched(parts.buses, parts.engine.pollers),
        status=lambda: _status(parts),
        clock=parts.clock,
    )
    notifier.ready(_status(parts))
    parts.supervisor.start("watchdog", watchdog.run)


def _status(parts: Parts) -> str:
    return status_line(
        parts.config.name,
        meters=len(parts.registry.all()),
        buses=parts.buses,
        feed_connected=None if parts.publisher is None else parts.publisher.connected,
    )


def _start_api(parts: Parts) -> ApiServer:
    offered = {**commands(parts), **ClockDesk(parts).commands()}
    server = ApiServer(parts.config.socket_path, offered)
    parts.supervisor.start("api", server.run)
    return server
