"""What is wrong with a new device is named, with evidence; a profile is begun from a dump."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_samples import PROFILES, profile, raw_of, vector

from protocols.errors import LocalProtocolError
from protocols.modbus.commissioning import Finding, diagnose, neighbours, other_framing
from protocols.modbus.decode import encode
from protocols.modbus.device import build_exception, build_reply
from protocols.modbus.master import ReadRequest, read_request
from protocols.modbus.planner import plan_blocks
from protocols.modbus.profile import profile_from
from protocols.modbus.register import DeviceProfile, Register
from protocols.modbus.skeleton import DumpRun, skeleton

# What a meter in a house shows, in the units of the points.
HOUSE = {
    "voltage_a": "230.1", "voltage_b": "229.4", "voltage_c": "231.7",
    "voltage_ab": "398.0", "voltage_bc": "399.1", "voltage_ca": "400.2",
    "current_a": "4.21", "current_b": "1.05", "current_c": "0.87",
    "active_power_a": "0.930", "active_power_b": "0.215", "active_power_c": "0.190",
    "active_power_total": "1.335", "power_factor_a": "0.96", "power_factor_b": "0.93",
    "power_factor_c": "0.94", "power_factor_total": "0.95", "frequency": "50.02",
    "active_import_total": "12345.67", "active_export_total": "876.5",
    "ct_ratio": "1", "pt_ratio": "1",
}  # fmt: skip


class House:
    """A device of a profile that measures a house; registers behind its map hold a pattern."""

    def __init__(self, device: DeviceProfile, **changed: str) -> None:
        self.words: dict[int, int] = {}
        for one in device.registers.values():
            value = {**HOUSE, **changed}.get(one.point)
            if value is not None and one.type not in ("string", "hex"):
                words = encode(one, Decimal(value))
                self.words.update(zip(range(one.address, one.end), words, strict=True))

    def read(self, address: int, count: int) -> list[int]:
        return [self.words.get(at, 0) for at in range(address, address + count)]


def request_of(device: DeviceProfile, first: str, last: str) -> ReadRequest:
    one, other = device.register(first), device.register(last)
    return read_request(1, one.function, one.address, other.end - one.address)


def codes(found: Sequence[Finding]) -> list[str]:
    return [one.code for one in found]


FLOATS = ("eastron_sdm630", "chint_dtsu666", "schneider_iem3000_pm5000")
WORDS = ("abb_b23_b24", "carlo_gavazzi_em340")


@pytest.mark.parametrize("name", ["eastron_sdm630", "abb_b23_b24", "acrel_adl400"])
def test_nothing_is_found_where_nothing_is_wrong(name: str) -> None:
    device = profile(name)
    for block in plan_blocks(device, device.registers.values()):
        request = read_request(1, block.function, block.address, block.count)
        words = House(device).read(block.address, block.count)
        if any(words):
            assert diagnose(device, request, words) == ()


@pytest.mark.parametrize("name", [*FLOATS, *WORDS])
def test_a_wrong_word_order_is_named_with_what_it_would_be(name: str) -> None:
    device = profile(name)
    order = "little" if device.register("voltage_a").word_order == "big" else "big"
    turned = replace(
        device,
        registers={p: replace(one, word_order=order) for p, one in device.registers.items()},
    )
    request = request_of(device, "voltage_a", "voltage_c")
    found = diagnose(turned, request, House(device).read(request.address, request.count))
    assert found[0].code == "word_order"
    assert "word_order" in found[0].advice
    evidence = {one.point: one for one in found[0].evidence}
    assert set(evidence) == {"voltage_a", "voltage_b", "voltage_c"}
    assert evidence["voltage_a"].found.startswith("230.1")
    assert not evidence["voltage_a"].read.startswith("230")


def test_a_single_swapped_float_is_known_by_its_size() -> None:
    """232.0 with its words swapped is 2.418e-41."""
    device = profile("eastron_sdm630")
    request = request_of(device, "voltage_a", "voltage_a")
    (found,) = diagnose(device, request, (0x0000, 0x4368))
    assert found.code == "word_order"
    (evidence,) = found.evidence
    assert evidence.read.startswith("2.418")
    assert Decimal(evidence.found) == 232


def moved(device: DeviceProfile, shift: int) -> DeviceProfile:
    """The profile with every address that much too high."""
    return replace(
        device,
        registers={
            point: replace(one, address=one.address + shift)
            for point, one in device.registers.items()
        },
    )


@pytest.mark.parametrize("name", [*FLOATS, *WORDS, "acrel_adl400"])
@pytest.mark.parametrize("shift", [1, -1])
def test_an_address_one_off_is_named_with_its_direction(name: str, shift: int) -> None:
    """The words behind and before come along, as `neighbours` asks for them."""
    device = profile(name)
    wrong = moved(device, shift)
    if min(one.address for one in wrong.registers.values()) < 0:
        wrong = replace(
            wrong, registers={p: o for p, o in wrong.registers.items() if o.address >= 0}
        )
    first, last = ("voltage_b" if name != "acrel_adl400" else "voltage_a"), "current_a"
    begin = min(wrong.register(one).address for one in (first, last))
    end = max(wrong.register(one).end for one in (first, last))
    request = read_request(1, wrong.register(first).function, begin - 1, end - begin + 2)
    found = diagnose(wrong, request, House(device).read(request.address, request.count))
    assert "offset" in codes(found)
    advice = f"{'take 1 off' if shift > 0 else 'add 1 to'} every address"
    assert advice in [one.advice for one in found if one.code == "offset"]


@pytest.mark.parametrize(("shift", "advice"), [(1, "take 1 off"), (-1, "add 1 to")])
def test_a_block_with_another_quantity_at_its_end_tells_the_direction(
    shift: int, advice: str
) -> None:
    device = profile("abb_b23_b24")
    wrong = moved(device, shift)
    first, last = wrong.register("voltage_a"), wrong.register("frequency")
    request = read_request(1, 3, first.address - 1, last.end - first.address + 2)
    found = diagnose(wrong, request, House(device).read(request.address, request.count))
    assert (found[0].code, found[0].advice) == ("offset", f"{advice} every address")
    assert "frequency" in {one.point for one in found[0].evidence}
    assert all(len(one.evidence) < len(found[0].evidence) for one in found[1:])


def test_order_and_address_are_both_named_where_they_cannot_be_told_apart() -> None:
    device = profile("eastron_sdm630")
    request = request_of(device, "voltage_a", "voltage_c")
    turned = [word for one in ("voltage_a", "voltage_b", "voltage_c")
              for word in encode(device.register(one), Decimal(HOUSE[one]))[::-1]]  # fmt: skip
    found = diagnose(device, request, turned)
    assert codes(found) == ["word_order", "offset", "offset"]
    assert [len(one.evidence) for one in found] == [3, 2, 2]


def test_the_bytes_of_each_word_turned_round_are_named() -> None:
    device = profile("acrel_adl400")
    request = request_of(device, "voltage_a", "voltage_c")
    words = [
        int.from_bytes(word.to_bytes(2), "little")
        for word in House(device).read(request.address, request.count)
    ]
    assert codes(diagnose(device, request, words))[0] == "byte_order"


def test_a_scale_that_is_a_power_of_ten_off_is_named() -> None:
    """Through a WiNet-S the frequency comes in hundredths: 500.1 Hz by the other map."""
    device, dongle = profile("sungrow_sg"), profile("sungrow_sg_winet")
    request = request_of(device, "frequency", "frequency")
    words = encode(dongle.register("frequency"), Decimal("50.01"))
    (found,) = diagnose(device, request, words)
    assert found.code == "scale"
    assert "frequency" in found.message
    assert "0.1" in found.advice
    assert (found.evidence[0].read, found.evidence[0].found) == ("500.1", "50.01")


def test_a_negative_number_read_as_a_large_one_is_named() -> None:
    """-2000 W read without its sign is 4294965296 W."""
    device = profile("abb_b23_b24")
    wrong = replace(
        device,
        registers={
            "active_power_total": replace(
                device.register("active_power_total"), type="uint32", missing=()
            )
        },
    )
    request = request_of(device, "active_power_total", "active_power_total")
    words = encode(device.register("active_power_total"), Decimal(-2))
    (found,) = diagnose(wrong, request, words)
    assert found.code == "sign"
    assert found.evidence[0].found.startswith("-2")


@pytest.mark.parametrize("filler", [0, 0xFFFF])
def test_filler_is_no_measurement(filler: int) -> None:
    device = profile("eastron_sdm630")
    request = request_of(device, "voltage_a", "voltage_c")
    assert codes(diagnose(device, request, [filler] * request.count)) == ["nothing_there"]


def test_what_no_simple_reason_explains_is_told_as_such() -> None:
    device = profile("acrel_adl400")
    request = request_of(device, "voltage_a", "voltage_c")
    assert codes(diagnose(device, request, (12, 60_000, 7))) == ["implausible"]


# -- ratios


def test_a_ratio_that_the_device_tells_otherwise_is_named() -> None:
    device = profile("chint_dtsu666")
    request = request_of(device, "ct_ratio", "pt_ratio")
    (found,) = diagnose(device, request, (40, 10), ct=1, pt=1)
    assert found.code == "ratio"
    assert "ct_ratio of the device is 40, configured is 1" in found.message
    assert diagnose(device, request, (40, 10), ct=40, pt=1) == ()


@pytest.mark.parametrize(("times", "wrong"), [("1.335", False), ("53.4", True), ("0.033", True)])
def test_power_that_does_not_fit_its_currents_tells_of_a_ratio(times: str, wrong: bool) -> None:
    """Forty times too much or too little: one of them is of the other side of the transformers."""
    device = profile("eastron_sdm630")
    request = request_of(device, "voltage_a", "power_factor_total")
    words = House(device, active_power_total=times).read(request.address, request.count)
    found = diagnose(device, request, words)
    assert codes(found) == (["ct_ratio"] if wrong else [])


# -- bytes

SDM = "eastron_sdm630"


def test_a_converter_that_passes_bytes_on_wants_rtu_framing() -> None:
    device = profile(SDM)
    sample = vector("rtu-rsp-sdm630-v1")
    request = read_request(1, 4, 0, 2, transaction=7)
    (found,) = diagnose(device, request, raw_of(sample))
    assert (found.code, found.advice) == ("rtu_over_tcp", "use RTU framing over TCP")
    assert "transparent converter" in found.message
    assert found.evidence[0].found == raw_of(sample).hex(" ")


def test_a_converter_that_speaks_modbus_tcp_is_told_apart() -> None:
    device = profile(SDM)
    request = read_request(1, 4, 0, 2)
    sent = other_framing(request)
    assert sent.transaction is not None
    (found,) = diagnose(device, request, build_reply(sent, (1, 2)))
    assert found.code == "modbus_tcp"
    assert other_framing(sent).raw == request.raw


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b"", "silent"),
        (b"\x00\xff\x13", "noise"),
        (read_request(1, 4, 0, 2).raw, "echo"),
        (build_reply(read_request(9, 4, 0, 2), (1, 2)), "wrong_unit"),
        (build_reply(read_request(1, 4, 0, 1), (1,)), "wrong_count"),
        (build_reply(read_request(1, 3, 0, 2), (1, 2)), "wrong_count"),
        (build_exception(read_request(1, 4, 0, 2), 2), "refused"),
    ],
)
def test_what_came_instead_of_a_reply_is_named(tail: bytes, code: str) -> None:
    request = read_request(1, 4, 0, 2)
    (found,) = diagnose(profile(SDM), request, tail)
    assert found.code == code
    assert found.advice


def test_a_short_reply_with_the_right_transaction_is_named() -> None:
    request = read_request(1, 4, 0, 2, transaction=5)
    short = build_reply(read_request(1, 4, 0, 1, transaction=5), (1,))
    assert codes(diagnose(profile(SDM), request, short)) == ["wrong_count"]


@pytest.mark.parametrize("before", [b"", b"\x00", read_request(1, 4, 0, 6).raw])
def test_a_reply_among_other_bytes_is_looked_into(before: bytes) -> None:
    device = profile(SDM)
    request = request_of(device, "voltage_a", "voltage_c")
    words = House(device).read(request.address, request.count)
    assert diagnose(device, request, before + build_reply(request, words)) == ()
    swapped = [word for at in range(0, 6, 2) for word in words[at : at + 2][::-1]]
    found = diagnose(device, request, before + build_reply(request, swapped))
    assert found[0].code == "word_order"


def test_registers_of_another_number_are_refused() -> None:
    with pytest.raises(LocalProtocolError):
        diagnose(profile(SDM), read_request(1, 4, 0, 2), (1, 2, 3))


@settings(deadline=None)
@given(st.sampled_from(PROFILES), st.data())
def test_any_reply_is_explained_or_passed_without_an_error(name: str, data: st.DataObject) -> None:
    device = profile(name)
    block = data.draw(st.sampled_from(plan_blocks(device, device.registers.values())))
    request = read_request(1, block.function, block.address, block.count)
    words = data.draw(st.lists(st.integers(0, 0xFFFF), min_size=block.count, max_size=block.count))
    for one in diagnose(device, request, words, ct=40, pt=10):
        assert one.code
        assert one.message
    junk = data.draw(st.binary(max_size=40))
    if junk:
        assert len(diagnose(device, request, junk)) <= 3


@pytest.mark.parametrize("name", PROFILES)
def test_the_neighbours_of_a_block_are_a_read_that_the_device_takes(name: str) -> None:
    device = profile(name)
    for block in plan_blocks(device, device.registers.values()):
        address, count = neighbours(device, block)
        assert 0 <= address <= block.address
        assert block.address + block.count <= address + count <= 0x10000
        assert count <= device.registers_max
        assert not device.even_only or (address | count) % 2 == 0


# -- a profile begun from a dump


def run_of(device: DeviceProfile, first: str, last: str) -> DumpRun:
    request = request_of(device, first, last)
    words = House(device).read(request.address, request.count)
    return DumpRun(request.function, request.address, tuple(words))


@pytest.mark.parametrize(
    ("name", "first", "last", "kind"),
    [
        ("eastron_sdm630", "voltage_a", "frequency", "float32"),
        ("carlo_gavazzi_em340", "voltage_a", "power_factor_total", "uint32"),
        ("abb_b23_b24", "voltage_a", "power_factor_total", "uint32"),
        ("acrel_adl400", "voltage_a", "frequency", "uint16"),
    ],
)
def test_a_dump_becomes_a_profile_that_finds_the_voltages(
    name: str, first: str, last: str, kind: str
) -> None:
    device = profile(name)
    text = skeleton([run_of(device, first, last)], name="new_meter", device='A "new" meter')
    made = profile_from(yaml.safe_load(text), name="new_meter.yaml")
    assert made.device == 'A "new" meter'
    for phase in "abc":
        one, true = (p.register(f"voltage_{phase}") for p in (made, device))
        assert (one.address, one.type, one.word_order) == (true.address, kind, true.word_order)
        assert one.scale == true.scale
        assert one.doubtful
    if "frequency" in made.registers:
        assert made.register("frequency").address == device.register("frequency").address


def test_what_is_not_guessed_stands_there_to_be_named() -> None:
    device = profile("eastron_sdm630")
    text = skeleton(
        [
            run_of(device, "voltage_a", "frequency"),
            run_of(device, "active_import_total", "active_export_total"),
        ],
        name="m",
        device="m",
    )
    comments = [line for line in text.splitlines() if line.startswith("#   ")]
    (counter,) = [line for line in comments if line.startswith("#   72:")]
    assert "float32 12345.67" in counter
    assert any(": 0" in line and " to " in line for line in comments)  # runs of zeros are one line


def test_a_dump_that_tells_nothing_says_so_when_it_is_loaded() -> None:
    text = skeleton([DumpRun(3, 100, (1, 2, 0, 0, 0, 0, 7))], name="m", device="m")
    tree = yaml.safe_load(text)
    assert tree["registers"] == []
    assert "#   100: 0x0001 = 1" in text


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([3, 4]),
            st.integers(0, 0xFF00),
            st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=60),
        ),
        max_size=3,
    ),
    st.text(max_size=10),
)
def test_any_dump_gives_a_file_that_can_be_read(
    runs: list[tuple[int, int, list[int]]], device: str
) -> None:
    dump = [DumpRun(function, address, tuple(words)) for function, address, words in runs]
    tree = yaml.safe_load(skeleton(dump, name="m", device=device or "m"))
    if tree["registers"]:
        profile_from(tree, name="m")


def test_a_raw_register_is_no_point_of_a_grid() -> None:
    """A profile with nothing to look at gives no finding."""
    one = Register("active_import_total", 4, 0, "uint32", 2, unit="kWh")
    device = replace(profile(SDM), registers={one.point: one})
    assert diagnose(device, read_request(1, 4, 0, 2), struct.unpack(">2H", b"\1\2\3\4")) == ()
