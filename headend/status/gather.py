"""Makes the facts: what is at hand on the event loop, and what a desk reads from the journal.

Runs on the event loop and must stay cheap there: a thousand meters take a few milliseconds, and
the result is given again for a moment, so that many askers cost as much as one.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from headend import __version__
from headend.acquisition.clock_watch import ClockWatch
from headend.acquisition.engine import Engine
from headend.acquisition.registry import Registry
from headend.acquisition.waiting_room import WaitingRoom
from headend.bus import Bus, BusState, BusStatistics, DeviceStatistics
from headend.config import Config
from headend.domain.alarms import KINDS, happened, standing
from headend.domain.clock import Clock, from_iso
from headend.domain.due import DueState, local_day
from headend.domain.errors import JournalError
from headend.domain.kept_clock import KeptClock
from headend.domain.link import LinkSpec, SerialSpec
from headend.domain.meter import Meter
from headend.feed.publisher import Publisher
from headend.journal import CursorState, Journal, JournalReader
from headend.machine_clock import OwnClock
from headend.status import pulse as measured
from headend.status.alarms import TOLD_FOR_MS, clean, shown_event, shown_standing
from headend.status.desk import Desk
from headend.status.facts import (
    BusFacts,
    ClockFacts,
    DatabaseFacts,
    DayFacts,
    Facts,
    FeedFacts,
    FromJournal,
    Good,
    JournalFacts,
    MeterFacts,
    MeterState,
    ProcessFacts,
    StreamFacts,
    TaskFacts,
    WatchFacts,
)
from headend.status.pulse import Pulse
from headend.supervisor import Supervisor
from headend.timeseries.service import TimeSeries

MIB = 1024 * 1024
FRESH_S = 1.0
ALARMS_FRESH_S = 3.0
DUE_FRESH_S = 5.0
YESTERDAY_FRESH_S = 30.0
OVERDUE_MS = 3_600_000

IMPORT, EXPORT, YIELD = "active_import_total", "active_export_total", "pv_yield_total"


class Daemon(Protocol):
    """What is looked at of the running daemon; its parts may be others at the next look."""

    @property
    def config(self) -> Config: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def buses(self) -> Mapping[str, Bus]: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def publisher(self) -> Publisher | None: ...
    @property
    def timeseries(self) -> TimeSeries | None: ...
    @property
    def clocks(self) -> ClockWatch | None: ...
    @property
    def own_clock(self) -> OwnClock | None: ...
    @property
    def waiting(self) -> WaitingRoom | None: ...


class Gatherer:
    """One for the status task. `appended` is to be called after every commit with records."""

    def __init__(self, daemon: Daemon, desk: Desk, pulse: Pulse) -> None:
        self._daemon = daemon
        self._desk = desk
        self._pulse = pulse
        self._appended_at: float | None = None
        self._facts: tuple[float, Facts] | None = None
        self._busy = asyncio.Lock()

    def appended(self) -> None:
        """Records were appended just now."""
        self._appended_at = self._daemon.clock.monotonic()

    async def facts(self) -> Facts:
        """Everything, at most FRESH_S old. Never fails for the journal's sake: `kept.trouble`."""
        async with self._busy:  # those who ask at once get what the first one gathers
            now = self._daemon.clock.monotonic()
            if self._facts is None or now - self._facts[0] > FRESH_S:
                self._facts = (self._daemon.clock.monotonic(), await self._gather())
            return self._facts[1]

    async def _gather(self) -> Facts:
        daemon = self._daemon
        kept = await self._from_journal()
        feed = await self._feed()
        statistics = {name: bus.statistics() for name, bus in daemon.buses.items()}
        meters = [self._meter(meter, statistics) for meter in daemon.registry.all()]
        meters.sort(key=lambda meter: meter.id)
        return Facts(
            at_ms=daemon.clock.now_ms(),
            headend=daemon.config.name,
            zone=daemon.config.zone.key,
            configuration=daemon.config.hash,
            clock_away_s=daemon.clock.away_s if isinstance(daemon.clock, KeptClock) else None,
            process=self._process(),
            tasks=[
                TaskFacts(s.name, s.running, s.restarts, _kind_of(s.last_error))
                for s in daemon.supervisor.states.values()
            ],
            buses=self._buses(statistics, meters),
            meters=meters,
            feed=feed,
            databases=self._databases(),
            journal=self._journal(),
            kept=kept,
            clock_distrusted=None if daemon.own_clock is None else daemon.own_clock.distrusted,
            undated=0 if daemon.waiting is None else daemon.waiting.counts.kept,
            clocks=_watch_facts(daemon.clocks),
        )

    # -- at hand

    def _process(self) -> ProcessFacts:
        files, files_max = measured.open_files()
        return ProcessFacts(
            version=__version__,
            up_s=self._pulse.up_s,
            started_ms=self._pulse.started_ms,
            rss_bytes=measured.rss_bytes(),
            open_files=files,
            files_max=files_max,
            cpu_s=measured.cpu_s(),
            tasks=len(asyncio.all_tasks()),
            lag_s=self._pulse.lag_s,
            lag_max_s=self._pulse.lag_max_s(),
        )

    def _meter(self, meter: Meter, statistics: Mapping[str, BusStatistics]) -> MeterFacts:
        bus = statistics.get(meter.bus)
        device = None if bus is None else bus.devices.get(device_of(meter))
        return MeterFacts(
            id=meter.id,
            service_point=meter.service_point,
            bus=meter.bus,
            address=meter.address,
            protocol=meter.protocol,
            profile=meter.profile,
            multiplier=meter.multiplier,
            state=meter_state(bus, device),
            attempts=0 if device is None else device.attempts,
            failed_in_row=0 if device is None else device.failed_in_row,
            next_probe_s=0.0 if device is None else device.next_probe_s,
            energy_import=self._good(meter.id, IMPORT),
            energy_export=self._good(meter.id, EXPORT),
            energy_yield=self._good(meter.id, YIELD),
            clock=_clock_facts(self._daemon.clocks, meter.id),
        )

    def _good(self, meter: str, point: str) -> Good | None:
        base = self._daemon.engine.last_good(meter, point)
        return None if base is None else Good(base.value, base.time_ms)

    def _buses(
        self, statistics: Mapping[str, BusStatistics], meters: list[MeterFacts]
    ) -> list[BusFacts]:
        daemon = self._daemon
        states: dict[str, Counter[MeterState]] = {name: Counter() for name in statistics}
        for meter in meters:
            if meter.bus in states:
                states[meter.bus][meter.state] += 1
        found = []
        for name, told in statistics.items():
            section = daemon.config.buses.get(name)
            poller = daemon.engine.pollers.get(name)
            found.append(
                BusFacts(
                    name=name,
                    link="" if section is None else link_text(section.link_spec),
                    statistics=told,
                    load=self._pulse.load(name, told.busy_s, told.elapsed_s),
                    states=states[name],
                    jobs=0 if poller is None else poller.counts.jobs,
                    retries=0 if poller is None else poller.counts.retries,
                    overruns=0 if poller is None else poller.counts.overruns,
                    parity_seen=daemon.buses[name].parity_seen,
                )
            )
        return found

    async def _feed(self) -> FeedFacts | None:
        publisher = self._daemon.publisher
        if publisher is None:
            return None
        told = publisher.report()
        cursors = self._daemon.journal.cursors()
        streams = []
        for name, stream in publisher.streams.items():
            cursor = cursors.get(name)
            if cursor is None:
                continue
            counters = stream.counters
            streams.append(
                StreamFacts(
                    name=name,
                    last_seq=cursor.last_seq,
                    receipted_seq=cursor.receipted_seq,
                    expired=cursor.expired,
                    oldest_ms=await self._oldest_ms(name, cursor),
                    sent=counters.records,
                    resends=counters.resends,
                    receipts=counters.receipts,
                )
            )
        return FeedFacts(
            broker=clean(str(told["broker"])),
            connected=bool(told["connected"]),
            since_ms=from_iso(told["since"]),
            message=None if told["message"] is None else clean(str(told["message"])),
            failures=int(told["failures"]),
            streams=streams,
            refused=publisher.inward.refused + publisher.requests.refused,
        )

    async def _oldest_ms(self, consumer: str, cursor: CursorState) -> int | None:
        """When the oldest record came that the consumer has not receipted."""
        if not cursor.backlog:
            return None
        try:
            async with asyncio.timeout(1.0):
                found = await self._daemon.journal.read_entries(
                    consumer, cursor.receipted_seq + 1, records_max=1
                )
        except (JournalError, TimeoutError):
            return None
        for _seq, entry in found.entries:
            if entry.items:
                return entry.items[0][0].received_ms
            if entry.event is not None:
                return entry.event.at_ms
        return None

    def _databases(self) -> list[DatabaseFacts]:
        if self._daemon.timeseries is None:
            return []
        return [
            DatabaseFacts(
                name=str(told["database"]),
                kind=str(told["kind"]),
                where=url_text(str(told["url"])),
                state=str(told["state"]),
                since_ms=from_iso(told["since"]),
                message=None if told["message"] is None else clean(str(told["message"])),
                backlog=int(told["backlog"]),
                lag_s=float(told["lag_s"]),
                written_lines=int(told["written_lines"]),
                dead_letters=int(told["dead_letters"]),
            )
            for told in self._daemon.timeseries.report()
        ]

    def _journal(self) -> JournalFacts:
        journal = self._daemon.journal
        told = journal.statistics
        appended = self._appended_at
        return JournalFacts(
            epoch=journal.epoch,
            commits=told["commits"],
            refused_billing=told["refused_billing"],
            refused_telemetry=told["refused_telemetry"],
            exchanges_dropped=told["exchanges_dropped"],
            file_bytes=sum(size_of(journal.path.with_name(journal.path.name + e)) for e in _FILES),
            free_bytes=_free_bytes(journal.path),
            reserve_telemetry_bytes=self._daemon.config.headend.reserve_mb.telemetry * MIB,
            reserve_billing_bytes=self._daemon.config.headend.reserve_mb.billing * MIB,
            append_age_s=None if appended is None else self._daemon.clock.monotonic() - appended,
        )

    # -- from the journal's file

    async def _from_journal(self) -> FromJournal:
        daemon = self._daemon
        now_ms, zone = daemon.clock.now_ms(), daemon.config.zone
        today = local_day(now_ms, zone)
        yesterday = today - timedelta(days=1)

        kept = FromJournal()
        try:
            events = await self._desk.ask(
                "alarms", lambda reader: reader.events(kinds=KINDS), fresh_s=ALARMS_FRESH_S
            )
            kept = FromJournal(
                alarms=[shown_standing(alarm) for alarm in standing(events)],
                told=[shown_event(e) for e in happened(events, since_ms=now_ms - TOLD_FOR_MS)],
            )
            look = partial(day_facts, day=today, now_ms=now_ms)
            found = await self._desk.ask(("due", today), look, fresh_s=DUE_FRESH_S)
            kept = replace(kept, today=found)
            look = partial(day_facts, day=yesterday, now_ms=now_ms)
            found = await self._desk.ask(("due", yesterday), look, fresh_s=YESTERDAY_FRESH_S)
            kept = replace(kept, yesterday=found)
        except JournalError as error:
            return replace(kept, trouble=clean(str(error)))
        return kept


def _clock_facts(watch: ClockWatch | None, meter: str) -> ClockFacts | None:
    clock = None if watch is None else watch.clocks.get(meter)
    look = None if clock is None else clock.last
    if clock is None or look is None or clock.verdict is None:
        return None
    return ClockFacts(
        offset_s=look.offset_ms / 1000,
        uncertainty_s=look.uncertainty_ms / 1000,
        at_ms=look.at_ms,
        verdict=clock.verdict.value,
        drift_s_per_day=None if clock.drift is None else clock.drift.ms_per_day / 1000,
        message=clean(clock.message),
    )


def _watch_facts(watch: ClockWatch | None) -> WatchFacts | None:
    return None if watch is None else WatchFacts(watch.measured, watch.failed, watch.set)


_FILES = ("", "-wal", "-shm")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0


def _kind_of(error: str | None) -> str | None:
    """The kind of an error without its text, which may hold anything."""
    if error is None:
        return None
    head, colon, _rest = error.partition(":")
    return clean(head) if colon else clean(error)


def device_of(meter: Meter) -> str:
    """The name under which a meter's bus keeps account of it."""
    return f"unit {meter.address}" if meter.protocol.startswith("modbus") else meter.address


def meter_state(bus: BusStatistics | None, device: DeviceStatistics | None) -> MeterState:
    """How a meter stands."""
    if bus is None or bus.state is not BusState.OPEN:
        return MeterState.NO_PORT
    if device is None or not device.attempts:
        return MeterState.NOT_ASKED
    if device.dead:
        return MeterState.SILENT
    return MeterState.FAILING if device.failed_in_row else MeterState.ANSWERS


def link_text(spec: LinkSpec) -> str:
    """Where a bus hangs, for people: a path, or host and port."""
    if isinstance(spec, SerialSpec):
        return f"{spec.path} {spec.baud} {spec.parity[0].upper()}"
    return f"{spec.host}:{spec.port}"


def url_text(url: str) -> str:
    """A URL without user, password, query: scheme, host, port and path."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return clean(f"{parts.scheme}://{host}{parts.path}")


def day_facts(reader: JournalReader, day: date, now_ms: int) -> DayFacts:
    """The due points of a local day, counted in the journal. Blocking."""
    told = reader.due(day)
    counts = reader.due_counts(day, until_ms=now_ms)
    old = reader.due_counts(day, until_ms=now_ms - OVERDUE_MS)
    return DayFacts(
        day=day,
        frozen=int(told["frozen"]),
        counts=counts,
        later=max(0, sum(int(told[state.value]) for state in DueState) - sum(counts.values())),
        overdue=old[DueState.OPEN],
        by_reason=dict(told["by_reason"]),
        by_bus=list(told["by_bus"]),
        is_closed=told["closed_at"] is not None,
    )
