"""Each fault of a Modbus device shows on the wire when it is told to, and not else."""

from decimal import Decimal

import pytest

from protocols.checksum import crc16
from protocols.errors import ErrorReply
from protocols.framing import Match
from protocols.modbus.adu import build_rtu, parse_rtu
from protocols.modbus.master import match, read_request, reply_registers
from simulators.modbus_faults import MODBUS_FAULTS, make_modbus_fault, parse_modbus_fault
from simulators.schedule import VirtualClock
from simulators.wire import WireLink
from tests.simulators.bench645 import Ear
from tests.simulators.bench_modbus import EXPORT, IMPORT, UNIT, ModbusBench


def good(bench: ModbusBench) -> bytes:
    """What the device says without faults."""
    kept, bench.device.faults = bench.device.faults, []
    _, raw = bench.ask()
    bench.device.faults = kept
    return raw


def faulty(text: str) -> tuple[ModbusBench, bytes]:
    bench = ModbusBench()
    bench.fault(text)
    return bench, bench.ask()[1]


@pytest.mark.parametrize("name", ["silent", "half_open", "hang_up"])
def test_silent(name):
    bench, raw = faulty(name)
    assert raw == b""
    assert bench.served[-1].sent is False
    assert bench.served[-1].faults == (name,)


def test_noise_stands_before_and_behind_the_reply():
    bench, raw = faulty("noise:before=4,behind=2")
    assert raw[4:-2] == good(bench)


def test_wrong_crc():
    _, raw = faulty("wrong_crc")
    frame = parse_rtu(raw, check=False)
    assert not frame.crc_ok
    assert crc16(raw[:-2]) == frame.crc_expected


def test_echo_comes_before_the_reply():
    bench, raw = faulty("echo")
    request, _ = bench.ask()
    assert raw == request.raw + good(bench)


def test_foreign_frame_of_another_unit_comes_in_the_same_breath():
    bench, raw = faulty("foreign")
    request, _ = bench.ask()
    own = good(bench)
    assert raw.endswith(own)
    foreign = raw[: -len(own)]
    assert match(request, foreign) is Match.FOREIGN
    assert parse_rtu(foreign).unit == UNIT + 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("wrong_unit", Match.FOREIGN),
        ("wrong_function", Match.STALE),
        ("wrong_count", Match.STALE),
        ("wrong_count:registers=2", Match.STALE),
    ],
)
def test_whole_frames_that_are_no_answer(text, wanted):
    bench, raw = faulty(text)
    request, _ = bench.ask()
    assert match(request, raw) is wanted
    assert parse_rtu(raw).crc_ok


def test_truncated():
    bench, raw = faulty("truncated:bytes=4")
    assert raw == good(bench)[:-4]


def test_twice_is_said_again_later():
    bench, raw = faulty("twice:delay_ms=200")
    assert raw == 2 * good(bench)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("busy", 6),
        ("gateway_path", 0x0A),
        ("gateway_target", 0x0B),
        ("exception", 4),
        ("exception:code=8", 8),
    ],
)
def test_exceptions(text, code):
    bench, raw = faulty(text)
    assert raw == build_rtu(UNIT, bytes((0x84, code)))
    request, _ = bench.ask()
    with pytest.raises(ErrorReply) as caught:
        reply_registers(request, raw)
    assert caught.value.error_byte == code


def test_late_reply_comes_whole_but_later():
    bench = ModbusBench(reply_delay_ms=40)
    bench.fault("late_reply:delay_ms=500,jitter_ms=100")
    clock, ear = VirtualClock(), Ear()
    link = WireLink(bench.bus, schedule=clock)
    link.attach(ear)
    link.write(read_request(UNIT, 4, 0x48, 2).raw)
    clock.advance(0.539)
    assert ear.heard == []
    clock.advance(0.102)
    assert ear.take() == good(bench)


@pytest.mark.parametrize(
    ("text", "change"),
    [("backward_register:kwh=5", -5), ("jump:kwh=1000", 1000), ("one_bad_zero", None)],
)
def test_a_counter_that_is_wrong_is_wrong_in_its_bytes_and_true_in_the_log(text, change):
    bench = ModbusBench()
    true = {point: bench.number(point) for point in (IMPORT, EXPORT)}
    bench.fault(text)
    wrong = bench.number(IMPORT)
    assert wrong == (0 if change is None else true[IMPORT] + change)
    assert bench.served[-1].values != bench.served[-1].true_values
    assert bench.served[-1].true_values == (format(true[IMPORT], "f"),)
    if text != "backward_register:kwh=5":  # these happen once
        assert bench.number(IMPORT) == true[IMPORT]


def test_a_stuck_counter_stands_while_the_truth_goes_on():
    bench = ModbusBench()
    bench.fault("stuck")
    held = bench.number(IMPORT)
    bench.now_ms += 12 * 3_600_000
    assert bench.number(IMPORT) == held
    assert bench.device.truth(bench.now_ms)[IMPORT].shown > held


def test_a_fault_may_act_on_one_question_only():
    bench = ModbusBench()
    bench.fault("silent:di=4:74:2")
    assert bench.ask(IMPORT)[1] != b""
    assert bench.ask(EXPORT)[1] == b""


def test_faults_come_together_and_are_cleared_by_name():
    bench = ModbusBench()
    bench.fault("wrong_crc:every=2")
    bench.fault("noise:before=1,behind=0")
    assert [len(bench.ask()[1]) for _ in range(2)] == [10, 10]
    bench.device.clear_faults("noise")
    assert [parse_rtu(bench.ask()[1], check=False).crc_ok for _ in range(4)] == [
        True,
        False,
        True,
        False,
    ]
    bench.device.clear_faults()
    assert bench.device.faults == []


@pytest.mark.parametrize("name", sorted(MODBUS_FAULTS))
def test_every_fault_can_be_made_and_a_refusal_survives_it(name):
    bench = ModbusBench()
    bench.device.add_fault(make_modbus_fault(name))
    for address, count in ((0x48, 2), (0x49, 2), (0, 82)):
        bench.send(read_request(UNIT, 4, address, count).raw)
    assert bench.device.faults[0].seen == 3


@pytest.mark.parametrize(
    "text", ["late", "wrong_checksum", "late_reply:bytes=3", "noise:before=x", "busy:every=0"]
)
def test_what_is_no_fault_of_a_modbus_device_is_told(text):
    with pytest.raises(ValueError, match=r"fault|knows no|invalid|at least"):
        parse_modbus_fault(text)


def test_step_of_the_register_is_kept_by_faults():
    bench = ModbusBench("acrel_adl400", ct=Decimal(40))
    bench.fault("jump:kwh=1,every=1")
    true = bench.device.truth(bench.now_ms)[IMPORT].shown
    assert bench.read(IMPORT) == true + 40
