"""SunSpec: the chain is walked, its breaks are named, and values take their own scale factors."""

import struct
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import ROOT

from protocols.errors import BadContent, LocalProtocolError
from protocols.modbus.counting import counting_of
from protocols.modbus.decode import decode, encode
from protocols.modbus.planner import plan_blocks
from protocols.modbus.register import DeviceProfile, Span
from protocols.modbus.sunspec import (
    BASES,
    MARKER,
    MODELS_MAX,
    Chain,
    Model,
    Walk,
    chain_of,
    sunspec_profile,
)
from protocols.modbus.sunspec_models import family_of, known_models


class Memory:
    """Registers of a device; what is not there is refused with exception 2."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words
        self.asked: list[Span] = []

    @classmethod
    def of(cls, chain: Chain, *, end: tuple[int, int] = (0xFFFF, 0)) -> "Memory":
        words = dict.fromkeys(range(chain.base, chain.end + 2), 0)
        words.update(zip(range(chain.base, chain.base + 2), MARKER, strict=True))
        for one in chain.models:
            words[one.address], words[one.address + 1] = one.id, one.length
        words[chain.end], words[chain.end + 1] = end
        return cls(words)

    def walk(self) -> Chain:
        walk = Walk()
        while (ask := walk.ask) is not None:
            self.asked.append(ask)
            assert len(self.asked) <= MODELS_MAX + len(BASES) + 1
            places = range(ask.address, ask.address + ask.count)
            if all(at in self.words for at in places):
                walk.take([self.words[at] for at in places])
            else:
                walk.refuse(2)
        assert walk.chain is not None
        return walk.chain


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("common_length", [65, 66])
def test_a_chain_is_found_wherever_it_may_begin(base: int, common_length: int) -> None:
    made = chain_of((1, 103, 120, 203), base=base, common_length=common_length)
    memory = Memory.of(made)
    assert memory.walk() == made
    assert all(ask.count == 2 for ask in memory.asked)
    assert len(memory.asked) == BASES.index(base) + 1 + 4 + 1
    assert made.models[1].address == base + 2 + 2 + common_length


def test_models_that_are_not_known_are_walked_over() -> None:
    made = Chain(40_000, (Model(1, 40_002, 66), Model(64_999, 40_070, 7), Model(103, 40_079, 50)))
    assert Memory.of(made).walk() == made
    assert "pv_yield_total" in sunspec_profile(made).registers


@pytest.mark.parametrize(
    ("change", "code", "models"),
    [
        ({40_000: 0}, "no_marker", 0),
        ({40_070: 0}, "no_id", 1),
        ({40_071: 0}, "no_length", 1),
        ({40_071: 0xFFF0}, "beyond_the_end", 1),
        ({40_071: 51}, "refused", 2),
        ({40_122: None}, "refused", 2),
    ],
)
def test_a_broken_chain_is_named_and_what_came_before_is_kept(
    change: dict[int, int | None], code: str, models: int
) -> None:
    memory = Memory.of(chain_of((1, 103)))
    for at, word in change.items():
        if word is None:
            del memory.words[at]
        else:
            memory.words[at] = word
    found = memory.walk()
    assert found.problem is not None
    assert (found.problem.code, len(found.models)) == (code, models)
    assert found.problem.message


def test_a_chain_without_end_is_given_up() -> None:
    words = dict(enumerate([*MARKER, *[7, 2, 0, 0] * 200], 40_000))
    found = Memory(words).walk()
    assert found.problem is not None
    assert (found.problem.code, len(found.models)) == ("too_long", MODELS_MAX)


def test_silence_ends_the_walk() -> None:
    walk = Walk()
    walk.take(MARKER)
    walk.give_up()
    assert walk.ask is None
    assert walk.chain is not None
    assert walk.chain.problem is not None
    assert walk.chain.problem.code == "no_answer"
    with pytest.raises(LocalProtocolError):
        walk.take((1, 66))


@given(st.dictionaries(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)), st.integers(0, 3))
def test_any_memory_is_walked_to_an_end(words: dict[int, int], marked: int) -> None:
    for base in BASES[:marked]:
        words.update(zip((base, base + 1), MARKER, strict=True))
    found = Memory(words).walk()
    assert found.problem is not None or found.models or marked


def test_a_read_of_another_size_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Walk().take((0x5375,))
    with pytest.raises(LocalProtocolError):
        Walk(bases=())
    with pytest.raises(LocalProtocolError, match="model 4"):
        chain_of((4,))


# -- models as data

IDS = (1, 101, 102, 103, 111, 112, 113, 120, 201, 202, 203, 204, 211, 212, 213, 214)


def test_the_models_are_known_with_their_lengths() -> None:
    assert known_models() == IDS
    lengths = {one: family_of(one).length for one in IDS}  # type: ignore[union-attr]
    assert lengths == {
        1: 66, 101: 50, 102: 50, 103: 50, 111: 60, 112: 60, 113: 60, 120: 26,
        201: 105, 202: 105, 203: 105, 204: 105, 211: 124, 212: 124, 213: 124, 214: 124,
    }  # fmt: skip


@pytest.mark.parametrize("model", IDS)
def test_no_point_of_a_model_overlaps_another_or_lies_outside(model: int) -> None:
    family = family_of(model)
    assert family is not None
    taken: set[int] = set()
    for one in family.points:
        own = set(range(one.offset, one.offset + one.words))
        assert taken.isdisjoint(own), one
        taken |= own
        assert one.offset >= 2
        assert one.behind <= 2 + family.length
    factors = {one.scale for one in family.points} - {None}
    assert taken.isdisjoint(factors)


@pytest.mark.parametrize("model", [one for one in IDS if one not in (1, 120)])
def test_what_a_model_bills_comes_out_of_one_reply(model: int) -> None:
    device = sunspec_profile(chain_of((1, model)))
    billed = [one for one in device.registers.values() if one.bill]
    assert {one.point for one in billed} == (
        {"pv_yield_total"} if model < 200 else {"active_import_total", "active_export_total"}
    )
    assert len(plan_blocks(device, billed)) == 1
    assert device.phases == {1: 1, 2: 2, 3: 3, 4: 3}[model % 10]


def test_no_request_reaches_into_the_next_model() -> None:
    chain = chain_of((1, 103, 120, 203))
    device = sunspec_profile(chain)
    for block in plan_blocks(device, device.registers.values()):
        (home,) = [one for one in chain.models if one.address <= block.address < one.behind]
        assert block.address + block.count <= home.behind
        for one in block.registers:
            assert block.address <= one.first
            assert one.behind <= block.address + block.count


def test_a_meter_behind_an_inverter_is_told_apart_from_it() -> None:
    device = sunspec_profile(chain_of((1, 103, 203)))
    assert device.kind == "inverter"
    assert {"grid_active_import_total", "grid_active_export_total"} <= set(device.registers)
    assert "active_import_total" not in device.registers
    assert [one.point for one in device.registers.values() if one.bill] == ["pv_yield_total"]
    assert device.register("active_power_total").address == 40_070 + 14


def test_integers_count_before_floats_whatever_comes_first() -> None:
    device = sunspec_profile(chain_of((1, 113, 103)))
    assert device.register("pv_yield_total").type == "acc32"


def test_points_beyond_the_length_that_a_model_tells_are_not_there() -> None:
    short = Chain(40_000, (Model(1, 40_002, 64), Model(103, 40_068, 24)))
    device = sunspec_profile(short)
    assert "comm_address" not in device.registers
    assert "active_power_total" in device.registers
    assert "pv_yield_total" not in device.registers  # its scale factor is beyond


def test_a_device_that_measures_nothing_is_told() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        sunspec_profile(chain_of((1, 120)))
    assert caught.value.code == "no_known_model"


def test_identification_is_known_as_such() -> None:
    device = sunspec_profile(chain_of((1, 103)))
    assert set(device.identification) == {
        "manufacturer", "model", "options", "firmware", "serial_number", "comm_address",
    }  # fmt: skip


# -- values


def inverter() -> DeviceProfile:
    return sunspec_profile(chain_of((1, 103)))


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(0, "12.345"), (1, "123.45"), (0xFFFE, "0.12345"), (0xFFF6, "0.0000000012345")],
)
def test_a_value_takes_the_factor_that_came_with_it(factor: int, expected: str) -> None:
    value = decode(inverter().register("active_power_total"), (12_345, factor), apply_ratio=True)
    assert value == Decimal(12_345).scaleb((factor ^ 0x8000) - 0x8000 - 3)
    assert isinstance(value, Decimal)
    assert format(value, "f") == expected


@pytest.mark.parametrize("factor", [11, 0xFFF5, 0x7FFF, 0x8001])
def test_a_factor_that_no_device_has_is_no_value_but_an_error(factor: int) -> None:
    with pytest.raises(BadContent) as caught:
        decode(inverter().register("active_power_total"), (1, factor), apply_ratio=True)
    assert caught.value.code == "bad_scale"


def test_a_factor_that_says_nothing_makes_no_value() -> None:
    one = inverter().register("active_power_total")
    assert decode(one, (100, 0x8000), apply_ratio=True) is None


def test_a_value_without_its_factor_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="and a scale factor"):
        decode(inverter().register("active_power_total"), (100,), apply_ratio=True)


def sentinels() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "active_power_total", (0x8000, 0)
    yield "voltage_a", (0xFFFF, 0)
    yield "pv_yield_total", (0, 0, 0)
    yield "status", (0xFFFF,)
    yield "event_1", (0xFFFF, 0xFFFF)
    yield "serial_number", (0,) * 16


@pytest.mark.parametrize(("point", "words"), list(sentinels()))
def test_every_type_has_its_pattern_for_no_value(point: str, words: tuple[int, ...]) -> None:
    assert decode(inverter().register(point), words, apply_ratio=True) is None


@pytest.mark.parametrize("pattern", [0x7FC00000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF])
def test_a_float_that_is_no_number_is_no_value(pattern: int) -> None:
    one = sunspec_profile(chain_of((1, 113))).register("active_power_total")
    words = (pattern >> 16, pattern & 0xFFFF)
    assert decode(one, words, apply_ratio=True) is None


@pytest.mark.parametrize(
    ("factor", "limit_kwh"),
    [(0, "4294967.296"), (0xFFFE, "42949.67296"), (3, "4294967296")],
)
def test_a_counter_begins_anew_where_its_factor_has_it(factor: int, limit_kwh: str) -> None:
    one = inverter().register("pv_yield_total")
    counting = counting_of(one, (0xFFFF, 0xFFFF, factor))
    assert counting.limit == Decimal(limit_kwh)
    assert counting.step == counting.limit / 2**32
    last = decode(one, (0xFFFF, 0xFFFF, factor), apply_ratio=True)
    assert isinstance(last, Decimal)
    assert last + counting.step == counting.limit


def test_a_percentage_becomes_a_factor() -> None:
    one = inverter().register("power_factor_total")
    assert decode(one, (9850, 0xFFFE), apply_ratio=True) == Decimal("0.985")
    floats = sunspec_profile(chain_of((1, 213))).register("power_factor_total")
    words = struct.unpack(">2H", struct.pack(">f", 0.985))
    assert decode(floats, words, apply_ratio=True) == Decimal("0.985")


@given(st.integers(-32_767, 32_767), st.integers(-10, 10))
def test_what_a_device_writes_with_a_factor_is_read_back(raw: int, power: int) -> None:
    one = inverter().register("active_power_total")
    value = Decimal(raw).scaleb(power - 3)
    words = encode(one, value, power=power)
    assert decode(one, (*words, power & 0xFFFF), apply_ratio=True) == value


def test_the_models_come_with_the_program() -> None:
    assert (ROOT / "protocols" / "modbus" / "sunspec_models.yaml").is_file()
