"""Every profile is served as a device, and who plans by the profile reads the truth from it."""

from decimal import Decimal

import pytest

from headend.config.profiles import PACKAGED, profile_names
from protocols.errors import ErrorReply
from protocols.modbus.counting import counting_of
from protocols.modbus.decode import Value, decode
from protocols.modbus.line_cost import Line
from protocols.modbus.planner import plan
from protocols.modbus.plausible import BOUNDS, is_plausible
from protocols.modbus.ratio import Mismatch, Ok, ratio_check, ratio_points
from protocols.modbus.register import DeviceProfile
from protocols.modbus.sunspec import Walk, chain_of, sunspec_profile
from protocols.quantities import quantity
from simulators.energy import DAY_MS, Timeline
from simulators.inverter import make_inverter
from simulators.modbus_line import ModbusBus
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.modbus_sunspec import sunspec_device
from simulators.models import make_modbus_inverter, make_modbus_meter
from simulators.wire import WireLink
from tests.simulators.bench645 import Ear
from tests.simulators.bench_modbus import EXPORT, IMPORT, NOON_MS, UNIT, ModbusBench

PROFILES = profile_names(PACKAGED.parent)
HOUR_MS = 3_600_000
GRID_IMPORT, GRID_EXPORT = "grid_active_import_total", "grid_active_export_total"


def read_all(bench: ModbusBench, profile: DeviceProfile | None = None) -> dict[str, Value]:
    """Every point, by the plan of its profile, as a session reads them."""
    device = profile or bench.profile
    settings = bench.device.settings
    found: dict[str, Value] = {}
    for block in plan(device, device.registers.values(), line=Line.tcp()).blocks:
        words = bench.words(block.function, block.address, block.count)
        for one in block.registers:
            found[one.point] = decode(
                one, block.words_of(one, words), ct=settings.ct, pt=settings.pt, apply_ratio=True
            )
    return found


def check_counters(bench: ModbusBench, found: dict[str, Value]) -> int:
    """Every counter shows its truth cut to one step; how many there are."""
    truth = bench.device.truth(bench.now_ms)
    for point, one in truth.items():
        register = bench.profile.register(point)
        ratio = bench.device.settings.ct * bench.device.settings.pt if register.ratio else 1
        step = counting_of(register).step * ratio
        shown = found[point]
        assert isinstance(shown, Decimal)
        assert shown == one.shown
        assert one.exact - step < shown <= one.exact + step  # a float may be rounded up
    return len(truth)


@pytest.mark.parametrize("name", PROFILES)
def test_a_device_of_every_profile_is_read_by_its_plan(name):
    bench = ModbusBench(name)
    found = read_all(bench)
    assert set(found) == set(bench.profile.registers)
    assert check_counters(bench, found) >= 1
    for point in BOUNDS:
        value = found.get(point)
        if isinstance(value, Decimal):
            assert is_plausible(point, value), (point, value)
    bench.now_ms += 24 * HOUR_MS
    later = read_all(bench)
    check_counters(bench, later)
    billed = [one.point for one in bench.profile.registers.values() if one.bill]
    for point in billed:
        assert later[point] > found[point], point


@pytest.mark.parametrize("name", PROFILES)
def test_import_and_export_are_told_apart_by_every_meter(name):
    bench = ModbusBench(name)
    if bench.profile.kind == "inverter":
        return
    truth = bench.device.truth(bench.now_ms, [IMPORT, EXPORT])
    assert set(truth) == {IMPORT, EXPORT}
    assert truth[IMPORT].exact != truth[EXPORT].exact


@pytest.mark.parametrize("name", ["acrel_adl400", "chint_dtsu666", "chint_dtsu666_page40"])
def test_a_device_of_the_secondary_side_knows_its_transformers(name):
    bench = ModbusBench(name, ct=Decimal(40), pt=Decimal(10))
    found = read_all(bench)
    check_counters(bench, found)
    assert 800 < found["voltage_a"] < 3000
    points = ratio_points(bench.profile)
    assert points
    registers = {
        point: bench.words(3, bench.profile.register(point).address,
                           bench.profile.register(point).words)
        for point in points
    }  # fmt: skip
    assert ratio_check(bench.profile, registers, 40, 10) == Ok(points)
    assert isinstance(ratio_check(bench.profile, registers, 30, 10), Mismatch)


def test_what_a_device_says_of_itself_is_there_and_no_number():
    bench = ModbusBench("abb_b23_b24", seed=5)
    assert bench.read("serial_number") == 100_005
    assert read_all(ModbusBench("huawei_sun2000"))["serial_number"].startswith("SIM")


def test_a_balance_may_be_negative():
    bench = ModbusBench("abb_b23_b24")
    found = read_all(bench)
    net = found["active_net_total"]
    assert net == pytest.approx(found[IMPORT] - found[EXPORT], abs=Decimal("0.02"))


# -- an inverter and the meter behind it


def grid_bench(name: str) -> ModbusBench:
    """An inverter of a profile, with a meter at the grid connection that it reads itself."""
    bench = ModbusBench(name)
    common = {"timeline": Timeline(NOON_MS - 3 * DAY_MS), "clock": lambda: bench.now_ms}
    behind = make_modbus_meter("pv3", ModbusSettings(1), bench.profile, **common)
    bench.device = make_modbus_inverter(
        ModbusSettings(UNIT), bench.profile, grid=behind.source, **common
    )
    bench.link = WireLink(ModbusBus([bench.device]))
    bench.link.attach(bench.ear)
    return bench


@pytest.mark.parametrize("name", ["huawei_sun2000", "sungrow_sg"])
def test_the_meter_behind_an_inverter_counts_both_ways(name):
    bench = grid_bench(name)
    before = read_all(bench)
    bench.now_ms += 24 * HOUR_MS
    after = read_all(bench)
    for point in (GRID_IMPORT, GRID_EXPORT):
        assert after[point] > before[point] >= 0
    truth = bench.device.truth(bench.now_ms, [GRID_IMPORT, GRID_EXPORT])
    assert {point: after[point] for point in truth} == {p: one.shown for p, one in truth.items()}


def test_what_an_inverter_counts_the_other_way_is_turned_for_the_reader():
    bench = grid_bench("huawei_sun2000")
    true_kw = bench.device._values.exact("grid_active_power_total", bench.now_ms)
    assert bench.number("grid_active_power_total") == pytest.approx(true_kw, abs=Decimal("0.001"))
    raw = bench.words(3, 37113, 2)
    signed = int.from_bytes(b"".join(word.to_bytes(2) for word in raw), signed=True)
    assert (signed < 0) == (true_kw > 0)


# -- SunSpec


class SunSpecBench(ModbusBench):
    """A SunSpec device, found by walking its chain."""

    def __init__(self, models: tuple[int, ...] = (1, 103), **options) -> None:
        super().__init__("huawei_sun2000")
        common = {"timeline": Timeline(NOON_MS - 3 * DAY_MS)}
        meter = make_modbus_meter(
            "pv3", ModbusSettings(1), self.profile, clock=lambda: self.now_ms, **common
        ).source
        inverter = any(model // 10 in (10, 11) for model in models)
        source = make_inverter(**common) if inverter else meter
        self.device = sunspec_device(
            ModbusSettings(UNIT), source, clock=lambda: self.now_ms, models=models, grid=meter,
            truth_log=self.served.append, **options,
        )  # fmt: skip
        self.link = WireLink(ModbusBus([self.device]))
        self.ear = Ear()
        self.link.attach(self.ear)
        self.chain = self.walk()
        if self.chain.models[1:]:
            self.profile = sunspec_profile(self.chain)

    def walk(self):
        walk = Walk()
        while (ask := walk.ask) is not None:
            try:
                walk.take(self.words(ask.function, ask.address, ask.count))
            except ErrorReply as error:
                walk.refuse(error.error_byte)
        return walk.chain


@pytest.mark.parametrize("base", [50_000, 0])
def test_a_chain_is_found_wherever_a_device_has_it(base):
    bench = SunSpecBench(base=base, common_length=65)
    assert bench.chain.base == base
    assert [(one.id, one.address - base) for one in bench.chain.models] == [(1, 2), (103, 69)]


@pytest.mark.parametrize(
    "models",
    [(1, 101), (1, 103), (1, 113), (1, 103, 120), (1, 103, 203), (1, 201), (1, 203), (1, 213)],
)
def test_a_sunspec_device_is_found_and_read(models):
    bench = SunSpecBench(models)
    assert [one.id for one in bench.chain.models] == list(models)
    assert bench.chain.problem is None
    found = read_all(bench)
    assert found["manufacturer"] == "headend simulators"
    assert is_plausible("voltage_a", found["voltage_a"])
    assert is_plausible("frequency", found["frequency"])
    power = found["active_power_total"]
    assert power == pytest.approx(
        bench.device.source.exact("active_power_total", bench.now_ms), abs=Decimal("0.002")
    )
    billed = [one.point for one in bench.profile.registers.values() if one.bill]
    truth = bench.device.truth(bench.now_ms, billed)
    assert {p: found[p] for p in billed} == {p: one.shown for p, one in truth.items()}
    if 203 in models and 103 in models:
        assert found[GRID_EXPORT] > 0
        assert found[GRID_IMPORT] > 0


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("no_marker", "no_marker"), ("no_length", "no_length"), ("no_id", "no_id"),
        ("beyond_the_end", "beyond_the_end"), ("no_end", "refused"),
    ],
)  # fmt: skip
def test_a_broken_chain_of_a_device_is_named(broken, code):
    bench = SunSpecBench(broken=broken)
    assert bench.chain.problem.code == code
    assert len(bench.chain.models) == {"no_marker": 0, "no_end": 2}.get(broken, 1)


def test_a_scale_factor_that_moves_between_two_reads_moves_no_value():
    bench = SunSpecBench()
    before = read_all(bench)
    bench.fault("scale_moves:every=2")
    for _ in range(4):
        after = read_all(bench)
        for point in ("active_power_total", "voltage_a", "pv_yield_total"):
            assert after[point] == pytest.approx(before[point], rel=Decimal("0.01"))


def test_a_counter_with_a_scale_factor_begins_anew_at_its_own_end():
    """acc32 with factor -2 in Wh ends at 42.9 MWh."""
    bench = SunSpecBench(powers={"Wh": -2})
    register = bench.profile.register("pv_yield_total")
    assert register.scale_address is not None
    bench.fault("rollover:kwh=2")
    first = read_all(bench)["pv_yield_total"]
    assert first == pytest.approx(Decimal("42947.67"), abs=Decimal("0.01"))
    truth = bench.device.truth(bench.now_ms, ["pv_yield_total"])["pv_yield_total"].exact
    bench.now_ms += 2 * HOUR_MS
    later = read_all(bench)["pv_yield_total"]
    passed = bench.device.truth(bench.now_ms, ["pv_yield_total"])["pv_yield_total"].exact - truth
    assert passed > 2
    assert later < first
    limit = Decimal(2**32).scaleb(-5)
    assert later - first + limit == pytest.approx(passed, abs=Decimal("0.001"))


# -- faults


def test_a_counter_that_begins_anew_goes_on_from_there():
    bench = ModbusBench("acrel_adl400")
    bench.fault("rollover:kwh=1")
    first = bench.number(IMPORT)
    limit = counting_of(bench.profile.register(IMPORT)).limit
    assert first == limit - 1
    start = bench.device.truth(bench.now_ms, [IMPORT])[IMPORT].shown
    bench.now_ms += 12 * HOUR_MS
    passed = bench.device.truth(bench.now_ms, [IMPORT])[IMPORT].shown - start
    assert passed > 1
    assert bench.number(IMPORT) == first + passed - limit


def test_an_exchanged_device_counts_from_its_own_beginning_and_has_another_name():
    bench = ModbusBench("abb_b23_b24", seed=7)
    name = bench.read("serial_number")
    before = bench.number(IMPORT)
    bench.fault("exchange:kwh=3")
    assert before > 3
    assert bench.number(IMPORT) == 3
    assert bench.read("serial_number") != name
    start = bench.device.truth(bench.now_ms, [IMPORT])[IMPORT].shown
    bench.now_ms += 5 * HOUR_MS
    passed = bench.device.truth(bench.now_ms, [IMPORT])[IMPORT].shown - start
    assert bench.number(IMPORT) == 3 + passed


def test_all_zero_is_a_good_frame_that_says_nothing():
    bench = ModbusBench()
    bench.fault("all_zero:nth=2")
    assert bench.number(IMPORT) > 0
    assert set(bench.words(4, 0, 80)) == {0}
    assert bench.number(IMPORT) > 0


@pytest.mark.parametrize("name", ["eastron_sdm630", "abb_b23_b24", "huawei_sun2000", "sungrow_sg"])
def test_no_value_is_each_type_s_own_pattern(name):
    bench = ModbusBench(name)
    bench.fault("no_value")
    found = read_all(bench)
    numbers = {p: v for p, v in found.items() if not bench.profile.register(p).identifies}
    assert set(numbers.values()) == {None}


def test_an_inverter_sleeps_at_night_and_wakes_by_itself():
    bench = ModbusBench("huawei_sun2000")
    bench.fault("silent_at_night")
    assert bench.number("pv_yield_total") > 0
    bench.now_ms += 12 * HOUR_MS
    assert bench.ask("pv_yield_total")[1] == b""
    bench.now_ms += 12 * HOUR_MS
    assert bench.number("pv_yield_total") > 0


def test_a_meter_has_no_night():
    bench = ModbusBench()
    bench.fault("silent_at_night")
    bench.now_ms += 12 * HOUR_MS
    assert bench.number(IMPORT) > 0


def test_a_device_refuses_what_reaches_across_its_breaks():
    bench = ModbusBench("sungrow_sg_winet")
    assert len(bench.words(4, 5030, 9)) == 9
    with pytest.raises(ErrorReply) as caught:
        bench.words(4, 5030, 10)
    assert caught.value.reasons == ("illegal_data_address",)


def test_every_known_chain_has_a_device():
    for models in ((1, 112), (1, 202), (1, 212), (1, 214)):
        made = sunspec_profile(chain_of(models))
        device = sunspec_device(ModbusSettings(1), make_inverter(timeline=Timeline(0)),
                                clock=lambda: NOON_MS, models=models)  # fmt: skip
        assert isinstance(device, ModbusDevice)
        assert set(device.profile.registers) == set(made.registers)
        assert all(quantity(point) for point in made.registers)
