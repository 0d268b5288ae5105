"""What a device refuses is found by halving, kept, and never asked for again."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_samples import ROOT, profile

from protocols.errors import LocalProtocolError
from protocols.modbus.learned import KEPT_MAX, Cut, Learned
from protocols.modbus.line_cost import Line
from protocols.modbus.planner import Block, plan
from protocols.modbus.register import DeviceProfile, Register, Span

PATH = ROOT / "docs" / "schemas" / "modbus_learned.schema.json"
SCHEMA = jsonschema.Draft202012Validator(json.loads(PATH.read_text(encoding="utf-8")))


class Picky:
    """A device that lacks some words, and gives no more than so many at once."""

    def __init__(self, absent: set[int], *, count_max: int = 125) -> None:
        self.absent = absent
        self.count_max = count_max
        self.refused: list[Span] = []

    def refuses(self, block: Block) -> int | None:
        words = range(block.address, block.address + block.count)
        code = None
        if block.count > self.count_max:
            code = 3
        elif not self.absent.isdisjoint(words):
            code = 2
        if code is not None:
            self.refused.append(block.span)
        return code


def learn(
    device: DeviceProfile, registers: list[Register], picky: Picky, learned: Learned
) -> tuple[Learned, set[str], int]:
    """Read until nothing is refused any more, as a session would: what came, and in how many."""
    asked = 0
    while True:
        made = plan(device, registers, line=Line.tcp(), learned=learned)
        refusals = []
        for block in made.blocks:
            asked += 1
            code = picky.refuses(block)
            if code is not None:
                refusals.append((block, code))
        if not refusals:
            return learned, {one.point for block in made.blocks for one in block.registers}, asked
        for block, code in refusals:
            learned = learned.refused(block.span, block.registers, code)
        assert asked < 2000, "it never ends"


def held(device: DeviceProfile, absent: set[int]) -> set[str]:
    return {
        one.point
        for one in device.registers.values()
        if absent.isdisjoint(range(one.first, one.behind))
    }


@settings(deadline=None)
@given(
    st.sampled_from(["eastron_sdm630", "abb_b23_b24", "huawei_sun2000", "acrel_adl400"]),
    st.data(),
)
def test_what_a_device_lacks_is_found_and_all_else_is_still_read(
    name: str, data: st.DataObject
) -> None:
    device = profile(name)
    rows = list(device.registers.values())
    lacking = data.draw(st.lists(st.sampled_from(rows), max_size=5, unique=True))
    absent = {at for one in lacking for at in range(one.address, one.end)}
    picky = Picky(absent)
    learned, came, _ = learn(device, rows, picky, Learned())
    assert came == held(device, absent)
    # Once more: what was refused is not asked for again, also by who starts from what was kept.
    picky.refused.clear()
    SCHEMA.validate(learned.to_json())
    kept = Learned.from_json(json.loads(json.dumps(learned.to_json())))
    assert kept == learned
    again, came, _ = learn(device, rows, picky, kept)
    assert picky.refused == []
    assert came == held(device, absent)
    assert again == learned


@settings(deadline=None)
@given(st.sampled_from(["eastron_sdm630", "abb_b23_b24", "huawei_sun2000"]), st.integers(4, 60))
def test_a_device_that_gives_less_at_once_is_read_all_the_same(name: str, count_max: int) -> None:
    device = profile(name)
    rows = [one for one in device.registers.values() if one.words <= 4]
    picky = Picky(set(), count_max=count_max)
    learned, came, _ = learn(device, rows, picky, Learned())
    assert came == {one.point for one in rows}
    assert (learned.absent, learned.cut) == ((), ())  # it is the count, not what is asked for


def test_one_bad_register_costs_a_handful_of_requests() -> None:
    device = profile("eastron_sdm630")
    rows = list(device.registers.values())
    bad = device.register("power_factor_b")
    picky = Picky(set(range(bad.address, bad.end)))
    learned, came, asked = learn(device, rows, picky, Learned())
    assert learned.lacks(bad)
    assert learned.cut == ()  # what was cut to find it is whole again
    assert len(picky.refused) <= 7
    assert asked < 40
    made = plan(device, rows, line=Line.tcp(), learned=learned)
    assert [one.point for one in made.absent] == ["power_factor_b"]
    assert len(made.blocks) <= len(plan(device, rows, line=Line.tcp()).blocks) + 1
    assert len(came) == len(rows) - 1


def test_a_hole_that_is_refused_is_not_read_through_again() -> None:
    """Both halves are given, and what is between them is not."""
    device = profile("eastron_sdm630")
    rows = [device.register(point) for point in ("power_factor_c", "active_power_total")]
    (block,) = plan(device, rows, line=Line.tcp()).blocks
    hole = set(range(rows[0].end, rows[1].address))
    assert hole
    learned, came, asked = learn(device, rows, Picky(hole), Learned())
    assert (asked, came) == (3, {one.point for one in rows})
    assert learned.absent == ()
    assert len(learned.cut) == 1
    assert block.count > 2


def test_a_hole_that_was_tried_and_given_is_read_through_from_then_on() -> None:
    device = profile("chint_ddsu666")
    billed = [one for one in device.registers.values() if one.bill]
    learned = Learned().answered(Span(3, 0x4000, 12))
    assert [b.span for b in plan(device, billed, learned=learned).blocks] == [Span(3, 0x4000, 12)]


@pytest.mark.parametrize("code", [1, 4, 5, 6, 8, 10, 11, 99])
def test_only_exceptions_2_and_3_say_something_lasting(code: int) -> None:
    one = Register("a", 3, 0, "uint16", 1)
    assert Learned().refused(Span(3, 0, 1), [one], code) == Learned()


def test_values_of_the_same_words_do_not_halve_for_ever() -> None:
    twins = [Register(name, 3, 4, "uint32", 2) for name in ("a", "b")]
    learned = Learned().refused(Span(3, 4, 2), twins, 2)
    assert learned.absent == (Span(3, 4, 2),)
    assert all(learned.lacks(one) for one in twins)


def test_what_is_kept_is_bounded() -> None:
    learned = Learned()
    for at in range(2 * KEPT_MAX):
        learned = learned.refused(Span(3, at, 1), [Register("a", 3, at, "uint16", 1)], 2)
    assert len(learned.absent) == KEPT_MAX
    assert Learned.from_json(learned.to_json()) == learned


GOOD = replace(
    Learned(), absent=(Span(3, 1, 2),), cut=(Cut(Span(4, 0, 8), 4),), count_max=9
).to_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {**GOOD, "schema": "modbus_learned/2"},
        {**GOOD, "absent": None},
        {**GOOD, "absent": [{"function": 5, "address": 0, "count": 1}]},
        {**GOOD, "absent": [{"function": 3, "address": 65_535, "count": 2}]},
        {**GOOD, "absent": [{"function": 3, "address": True, "count": 2}]},
        {**GOOD, "cut": [{"function": 3, "address": 0, "count": 2}]},
        {**GOOD, "readable": [7]},
        {**GOOD, "readable": [{"function": 3, "address": 0, "count": 1}] * (KEPT_MAX + 1)},
        {**GOOD, "count_max": 126},
        {**GOOD, "count_max": "9"},
    ],
)
def test_what_was_not_kept_by_us_is_told_and_not_taken(wrong: dict[str, Any]) -> None:
    assert Learned.from_json(GOOD).to_json() == GOOD
    SCHEMA.validate(GOOD)
    if wrong != {**GOOD, "absent": [{"function": 3, "address": 65_535, "count": 2}]}:
        assert not SCHEMA.is_valid(wrong)
    with pytest.raises(LocalProtocolError) as caught:
        Learned.from_json(wrong)
    assert caught.value.code == "bad_state"
