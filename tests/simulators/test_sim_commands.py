"""A simulated meter does what it is told as the standard has it, and locks itself as meters do."""

import datetime as dt
from decimal import Decimal

import pytest

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.clock import Password, clock_to_all, write_clock
from protocols.dlt645.fields import OperatorCode
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import DELIMITER
from protocols.errors import ErrorReply
from protocols.framing import FrameFound, Framer
from simulators.energy import DAY_MS
from simulators.meter645 import CommandSettings, KeptSettings
from simulators.meterbus import MeterBus
from simulators.schedule import VirtualClock
from simulators.wire import WireLink
from tests.simulators.bench645 import ADDRESS, NOW_MS, Bench, Ear, SharedBench, command, parse

LOCAL = dt.datetime(2023, 11, 15, 6, 13, 20, tzinfo=dt.UTC)  # what the meter's clock shows
SILENCE = b""
RIGHT, WRONG = "04 000000", "04 563412"
OPERATOR = "78563412"
FAR = "000000 301299"  # 2099-12-30: valid for ever


def telling(**settings) -> Bench:
    return SharedBench(commands=CommandSettings(**settings))


def tell(bench: Bench, control: int, data: str, address: str = ADDRESS):
    """The meter's answer as (control, data in hex), None = silence."""
    raw = bench.send(command(address, control, data.replace(" ", "")))
    return (parse(raw).control, parse(raw).data.hex().upper()) if raw else None


def shown(bench: Bench, seconds: float) -> MeterTime:
    """The meter's own time and some seconds."""
    local = LOCAL + dt.timedelta(seconds=seconds, milliseconds=bench.now_ms - NOW_MS)
    return MeterTime(local.date(), local.time().replace(microsecond=0))


def broadcast(bench: Bench, seconds: float) -> float:
    """Tell all the time, `seconds` from the meter's own; how far its clock moved."""
    before = bench.meter.meter_clock.local_ms(bench.now_ms)
    assert bench.send(clock_to_all(shown(bench, seconds))) == SILENCE
    return (bench.meter.meter_clock.local_ms(bench.now_ms) - before) / 1000


# --- broadcast time (08H) -------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "moves"), [(299, 299), (-300, -300), (301, 0), (-3600, 0)])
def test_a_broadcast_time_is_followed_within_five_minutes_only(seconds, moves):
    assert broadcast(SharedBench(), seconds) == moves


def test_a_broadcast_time_is_followed_once_a_day():
    bench = SharedBench()
    assert broadcast(bench, 100) == 100
    assert broadcast(bench, 50) == 0
    bench.now_ms += DAY_MS
    assert broadcast(bench, 110) == 10


def test_a_broadcast_that_was_passed_over_does_not_use_up_the_day():
    bench = SharedBench()
    assert broadcast(bench, 301) == 0
    assert broadcast(bench, 100) == 100


@pytest.mark.parametrize(
    ("hour", "minute", "second", "followed"),
    [(23, 54, 59, True), (23, 55, 0, False), (0, 4, 59, False), (0, 5, 0, True)],
)
def test_a_broadcast_time_is_passed_over_near_midnight(hour, minute, second, followed):
    bench = SharedBench()
    wanted = dt.timedelta(hours=hour, minutes=minute, seconds=second)
    bench.now_ms += (wanted - dt.timedelta(hours=6, minutes=13, seconds=20)) // dt.timedelta(
        milliseconds=1
    )
    bench.meter.meter_clock.set(bench.now_ms, bench.now_ms + 480 * 60_000)
    assert (broadcast(bench, 20) == 20) is followed


def test_a_broadcast_time_is_passed_over_near_a_settlement():
    bench = SharedBench(kept=KeptSettings(settlement=(15, 6)))
    bench.now_ms -= 15 * 60_000 - 20_000  # 05:58:40
    assert broadcast(bench, 20) == 0
    bench.now_ms += 8 * 60_000  # 06:06:40
    assert broadcast(bench, 20) == 20


def test_a_broadcast_time_is_taken_by_the_broadcast_address_alone_but_by_some_makes():
    frame = clock_to_all(shown(SharedBench(), 60))
    single = command(ADDRESS, 0x08, parse(frame).data)
    for bench, moves in ((SharedBench(), 0), (telling(clock_single=True), 60)):
        before = bench.meter.meter_clock.error_ms
        assert bench.send(single) == SILENCE
        assert bench.send(command("AAAAAAAAAAAA", 0x08, parse(frame).data)) == SILENCE
        assert bench.meter.meter_clock.error_ms - before == moves * 1000


@pytest.mark.parametrize("data", ["203514061123", "2013061511", "20130615112300", "20130B151123"])
def test_a_broadcast_that_is_no_time_is_passed_over(data):
    bench = SharedBench()
    assert bench.send(command("999999999999", 0x08, data)) == SILENCE
    assert bench.read("04000102") == (dt.time(6, 13, 20),)


# --- writing (14H) --------------------------------------------------------------------------------


def write(bench: Bench, di: str, value, password: str = "000000", level: int = 4) -> int:
    request = write_clock(
        ADDRESS, di, value, password=Password(level, password), operator="12345678"
    )
    return parse(bench.send(request.raw)).control


def test_the_clock_is_set_with_a_password_in_its_three_forms_and_noted():
    bench = SharedBench()
    assert write(bench, "04000102", dt.time(7, 0, 0)) == 0x94
    assert bench.read("04000102") == (dt.time(7, 0, 0),)
    assert write(bench, "04000101", dt.date(2023, 11, 16)) == 0x94
    new = MeterTime(dt.date(2024, 1, 2), dt.time(3, 4, 5))
    assert write(bench, "0400010C", new) == 0x94
    assert bench.read("0400010C") == (new,)
    assert bench.read("03300400") == (Decimal(3),)
    operator, before, after = bench.read("03300401")
    assert operator == OperatorCode("12345678")
    assert before == MeterTime(dt.date(2023, 11, 16), dt.time(7, 0, 0))
    assert after == new


def test_a_wrong_password_is_refused_and_changes_nothing():
    bench = SharedBench()
    assert write(bench, "04000102", dt.time(7, 0, 0), "111111") == 0xD4
    assert bench.read("04000102") == (dt.time(6, 13, 20),)
    assert tell(bench, 0x14, "02010004" + WRONG + OPERATOR + "000007") == (0xD4, "04")


def test_so_many_wrong_passwords_close_the_level_and_no_trying_opens_it():
    bench = telling(tries=3, lock_s=600)
    for _ in range(3):
        assert write(bench, "04000102", dt.time(7), "111111") == 0xD4
    for _ in range(20):  # the right one too, and trying makes it neither shorter nor longer
        bench.now_ms += 29_000
        assert write(bench, "04000102", dt.time(7)) == 0xD4
    assert write(bench, "04000102", dt.time(7), level=2) == 0x94  # the other level is open
    bench.now_ms += 20_000
    assert write(bench, "04000102", dt.time(7)) == 0x94


def test_a_right_password_forgets_the_wrong_ones():
    bench = telling(tries=2)
    for _ in range(3):
        assert write(bench, "04000102", dt.time(7), "111111") == 0xD4
        assert write(bench, "04000102", dt.time(7)) == 0x94


def test_without_the_key_nothing_is_written_and_status_word_3_says_so():
    bench = telling(programmable=False)
    assert write(bench, "04000102", dt.time(7)) == 0xD4
    assert bench.read("04000503") == ("0000",)
    assert SharedBench().read("04000503") == ("0008",)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("01010004 05320911", "01"),  # the 32nd
        ("02010004 0000", "01"),  # too short
        ("7F7F7F7F 00", "02"),  # nobody knows it
        ("00000100 00000000", "01"),  # a register
        ("01010004 FFFFFFFF", "01"),  # nothing
    ],
)
def test_what_cannot_be_written_is_refused_with_its_reason(what, error):
    di, data = what.split()
    assert tell(SharedBench(), 0x14, di + RIGHT + OPERATOR + data) == (0xD4, error)


def test_a_parameter_that_was_written_is_read_back_and_noted():
    bench = SharedBench()
    assert tell(bench, 0x14, "03040004" + RIGHT + OPERATOR + "31" * 32) == (0x94, "")
    assert bench.read("04000403") == ("1" * 32,)
    assert bench.read("03300000") == (Decimal(1),)
    record = bench.read("03300001")
    assert record[1:4] == (OperatorCode("12345678"), "04000403", "FFFFFFFF")


def test_modes_and_intervals_of_load_records_are_as_they_were_written():
    bench = SharedBench()
    assert tell(bench, 0x14, "01090004" + RIGHT + OPERATOR + "08") == (0x94, "")
    assert bench.read("04000901") == ("08",)
    assert tell(bench, 0x14, "050A0004" + RIGHT + OPERATOR + "0500") == (0x94, "")
    assert bench.read("04000A05") == (Decimal(5),)
    assert tell(bench, 0x14, "050A0004" + RIGHT + OPERATOR + "0700") == (0xD4, "01")
    bench.now_ms += 600_000
    raw = bench.send(command(ADDRESS, 0x11, "02000406 01"))
    assert parse(raw).data[7:12] == bytes.fromhex("2006151123")  # 06:20


@pytest.mark.parametrize("control", [0x14, 0x17, 0x19, 0x1A, 0x1B, 0x1C])
def test_what_changes_one_meter_is_not_taken_from_a_wildcard_nor_a_broadcast(control):
    data = {0x17: "10", 0x1B: RIGHT + OPERATOR + "FFFFFFFF", 0x1C: RIGHT + OPERATOR + "1A00" + FAR}
    asked = data.get(control, RIGHT + OPERATOR) + ("000007" if control == 0x14 else "")
    asked = "02010004" + asked if control == 0x14 else asked
    for address in ("AAAAAAAAAAAA", "999999999999"):
        assert tell(SharedBench(), control, asked, address) is None
    assert tell(SharedBench(), control, asked) is not None
    assert tell(SharedBench(), control, asked, "AAAAAAAA0161") is not None  # shortened: one meter


@pytest.mark.parametrize("control", [0x00, 0x01, 0x02, 0x04, 0x0A, 0x10, 0x1E, 0x1F, 0x31, 0x51])
def test_functions_that_are_none_are_heard_in_silence(control):
    assert tell(SharedBench(), control, "10901090") is None


@pytest.mark.parametrize("control", [0x14, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D])
def test_a_command_of_another_length_is_heard_in_silence(control):
    assert tell(SharedBench(), control, "010203") is None


# --- address, passwords, clearing -----------------------------------------------------------------


def test_an_address_is_written_to_the_only_meter_and_holds_from_then_on():
    bench = SharedBench()
    new = "123456789012"
    raw = bench.send(command("AAAAAAAAAAAA", 0x15, bytes.fromhex(new)[::-1]))
    assert (parse(raw).address, parse(raw).control, parse(raw).data) == (new, 0x95, b"")
    assert bench.ask("00010000", ADDRESS) == SILENCE
    assert bench.read("04000401", new) == (new,)
    assert tell(bench, 0x15, "610100000000", new) is None  # to all, never to one
    assert tell(bench, 0x15, "99" * 6, "AAAAAAAAAAAA") is None
    assert tell(telling(programmable=False), 0x15, "610100000000", "AAAAAAAAAAAA") is None


def test_a_password_is_changed_by_one_of_its_level_or_a_higher_one():
    bench = SharedBench()
    change = "050C0004" + "02000000" + "04665544"
    assert tell(bench, 0x18, change) == (0x98, "04665544")
    assert write(bench, "04000102", dt.time(7)) == 0xD4
    assert write(bench, "04000102", dt.time(7), "445566") == 0x94
    assert tell(bench, 0x18, "030C0004" + "04665544" + "02111111") == (0xD8, "04")  # lower
    assert tell(bench, 0x18, "030C0004" + "02000000" + "04111111") == (0xD8, "01")  # not its level


def test_demands_are_cleared_and_what_they_were_is_noted():
    bench = SharedBench("three")
    before = bench.read("01010000")
    assert before[0] > 0
    assert tell(bench, 0x19, RIGHT + OPERATOR) == (0x99, "")
    assert bench.read("01010000") == (Decimal("0.0000"), None)
    assert bench.read("03300200") == (Decimal(1),)
    whole = bench.meter.values(lookup("03300201"), bench.now_ms)
    assert whole[1] == OperatorCode("12345678")
    assert whole[2:4] == before
    bench.now_ms += 3_600_000
    later = bench.read("01010000")
    assert later[0] > 0
    assert later[1].time > dt.time(6, 13)


def test_a_meter_cannot_be_cleared():
    bench = SharedBench()
    before = bench.read("00010000")
    assert tell(bench, 0x1A, "02000000" + OPERATOR) == (0xDA, "04")
    assert bench.read("00010000") == before


# --- freezes (16H) --------------------------------------------------------------------------------


def test_a_freeze_by_command_is_kept_at_its_instant_and_a_broadcast_one_is_not_answered():
    bench = SharedBench("pv")
    assert tell(bench, 0x16, "99999999") == (0x96, "")
    assert bench.read("05010001") == (MeterTime(dt.date(2023, 11, 15), dt.time(6, 13)),)
    truth = bench.meter.truth(NOW_MS)["active_import_total"].shown
    bench.now_ms += 60_000
    assert tell(bench, 0x16, "99999999", "999999999999") is None
    assert bench.read("05010001") == (MeterTime(dt.date(2023, 11, 15), dt.time(6, 14)),)
    assert bench.read("05010102")[0] == truth


@pytest.mark.parametrize(
    ("when", "times"),
    [
        ("30999999", [(15, 8, 30), (15, 7, 30), (15, 6, 30)]),  # every hour at half past
        ("45079999", [(15, 7, 45)]),  # every day at 07:45
        ("00081599", [(15, 8, 0)]),  # every month on the 15th at 08:00
    ],
)
def test_freezes_are_kept_every_hour_day_or_month_as_told(when, times):
    bench = SharedBench()
    assert tell(bench, 0x16, when) == (0x96, "")
    bench.now_ms += 9_000_000  # 08:43:20
    for nth, (day, hour, minute) in enumerate(times, 1):
        stamp = MeterTime(dt.date(2023, 11, day), dt.time(hour, minute))
        assert bench.read(f"050000{nth:02X}") == (stamp,)
    with pytest.raises(ErrorReply):
        bench.read(f"050000{len(times) + 1:02X}")


@pytest.mark.parametrize("when", ["00080101", "60999999", "00251099", "00083299", "0B999999"])
def test_a_freeze_that_cannot_be_is_refused_and_a_broadcast_one_passed_over(when):
    assert tell(SharedBench(), 0x16, when) == (0xD6, "01")
    assert tell(SharedBench(), 0x16, when, "999999999999") is None


# --- speed (17H) ----------------------------------------------------------------------------------


def test_the_speed_changes_after_the_answer_and_the_meter_no_longer_hears_the_old_one():
    bench = SharedBench()
    bench.bus.speed = 2400
    assert tell(bench, 0x17, "20") == (0x97, "20")
    assert bench.ask("00010000") == SILENCE
    bench.bus.speed = 9600
    assert bench.ask("00010000") != SILENCE
    assert bench.read("04000703") == ("20",)
    assert tell(bench, 0x17, "08") == (0x97, "08")
    assert bench.ask("00010000") == SILENCE


@pytest.mark.parametrize("word", ["00", "18", "02", "40", "80", "FF"])
def test_a_speed_word_of_another_number_of_bits_or_of_no_speed_it_knows_is_refused(word):
    assert tell(SharedBench(), 0x17, word) == (0xD7, "08")


def test_a_meter_that_hears_nothing_at_the_new_speed_goes_back_to_the_old_one():
    bench = telling(speed_fallback_s=30)
    bench.bus.speed = 2400
    assert tell(bench, 0x17, "20") == (0x97, "20")
    bench.now_ms += 29_000
    assert bench.ask("00010000") == SILENCE
    bench.now_ms += 1_000
    assert bench.ask("00010000") != SILENCE


def test_a_meter_that_was_heard_at_the_new_speed_stays_there():
    bench = telling(speed_fallback_s=30)
    bench.bus.speed = 2400
    tell(bench, 0x17, "20")
    bench.bus.speed = 9600
    assert bench.ask("00010000") != SILENCE
    bench.bus.speed = 2400
    bench.now_ms += 60_000
    assert bench.ask("00010000") == SILENCE


# --- relay (1CH), terminal (1DH), security (03H) --------------------------------------------------


def relay(bench: Bench, number: str, spare: str = "00", until: str = FAR, level: str = "02"):
    password = f"{level}000000" + OPERATOR
    return tell(bench, 0x1C, password + number + spare + until)


def relay_word(bench: Bench) -> int:
    return int(bench.read("04000503")[0], 16) & ~0x08


def test_the_relay_moves_a_while_after_it_was_told_and_the_status_word_shows_both():
    bench = telling(relay_delay_ms=5000)
    assert relay(bench, "1A") == (0x9C, "")
    assert relay_word(bench) == 1 << 6  # meant to open, not yet open
    bench.now_ms += 5000
    assert relay_word(bench) == 1 << 6 | 1 << 4
    assert bench.read("1D000001") == (Decimal(1),)
    assert bench.read("1D000101") == (MeterTime(dt.date(2023, 11, 15), dt.time(6, 13, 25)),)
    assert relay(bench, "1C") == (0x9C, "")
    assert relay_word(bench) == 1 << 4
    bench.now_ms += 5000
    assert relay_word(bench) == 0
    assert bench.read("1E000001") == (Decimal(1),)


def test_a_relay_that_may_be_closed_waits_for_the_customer():
    bench = SharedBench()
    relay(bench, "1A")
    assert relay(bench, "1B") == (0x9C, "")
    assert relay_word(bench) == 1 << 4
    bench.meter.press_button()
    assert relay_word(bench) == 0


def test_a_relay_opened_for_a_time_closes_by_itself():
    bench = SharedBench()
    assert relay(bench, "1D", spare="02") == (0x9C, "")
    bench.now_ms += 599_999
    assert relay_word(bench) == 1 << 6 | 1 << 4
    bench.now_ms += 1
    assert relay_word(bench) == 0
    assert relay(bench, "1D", spare="00") == (0xDC, "01")


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"until": "191306151123"}, "01"),  # over since a second
        ({"until": "0000003213FF"}, "01"),  # no time
        ({"number": "77"}, "01"),  # no command
        ({"level": "03"}, "04"),
    ],
)
def test_a_relay_command_that_is_over_or_none_is_refused(asked, error):
    assert relay(SharedBench(), **{"number": "1A", **asked}) == (0xDC, error)
    assert relay(SharedBench(), "1A", until="201306151123") == (0x9C, "")


def test_a_protected_supply_is_not_opened_and_an_alarm_is_only_shown():
    bench = SharedBench()
    assert relay(bench, "3A") == (0x9C, "")
    assert relay(bench, "2A") == (0x9C, "")
    assert relay_word(bench) == 1 << 12 | 1 << 7
    assert relay(bench, "1A") == (0xDC, "01")
    assert relay(bench, "3B") == relay(bench, "2B") == relay(bench, "1A") == (0x9C, "")


def test_some_makes_open_only_after_authentication_and_say_so_in_two_bytes():
    assert relay(telling(plain_trip=False), "1A") == (0xDC, "04")
    assert tell(SharedBench(), 0x1C, "98000001" + OPERATOR + "1A00" + FAR) == (0xDC, "0800")


def test_the_output_of_the_terminal_is_chosen_and_by_a_broadcast_without_a_word():
    assert tell(SharedBench(), 0x1D, "01") == (0x9D, "01")
    assert tell(SharedBench(), 0x1D, "03") == (0xDD, "01")
    assert tell(SharedBench(), 0x1D, "01", "999999999999") is None


def test_authentication_is_never_had_from_a_simulation():
    asked = "FF000007" + OPERATOR + "00" * 8
    assert tell(SharedBench(), 0x03, asked) is None
    assert tell(telling(esam=True), 0x03, asked) == (0xC3, "0800")


# --- several meters -------------------------------------------------------------------------------


def test_a_collision_is_captured_by_one_meter_as_the_seed_has_it():
    def heard(seed: int) -> list[str]:
        benches = [SharedBench("single", f"0000000001{n:02d}") for n in range(8)]
        bus = MeterBus([bench.meter for bench in benches], capture=0.5, seed=seed)
        found = []
        for _ in range(20):
            sent = bus.receive(command("AAAAAAAAAAAA", 0x13), [])
            found.append(parse(sent[0].data).address if len(sent) == 1 else "collision")
        assert bus.captured == sum(one != "collision" for one in found)
        return found

    assert heard(1) == heard(1) != heard(2)
    assert "collision" in heard(1)
    assert len(set(heard(1))) > 3


def test_a_frame_to_one_meter_is_never_captured():
    one, other = SharedBench(), SharedBench("single", "000000000777")
    bus = MeterBus([one.meter, other.meter], capture=1.0)
    (sent,) = bus.receive(command(ADDRESS, 0x11, "00000100"), [])
    assert parse(sent.data).address == ADDRESS
    assert bus.captured == 0


@pytest.mark.parametrize(("capture", "heard"), [(0.0, 0), (1.0, 1)])
def test_many_meters_asked_by_a_wildcard_spoil_each_other_or_one_wins(capture, heard):
    meters = [
        SharedBench("single", f"0000000001{n:02d}", reply_jitter_ms=40, seed=n).meter
        for n in range(32)
    ]
    bus, clock, ear = MeterBus(meters, capture=capture, seed=3), VirtualClock(), Ear()
    link = WireLink(bus, schedule=clock, baud=2400)
    link.attach(ear)
    framer = Framer(DELIMITER)
    link.write(command("AAAAAAAAAAAA", 0x13))
    clock.run()
    events = [event for data, bad in ear.heard for event in framer.feed(data, bad)]
    assert sum(isinstance(event, FrameFound) for event in events) == heard
    assert bool(link.line.collisions) is not bool(heard)
