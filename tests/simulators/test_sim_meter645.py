"""A simulated meter answers as a meter does, and is silent as a meter is."""

import datetime as dt
from decimal import Decimal

import pytest

from protocols.dlt645.catalogue import live_points, lookup
from protocols.dlt645.formats import MeterTime
from protocols.errors import ErrorReply
from simulators.energy import DAY_MS
from simulators.meter645 import Freeze, MeterClock, meter_time
from simulators.meterbus import MeterBus
from simulators.models import KINDS
from tests.simulators.bench645 import ADDRESS, NOW_MS, Bench, Ear, build, parse

SILENCE = b""


def test_a_read_is_answered_byte_for_byte():
    bench = Bench()
    request = bytes.fromhex("68 610100000000 68 11 04 33333433 14 16")
    shown = bench.meter.truth(NOW_MS)["active_import_total"].shown
    digits = f"{int(shown * 100):08d}"
    payload = bytes((int(digits[i : i + 2], 16) + 0x33) & 0xFF for i in (6, 4, 2, 0))
    body = bytes.fromhex("68 610100000000 68 91 08 33333433") + payload
    assert bench.send(request) == body + bytes((sum(body) & 0xFF, 0x16))


@pytest.mark.parametrize("wakeup", [0, 1, 2, 4])
def test_wake_up_bytes_stand_before_a_reply(wakeup):
    raw = Bench(wakeup=wakeup).ask("00010000")
    assert raw.startswith(b"\xfe" * wakeup + b"\x68")


def test_wake_up_bytes_and_dirt_before_a_request_do_no_harm():
    bench = Bench()
    request = build(ADDRESS, 0x11, bytes.fromhex("00000100"))
    assert bench.send(b"\xfe" * 4 + request) == bench.send(b"\x00\x68\x11" + request) != SILENCE


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("000000000161", True),
        ("AAAAAAAAAAAA", True),
        ("AAAAAAAA0161", True),
        ("AAAAAAAAAA61", True),
        ("AAAAAAAAAA62", False),
        ("000000000162", False),
        ("999999999999", False),
        ("0000000001AA", False),
    ],
)
def test_addresses_match_as_the_rules_say(asked, answered):
    raw = Bench().ask("00010000", asked)
    assert bool(raw) is answered
    if raw:
        assert parse(raw).address == ADDRESS  # its own, whatever wildcard was asked


def test_who_is_there_is_answered_with_the_address_twice():
    frame = parse(Bench().send(build("AAAAAAAAAAAA", 0x13)))
    assert (frame.address, frame.control) == (ADDRESS, 0x93)
    assert frame.data == bytes.fromhex("610100000000")


@pytest.mark.parametrize(
    "frame",
    [
        build(ADDRESS, 0x91, bytes.fromhex("00000100")),  # from a meter
        build(ADDRESS, 0x01, bytes.fromhex("1090")),  # the 1997 edition
        build(ADDRESS, 0x11, bytes(3)),  # no identifier
        build(ADDRESS, 0x11, bytes.fromhex("00000100"))[:-2] + b"\x00\x16",  # wrong checksum
        build(ADDRESS, 0x11, bytes.fromhex("00000100"))[:-1] + b"\x17",  # wrong end
    ],
)
def test_what_is_no_read_for_this_meter_gets_silence(frame):
    bench = Bench()
    assert bench.send(frame) == SILENCE
    assert bench.ask("00010000") != SILENCE


def test_a_request_with_a_parity_error_is_not_heard():
    bench = Bench()
    request = build(ADDRESS, 0x11, bytes.fromhex("00000100"))
    assert bench.bus.receive(request, [5]) == []
    assert len(bench.bus.receive(request, [])) == 1


def test_a_request_in_pieces_is_heard_and_one_cut_off_is_forgotten_when_the_line_is_quiet():
    bench = Bench()
    request = build(ADDRESS, 0x11, bytes.fromhex("00000100"))
    assert bench.bus.receive(request[:9], []) == []
    assert len(bench.bus.receive(request[9:], [])) == 1
    bench.bus.receive(request[:9], [])
    bench.bus.idle()
    assert bench.bus.receive(request[9:], []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_live_point_a_meter_has_is_read_and_equals_its_truth(kind):
    bench = Bench(kind)
    truth = bench.meter.truth(NOW_MS)
    phases = bench.meter.measured.model.supply.phases
    for point, di in live_points().items():
        tariff = point.rpartition("_t")[2]
        absent = (tariff.isdigit() and int(tariff) > 4) or (
            phases == 1 and point.endswith(("_b", "_c"))
        )
        if absent:
            with pytest.raises(ErrorReply, match="no_data"):
                bench.read(di)
            continue
        value, *time = bench.read(di)
        assert value is not None, point
        assert len(time) == point.startswith("demand")
        if point in truth:
            assert value == truth[point].shown, point


def test_refusals_name_no_data_on_the_wire():
    raw = Bench().ask("02010200")  # phase b of a single-phase meter
    assert raw[8] == 0xD1
    assert raw[9:11] == b"\x01\x35"


def test_measured_values_fit_each_other():
    bench = Bench("three")
    total, a, b, c = bench.read("0203FF00")
    assert abs(total - (a + b + c)) <= Decimal("0.0003")
    (volts,), (amps,), (factor,) = (bench.read(di) for di in ("02010100", "02020100", "02060100"))
    assert abs(volts * amps * factor / 1000 - a) < Decimal("0.01")
    assert 200 < volts < 240
    assert bench.read("02800002")[0] in {Decimal(n) / 100 for n in range(4997, 5004)}


def test_export_has_a_sign_in_power_current_and_factor():
    bench = Bench("pv3")
    bench.now_ms = noon = NOW_MS + 6 * 3_600_000
    net = bench.meter.measured.model.net_quanta(noon)
    assert sum(net) < 0
    assert bench.read("02030000")[0] < 0
    assert bench.read("02060000")[0] < 0
    assert bench.read("02020100")[0] < 0


def test_blocks_hold_total_then_tariffs_and_gaps_for_phases_that_are_not_there():
    bench = Bench("pv")
    truth = bench.meter.truth(NOW_MS)
    names = ["total", "t1", "t2", "t3", "t4"]
    assert bench.read("0001FF00") == tuple(truth[f"active_import_{n}"].shown for n in names)
    assert bench.read("0002FF00") == tuple(truth[f"active_export_{n}"].shown for n in names)
    volts = bench.read("0201FF00")
    assert volts[0] is not None
    assert volts[1:] == (None, None)


def test_registers_move_with_time_and_stand_when_switched_off():
    bench = Bench()
    before = bench.read("00010000")
    bench.now_ms += 3_600_000
    moved = bench.read("00010000")
    assert moved > before
    bench.meter.measured.model.timeline.switch_off(bench.now_ms)
    bench.now_ms += DAY_MS
    assert bench.read("00010000") == moved
    assert bench.read("02030000") == (Decimal("0.0000"),)


# --- the meter's own clock ---------------------------------------------------------------------


def test_the_clock_is_read_in_its_three_forms():
    bench = Bench()
    assert bench.read("04000101") == (dt.date(2023, 11, 15),)
    assert bench.read("04000102") == (dt.time(6, 13, 20),)
    assert bench.read("0400010C") == (MeterTime(dt.date(2023, 11, 15), dt.time(6, 13, 20)),)


def test_a_drifting_clock_goes_wrong_and_can_be_set():
    bench = Bench()
    bench.meter.meter_clock = MeterClock(drift_ppm=100, set_at_ms=NOW_MS)
    bench.now_ms += 10_000_000  # 10,000 s x 100 ppm = 1 s
    assert bench.read("04000102") == (dt.time(9, 0, 1),)
    bench.meter.set_clock(bench.now_ms + 480 * 60_000)
    assert bench.read("04000102") == (dt.time(9, 0, 0),)


@pytest.mark.parametrize("ppm", [-300, -1, 0, 1, 50, 700])
def test_the_wall_time_of_a_clock_reading_is_its_first_millisecond(ppm):
    clock = MeterClock(drift_ppm=ppm, error_ms=-1234, set_at_ms=NOW_MS)
    for local in (NOW_MS, NOW_MS + 40 * DAY_MS + 7, NOW_MS - 5 * DAY_MS):
        wall = clock.wall_ms(local)
        assert clock.local_ms(wall) >= local > clock.local_ms(wall - 1)


# --- daily freezes ------------------------------------------------------------------------------


def test_daily_freezes_are_taken_at_local_midnight_and_hold_its_registers():
    bench = Bench("pv")
    midnight_ms = NOW_MS - (6 * 3600 + 13 * 60 + 20) * 1000
    assert bench.read("05060001") == (MeterTime(dt.date(2023, 11, 15), dt.time()),)
    assert bench.read("05060002") == (MeterTime(dt.date(2023, 11, 14), dt.time()),)
    for nth, at_ms in ((1, midnight_ms), (2, midnight_ms - DAY_MS)):
        truth = bench.meter.truth(at_ms)
        for which, quantity in (("01", "import"), ("02", "export")):
            assert bench.read(f"0506{which}{nth:02X}") == tuple(
                truth[f"active_{quantity}_{n}"].shown for n in ("total", "t1", "t2", "t3", "t4")
            )


def test_numbering_shifts_when_a_new_midnight_passes():
    bench = Bench()
    newest = bench.read("05060101")
    bench.now_ms += DAY_MS
    assert bench.read("05060102") == newest
    assert bench.read("05060101") > newest


def test_freezes_follow_the_meters_own_clock():
    bench = Bench()
    bench.meter.meter_clock = MeterClock(error_ms=-60_000)  # a minute behind
    freeze = bench.meter.freezes()[0]
    assert freeze.time == MeterTime(dt.date(2023, 11, 15), dt.time())
    assert freeze.at_ms == NOW_MS - (6 * 3600 + 13 * 60 + 20) * 1000 + 60_000


def test_setting_the_clock_keeps_the_records_that_were_taken():
    bench = Bench()
    before = bench.meter.freezes()
    bench.meter.set_clock(bench.now_ms + 480 * 60_000 - 12 * 3_600_000)
    assert bench.meter.freezes() == before


def test_an_empty_slot_is_refused_or_all_ff_as_set():
    with pytest.raises(ErrorReply):
        Bench().read("0506013E")
    bench = Bench(empty_freeze="ff")
    assert bench.read("0506003E") == (None,)
    assert bench.read("0506013E") == (None,) * 5


def test_at_most_62_daily_records_are_kept():
    bench = Bench()
    bench.now_ms += 100 * DAY_MS
    assert len(bench.meter.freezes()) == 62
    assert bench.read("0506003E") is not None


def test_freezes_can_be_set_for_a_test():
    bench = Bench()
    stamp = MeterTime(dt.date(2023, 11, 1), dt.time())
    values = {"active_import_total": Decimal("77.77")}
    bench.meter.set_freezes([Freeze(stamp, NOW_MS, values)])
    assert bench.read("05060001") == (stamp,)
    assert bench.read("05060101")[0] == Decimal("77.77")
    bench.now_ms += DAY_MS
    assert bench.read("05060002") == (stamp,)


def test_times_before_1970_and_seconds_are_cut_not_rounded():
    assert meter_time(-1) == MeterTime(dt.date(1969, 12, 31), dt.time(23, 59, 59))


# --- several on one line, and the log ------------------------------------------------------------


def test_each_meter_on_a_bus_answers_for_itself():
    one, other = Bench(), Bench("three", "000000000777")
    bus = MeterBus([one.meter, other.meter])
    for meter in bus:
        (sent,) = bus.receive(build(meter.address, 0x11, bytes.fromhex("00000100")), [])
        assert parse(sent.data).address == meter.address
    bus.remove(other.meter)
    assert bus.receive(build("000000000777", 0x11, bytes.fromhex("00000100")), []) == []


def test_two_meters_asked_by_wildcard_garble_each_other():
    one, other = Bench(), Bench("three", "000000000777")
    ear = Ear()
    one.bus.add(other.meter)
    one.link.attach(ear)
    one.link.write(build("AAAAAAAAAAAA", 0x13))
    assert one.link.line.collisions == 1
    assert len(ear.heard) == 2
    assert all(bad for _, bad in ear.heard)


def test_every_value_served_is_logged_with_the_bytes_that_leave():
    bench = Bench()
    raw = bench.ask("00010000")
    (served,) = bench.served
    assert served.meter == ADDRESS
    assert served.di == "00010000"
    assert served.points == ("active_import_total",)
    assert served.values == served.true_values
    assert served.values == (str(bench.meter.truth(NOW_MS)["active_import_total"].shown),)
    assert (served.at_ms, served.raw, served.faults) == (NOW_MS, (raw.hex().upper(),), ())


def test_refusals_are_not_logged_as_values():
    bench = Bench()
    bench.ask("02010200")
    assert bench.served == []


def test_unknown_identifiers_are_refused():
    bench = Bench()
    assert lookup("7F7F7F7F") is None
    assert bench.ask("7F7F7F7F")[8] == 0xD1
