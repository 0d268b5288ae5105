"""One service point whose truth is known to the last digit, read through the real parts.

A device counts, wraps, is exchanged, reset, put behind other transformers; some of that is told
late, in another order, wrongly and taken back. The reader, the journal, the declarations and
billing's own arithmetic are the real ones; only the bus is not.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo

from headend.acquisition.declarations import Declarations, bases_by_events
from headend.acquisition.meter_reader import MeterReader, Wanted
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.registry import Registry
from headend.billing.differences import MeterEvent, RegisterReading, ServicePoint
from headend.billing.inbox import Decision, Row, decide, unpack
from headend.bus import Priority
from headend.daemon import held_registers
from headend.domain.alarms import KINDS
from headend.domain.errors import ConfigError, NoAnswer
from headend.domain.exchange import Exchange, Outcome
from headend.domain.lives import METER_EVENTS
from headend.domain.meter import Event, Meter, MeterExchange
from headend.drivers import PointResult
from headend.journal import ConsumerSpec, Journal, JournalSettings
from headend.messages.records import Batch, decode_batch, encode_batch
from headend.vee import Base, RuleSet

ZONE = ZoneInfo("Asia/Shanghai")
START_MS = 1_772_294_400_000  # 2026-03-01 00:00 +08:00
HOUR_MS = 3_600_000
IMPORT, EXPORT = "active_import_total", "active_export_total"
POINTS = (IMPORT, EXPORT)
WIDTH = 10**8  # of a register, in hundredths
ROOM = 1 << 40
CAPACITY_KW = Decimal(10_000)


def kwh(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


@dataclass
class Clock:
    ms: int = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@dataclass
class Device:
    """A meter as it hangs: hundredths in its registers, and what it kept of them."""

    address: str
    registers: dict[str, int]
    first: dict[str, int] = field(default_factory=dict)  # before it came here
    kept: dict[int, dict[str, int]] = field(default_factory=dict)
    wrapped_ms: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = dict(self.registers)

    def count(self, point: str, cents: int, now_ms: int) -> None:
        total = self.registers[point] + cents
        if total >= WIDTH:
            self.wrapped_ms[point] = now_ms
        self.registers[point] = total % WIDTH


@dataclass
class Told:
    """Something that happened and that nobody has declared yet."""

    text: str
    declare: Callable[[], object]


class World:
    """Everything about the one service point."""

    def __init__(self, folder: Path, *, registers: tuple[int, int] = (500_000, 0)) -> None:
        self.folder = folder
        self.clock = Clock()
        self.device = Device("000000000001", dict(zip(POINTS, registers, strict=True)))
        self.name = "M-1"  # what the device that hangs there is called, in truth
        self.ct = 1
        self.total = dict.fromkeys(POINTS, 0)  # primary hundredths since the beginning
        self.truth: dict[int, dict[str, int]] = {}
        self._note()
        self.pending: list[Told] = []
        self.mistakes: list[str] = []
        self.zeros = 0  # how many of the next values are a bad zero
        self.devices = 1
        self.is_frozen: int | None = None
        self.meter = Meter(
            "M-1", "SP-1", "b", "dlt645-2007", "000000000001", "p", capacity_kw=CAPACITY_KW
        )
        self.registry = Registry([self.meter], [])
        self.plans = {"p": ReadPlan("p", (PlanEntry(POINTS, 1000, 1000, interval_s=3600),))}

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.journal.close()

    async def _open(self) -> None:
        self.journal = await Journal.open(
            self.folder / "journal.db",
            clock=self.clock,
            software="test",
            consumers=[ConsumerSpec("billing", frozenset({"billing", "events"}))],
            settings=JournalSettings(
                zone=ZONE, free_bytes=lambda: ROOM, group_gap_ms=0, group_wait_ms=0
            ),
        )
        events = await self.journal.meter_events()
        self.registry = Registry([self.meter], events)
        bases = await self.journal.bases()
        known = {key: Base(base.value, base.time_ms) for key, base in bases.items()}
        self.reader = MeterReader(
            self.journal,
            self._session,
            clock=self.clock,
            rules=RuleSet(),
            bases=bases_by_events(known, self.registry.lives, self.registry.all()),
            held=held_registers(bases, await self.journal.meter_events(KINDS)),
            alarm=self._alarm,
            in_force=self.registry.holds,
            multiplier_at=self.registry.multiplier_at,
            hung_at=self.registry.hung_at,
        )
        self.declarations = Declarations(
            self.journal, self.registry, self.plans, self.reader, {}, self.clock, RuleSet(),
            asyncio.Lock(),
        )  # fmt: skip

    async def _alarm(self, name: str, fields: dict[str, object]) -> None:
        event = Event("alarm", self.clock.ms, {"alarm": name, **fields})
        await self.journal.append_event(event)

    async def restart(self) -> None:
        """The head-end begins again with what its journal knows."""
        await self.journal.close()
        await self._open()

    # -- the bus

    def _session(self, meter: Meter) -> "World":
        self._asked = meter
        return self

    async def read(self, points: Sequence[str], **_how: object) -> list[PointResult]:
        """Live values of whatever answers under the address that is asked."""
        self.clock.ms += 1
        self._note()
        return [self._answer(point, self.device.registers, self.clock.ms) for point in points]

    async def read_frozen(self, points: Sequence[str], **_how: object) -> list[PointResult]:
        """What the device kept of an earlier instant, wherever it hung then."""
        assert self.is_frozen is not None
        kept = self.device.kept.get(self.is_frozen, self.device.first)
        return [self._answer(point, kept, self.is_frozen) for point in points]

    def _answer(self, point: str, registers: dict[str, int], time_ms: int) -> PointResult:
        if self._asked.address != self.device.address:
            error = NoAnswer("silent", bus="b", attempts=1, diagnosis="silence", waited_ms=1)
            return PointResult(point, "", None, "kWh", None, None, 1, error)
        value = registers[point]
        if self.zeros:
            self.zeros -= 1
            value = 0
        now = self.clock.ms
        exchange = Exchange("b", self._asked.address, b"?", b"!", now, now, 1.0, 1, Outcome.REPLY)
        return PointResult(point, "", kwh(value), "kWh", time_ms, exchange, 1, None)

    # -- what happens

    def go_on(self, hours: int, cents: tuple[int, int]) -> None:
        """Time passes and energy flows; `cents` as the device counts them."""
        self.clock.ms += hours * HOUR_MS
        for point, more in zip(POINTS, cents, strict=True):
            self.device.count(point, more, self.clock.ms)
            self.total[point] += more * self.ct
        self._note()

    def _note(self) -> None:
        self.truth[self.clock.ms] = dict(self.total)
        self.device.kept[self.clock.ms] = dict(self.device.registers)

    async def take(self, *, frozen_ms: int | None = None) -> None:
        """The head-end reads both registers of the meter that it believes to hang there."""
        self.is_frozen = frozen_ms
        (meter,) = self.registry.all()
        wanted = [Wanted(point) for point in POINTS]
        await self.reader.read(meter, wanted, priority=Priority.DUE, frozen=frozen_ms is not None)

    def tick(self) -> None:
        """Two things never happen in the same millisecond, unless a test wants them to."""
        self.clock.ms += 1000
        self._note()

    def exchange(self, first: tuple[int, int], *, other_address: bool) -> None:
        """Another device hangs there from now on."""
        self.tick()
        self.devices += 1
        old, new = self.name, f"M-{self.devices}"
        address = f"{self.devices:012d}" if other_address else self.device.address
        final, wraps = self._now(), dict(self.device.wrapped_ms)
        self.device = Device(address, dict(zip(POINTS, first, strict=True)))
        self.name = new
        self._note()
        told = MeterExchange(
            self.clock.ms, "", old, new, address, final, self._now(), "fitter", "test"
        )
        self._later("exchange", lambda: self.declarations.exchange(told), old, wraps)

    def new_ratio(self, ct: int) -> None:
        """Other transformers hang before the device from now on."""
        if ct == self.ct:
            return
        self.tick()
        self.ct = ct
        at_ms, name, shown = self.clock.ms, self.name, self._now()
        self._later(
            "ratio",
            lambda: self.declarations.ratio(
                name, at_ms, ct=Decimal(ct), pt=Decimal(1), registers=shown, by="fitter",
                reason="test",
            ),
            name,
            dict(self.device.wrapped_ms),
        )  # fmt: skip

    def reset(self, value: int) -> None:
        """Both registers are set to another value."""
        self.tick()
        at_ms, name, before = self.clock.ms, self.name, self._now()
        wraps = dict(self.device.wrapped_ms)
        self.device.wrapped_ms = {}
        self.device.registers = dict.fromkeys(POINTS, value)
        self._note()
        after = self._now()
        self._later(
            "reset",
            lambda: self.declarations.reset(
                name, at_ms, before=before, after=after, by="fitter", reason="test"
            ),
            name,
            wraps,
        )

    def _now(self) -> dict[str, Decimal]:
        return {point: kwh(value) for point, value in self.device.registers.items()}

    def _later(
        self, text: str, declare: Callable[[], object], meter: str, wraps: dict[str, int]
    ) -> None:
        async def with_rollovers() -> object:
            try:
                return await declare()  # type: ignore[misc]
            except ConfigError as error:
                if "rollover" not in str(error.hint):
                    raise
            # Nobody could see it: it is on the slip of whoever read the device.
            for point, at_ms in wraps.items():
                await self.declarations.rollover(
                    meter, at_ms, point=point, digits=6, by="fitter", reason="test"
                )
            return await declare()  # type: ignore[misc]

        self.pending.append(Told(text, with_rollovers))

    async def declare(self, which: int) -> bool:
        """Somebody declares one of the things that happened; False when it cannot be yet."""
        if not self.pending:
            return False
        told = self.pending.pop(which % len(self.pending))
        try:
            await told.declare()  # type: ignore[misc]
        except ConfigError:
            self.pending.append(told)
            return False
        return True

    @property
    def may_be_zero(self) -> bool:
        """A bad zero cannot be told from one that still stands there, nor from a new beginning."""
        (meter,) = self.registry.all()
        known = [self.reader.last_good(meter.id, point) for point in POINTS]
        if self.pending and min(self.device.first.values()) < 100:
            return True  # nor from the first registers of a meter that nobody has declared
        if any(base is None or not 0 < base.value < kwh(WIDTH // 2) for base in known):
            return True
        return any(value > WIDTH // 2 for value in self.device.registers.values())

    async def be_mistaken(self, *, ratio: bool) -> None:
        """Somebody declares what never was."""
        (meter,) = self.registry.all()
        self.tick()
        try:
            if ratio:
                done = await self.declarations.ratio(
                    meter.id, self.clock.ms, ct=Decimal(99), pt=Decimal(1), registers=self._now(),
                    by="clerk", reason="mistaken",
                )  # fmt: skip
            else:
                self.devices += 1
                done = await self.declarations.exchange(
                    MeterExchange(
                        self.clock.ms, "", meter.id, f"M-{self.devices}X", "", self._now(),
                        self._now(), "clerk", "mistaken",
                    )
                )  # fmt: skip
        except ConfigError:
            return
        self.mistakes.append(done.id)

    async def take_back(self) -> bool:
        """A mistake is noticed; False when it cannot be taken back yet."""
        if not self.mistakes:
            return False
        try:
            await self.declarations.take_back(self.mistakes[-1], by="clerk", reason="mistaken")
        except ConfigError:
            return False
        self.mistakes.pop()
        return True

    async def tell_everything(self) -> None:
        """Whatever happened is declared in the end, and every mistake taken back."""
        moved = True
        while moved and (self.pending or self.mistakes):
            moved = await self.take_back()
            for _ in range(len(self.pending)):
                moved |= await self.declare(0)
        assert not self.pending, [told.text for told in self.pending]
        assert not self.mistakes

    # -- what billing makes of it

    async def billed(self) -> ServicePoint:
        """The service point as a consumer of the feed knows it, over the feed's own bytes."""
        current: dict[tuple, Row] = {}
        events: dict[str, MeterEvent] = {}
        through = 0
        while True:
            found = await self.journal.read_stream("billing", through + 1, records_max=500)
            if not found.records:
                break
            through = found.first_seq + len(found.records) - 1
            batch = Batch(
                headend="he1", epoch=self.journal.epoch, consumer="billing",
                first_seq=found.first_seq, last_seq=through, records=found.records,
                exchanges=found.exchanges,
            )  # fmt: skip
            taken = unpack(decode_batch(encode_batch(batch)))
            for row in taken.rows:
                decision = decide(row, current.get(row.key))
                assert decision is not Decision.CONFLICT
                if decision in (Decision.NEW, Decision.REPLACE):
                    current[row.key] = row
            for event in taken.events:
                if event.kind in METER_EVENTS:
                    events[event.event_id] = MeterEvent(
                        event.event_id, event.kind, event.at_ms, json.loads(event.fields)
                    )
        self.rows = list(current.values())
        return ServicePoint("SP-1", map(register_reading, current.values()), events.values())

    def energy(self, point: str, from_ms: int, to_ms: int) -> Decimal:
        """What really flowed between two instants at which something happened."""
        return kwh(self.truth[to_ms][point] - self.truth[from_ms][point])


def register_reading(row: Row) -> RegisterReading:
    return RegisterReading(
        row.meter, row.service_point, row.point, row.time_ms,
        None if row.value is None else Decimal(row.value), row.unit, row.read_id, row.due_ms,
        row.status, row.verdict, tuple(row.flags.split(",")) if row.flags else (),
        Decimal(row.multiplier), row.side,
    )  # fmt: skip
