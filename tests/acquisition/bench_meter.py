"""A meter, a bus and a journal, all real, joined in memory: what acquisition tests stand on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from headend.acquisition.meter_reader import Due, MeterReader, Taken, Wanted
from headend.bus import Bus, BusSettings, Priority
from headend.domain.clock import SystemClock
from headend.domain.errors import PortGone
from headend.domain.meter import Meter
from headend.drivers import Dlt645Session
from headend.journal import ConsumerSpec, Journal, JournalReader, JournalSettings
from headend.supervisor import Supervisor
from headend.vee import Base, RuleSet
from simulators.energy import Timeline
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.schedule import LoopSchedule
from simulators.wire import WireLink

ZONE = ZoneInfo("Asia/Shanghai")
ADDRESS = "202600000017"
IMPORT = "active_import_total"
EXPORT = "active_export_total"
PAST_MS = 86_400_000


def meter_named(name: str = "M-1", address: str = ADDRESS) -> Meter:
    return Meter(
        name, "SP-1", "b", "dlt645-2007", address, "p", capacity_kw=Decimal("13.2"), area="T-1"
    )


class HandClock:
    """The machine's clock, moved on by hand: hours pass between two reads without waiting."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._system.now_ms() + self.ahead_ms

    def monotonic(self) -> float:
        return self._system.monotonic()


@dataclass
class Bench:
    journal: Journal
    reader: MeterReader
    device: Meter645
    clock: HandClock
    alarms: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    async def read(
        self, points: Sequence[str] = (IMPORT,), due: Due | None = None, meter: Meter | None = None
    ) -> list[Taken]:
        wanted = [Wanted(point, due) for point in points]
        return await self.reader.read(meter or meter_named(), wanted, priority=Priority.DUE)

    def due_now(self) -> Due:
        now_ms = self.clock.now_ms()
        return Due(now_ms, 60_000, now_ms + 60_000)

    def rows(self) -> list[tuple[str, str, int, str, str]]:
        """meter, value, revision, verdict, flags of every billing reading, as written."""
        return journal_rows(self.journal.path)


def journal_rows(path: Path) -> list[tuple[str, str, int, str, str]]:
    with JournalReader(path) as reader:
        return [
            (r.meter, r.value or "", r.revision, r.verdict, ",".join(r.flags))
            for r in reader.readings(all_revisions=True)
        ]


def streamed(path: Path) -> int:
    """How many records stand on the consumer's stream."""
    with JournalReader(path) as reader:
        return reader.feed_status()["billing"].cursor.last_seq


@asynccontextmanager
async def bench(
    folder: Path, *, parity_seen: bool = True, bases: dict[tuple[str, str], Base] | None = None
) -> AsyncIterator[Bench]:
    clock = HandClock()
    timeline = Timeline(clock.now_ms() - PAST_MS)
    device = make_meter(
        "pv",
        MeterSettings(ADDRESS, reply_delay_ms=1, seed=7),
        timeline=timeline,
        clock=clock.now_ms,
    )
    link = WireLink(
        MeterBus([device]),
        schedule=LoopSchedule(),
        parity_seen=parity_seen,
        gone=lambda message: PortGone(message, bus="b"),
    )
    journal = await Journal.open(
        folder / "journal.db",
        clock=clock,
        software="test",
        consumers=[ConsumerSpec("billing", frozenset({"billing", "telemetry", "events"}))],
        settings=JournalSettings(zone=ZONE, reserve_bytes_telemetry=1, reserve_bytes_billing=1),
    )
    async with journal, Supervisor() as supervisor:
        settings = BusSettings(gap_ms=0, silence_after_timeout_ms=5, reply_timeout_ms=100)
        bus = Bus("b", link, settings, clock=clock, observer=journal.record_exchange)
        supervisor.start("bus", bus.run)
        alarms: list[tuple[str, dict[str, object]]] = []

        async def alarm(name: str, fields: dict[str, object]) -> None:
            alarms.append((name, fields))

        def open_session(meter: Meter) -> Dlt645Session:
            return Dlt645Session(bus, meter.address, zone=ZONE, capacity_kw=meter.capacity_kw)

        reader = MeterReader(
            journal, open_session, clock=clock, rules=RuleSet(), bases=bases or {}, alarm=alarm
        )
        made = Bench(journal, reader, device, clock, alarms)
        try:
            yield made
        finally:
            await link.close()
