"""What a simulated meter says beside its registers: demands, status, texts, events, and quirks."""

import datetime as dt
from decimal import Decimal
from itertools import pairwise

import pytest

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.fields import OperatorCode
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import WAKE_UP
from protocols.dlt645.master import Assembly, read_request
from protocols.dlt645.profile import profile_from
from protocols.dlt645.status import signed_by_status
from protocols.errors import ErrorReply
from simulators.energy import DAY_MS
from simulators.measured import Measured
from simulators.meter645 import Event, Gap, KeptSettings
from tests.simulators.bench645 import ADDRESS, NOW_MS, Bench, SharedBench, build, command, parse

MIDNIGHT_MS = NOW_MS - (6 * 3600 + 13 * 60 + 20) * 1000
QUARTER_MS = 900_000
NOON_MS = NOW_MS + 6 * 3_600_000  # panels give


def stamp(hour: int, minute: int, second: int = 0, day: int = 15) -> MeterTime:
    return MeterTime(dt.date(2023, 11, day), dt.time(hour, minute, second))


def whole(bench: Bench, di: str) -> tuple:
    """The values of an item, from as many frames as it takes."""
    assembly = Assembly(read_request(ADDRESS, di))
    while True:
        payload = assembly.take(bench.send(assembly.request.raw).lstrip(WAKE_UP))
        if payload is not None:
            found = lookup(di)
            assert found.layout is not None
            return found.layout.decode(payload)


# --- demands --------------------------------------------------------------------------------------


def means(measured: Measured, register: str, first_ms: int, last_ms: int) -> list[Decimal]:
    """The mean power of each quarter of an hour, from the registers alone."""
    ends = range(first_ms, last_ms + 1, QUARTER_MS)
    exact = [measured.register(register, at_ms).exact for at_ms in ends]
    return [(b - a) * 4 for a, b in pairwise(exact)]


def test_a_demand_is_the_greatest_mean_of_its_periods_with_the_time_it_ended():
    bench = SharedBench("three")
    bench.now_ms = MIDNIGHT_MS + 20 * 3_600_000
    value, time = bench.read("01010000")
    origin = bench.meter.measured.model.timeline.origin_ms
    first = -(-origin // QUARTER_MS) * QUARTER_MS
    of_periods = means(bench.meter.measured, "active_import_total", first, bench.now_ms)
    assert abs(value - max(of_periods)) < Decimal("0.0001")
    ended_ms = first + (of_periods.index(max(of_periods)) + 1) * QUARTER_MS
    assert time.at(dt.timezone(dt.timedelta(hours=8))).timestamp() * 1000 == ended_ms


def test_a_demand_block_holds_each_tariffs_value_with_its_time():
    block = whole(SharedBench("three"), "0101FF00")
    assert len(block) == 10
    assert block[0] == max(value for value in block[::2] if value is not None)
    assert all(isinstance(time, MeterTime) for time in block[1::2])


def test_a_demand_begins_anew_at_the_settlement_and_the_last_month_keeps_its_own():
    bench = SharedBench("three", kept=KeptSettings(settlement=(14, 0)))
    settled_ms = MIDNIGHT_MS - DAY_MS
    origin = bench.meter.measured.model.timeline.origin_ms
    first = -(-origin // QUARTER_MS) * QUARTER_MS
    for di, span in (("01010001", (first, settled_ms)), ("01010000", (settled_ms, NOW_MS))):
        greatest = max(means(bench.meter.measured, "active_import_total", *span))
        assert abs(bench.read(di)[0] - greatest) < Decimal("0.0001")
    frozen = bench.read("05060901")
    assert frozen[0] <= bench.read("01010000")[0]


def test_the_present_demand_is_the_mean_of_the_period_before_export_negative():
    bench = SharedBench("pv3")
    bench.now_ms = NOON_MS
    end_ms = NOON_MS // QUARTER_MS * QUARTER_MS
    (given,) = means(bench.meter.measured, "active_export_total", end_ms - QUARTER_MS, end_ms)
    (taken,) = means(bench.meter.measured, "active_import_total", end_ms - QUARTER_MS, end_ms)
    (value,) = bench.read("02800004")
    assert value < 0
    assert abs(value - (taken - given)) < Decimal("0.0002")


# --- status words, texts, parameters --------------------------------------------------------------


def test_status_words_tell_the_directions_that_the_powers_have():
    bench = SharedBench("pv3")
    for at_ms in (NOON_MS, NOW_MS):
        bench.now_ms = at_ms
        powers = bench.read("0203FF00")
        first, second = (int(bench.read(f"0400050{n}")[0], 16) for n in (1, 2))
        assert bool(first >> 4 & 1) is (powers[0] < 0)
        assert [bool(second >> n & 1) for n in range(3)] == [p < 0 for p in powers[1:]]
        block = bench.read("040005FF")
        assert block[:2] == (f"{first:04X}", f"{second:04X}")
    assert first >> 1 & 1  # demands of whole intervals


def test_texts_and_numbers_say_what_meter_it_is():
    bench = SharedBench("three")
    assert bench.read("04000401") == bench.read("04000402") == (ADDRESS,)
    assert bench.read("0400040D") == ("DL/T645-2007",)
    assert bench.read("0400040B") == ("DTZY-SIM",)
    assert bench.read("04800001") == ("headend simulated meter",)
    assert bench.read("04000204") == (Decimal(4),)
    assert bench.read("04000601") == ("05",)
    assert bench.read("04010001")[:2] == ("00:00 04", "07:00 03")
    assert bench.read("04000B01") == ("01 00",)


def test_passwords_and_what_a_meter_has_not_are_refused():
    for di in ("04000C05", "020A0101", "00900200", "0506FF01", "10000101", "00FE0001"):
        with pytest.raises(ErrorReply, match="no_data"):
            SharedBench().read(di)


# --- events ---------------------------------------------------------------------------------------


def test_an_event_of_a_phase_is_recorded_with_the_truth_of_its_instants():
    lost = Event("loss_of_voltage", NOW_MS - 7_200_000, NOW_MS - 3_600_000, phase=1)
    bench = SharedBench("three", events=(lost,))
    assert bench.read("03010000") == tuple(Decimal(n) for n in (1, 60, 0, 0, 0, 0))
    record = whole(bench, "03010101")
    assert record[:2] == (stamp(4, 13, 20), stamp(5, 13, 20))
    names = [one.name_en for one in lookup("03010101").layout.fields]
    value = dict(zip(names, record, strict=True))
    before, after = (
        bench.meter.truth(at_ms)["active_import_total"].shown
        for at_ms in (lost.from_ms, lost.until_ms)
    )
    assert value["increment of active import total"] == after - before
    volts = bench.meter.measured.value("voltage_a", lost.from_ms)
    assert value["voltage of phase A at the start"] == volts
    assert value["ampere hours total"] is None
    with pytest.raises(ErrorReply):
        bench.read("03010102")
    with pytest.raises(ErrorReply):
        bench.read("03010201")


def test_an_event_that_lasts_has_no_end_and_stands_in_the_status_word():
    bench = SharedBench("three", events=(Event("overcurrent", NOW_MS - 60_000, phase=2),))
    assert int(bench.read("04000505")[0], 16) >> 4 & 1
    start, end = whole(bench, "030C0201")[:2]
    assert (start, end) == (stamp(6, 12, 20), None)
    bench.now_ms -= 120_000
    assert bench.read("040005FF")[4] == "0000"
    assert bench.read("030C0000")[2] == Decimal(0)


def test_a_long_record_goes_on_in_follow_up_frames():
    bench = SharedBench("three", events=(Event("undervoltage", NOW_MS - 60_000, phase=3),))
    assert parse(bench.ask("03020301")).control == 0x91  # 131 bytes
    bench = SharedBench("three", frame_data_max=100, events=bench.meter.settings.events)
    assert parse(bench.ask("03020301")).control == 0xB1
    assert len(whole(bench, "03020301")) == 37


def test_a_cover_opened_keeps_the_registers_before_and_behind():
    opened = Event("meter_cover_open", NOW_MS - 600_000, NOW_MS - 300_000)
    bench = SharedBench("pv", events=(opened,))
    assert bench.read("03300D00") == (Decimal(1),)
    record = whole(bench, "03300D01")
    before, after = (
        bench.meter.truth(at_ms)["active_import_total"].shown
        for at_ms in (opened.from_ms, opened.until_ms)
    )
    assert (record[2], record[8]) == (before, after)


def test_a_span_without_power_is_a_record_of_the_meter():
    gap = Gap(NOW_MS - 7_200_000, NOW_MS - 3_600_000)
    bench = SharedBench(kept=KeptSettings(gaps=(gap,)))
    assert bench.read("03110000") == (Decimal(1),)
    assert bench.read("03110001") == (stamp(4, 13, 20), stamp(5, 13, 20))


def test_events_are_cleared_and_that_they_were_stays():
    events = (Event("power_down", NOW_MS - 2000, NOW_MS - 1000), Event("overload", NOW_MS, phase=1))
    bench = SharedBench(events=events)
    asked = bytes.fromhex("04000000 78563412 FF001103")
    assert parse(bench.send(command(ADDRESS, 0x1B, asked))).control == 0x9B
    assert bench.read("03110000") == (Decimal(0),)
    assert bench.read("030F0000")[0] == Decimal(1)
    assert bench.read("03300301")[1:] == (OperatorCode("12345678"), "031100FF")


@pytest.mark.parametrize(
    "what", [{"kind": "no_such"}, {"kind": "overload"}, {"kind": "power_down", "phase": 1}]
)
def test_an_event_that_no_meter_records_is_refused(what):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        Event(from_ms=0, **what)


# --- makes and models -----------------------------------------------------------------------------


def test_a_meter_without_signs_tells_directions_in_its_status_words_alone():
    bench, signed = SharedBench("pv3", absolute=True), SharedBench("pv3")
    bench.now_ms = signed.now_ms = NOON_MS
    words = {di: bench.read(di)[0] for di in ("04000501", "04000502")}
    for di, point in (("02030000", "active_power_total"), ("02020100", "current_a")):
        (bare,), (full,) = bench.read(di), signed.read(di)
        assert bare == abs(full) > 0 > full
        assert signed_by_status(point, bare, words) == full
    assert bench.read("05061001") == tuple(abs(v) for v in signed.read("05061001"))
    assert bench.read("00000000") == signed.read("00000000")  # registers keep theirs


def test_a_profile_gives_items_their_width_and_says_what_is_refused():
    profile = profile_from(
        {
            "id": "wide",
            "device": "a test's",
            "protocol": "dlt645-2007",
            "data_max": 40,
            "refuses": ["0201FF00"],
            "signs": "status_words",
            "load_records": {"separators": "no_leading", "all_di": "060000FF"},
            "items": [{"di": "0203FF00", "format": "XXXX.XXXX", "signed": False}],
        },
        name="wide.yaml",
    )
    bench, plain = SharedBench("three", profile=profile), SharedBench("three")
    payload = parse(bench.ask("0203FF00")).data[4:]
    assert len(payload) == 16
    assert profile.item("0203FF00").layout.decode(payload) == plain.read("0203FF00")
    with pytest.raises(ErrorReply, match="no_data"):
        bench.read("0201FF00")
    assert parse(bench.ask("0101FF00")).control == 0xB1
    assert bench.meter.kept.load.settings.shape.separators == "no_leading"
    assert bench.meter.kept.load.settings.regional


@pytest.mark.parametrize(("empty", "fill"), [("ff", 0xFF), ("zero", 0)])
def test_an_empty_slot_of_the_past_is_filled_as_the_make_does(empty, fill):
    bench = SharedBench(empty_freeze=empty)
    for di, size in (("0506013E", 20), ("05060009", 5), ("03010101", 131), ("03300001", 50)):
        assert parse(bench.ask(di)).data[4:] == bytes((fill,)) * size
    with pytest.raises(ErrorReply):
        bench.read("02010200")  # not of the past: a phase it has not


def test_a_make_that_repeats_the_wildcard_stays_unknown():
    bench = SharedBench(header="asked")
    frame = parse(bench.ask("00010000", "AAAAAAAAAAAA"))
    assert frame.address == "AAAAAAAAAAAA"
    assert parse(bench.ask("00010000")).address == ADDRESS


def test_a_total_now_and_at_the_settlements_comes_in_one_block():
    bench = SharedBench("pv", kept=KeptSettings(settlement=(14, 0)))
    now, settled = whole(bench, "000100FF")
    assert (now,) == bench.read("00010000")
    assert (settled,) == bench.read("00010001")
    assert now > settled


# --- the 1997 edition -----------------------------------------------------------------------------


def old(kind="single", **settings) -> Bench:
    return SharedBench(kind, edition="dlt645-1997", **settings)


def test_a_1997_meter_says_the_same_truth_by_its_own_identifiers():
    bench = old("three")
    assert parse(bench.ask("9010")).control == 0x81
    truth = bench.meter.truth(NOW_MS)
    names = ("total", "t1", "t2", "t3", "t4")
    assert bench.read("901F") == tuple(truth[f"active_import_{n}"].shown for n in names)
    assert bench.read("9140") == (truth["reactive_q4"].shown,)
    assert bench.read("9150") == (truth["reactive_q2"].shown,)
    measured = bench.meter.measured
    (volts,), (amps,) = bench.read("B611"), bench.read("B622")
    assert volts == int(measured.value("voltage_a", NOW_MS))
    assert 0 <= measured.value("current_b", NOW_MS) - amps < Decimal("0.01")
    assert bench.read("B630") == (measured.value("active_power_total", NOW_MS),)
    assert bench.read("C010") == (dt.date(2023, 11, 15),)
    assert bench.read("C032") == (ADDRESS,)
    assert bench.read("C332") == ("07:00 03",)


def test_a_1997_meter_says_a_demand_and_its_time_apart():
    bench, new = old("three"), SharedBench("three")
    value, time = new.read("01010000")
    assert bench.read("A010") == (value,)
    assert bench.read("B010") == (f"{time.date:%m-%d} {time.time:%H:%M}",)


def test_a_1997_meter_keeps_its_settlements():
    kept = KeptSettings(settlement=(14, 0))
    bench, new = old(kept=kept), SharedBench(kept=kept)
    assert bench.read("9410") == new.read("00010001")
    assert bench.read("A410") == new.read("01010001")[:1]
    with pytest.raises(ErrorReply):
        bench.read("9810")


@pytest.mark.parametrize(
    ("control", "data", "address"),
    [
        (0x11, "00000100", ADDRESS),
        (0x13, "", "AAAAAAAAAAAA"),
        (0x01, "10C07711C0", ADDRESS),  # two identifiers in one request
        (0x12, "0000010001", ADDRESS),
        (0x16, "99999999", ADDRESS),
    ],
)
def test_a_1997_meter_hears_what_is_of_the_other_edition_in_silence(control, data, address):
    assert old().send(command(address, control, data)) == b""
    assert SharedBench().send(command(ADDRESS, 0x01, "1090")) == b""


def test_a_1997_meter_answers_reads_sent_to_all_with_its_own_address_where_the_make_does():
    request = build("999999999999", 0x01, bytes.fromhex("1090"))
    assert parse(old().send(request)).address == ADDRESS
    assert old(hears_all=False).send(request) == b""
    assert parse(old().send(build("AAAAAAAAAAAA", 0x01, bytes.fromhex("32C0")))).address == ADDRESS


def test_a_1997_meter_goes_on_where_it_stopped_and_says_a_part_again():
    bench = old(frame_data_max=10)
    first = parse(bench.ask("901F"))
    assert (first.control, len(first.data)) == (0xA1, 10)
    again = parse(bench.send(command(ADDRESS, 0x03)))
    assert (again.control, again.data) == (0xA3, first.data)
    second = parse(bench.send(command(ADDRESS, 0x02, "1F90")))
    third = parse(bench.send(command(ADDRESS, 0x02, "1F90")))
    assert (second.control, third.control) == (0xA2, 0x82)
    payload = b"".join(frame.data[2:] for frame in (first, second, third))
    assert lookup("901F").layout.decode(payload) == old().read("901F")
    assert parse(bench.send(command(ADDRESS, 0x02, "1F90"))).control == 0xC2


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("10C0 04000000 04231123", (0x84, "")),
        ("10C0 04563412 04231123", (0xC4, "04")),
        ("10C0 04000000 04321323", (0xC4, "01")),
        ("FF90 04000000 00", (0xC4, "01")),
        ("7777 04000000 00", (0xC4, "02")),
    ],
)
def test_a_1997_meter_is_written_without_an_operator(data, answer):
    for address in (ADDRESS, "999999999999"):
        frame = parse(old().send(command(address, 0x04, data.replace(" ", ""))))
        assert (frame.control, frame.data.hex().upper()) == answer


def test_a_1997_meter_changes_speed_password_address_and_clears_demands():
    bench = old("three")
    for control, data, answer in (
        (0x0C, "20", (0x8C, "20")),
        (0x0C, "03", (0xCC, "08")),
        (0x0F, "0400000004665544", (0x8F, "04665544")),
        (0x10, "", (0x90, "")),
    ):
        frame = parse(bench.send(command(ADDRESS, control, data)))
        assert (frame.control, frame.data.hex().upper()) == answer
    assert bench.read("A010") == (Decimal("0.0000"),)
    frame = parse(bench.send(command("999999999999", 0x0A, "777777777777")))
    assert (frame.address, frame.control) == ("777777777777", 0x8A)


def test_a_1997_meter_counts_phases_that_failed_and_what_was_done():
    failed = Event("phase_failure", NOW_MS - 3_600_000, NOW_MS - 1_800_000, phase=2)
    bench = old("three", events=(failed,))
    found = [bench.read(di) for di in ("B310", "B312", "B311", "B320")]
    assert found == [(Decimal(n),) for n in (1, 1, 0, 30)]
    assert bench.read("B330") == ("11-15 05:13",)
    assert bench.read("B340") == ("11-15 05:43",)
    assert bench.read("B212") == (Decimal(0),)


def test_a_broadcast_time_is_followed_by_a_1997_meter_too():
    bench = old()
    assert bench.send(command("999999999999", 0x08, "001406151123")) == b""
    assert bench.read("C011") == (dt.time(6, 14),)
