"""Points into requests."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import PROFILES, profile

from protocols.errors import LocalProtocolError
from protocols.modbus.line_cost import Line
from protocols.modbus.master import read_request
from protocols.modbus.planner import Block, halves, plan, plan_blocks
from protocols.modbus.profile import DeviceProfile, Register, raw_register
from protocols.modbus.register import Span
from protocols.modbus.sunspec import chain_of, sunspec_profile

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
        assert len(homes) <= 1 or device.bill_apart


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


# -- what it costs


@pytest.mark.parametrize(
    ("baud", "quiet_ms", "costs"),
    [
        (1200, 32.1, {2: 200, 80: 1500, 125: 2300}),
        (2400, 16.0, {2: 100, 80: 750, 125: 1130}),
        (9600, 4.0, {2: 25, 80: 188, 125: 281}),
        (19_200, 2.0, {2: 12, 80: 94, 125: 141}),
    ],
)
def test_the_wire_time_is_that_of_the_line(
    baud: int, quiet_ms: float, costs: dict[int, float]
) -> None:
    line = Line.serial(baud)
    assert line.quiet_ms == pytest.approx(quiet_ms, rel=0.02)
    for count, cost_ms in costs.items():
        assert line.wire_ms(count) == pytest.approx(cost_ms, rel=0.08)


def test_above_19200_baud_the_pause_is_a_fixed_time() -> None:
    assert Line.serial(38_400).quiet_ms == Line.serial(115_200).quiet_ms == 1.75


def test_parity_makes_a_byte_longer() -> None:
    even, none = profile("abb_b23_b24"), profile("eastron_sdm630")
    assert Line.of(even).char_ms == 1000 * 11 / 19_200
    assert Line.of(none).char_ms == 1000 * 10 / 9600
    assert Line.of(none, baud=2400).char_ms == 1000 * 10 / 2400


def test_a_plan_tells_its_requests_and_what_they_cost() -> None:
    device = profile("eastron_sdm630")
    points = ("voltage_a", "voltage_c", "active_import_total", "active_export_total")
    line = Line.serial(9600, turnaround_ms=100, reply_delay_ms=40)
    made = plan(device, [device.register(point) for point in points], line=line)
    (row,) = made.rows()
    assert row == {
        "function": 4, "address": 0, "count": 76, "points": list(points), "unused": 68,
        "cost_ms": round(line.cost_ms(76), 1),
    }  # fmt: skip
    # Two requests would cost more, by twice the device's own time.
    assert line.cost_ms(6) + line.cost_ms(4) > line.cost_ms(76)
    assert made.cost_ms == pytest.approx(sum(row["cost_ms"] for row in made.rows()), abs=0.2)
    assert made.absent == ()


def all_partitions(registers: list[Register]) -> Iterator[list[list[Register]]]:
    for cuts in itertools.product((False, True), repeat=len(registers) - 1):
        parts = [[registers[0]]]
        for cut, one in zip(cuts, registers[1:], strict=True):
            if cut:
                parts.append([one])
            else:
                parts[-1].append(one)
        yield parts


@given(st.data())
def test_no_other_way_of_cutting_costs_less(data: st.DataObject) -> None:
    """Against every partition of up to nine registers, by a cost that is worked out here."""
    rows: list[Register] = []
    at = data.draw(st.integers(0, 3))
    for number in range(data.draw(st.integers(2, 9))):
        size = data.draw(st.sampled_from([1, 2, 4]))
        rows.append(Register(f"p{number}", 3, at, "hex", size))
        at += size + data.draw(st.sampled_from([0, 0, 0, 1, 3, 12, 20]))
    limit = data.draw(st.integers(6, 60))
    gaps = data.draw(st.sampled_from(["ok", "refuse"]))
    hole_max = data.draw(st.integers(0, 20))
    device = replace(device_of(rows, limit), gaps=gaps, hole_max=hole_max)
    baud, wait_ms = (
        data.draw(st.sampled_from([1200, 9600, 115_200])),
        data.draw(st.integers(0, 200)),
    )
    line = Line.serial(baud, turnaround_ms=wait_ms, reply_delay_ms=0)

    def cost_ms(parts: list[list[Register]]) -> float:
        total = 0.0
        for part in parts:
            count = part[-1].end - part[0].address
            holes = [b.address - a.end for a, b in itertools.pairwise(part)]
            if count > limit or max(holes, default=0) > (hole_max if gaps == "ok" else 0):
                return float("inf")
            quiet_ms = 1.75 if baud > 19_200 else 3.5 * 11_000 / baud
            total += (13 + 2 * count) * 10_000 / baud + 2 * quiet_ms + wait_ms
        return total

    least = min(cost_ms(parts) for parts in all_partitions(rows))
    assert plan(device, rows, line=line).cost_ms == pytest.approx(least)


def test_what_is_billed_stays_together_although_two_requests_cost_less() -> None:
    between = [Register(f"p{at}", 3, at, "uint16", 1) for at in range(2, 62)]
    billed = [Register(name, 3, at, "uint32", 2, bill=True) for name, at in (("a", 0), ("b", 62))]
    device = device_of([*billed, *between], 64)
    slow = Line.serial(1200, turnaround_ms=0, reply_delay_ms=0)
    assert slow.cost_ms(64) > 2 * slow.cost_ms(2)
    (block,) = plan_blocks(device, billed, line=slow)
    assert block.registers == tuple(billed)
    telemetry = [replace(one, bill=False) for one in billed]
    assert len(plan_blocks(device_of([*telemetry, *between], 64), telemetry, line=slow)) == 2


# -- what devices forbid


def test_no_request_reaches_across_a_break() -> None:
    device = profile("carlo_gavazzi_em340")
    blocks = plan_blocks(device, device.registers.values(), line=Line.tcp())
    (alone,) = [b for b in blocks if any(one.point == "device_type" for one in b.registers)]
    assert (alone.address, alone.count) == (0x0B, 1)


def test_what_can_only_be_read_one_by_one_is() -> None:
    device = profile("chint_ddsu666")
    billed = [one for one in device.registers.values() if one.bill]
    assert [(b.address, b.count) for b in plan_blocks(device, billed)] == [(0x4000, 2), (0x400A, 2)]


def test_registers_that_are_known_to_exist_may_lie_in_between() -> None:
    device = profile("chint_ddsu666")
    told = replace(device, spans=(Span(3, 0x4000, 12),))
    billed = [one for one in device.registers.values() if one.bill]
    assert [(b.address, b.count) for b in plan_blocks(told, billed)] == [(0x4000, 12)]


def test_holes_are_read_through_only_as_far_as_a_device_is_known_to() -> None:
    rows = [Register(f"p{at}", 3, at, "uint16", 1) for at in (0, 17, 35)]
    device = replace(device_of(rows, 64), gaps="ok", hole_max=16)
    assert [(b.address, b.count) for b in plan_blocks(device, rows, line=Line.tcp())] == [
        (0, 18), (35, 1),
    ]  # fmt: skip
    for gaps in ("refuse", "unknown"):
        strict = replace(device, gaps=gaps)
        assert len(plan_blocks(strict, rows, line=Line.tcp())) == 3


def test_a_value_and_its_scale_factor_come_in_one_request() -> None:
    rows = [
        Register("a", 3, 10, "int16", 1, scale_address=18),
        Register("b", 3, 20, "int16", 1, scale_address=15),
    ]
    device = replace(device_of(rows, 125), spans=(Span(3, 10, 20),))
    slow = Line.serial(300, turnaround_ms=0, reply_delay_ms=0)
    for block in plan_blocks(device, rows, line=slow):
        for one in block.registers:
            words = tuple(range(block.address, block.address + block.count))
            assert block.words_of(one, words) == (one.address, one.scale_address)
    alone = replace(device, registers_max=8)
    with pytest.raises(LocalProtocolError):
        plan_blocks(alone, rows[:1])


def test_the_halves_of_a_block_hold_its_values_whole() -> None:
    device = sunspec_profile(chain_of((1, 103)))
    (block,) = [b for b in plan_blocks(device, device.registers.values()) if b.address > 40_070]
    parts = halves(block)
    assert sum(len(part.registers) for part in parts) == len(block.registers)
    for part in parts:
        for one in part.registers:
            assert part.address <= one.first
            assert one.behind <= part.address + part.count
