"""Takes a new configuration while the daemon runs: checked whole, then only what differs changes.

A configuration that is not good, or that changes what a running daemon cannot change, is refused
as a whole: the daemon goes on exactly as before and says so in the log, to whoever asked, in the
local socket's `status`, and as one alarm that the next good configuration clears.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from headend.acquisition.changeover import Changeover
from headend.acquisition.outage_watch import outage_settings
from headend.acquisition.registry import Registry, undeclared
from headend.assembly import Assembly, consumer_specs, read_plans
from headend.bus.configured import bus_settings
from headend.config import Config, ConfigErrors, load_config
from headend.config.changes import Changes, diff
from headend.domain import alarms
from headend.domain.clock import iso
from headend.domain.due import day_bounds_ms
from headend.domain.errors import ConfigError, HeadendError, JournalError
from headend.domain.meter import Event
from headend.messages.broker import BrokerSpec
from headend.messages.configured import configured_broker
from headend.notify import Notifier
from headend.timeseries.service import target_of

log = logging.getLogger(__name__)

SCHEMA = "reload/1"
CONFIGURATION_REFUSED = "configuration_refused"
# How long a meter that is being read may take before a bus is taken from under it.
REST_S = 20.0
RETRY_S = 5.0
FAILED_AT_ONCE = 2000
SHOWN_MAX = 50
LOGGED_MAX = 20


class NotTaken(HeadendError):
    """The answer to whoever asked could not be had."""


class Reloader:
    """One supervised task: `run`. `wanted` asks for a reload and does not wait; `ask` waits.

    `file`: what was given on the command line; the same is read again. `status`: the line the
    service manager is shown. `told`: alarms and clearings that the journal knows from earlier.
    """

    def __init__(
        self,
        assembly: Assembly,
        *,
        file: Path,
        notifier: Notifier,
        status: Callable[[], str],
        told: Sequence[Event],
        wanted: asyncio.Event | None = None,
    ) -> None:
        self.file = file
        self.wanted = wanted or asyncio.Event()
        self.last: dict[str, Any] | None = None
        self._assembly = assembly
        self._notifier = notifier
        self._status = status
        self._askers: list[asyncio.Future[dict[str, Any]]] = []
        self._refused: ConfigError | None = None
        standing = alarms.standing(told)
        self._alarmed = any(alarm.name == CONFIGURATION_REFUSED for alarm in standing)

    def reads(self, file: str) -> bool:
        """Whether it is this file that is read."""
        return Path(file).resolve() == self.file.resolve()

    async def ask(self) -> dict[str, Any]:
        """Reload now; the outcome (`reload/1`)."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._askers.append(answer)
        self.wanted.set()
        return await answer

    async def run(self) -> None:
        """Reload whenever it is wanted, one after the other, for ever."""
        while True:
            is_told = await self._tell()
            try:
                async with asyncio.timeout(None if is_told else RETRY_S):
                    await self.wanted.wait()
            except TimeoutError:
                continue
            # Whoever asks from now on may mean a newer file.
            self.wanted.clear()
            askers, self._askers = self._askers, []
            try:
                outcome = await self._reload()
                for asker in askers:
                    if not asker.done():
                        asker.set_result(outcome)
            finally:
                for asker in askers:
                    if not asker.done():
                        asker.set_exception(NotTaken("the reload broke off: the log says why"))

    async def _reload(self) -> dict[str, Any]:
        clock = self._assembly.parts.clock
        began = clock.monotonic()
        self._notifier.reloading(clock)
        changes: Changes | None = None
        try:
            changes = await self._take()
        except ConfigError as error:
            self._refused = error
            for one in _each(error)[:LOGGED_MAX]:
                about = {"about": str(one)}  # each is another thing, no repetition
                log.error("configuration refused: %s", one, extra=about)  # noqa: TRY400 - what is wrong is said
        else:
            self._refused = None
            for change in list(changes.each())[:LOGGED_MAX]:
                log.warning("configuration changed: %s", change, extra={"about": str(change)})
            log.warning("configuration=%s in force", self._assembly.parts.config.hash)
        finally:
            self._notifier.ready(self._status())
        self.last = self._outcome(changes, clock.monotonic() - began)
        return self.last

    async def _take(self) -> Changes:
        """Load, compare, change. ConfigError: refused, and nothing was changed."""
        old = self._assembly.parts.config
        new = await asyncio.to_thread(load_whole, self.file)
        changes = diff(old, new)
        if changes.needs_restart:
            raise ConfigErrors([_needs_restart(new, key) for key in changes.needs_restart])
        # What the files say that it names, before anything is changed.
        broker = None if new.feed is None else configured_broker(new)
        for section in new.timeseries:
            target_of(new, section)
        await _Change(self._assembly, old, new, changes, broker).make()
        return changes

    def _outcome(self, changes: Changes | None, took_s: float) -> dict[str, Any]:
        """What came of it, JSON-ready."""
        parts = self._assembly.parts
        made = [] if changes is None else list(changes.each())
        errors = [] if self._refused is None else _each(self._refused)
        outcome = "refused" if changes is None else "applied" if made else "unchanged"
        return {
            "schema": SCHEMA,
            "headend": parts.config.name,
            "file": str(self.file),
            "at": iso(parts.clock.now_ms()),
            "took_s": round(took_s, 3),
            "outcome": outcome,
            "configuration": parts.config.hash,
            "changes": [
                {
                    "kind": c.kind,
                    "name": c.name,
                    "what": c.what,
                    "keys": list(c.keys),
                    "note": c.note,
                }
                for c in made[:SHOWN_MAX]
            ],
            "changes_total": len(made),
            "errors": [_error_json(error) for error in errors[:SHOWN_MAX]],
            "errors_total": len(errors),
        }

    async def _tell(self) -> bool:
        """Bring the alarm in the journal to what is so; whether it is."""
        refused = self._refused is not None
        if refused == self._alarmed:
            return True
        fields: dict[str, Any] = {"alarm": CONFIGURATION_REFUSED, "file": str(self.file)}
        if self._refused is not None:
            first = _each(self._refused)[0]
            fields |= {k: v for k, v in _error_json(first).items() if v is not None}
            fields |= {"reason": first.message, "errors": len(_each(self._refused))}
            del fields["message"]
        kind = alarms.RAISED if refused else alarms.CLEARED
        parts = self._assembly.parts
        try:
            await parts.journal.append_event(Event(kind, parts.clock.now_ms(), fields))
        except JournalError as error:
            log.warning("alarm=%s not kept: %s", CONFIGURATION_REFUSED, error)
            return False
        self._alarmed = refused
        return True


def load_whole(file: Path) -> Config:
    """`load_config` of a file that is not being written just now. ConfigError.

    Half a file may well be a good configuration: `telemetry_days: 3` of 30. So the last line must
    be a whole one, and the file must be the same when it has been read. (What begins with a brace
    shows its end by itself.)
    """
    before = _stamp(file)
    config = load_config(file)
    for path in (file, *config.files[1:]):
        try:
            text = path.read_bytes()
        except OSError as error:
            message = f"has gone while it was read: {error.strerror or error}"
            raise ConfigError(message, file=str(path)) from error
        if not text.endswith(b"\n") and not text.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"{"):
            raise ConfigError(
                "its last line has no end: it may have been saved half",
                file=str(path),
                line=text.count(b"\n") + 1,
                hint="save it whole, with a line end after the last line",
            )
    if before != _stamp(file):
        raise ConfigError(
            "was changed while it was read", file=str(file), hint="reload when it is saved"
        )
    return config


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()  # the loader says what is wrong
    return found.st_ino, found.st_size, found.st_mtime_ns


def _needs_restart(config: Config, key: str) -> ConfigError:
    return config.error(
        key,
        "was changed and needs a restart; nothing of the new configuration is in force",
        "systemctl restart headend, or set it back",
    )


def _each(error: ConfigError) -> Sequence[ConfigError]:
    return error.errors if isinstance(error, ConfigErrors) else (error,)


def _error_json(error: ConfigError) -> dict[str, Any]:
    return {
        "file": error.file,
        "line": error.line,
        "key": error.key,
        "message": error.message,
        "hint": error.hint,
    }


class _Change:
    """One change from a configuration in force to the next."""

    def __init__(
        self,
        assembly: Assembly,
        old: Config,
        new: Config,
        changes: Changes,
        broker: BrokerSpec | None,
    ) -> None:
        self._assembly = assembly
        self._parts = assembly.parts
        self._old = old
        self._new = new
        self._changes = changes
        self._broker = broker
        # Buses whose port is another one; the others that changed only speak otherwise.
        self._other_ports = {n for n, keys in changes.buses.changed.items() if "link" in keys}
        self._ports_closed = self._other_ports | set(changes.buses.removed)

    async def make(self) -> None:
        """Change what differs. ConfigError when the journal refuses: nothing is changed."""
        journal = self._parts.journal
        async with self._parts.engine.changing:
            try:
                # Whatever else is asked of the journal must not fail half way.
                events = await journal.meter_events()
                told = await journal.meter_events(alarms.KINDS)
            except JournalError as error:
                raise self._refusal(error) from error
            then = Registry(self._new.meters, events)
            self._check_declared(then)
            await self._change_readers(told)
            await self._change_acquisition(then)
        if "retention" in self._changes.sections:
            await self._assembly.start_retention(self._new)
        if "status" in self._changes.sections:
            await self._assembly.start_status(self._new)
        self._parts.config = self._new
        self._parts.outages.use(outage_settings(self._new.headend.alarms))
        if self._parts.publisher is not None:
            self._parts.publisher.configuration_hash = self._new.hash
            self._parts.publisher.wake()

    def _check_declared(self, then: Registry) -> None:
        """The file says what was declared, and nothing that only a dated event may change."""
        parts = self._parts
        has_registers = parts.engine.declarations.reader.has_registers
        found = [*then.problems, *undeclared(parts.registry, then, has_registers)]
        if found:
            file = str(self._new.path)
            keys = {m.id: f"meters[{n}]" for n, m in enumerate(self._new.meters)}
            raise ConfigErrors(
                [
                    ConfigError(
                        one.message,
                        file=file,
                        key=f"{keys.get(one.meter, 'meters')}.{one.key}",
                        hint=one.hint,
                    )
                    for one in found
                ]
            )

    # -- who reads the journal

    async def _change_readers(self, told: Sequence[Event]) -> None:
        """Consumers of the feed and databases; those that stay are not disturbed."""
        changes, assembly, parts = self._changes, self._assembly, self._parts
        assert parts.timeseries is not None
        if not changes.feed and not changes.timeseries:
            return
        databases = changes.timeseries
        if changes.feed:
            await assembly.stop_feed(with_broker=self._other_broker())
            with suppress(JournalError):  # what it said last
                told = await parts.journal.meter_events(alarms.KINDS)
        await parts.timeseries.take_out(databases.gone, parts.supervisor)
        config, broker, begin = self._new, self._broker, databases.fresh
        before = assembly.broker
        try:
            if consumer_specs(self._old) != consumer_specs(self._new):
                await parts.journal.configure(consumer_specs(self._new))
        except JournalError as error:
            config, broker, begin = self._old, before, databases.gone
            raise self._refusal(error) from error
        finally:
            parts.timeseries.put_in(config, begin, parts.supervisor)
            if changes.feed:
                await assembly.start_feed(config, broker, told)
        parts.timeseries.forget(databases.removed)

    def _refusal(self, error: JournalError) -> ConfigError:
        return ConfigError(f"cannot be taken now: {error}", file=str(self._new.path))

    def _other_broker(self) -> bool:
        old, new = self._old.feed, self._new.feed
        return old is None or new is None or old.broker_spec != new.broker_spec

    # -- buses, meters, plans

    async def _change_acquisition(self, then: Registry) -> None:
        changes, parts = self._changes, self._parts
        if not (changes.buses or changes.meters or changes.plans or changes.profiles):
            return
        plans = read_plans(self._new)
        put_plans_in_force = await self._weigh_plans(then)
        over = Changeover.between(parts.registry, self._assembly.plans, then, plans)
        resting = over.buses() | self._ports_closed
        pollers = [p for bus, p in parts.engine.pollers.items() if bus in resting]
        try:
            async with AsyncExitStack() as turns:
                await self._rest(resting, turns)
                put_plans_in_force()
                await self._change_buses(over)
        finally:
            for poller in pollers:
                poller.go_on()
        await self._tell_due(over)
        if parts.plans is not None:
            await parts.plans.tell()

    async def _weigh_plans(self, then: Registry) -> Callable[[], None]:
        """Whether every bus can keep what is planned then."""
        plans = self._parts.plans
        if plans is None:
            return lambda: None
        return await plans.weigh(self._new, then.all())

    async def _rest(self, buses: set[str], turns: AsyncExitStack) -> None:
        """Until nothing is read where a port or a meter changes; not for ever.

        Where a port is closed, reads that somebody asks for wait too.
        """
        engine, registry = self._parts.engine, self._parts.registry
        try:
            async with asyncio.timeout(REST_S):
                await asyncio.gather(
                    *(poller.rest() for bus, poller in engine.pollers.items() if bus in buses)
                )
                for meter in registry.all():
                    if meter.bus in self._ports_closed:
                        await turns.enter_async_context(engine.turn(meter.id))
        except TimeoutError:
            log.warning("configuration: a read takes longer than %.0f s, it is cut short", REST_S)

    async def _change_buses(self, over: Changeover) -> None:
        assembly, parts, buses = self._assembly, self._parts, self._changes.buses
        # All ports are let go of before one is opened: two buses may have changed places.
        for name in sorted(self._ports_closed):
            await assembly.stop_bus(name)
        fresh = parts.engine.change_over(over)
        assembly.opener.config = self._new
        for name in (*buses.added, *sorted(self._other_ports)):
            assembly.start_bus(name, self._new.buses[name])
        for name in buses.changed.keys() - self._other_ports:
            parts.buses[name].change(bus_settings(self._new.buses[name]))
        assembly.sessions.forget(self._other_sessions(over))
        for name in buses.removed:
            await assembly.stop_poller(name)
        for poller in fresh:
            assembly.start_poller(poller)

    def _other_sessions(self, over: Changeover) -> list[str]:
        """The meters that are spoken to otherwise from now on."""
        buses, profiles = self._changes.buses.changed, self._changes.profiles.changed
        stay = [m.id for m in over.new.all() if m.bus in buses or m.profile in profiles]
        return [*over.meters(), *stay]

    async def _tell_due(self, over: Changeover) -> None:
        """What was written down as due and will not be read gets its reason."""
        journal, zone = self._parts.journal, self._new.zone
        try:
            last = await journal.last_frozen_day()
            if last is None:
                return
            until_ms = day_bounds_ms(last, zone)[1]
            failed = []
            for one in over.no_longer_read(self._parts.clock.now_ms(), until_ms, zone):
                failed.append(one)
                if len(failed) >= FAILED_AT_ONCE:
                    await journal.due_failed_many(failed)
                    failed = []
                    await asyncio.sleep(0)  # meters must not wait for a long list
            await journal.due_failed_many(failed)
        except JournalError as error:
            log.warning("configuration: what is no longer read has no reason: %s", error)
