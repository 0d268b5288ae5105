"""Points into requests."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import PROFILES, profile

from protocols.errors import LocalProtocolError
from protocols.modbus.line_cost import Line
from protocols.modbus.master import read_request
from protocols.modbus.planner import Block, plan_blocks
from protocols.modbus.profile import DeviceProfile, Register, raw_register

names = st.sampled_from(PROFILES)


@st.composite
def asked(draw: st.DrawFn) -> tuple[DeviceProfile, list[Register]]:
    device = profile(draw(names))
    points = draw(st.lists(st.sampled_from(sorted(device.registers)), unique=True, min_size=1))
    return device, [device.register(point) for point in points]


def device_of(rows: list[Register], limit: int) -> DeviceProfile:
    return DeviceProfile(
        id="x",
        device="x",
        kind="meter",
        side="primary",
        registers_max=limit,
        gaps="unknown",
        even_only=False,
        turnaround_ms=0,
        registers={one.point: one for one in rows},
    )


def check(device: DeviceProfile, registers: list[Register], blocks: tuple[Block, ...]) -> None:
    known = {
        (one.function, at)
        for one in (*device.registers.values(), *registers)
        for at in range(one.address, one.end)
    }
    for block in blocks:
        assert 1 <= block.count <= device.registers_max
        read_request(1, block.function, block.address, block.count)
        hole = 0
        for at in range(block.address, block.address + block.count):
            hole = 0 if (block.function, at) in known else hole + 1
            assert hole <= (device.hole_max if device.gaps == "ok" else 0)
        for one in block.registers:
            assert one.function == block.function
            assert block.address <= one.address
            assert one.end <= block.address + block.count
        ends = (block.registers[0].address, max(one.end for one in block.registers))
        assert ends == (block.address, block.address + block.count)
        if device.even_only:
            assert block.address % 2 == block.count % 2 == 0
    placed = [one for block in blocks for one in block.registers]
    assert len(placed) == len(set(placed))
    assert set(placed) == set(registers)


@given(asked())
def test_every_register_is_in_one_block_without_holes_or_split_values(
    case: tuple[DeviceProfile, list[Register]],
) -> None:
    device, registers = case
    check(device, registers, plan_blocks(device, registers))


@given(asked(), st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_asking(
    case: tuple[DeviceProfile, list[Register]], random: object
) -> None:
    device, registers = case
    other = list(registers)
    random.shuffle(other)  # type: ignore[attr-defined]
    assert plan_blocks(device, other) == plan_blocks(device, registers)


@given(asked())
def test_what_is_billed_comes_out_of_one_reply(
    case: tuple[DeviceProfile, list[Register]],
) -> None:
    device, registers = case
    blocks = plan_blocks(device, registers)
    for function in (3, 4):
        homes = [
            block
            for block in blocks
            if block.function == function and any(one.bill for one in block.registers)
        ]
        assert len(homes) <= 1


@given(st.data())
def test_any_map_is_planned_within_its_limits(data: st.DataObject) -> None:
    limit = data.draw(st.integers(8, 40))
    rows: list[Register] = []
    at = 0
    for number in range(data.draw(st.integers(1, 25))):
        at += data.draw(st.sampled_from([0, 0, 0, 1, 5, 30]))
        size = data.draw(st.sampled_from([1, 2, 4]))
        rows.append(
            Register(f"p{number}", data.draw(st.sampled_from([3, 4])), at, "hex", size, bill=False)
        )
        at += size
    device = device_of(rows, limit)
    chosen = data.draw(st.lists(st.sampled_from(rows), unique=True, min_size=1))
    check(device, chosen, plan_blocks(device, chosen))


def test_import_and_export_of_the_meters_share_a_request() -> None:
    for name, count in (("eastron_sdm630", 4), ("acrel_adl400", 12)):
        device = profile(name)
        registers = [device.register(f"active_{way}_total") for way in ("import", "export")]
        (block,) = plan_blocks(device, registers)
        assert block.count == count


def test_far_apart_values_are_not_bridged_by_words_nobody_wants() -> None:
    device = profile("eastron_sdm630")
    registers = [device.register(point) for point in ("voltage_a", "power_factor_c")]
    slow = Line.serial(2400, turnaround_ms=20)
    first, second = plan_blocks(device, registers, line=slow)
    hole = second.address - (first.address + first.count)
    assert slow.cost_ms(hole + 4) > 2 * slow.cost_ms(2)
    assert len(plan_blocks(device, registers, line=Line.tcp())) == 1


def test_a_registers_words_are_taken_out_of_the_reply() -> None:
    device = profile("eastron_sdm630")
    register = device.register("active_export_total")
    (block,) = plan_blocks(device, [register, device.register("active_import_total")])
    assert block.words_of(register, (1, 2, 3, 4)) == (3, 4)


def test_raw_registers_are_planned_with_the_others() -> None:
    device = profile("sungrow_sg")
    raw = raw_register("reg:3:100:2")
    blocks = plan_blocks(device, [raw, device.register("status")])
    assert [(block.function, block.address, block.count) for block in blocks] == [
        (3, 100, 2), (4, 5037, 1),
    ]  # fmt: skip
    assert plan_blocks(device, []) == ()


@pytest.mark.parametrize("text", ["reg:4:1:2", "reg:4:0:1", "reg:4:0:82"])
def test_a_register_the_device_cannot_give_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="at most 80, start and count even"):
        plan_blocks(profile("eastron_sdm630"), [raw_register(text)])


def test_billed_values_too_far_apart_are_read_apart_rather_than_not_at_all() -> None:
    rows = [
        Register("a", 3, 0, "uint32", 2, scale=Decimal(1), bill=True),
        Register("b", 3, 60, "uint32", 2, bill=True),
    ]
    device = device_of(rows, 60)
    assert len(plan_blocks(device, rows)) == 2
