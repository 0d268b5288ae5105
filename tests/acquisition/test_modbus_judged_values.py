"""Modbus values through judging to the journal: zeros that are none, steps, wraps, sides."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from headend.acquisition.meter_reader import MeterReader, Taken, Wanted, failure_reason
from headend.bus import Priority
from headend.domain.errors import Busy
from headend.domain.meter import Meter
from headend.domain.reading import Reading, Side, Status, Verdict
from headend.drivers import ModbusSession
from headend.journal import ConsumerSpec, Journal, JournalReader, JournalSettings
from headend.vee import RuleSet
from protocols.modbus.profile import DeviceProfile, profile_from
from tests.acquisition.bench_meter import EXPORT, IMPORT, ZONE, HandClock, streamed
from tests.support.modbus_device import ACREL, SDM, Device

HOUR_MS = 3_600_000


@dataclass
class Bench:
    journal: Journal
    reader: MeterReader
    device: Device
    clock: HandClock
    meter: Meter
    alarms: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    async def read(self, *points: str) -> list[Taken]:
        wanted = [Wanted(point) for point in points]
        return await self.reader.read(self.meter, wanted, priority=Priority.DUE)

    async def one(self, point: str, value: Any = None) -> Reading:
        if value is not None:
            self.device.set(point, Decimal(value))
        self.clock.ahead_ms += HOUR_MS
        (taken,) = await self.read(point)
        assert taken.reading is not None, taken
        return taken.reading

    def events(self, kind: str) -> list[dict[str, Any]]:
        with JournalReader(self.journal.path) as reader:
            return [event.fields for event in reader.events(kinds=[kind])]


@asynccontextmanager
async def bench(
    folder: Path, profile: DeviceProfile = SDM, *, ct: str = "1", pt: str = "1"
) -> AsyncIterator[Bench]:
    clock = HandClock()
    device = Device(profile, clock=clock)
    meter = Meter(
        "M-1", "SP-1", "b", "modbus-rtu", "1", "p",
        ct=Decimal(ct), pt=Decimal(pt), profile=profile.id, capacity_kw=Decimal("13.2"),
    )  # fmt: skip
    journal = await Journal.open(
        folder / "journal.db",
        clock=clock,
        software="test",
        consumers=[ConsumerSpec("billing", frozenset({"billing", "telemetry", "events"}))],
        settings=JournalSettings(zone=ZONE, reserve_bytes_telemetry=1, reserve_bytes_billing=1),
    )
    alarms: list[tuple[str, dict[str, object]]] = []

    async def alarm(name: str, fields: dict[str, object]) -> None:
        alarms.append((name, fields))

    session = ModbusSession(
        device, 1, profile, tcp=False, clock=clock, ct=Decimal(ct), pt=Decimal(pt)
    )
    async with journal:
        reader = MeterReader(
            journal, lambda _meter: session, clock=clock, rules=RuleSet(), bases={}, alarm=alarm
        )
        yield Bench(journal, reader, device, clock, meter, alarms)


async def test_a_counter_that_reads_zero_is_held_and_never_the_base(tmp_path: Path) -> None:
    """A device that gives 0 for what it lacks just now must not count its life a second time."""
    async with bench(tmp_path) as made:
        first = await made.one(IMPORT, "9113.25")
        assert first.verdict is Verdict.OK
        zero = await made.one(IMPORT, "0")
        assert (zero.value, zero.verdict, zero.flags) == (Decimal(0), Verdict.HELD, ("backward",))
        assert [name for name, _ in made.alarms] == ["register_held"]
        assert streamed(made.journal.path) == 1
        back = await made.one(IMPORT, "9114.50")
        assert back.verdict is Verdict.OK
        assert (await made.journal.bases())["M-1", IMPORT].value == Decimal("9114.50")


async def test_no_value_is_a_null_reading_and_not_zero(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.device.set(IMPORT, Decimal("9113.25"))
        await made.read(IMPORT)
        made.device.set(IMPORT, None)
        made.clock.ahead_ms += HOUR_MS
        (taken,) = await made.read(IMPORT)
        assert taken.reading.status is Status.NULL
        assert taken.reading.value is None
        assert taken.reason == "no_value"
        assert (await made.one(IMPORT, "9114")).verdict is Verdict.OK


async def test_import_and_export_are_of_one_instant(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.device.set(IMPORT, Decimal("9113.25"))
        made.device.set(EXPORT, Decimal("0.25"))
        one, two = await made.read(IMPORT, EXPORT)
        assert (one.reading.value, two.reading.value) == (Decimal("9113.25"), Decimal("0.25"))
        assert one.reading.time_ms == two.reading.time_ms
        assert one.reading.exchange is two.reading.exchange


async def test_a_primary_device_gives_primary_values(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        reading = await made.one(IMPORT, "1250000.5")
        assert reading.verdict is Verdict.OK  # more digits than a DL/T 645 register has
        assert (reading.side, reading.multiplier) == (Side.PRIMARY, 1)


async def test_a_float_may_take_the_step_that_its_width_forces_on_it(tmp_path: Path) -> None:
    """At a million kWh a float32 moves by 0.0625 kWh at a time: 13.2 kW need 17 s for that."""
    async with bench(tmp_path) as made:
        await made.one(IMPORT, "1250000.5000")
        made.device.set(IMPORT, Decimal("1250000.625"))
        made.clock.ahead_ms += 10_000
        (taken,) = await made.read(IMPORT)
        assert taken.reading.verdict is Verdict.OK
        made.device.set(IMPORT, Decimal("1250001.5"))
        made.clock.ahead_ms += 10_000
        (taken,) = await made.read(IMPORT)
        assert taken.reading.flags == ("too_fast",)


async def test_secondary_counters_carry_the_multiplier_and_are_judged_with_it(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, ACREL, ct="40", pt="100") as made:
        made.meter = replace(made.meter, capacity_kw=Decimal(4000))
        first = await made.one(IMPORT, "100.00")
        assert (first.side, first.multiplier, first.value) == (Side.SECONDARY, 4000, 100)
        # 4000 kW x 1 h / 4000 = 1 kWh on the meter's own side
        assert (await made.one(IMPORT, "101.00")).verdict is Verdict.OK
        assert (await made.one(IMPORT, "102.50")).flags == ("too_fast",)


async def test_primary_voltage_of_a_secondary_device_is_judged_on_its_own_side(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, ACREL, ct="40", pt="100") as made:
        good = await made.one("voltage_a", "57.7")
        assert (good.value, good.verdict) == (Decimal(5770), Verdict.OK)
        assert (good.side, good.multiplier) == (Side.PRIMARY, 1)
        bad = await made.one("voltage_a", "1200.0")
        assert (bad.verdict, bad.flags) == (Verdict.SUSPECT, ("out_of_range",))


async def test_a_voltage_that_the_device_makes_primary_is_not_called_impossible(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        assert (await made.one("voltage_a", "10000")).verdict is Verdict.OK
        assert (await made.one("voltage_a", "2.5e30")).flags == ("out_of_range",)


ACC32 = {
    "id": "acc", "device": "a counter of 0.01 Wh", "kind": "meter", "function": 3,
    "registers": [
        {"point": IMPORT, "address": 0, "type": "uint32", "unit": "Wh", "scale": "0.01"},
    ],
}  # fmt: skip


async def test_a_counter_wraps_at_its_own_limit_and_says_so(tmp_path: Path) -> None:
    limit = "42949.67296"
    async with bench(tmp_path, profile_from(ACC32, name="acc")) as made:
        await made.one(IMPORT, "42949.60000")
        rolled = await made.one(IMPORT, "3.10000")
        assert (rolled.verdict, rolled.flags) == (Verdict.OK, ("rollover",))
        (told,) = made.events("rollover")
        assert (told["meter"], told["point"], told["limit"]) == ("M-1", IMPORT, limit)
        assert (told["before"], told["after"]) == ("42949.60000", "3.10000")
        # halfway down is no wrap
        assert (await made.one(IMPORT, "1.00000")).flags == ("backward",)


async def test_a_fall_to_near_nothing_of_a_float_is_never_a_wrap(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.one(IMPORT, "999999.9375")
        held = await made.one(IMPORT, "1")
        assert (held.verdict, held.flags) == (Verdict.HELD, ("backward",))
        assert made.events("rollover") == []


def test_busy_has_a_reason_of_its_own() -> None:
    assert failure_reason(Busy("busy", reasons=("busy",))) == "busy"
