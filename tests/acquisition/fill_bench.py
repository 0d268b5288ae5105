"""A meter that keeps its past, and a journal that lacks it: what tests of gap closing stand on."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from headend.acquisition.backfill import LoadFill
from headend.acquisition.duekeeper import DueKeeper
from headend.acquisition.meter_reader import MeterReader
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.acquisition.workbench import GAP_EVENT, KnownGaps, Workbench
from headend.bus import Bus, BusPort
from headend.bus.request import BusRequest
from headend.domain.clock import from_iso
from headend.domain.due import local_day
from headend.domain.errors import NoAnswer
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Event, Meter
from headend.drivers import Dlt645Session
from headend.journal import ConsumerSpec, DueLine, Journal, JournalReader, JournalSettings
from headend.messages.records import ReadRecord
from headend.vee import RuleSet
from protocols.dlt645.frame import WAKE_UP, parse
from protocols.dlt645.meter import ReadAsked, parse_any_read
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.framing import Match
from simulators.curves import Constant
from simulators.energy import EnergyModel, Supply, Timeline, exact_kwh, shown_kwh
from simulators.measured import Measured, Register, register_place
from simulators.meter645 import Gap, KeptSettings, Meter645, MeterClock, MeterSettings
from simulators.meter645_load import LoadSettings

ZONE = ZoneInfo("Asia/Shanghai")
ADDRESS = "202600000017"
IMPORT, EXPORT = "active_import_total", "active_export_total"
POINTS = (IMPORT, EXPORT)
QUARTER_MS, DAY_MS = 900_000, 86_400_000
ORIGIN_MS = from_iso("2026-03-01T00:00:00+08:00")
NOW_MS = from_iso("2026-03-10T09:07:00+08:00")


def local(text: str) -> int:
    """An instant of March 2026, as `DDThh:mm:ss`."""
    return from_iso(f"2026-03-{text}+08:00")


def meter_named(name: str = "M-1", address: str = ADDRESS, plan: str = "p") -> Meter:
    return Meter(
        name, "SP-1", "b", "dlt645-2007", address, plan, capacity_kw=Decimal("13.2"), area="T-1"
    )


class Steady(Measured):
    """1.8 kW in, 0.7 kW out, worked out from the time alone: quick for weeks of records."""

    def __init__(self, origin_ms: int = ORIGIN_MS) -> None:
        super().__init__(EnergyModel(Supply((Constant(0),) * 3, (None,) * 3), Timeline(origin_ms)))
        self._origin_ms = origin_ms

    def register(self, point: str, at_ms: int) -> Register | None:
        """The two totals; 0 of every other register it has."""
        if register_place(point) is None:
            return None
        watts = {IMPORT: 1800, EXPORT: 700}.get(point, 0)
        # One watt for one millisecond is 2500 / 9 nWh.
        nwh = max(0, at_ms - self._origin_ms) * watts * 2500 // 9
        return Register(exact_kwh(nwh), shown_kwh(nwh))


def device_of(
    clock: Callable[[], int],
    *gaps: Gap,
    load: LoadSettings | None = None,
    days: int = 62,
    address: str = ADDRESS,
    error_ms: int = 0,
) -> Meter645:
    """A meter that keeps what it counts."""
    settings = MeterSettings(
        address, kept=KeptSettings(days=days, gaps=gaps, load=load or LoadSettings())
    )
    return Meter645(settings, Steady(), clock=clock, meter_clock=MeterClock(480, error_ms=error_ms))


@dataclass
class HandClock:
    """A clock that stands until it is moved."""

    at_ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


@dataclass
class DirectPort:
    """Requests go straight to the meters; one that is silent does not answer."""

    devices: Mapping[str, Meter645]
    clock: HandClock
    parity_seen: bool = True
    name: str = "b"
    reads: list[ReadAsked] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)

    async def exchange(self, request: BusRequest) -> Exchange:
        raw = request.payload.lstrip(WAKE_UP)
        read = parse_any_read(parse(raw))
        assert read is not None
        self.reads.append(read)
        self.priorities.append(request.priority)
        sent = self.devices[request.device].on_frame(raw)
        if request.device in self.silent or len(self.reads) in self.lost or not sent:
            raise NoAnswer("no", bus="b", waited_ms=1, attempts=1, diagnosis="silence")
        reply = sent[0].data.lstrip(WAKE_UP)
        match = request.match(reply)
        assert match in (Match.REPLY, Match.REFUSAL)
        now_ms = self.clock.now_ms()
        outcome = Outcome.REPLY if match is Match.REPLY else Outcome.REFUSED
        return Exchange(
            self.name, request.device, request.payload, reply, now_ms, now_ms, 1.0, 1, outcome
        )

    def moments(self) -> list[str]:
        """The load records that were asked for from a time on, as YYMMDDhhmm."""
        return [read.moment for read in self.reads if read.moment]

    def identifiers(self) -> list[str]:
        return [read.di for read in self.reads]


class LateBus:
    """A bus that is made when there is a journal to tell of its attempts."""

    name = "b"

    def __init__(self) -> None:
        self.bus: Bus | None = None

    @property
    def parity_seen(self) -> bool:
        assert self.bus is not None
        return self.bus.parity_seen

    async def exchange(self, request: BusRequest) -> Exchange:
        assert self.bus is not None
        return await self.bus.exchange(request)


def plan_of(*lines: PlanEntry) -> ReadPlan:
    return ReadPlan("p", lines)


def quarters(points: Sequence[str] = POINTS) -> PlanEntry:
    return PlanEntry(tuple(points), 300_000, 900_000, interval_s=900)


def daily(points: Sequence[str] = POINTS, *, source: str = "live") -> PlanEntry:
    return PlanEntry(tuple(points), 900_000, 3_600_000, source=source)  # type: ignore[arg-type]


@dataclass
class FillBench:
    """Everything, with the one meter M-1 on bus b."""

    journal: Journal
    bench: Workbench
    registry: Registry
    device: Meter645
    port: DirectPort
    clock: HandClock
    keeper: DueKeeper
    meter: Meter

    def fill(
        self, from_ms: int, to_ms: int, points: Sequence[str] = POINTS, **more: object
    ) -> LoadFill:
        return LoadFill(self.bench, self.meter, 4, points, from_ms, to_ms, **more)  # type: ignore[arg-type]

    async def filled(self, from_ms: int, to_ms: int, **more: object) -> LoadFill:
        """A fill, gone through to its end."""
        made = self.fill(from_ms, to_ms, **more)  # type: ignore[arg-type]
        while not made.is_done:
            await made.step()
        return made

    async def list_days(self, from_ms: int) -> None:
        """The due lists of all days from an instant on, as a head-end that was away makes them."""
        day = local_day(from_ms, ZONE)
        await self.journal.freeze_due(day - timedelta(days=1), [])
        await self.keeper.prepare()

    def readings(self, point: str = IMPORT, **more: object) -> list[ReadRecord]:
        with JournalReader(self.journal.path) as reader:
            return list(reader.readings(meter=self.meter.id, point=point, **more))  # type: ignore[arg-type]

    def lines(self, point: str | None = None) -> list[DueLine]:
        with JournalReader(self.journal.path) as reader:
            found = [line for day in reader.due_days() for line in reader.due_lines(day)]
        return [line for line in found if point in (None, line.key.point)]

    async def written(self) -> None:
        """Reasons ride along with others: wait until they are in the file."""
        await self.journal.last_frozen_day()

    async def gap_events(self) -> list[Event]:
        return await self.journal.meter_events((GAP_EVENT,))

    def shown(self, at_ms: int, point: str = IMPORT) -> str:
        """What the meter's register showed at an instant."""
        return str(self.device.truth(at_ms, [point])[point].shown)


@asynccontextmanager
async def fill_bench(
    folder: Path,
    *gaps: Gap,
    plan: ReadPlan | None = None,
    profile: MeterProfile = GENERIC,
    load: LoadSettings | None = None,
    days: int = 62,
    now_ms: int = NOW_MS,
    parity_seen: bool = True,
    events: Iterable[Event] = (),
    error_ms: int = 0,
    port: BusPort | None = None,
) -> AsyncIterator[FillBench]:
    clock = HandClock(now_ms)
    device = device_of(clock.now_ms, *gaps, load=load, days=days, error_ms=error_ms)
    direct = DirectPort({ADDRESS: device}, clock, parity_seen)
    journal = await Journal.open(
        folder / "journal.db",
        clock=clock,
        software="test",
        consumers=[ConsumerSpec("billing", frozenset({"billing", "telemetry", "events"}))],
        settings=JournalSettings(
            zone=ZONE, reserve_bytes_telemetry=1, reserve_bytes_billing=1, group_wait_ms=0
        ),
    )
    sessions: dict[str, Dlt645Session] = {}

    def open_session(meter: Meter) -> Dlt645Session:
        if meter.id not in sessions:
            sessions[meter.id] = Dlt645Session(
                port or direct, meter.address, zone=ZONE, profile=profile
            )
        return sessions[meter.id]

    async def alarm(_name: str, _fields: dict[str, object]) -> None:
        return

    async with journal:
        for event in events:
            await journal.append_event(event)
        registry = Registry([meter_named()], await journal.meter_events())
        meter = registry.get("M-1")
        plans = {"p": plan or plan_of(quarters())}
        reader = MeterReader(
            journal, open_session, clock=clock, rules=RuleSet(), bases={}, alarm=alarm
        )
        bench = Workbench(
            journal,
            registry,
            plans,
            reader,
            open_session,
            ZONE,
            clock,
            RuleSet(),
            KnownGaps(await journal.meter_events((GAP_EVENT,))),
        )
        keeper = DueKeeper(journal, registry, plans, zone=ZONE, clock=clock)
        yield FillBench(journal, bench, registry, device, direct, clock, keeper, meter)
