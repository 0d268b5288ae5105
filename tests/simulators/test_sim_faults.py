"""Each fault shows on the wire when it is told to, and not else."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.dlt645.master import match, read_request, reply_payload
from protocols.errors import BadContent, ErrorReply
from protocols.framing import Match
from simulators.faults import FAULT_NAMES, make_fault, parse_fault, seeded
from simulators.meter645 import Meter645
from simulators.schedule import VirtualClock
from simulators.wire import WireLink
from tests.simulators.bench645 import ADDRESS, NOW_MS, Bench, Ear, SharedBench, build, parse

DI = "00010000"
REQUEST = read_request(ADDRESS, DI)


def good(bench: Bench) -> bytes:
    """What the meter says without faults."""
    kept, bench.meter.faults = bench.meter.faults, []
    raw = bench.ask(DI)
    bench.meter.faults = kept
    return raw


def value(bench: Bench) -> Decimal:
    (found,) = bench.read(DI)
    return found


def test_silent():
    bench = Bench()
    bench.fault("silent")
    assert bench.ask(DI) == b""
    assert bench.served[-1].sent is False


def test_noise_stands_before_the_reply():
    bench = Bench()
    bench.fault("noise:bytes=9")
    raw = bench.ask(DI)
    assert raw.endswith(good(bench))
    assert len(raw) == len(good(bench)) + 9


def test_wrong_checksum():
    bench = Bench()
    bench.fault("wrong_checksum")
    frame = parse(bench.ask(DI), check=False)
    assert not frame.checksum_ok


def test_late_reply_comes_whole_but_later():
    bench = Bench(reply_delay_ms=100)
    bench.fault("late_reply:delay_ms=900")
    clock = VirtualClock()
    ear = Ear()
    link = WireLink(bench.bus, schedule=clock)
    link.attach(ear)
    link.write(REQUEST.raw)
    clock.advance(0.999)
    assert ear.heard == []
    clock.advance(0.001)
    assert match(REQUEST, ear.take()) is Match.REPLY


def test_echo_comes_first():
    bench = Bench()
    bench.fault("echo")
    raw = bench.ask(DI)
    assert raw == REQUEST.raw + good(bench)
    assert match(REQUEST, raw[: len(REQUEST.raw)]) is Match.ECHO


def test_wrong_address_is_a_good_frame_of_another():
    bench = Bench()
    bench.fault("wrong_address")
    raw = bench.ask(DI)
    assert parse(raw).address == "000000000162"
    assert match(REQUEST, raw) is Match.FOREIGN
    bench.meter.clear_faults()
    bench.fault("wrong_address:address=123456789012")
    assert parse(bench.ask(DI)).address == "123456789012"


def test_wrong_di_is_a_good_reply_to_another_question():
    bench = Bench(wakeup=2)
    bench.fault("wrong_di")
    assert match(REQUEST, bench.ask(DI)[2:]) is Match.STALE


def test_stuck_register_stands_while_the_truth_moves():
    bench = Bench()
    bench.fault("stuck")
    first = value(bench)
    bench.now_ms += 3_600_000
    assert value(bench) == first
    assert bench.served[-1].true_values != bench.served[-1].values
    bench.meter.clear_faults("stuck")
    assert value(bench) > first


def test_backward_register():
    bench = Bench()
    true = value(bench)
    bench.fault("backward_register:kwh=2.5")
    assert value(bench) == true - Decimal("2.50")


def test_one_bad_zero_comes_once():
    bench = Bench()
    bench.fault("one_bad_zero:nth=2")
    assert [value(bench) == 0 for _ in range(4)] == [False, True, False, False]


def test_jump_comes_once_and_the_good_value_after_it():
    bench = Bench()
    true = value(bench)
    bench.fault("jump:kwh=5000")
    assert value(bench) == true + 5000
    assert value(bench) == true


def test_register_faults_leave_other_quantities_alone():
    bench = Bench()
    volts = bench.read("02010100")
    bench.fault("one_bad_zero:every=1")
    assert bench.read("02010100") == volts
    assert bench.read("0001FF00") == (Decimal("0.00"),) * 5


def test_non_bcd():
    bench = Bench()
    bench.fault("non_bcd")
    with pytest.raises(BadContent, match="no decimal number"):
        bench.read(DI)


def test_all_ff_is_no_value():
    bench = Bench()
    bench.fault("all_ff")
    assert bench.read(DI) == (None,)


@pytest.mark.parametrize(("name", "length"), [("short_payload", 3), ("long_payload", 5)])
def test_payloads_of_a_wrong_length(name, length):
    bench = Bench()
    bench.fault(name)
    assert len(reply_payload(REQUEST, bench.ask(DI))) == length
    with pytest.raises(BadContent):
        bench.read(DI)


def test_drop_first_byte_and_short_reply():
    bench = Bench()
    whole = good(bench)
    bench.fault("drop_first_byte")
    assert bench.ask(DI) == whole[1:]
    bench.meter.clear_faults()
    bench.fault("short_reply:bytes=5")
    assert bench.ask(DI) == whole[:-5]


def test_twice_and_refuse():
    bench = Bench()
    whole = good(bench)
    bench.fault("twice")
    assert bench.ask(DI) == whole * 2
    bench.meter.clear_faults()
    bench.fault("refuse:err=4")
    with pytest.raises(ErrorReply, match="password"):
        bench.read(DI)


@pytest.mark.parametrize("name", [name for name in FAULT_NAMES if name != "wrong_sequence"])
def test_every_fault_changes_what_leaves_and_nothing_once_it_is_taken_away(name):
    bench = Bench()
    bench.meter.add_fault(make_fault(name))
    first = bench_reply(bench.meter)
    bench.now_ms += 3_600_000  # a stuck register shows only now
    later = bench_reply(bench.meter)
    bench.meter.clear_faults()
    good_later = bench_reply(bench.meter)
    bench.now_ms -= 3_600_000
    assert first != bench_reply(bench.meter) or later != good_later
    assert good_later[0][1].startswith(b"\x68")


def bench_reply(meter: Meter645) -> list[tuple[float, bytes]]:
    return [(one.delay_s, one.data) for one in meter.on_frame(REQUEST.raw)]


# --- when -----------------------------------------------------------------------------------------


def hits(bench: Bench, count: int) -> list[bool]:
    return [bench.ask(DI) == b"" for _ in range(count)]


def test_every_nth():
    bench = Bench()
    bench.fault("silent:every=3")
    assert hits(bench, 6) == [False, False, True, False, False, True]


def test_the_nth_and_how_many():
    bench = Bench()
    bench.fault("silent:nth=2,count=2")
    assert hits(bench, 5) == [False, True, True, False, False]


def test_between_two_instants():
    bench = Bench()
    bench.fault(f"silent:from_ms={NOW_MS + 10},until_ms={NOW_MS + 20}")
    seen = []
    for step in (0, 10, 19, 20):
        bench.now_ms = NOW_MS + step
        seen.append(hits(bench, 1)[0])
    assert seen == [False, True, True, False]


def test_probability_follows_the_seed():
    def run(seed: int) -> list[bool]:
        bench = Bench()
        bench.fault("silent:probability=0.3", seed)
        return hits(bench, 200)

    assert run(5) == run(5)
    assert 30 < sum(run(5)) < 90


def test_only_one_identifier():
    bench = Bench()
    bench.fault("silent:di=02010100")
    assert bench.ask("02010100") == b""
    assert bench.ask(DI) != b""


def test_faults_compose_in_their_order():
    bench = Bench()
    true = value(bench)
    bench.fault("jump:every=1,kwh=10")
    bench.fault("backward_register:kwh=4")
    bench.fault("echo")
    bench.fault("noise:bytes=2")
    raw = bench.ask(DI)
    at = raw.index(REQUEST.raw)
    assert at == 2
    assert bench.served[-1].values == (str(true + 6),)
    assert bench.served[-1].faults == ("jump", "backward_register", "echo", "noise")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jmp", "no fault is called 'jmp'"),
        ("silent:every", "should be key=value"),
        ("silent:loud=1", "knows no loud"),
        ("silent:every=0", "at least 1"),
        ("silent:every=x", "invalid literal"),
        ("silent:probability=2", "0..1"),
        ("jump:kwh=much", "is a number"),
        ("wrong_address:address=12", "twelve digits"),
        ("noise:bytes=few", "invalid literal"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_what_is_known(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_fault(text, rng=seeded(0))


# --- on the line's characters ---------------------------------------------------------------------


def test_a_parity_error_is_marked_where_a_link_can_see_it():
    bench = Bench()
    bench.fault("parity")
    request = read_request(ADDRESS, DI).raw
    bench.link.write(request)
    ((data, bad),) = bench.ear.heard
    (at,) = bad
    good = bench_reply_of(Bench())
    assert [i for i in range(len(data)) if data[i] != good[i]] == [at]


def test_two_wrong_bits_of_a_character_leave_no_mark():
    bench = Bench()
    bench.fault("two_bits")
    bench.link.write(read_request(ADDRESS, DI).raw)
    ((data, bad),) = bench.ear.heard
    assert bad == ()
    assert data != bench_reply_of(Bench())


def test_lost_and_doubled_characters_and_a_start_byte_said_twice():
    good = bench_reply_of(Bench())
    for name, more in (("lost_byte", -1), ("double_byte", 1), ("double_start", 1)):
        bench = Bench(wakeup=2)
        bench.fault(name)
        assert len(bench.ask(DI)) == len(good) + 2 + more, name
    assert bench.ask(DI) == b"\xfe\xfe\x68" + good


def test_a_pause_stands_inside_a_frame():
    bench = Bench()
    bench.fault("pause:after=5,ms=300,baud=2400")
    first, rest = bench.meter.on_frame(REQUEST.raw)
    assert len(first.data) == 5
    assert rest.delay_s == pytest.approx(0.1 + 5 * 11 / 2400 + 0.3)
    assert first.data + rest.data == bench_reply_of(Bench())


def test_a_report_comes_unasked_before_the_reply():
    bench = Bench()
    bench.fault("spontaneous")
    report, reply = bench.meter.on_frame(REQUEST.raw)
    assert parse(report.data).data[:4] == bytes.fromhex("01150004")
    assert reply.delay_s > report.delay_s
    assert reply.data == bench_reply_of(Bench())


def test_a_suffix_stands_behind_every_frame():
    bench = Bench()
    bench.fault("suffix:hex=0D0A")
    assert bench.ask(DI) == bench_reply_of(Bench()) + b"\r\n"


def test_a_follow_up_frame_bears_the_number_of_another():
    bench = Bench(frame_data_max=16)
    bench.fault("wrong_sequence")
    assert parse(bench.ask("0001FF00")).control == 0xB1
    raw = bench.send(build(ADDRESS, 0x12, bytes.fromhex("00FF010001")))
    assert parse(raw).data[-1] == 2


@pytest.mark.parametrize("text", ["suffix:hex=0D0", "refuse:err=256", "pause:ms=-1"])
def test_an_option_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        parse_fault(text)


@given(st.lists(st.sampled_from(FAULT_NAMES), max_size=6), st.integers(0, 2**32))
@settings(deadline=None, max_examples=80)
def test_faults_of_every_kind_act_together_and_never_raise(names, seed):
    bench = SharedBench()
    for name in names:
        bench.meter.add_fault(make_fault(name, rng=seeded(seed)))
    bench.ask(DI)
    bench.ask("7F7F7F7F")


def bench_reply_of(bench: Bench) -> bytes:
    return bench.ask(DI)
