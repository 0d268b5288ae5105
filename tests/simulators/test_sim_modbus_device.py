"""Simulated Modbus devices: exact counters, maps as real devices keep them, refusals as theirs."""

from decimal import Decimal

import pytest

from protocols.errors import ErrorReply
from protocols.framing import FrameFound, Framer
from protocols.modbus.adu import build_rtu
from protocols.modbus.delimiter import ANY_RTU
from protocols.modbus.device import parse_request
from protocols.modbus.master import read_request
from simulators.meterbus import MeterBus
from simulators.modbus_line import Babbler, SharedLine
from simulators.modbus_meter import step_of
from simulators.wire import WireLink
from tests.simulators.bench645 import Bench, Ear
from tests.simulators.bench_modbus import EXPORT, IMPORT, UNIT, ModbusBench

CODE = {"illegal_function": 1, "illegal_data_address": 2, "illegal_data_value": 3}


def refusal(bench: ModbusBench, function: int, address: int, count: int) -> int:
    with pytest.raises(ErrorReply) as caught:
        bench.words(function, address, count)
    return CODE[caught.value.reasons[0]]


# -- what the registers say


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("eastron_sdm630", {}),
        ("acrel_adl400", {}),
        ("acrel_adl400", {"ct": Decimal(40), "pt": Decimal(100)}),
        ("acrel_adl400", {"ct": Decimal("7.5"), "pt": Decimal(2)}),
    ],
)
def test_counters_are_the_truth_cut_to_one_step_of_the_register(name, settings):
    bench = ModbusBench(name, **settings)
    ratio = bench.device.settings.ct * bench.device.settings.pt
    for minute in range(0, 1440, 97):
        bench.now_ms += minute * 60_000 + minute
        for point in (IMPORT, EXPORT):
            truth = bench.device.truth(bench.now_ms, [point])[point]
            assert bench.read(point) == truth.shown
            step = ratio * step_of(bench.profile.register(point))
            # float32 rounds to the nearest number it has, which is less than half a step away
            assert truth.exact - step < truth.shown <= truth.exact + step / 2
            if name == "acrel_adl400":
                assert truth.shown == truth.exact // step * step


def test_import_and_export_are_counted_apart():
    bench = ModbusBench()
    before = [bench.number(point) for point in (IMPORT, EXPORT)]
    bench.now_ms += 24 * 3_600_000
    after = [bench.number(point) for point in (IMPORT, EXPORT)]
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert bench.number("active_sum_total") == pytest.approx(sum(after), abs=Decimal("0.05"))


def test_the_sums_of_a_device_behind_transformers_are_those_of_the_site():
    bench = ModbusBench("acrel_adl400", ct=Decimal(40))
    register = bench.profile.register(IMPORT)
    high, low = bench.words(3, register.address, 2)
    assert bench.read(IMPORT) == Decimal(high << 16 | low) * Decimal("0.4")
    assert bench.read("ct_ratio") == 40
    watts = bench.number("active_power_total") * 1000
    assert watts % 40 == 0


def test_voltage_frequency_and_power_are_what_a_grid_has():
    for name in ("eastron_sdm630", "acrel_adl400", "sungrow_sg"):
        bench = ModbusBench(name)
        assert 200 < bench.number("voltage_a") < 260
        assert 49 < bench.number("frequency") < 51
        assert abs(bench.number("active_power_total")) < 40


def test_all_registers_of_one_request_share_one_instant():
    bench = ModbusBench()
    words = bench.words(4, 0x48, 4)
    bench.now_ms += 3_600_000
    later = bench.words(4, 0x48, 4)
    assert words[:2] != later[:2] or words[2:] != later[2:]
    assert bench.served[-1].points == (IMPORT, EXPORT)


def test_an_inverter_yields_by_day_and_rests_at_night():
    bench = ModbusBench("sungrow_sg")
    total, power = bench.number("pv_yield_total"), bench.number("active_power_total")
    assert power > 1
    assert bench.number("dc_power") > power
    assert bench.number("dc_voltage_1") > 500
    day = bench.number("pv_yield_day")
    bench.now_ms += 4 * 3_600_000
    assert bench.number("pv_yield_day") - day > 4
    assert bench.number("pv_yield_total") - total > 4
    bench.now_ms += 8 * 3_600_000  # midnight
    assert bench.number("active_power_total") == 0
    assert bench.number("pv_yield_day") < day
    truth = bench.device.truth(bench.now_ms)
    assert set(truth) == {"pv_yield_total"}
    assert (
        bench.read("pv_yield_total")
        == truth["pv_yield_total"].shown
        == truth["pv_yield_total"].exact.to_integral_value("ROUND_FLOOR")
    )


def test_low_words_come_first_where_the_map_says_so():
    bench = ModbusBench("sungrow_sg")
    low, high = bench.words(4, 5003, 2)
    assert bench.read("pv_yield_total") == high << 16 | low


def test_what_an_inverter_does_not_have_is_all_ones_and_reads_as_no_value():
    bench = ModbusBench("sungrow_sg")
    assert set(bench.words(4, 5036, 2)) == {0xFFFF}
    for point in ("status", "device_type", "grid_active_power_total", "grid_active_import_total"):
        assert bench.read(point) is None
    assert bench.read("serial_number").startswith("SIM")


# -- maps and refusals


def test_undefined_registers_read_as_zero_where_the_device_does_so():
    bench = ModbusBench()
    assert bench.words(4, 0x24, 2) == (0, 0)
    assert len(bench.words(4, 0, 80)) == 80


def test_undefined_registers_refuse_their_block_where_the_device_does_so():
    bench = ModbusBench("acrel_adl400")
    assert refusal(bench, 3, 0x0A, 13) == 2
    assert len(bench.words(3, 0x0A, 12)) == 12
    assert refusal(bench, 3, 0x200, 1) == 2


def test_refusals_are_those_of_real_devices():
    sdm, acrel = ModbusBench(), ModbusBench("acrel_adl400")
    assert refusal(sdm, 3, 0x48, 2) == 1
    assert refusal(acrel, 4, 0x0A, 2) == 1
    assert refusal(sdm, 4, 0, 82) == 3  # more than it gives at once
    assert refusal(acrel, 3, 0, 61) == 3
    assert refusal(sdm, 4, 0x48, 3) == 3  # odd count
    assert refusal(sdm, 4, 0x49, 2) == 2  # odd start
    assert refusal(sdm, 4, 40_000, 2) == 2


@pytest.mark.parametrize("count", [0, 126, 0xFFFF])
def test_a_count_that_none_may_ask_is_refused(count):
    bench = ModbusBench()
    pdu = b"\x04\x00\x48" + count.to_bytes(2)
    assert bench.send(build_rtu(UNIT, pdu)) == build_rtu(UNIT, b"\x84\x03")


@pytest.mark.parametrize("pdu", [b"\x06\x00\x00\x00\x01", b"\x01\x00\x00\x00\x08", b"\x11"])
def test_a_function_it_does_not_have_is_refused(pdu):
    bench = ModbusBench()
    assert bench.send(build_rtu(UNIT, pdu)) == build_rtu(UNIT, bytes((pdu[0] | 0x80, 1)))


def test_a_device_is_silent_to_what_is_not_for_it():
    bench = ModbusBench()
    other = read_request(UNIT + 1, 4, 0x48, 2).raw
    assert bench.send(other) == b""
    mine = read_request(UNIT, 4, 0x48, 2).raw
    assert bench.send(mine[:-1] + bytes((mine[-1] ^ 1,))) == b""
    assert bench.send(build_rtu(0, mine[1:-2])) == b""  # a broadcast
    assert bench.send(build_rtu(UNIT + 1, b"\x06\x00\x00\x00\x01")) == b""


def test_devices_come_and_go_on_a_running_line():
    bench = ModbusBench()
    bench.bus.remove(bench.device)
    assert bench.ask()[1] == b""
    bench.bus.add(bench.device)
    assert bench.read(IMPORT) > 0
    assert list(bench.bus) == [bench.device]


# -- one pair of wires


def frames(raw: bytes) -> list[bytes]:
    framer = Framer(ANY_RTU)
    return [e.raw for e in (*framer.feed(raw), *framer.idle()) if isinstance(e, FrameFound)]


def test_two_protocols_share_one_pair_and_each_device_answers_its_own():
    modbus, meter = ModbusBench(), Bench("pv")
    line = WireLink(SharedLine(MeterBus([meter.meter]), modbus.bus), overhear=True)
    ear = Ear()
    line.attach(ear)
    for _ in range(3):
        meter.link = modbus.link = line
        meter.ear = modbus.ear = ear
        assert modbus.read(IMPORT) == modbus.device.truth(modbus.now_ms)[IMPORT].shown
        (energy,) = meter.read("00010000")
        assert energy == meter.meter.truth(meter.now_ms, [IMPORT])[IMPORT].shown
        assert meter.ask("00010000", "000000000009") == b""
    assert line.line.collisions == 0


def test_stations_hear_each_other_on_one_pair():
    """And take nobody else's answer for a question."""
    modbus, meter = ModbusBench(), Bench()
    heard: list[bytes] = []

    class Ears:
        def receive(self, data, bad):
            heard.append(data)
            return []

        def idle(self):
            pass

    line = WireLink(SharedLine(MeterBus([meter.meter]), modbus.bus, Ears()), overhear=True)
    line.attach(Ear())
    request = read_request(UNIT, 4, 0x48, 2).raw
    line.write(request)
    assert heard[0] == request
    assert parse_request(heard[1], tcp=False) is None
    assert len(heard) == 2


def test_a_babbler_speaks_now_and_then_whoever_is_asked():
    bench = ModbusBench()
    babbler = Babbler(probability=0.5, seed=3)
    line = WireLink(SharedLine(bench.bus, babbler))
    ear = Ear()
    line.attach(ear)
    for _ in range(100):
        line.write(read_request(9, 4, 0, 2).raw)
    assert 30 < babbler.spoken < 70
    assert frames(ear.take()) == []
