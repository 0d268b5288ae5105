"""Registers into values and back: sentinels, word order, exact numbers, ratios."""

import math
import struct
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from modbus_samples import PROFILES, profile

from protocols.errors import BadContent, LocalProtocolError
from protocols.modbus.decode import decode, encode
from protocols.modbus.profile import Register, raw_register
from protocols.quantities import quantity

words = st.integers(0, 0xFFFF)
INTEGERS = {"uint16": 1, "int16": 1, "uint32": 2, "int32": 2, "uint64": 4, "int64": 4}


def register(kind: str = "uint32", **more: object) -> Register:
    given_ = {"point": "reg:3:0:2", "function": 3, "address": 0, "type": kind}
    sizes = {**INTEGERS, "float32": 2, "float64": 4}
    return Register(**{**given_, "words": sizes.get(kind, 4), **more})  # type: ignore[arg-type]


def float_words(value: float) -> tuple[int, ...]:
    return struct.unpack(">2H", struct.pack(">f", value))


@given(st.sampled_from(sorted(INTEGERS)), st.sampled_from(["big", "little"]), st.data())
def test_every_integer_comes_out_as_it_went_in(kind: str, order: str, data: st.DataObject) -> None:
    bits = 16 * INTEGERS[kind]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "i" else (0, (1 << bits) - 1)
    number = data.draw(st.integers(low, high))
    scale = Decimal(1).scaleb(-data.draw(st.integers(0, 4)))
    one = register(kind, word_order=order, scale=scale)
    value = number * scale
    stored = encode(one, value)
    assert decode(one, stored, apply_ratio=False) == value
    assert struct.pack(f">{len(stored)}H", *(stored if order == "big" else stored[::-1])) == (
        number.to_bytes(bits // 8, signed=kind[0] == "i")
    )


def test_a_large_integer_keeps_every_digit_through_scale_and_ratios() -> None:
    one = register("uint64", scale=Decimal("0.001"), ratio="ct*pt")
    value = decode(
        one, (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE), ct=4000, pt=Decimal("350.5"), apply_ratio=True
    )
    assert value == Decimal(2**64 - 2) * 4000 * Decimal("0.3505")
    assert "E" not in str(value)


@given(st.sampled_from([*sorted(INTEGERS), "float32", "float64", "string", "hex"]), st.data())
def test_any_words_give_a_value_or_none_or_our_error(kind: str, data: st.DataObject) -> None:
    one = register(kind)
    found = data.draw(st.lists(words, min_size=one.words, max_size=one.words))
    try:
        value = decode(one, found, ct=200, pt=100, apply_ratio=True)
    except BadContent:
        assert kind == "string"
        return
    assert isinstance(value, str if kind in ("string", "hex") else Decimal) or value is None
    if isinstance(value, Decimal):
        assert value.is_finite()
        assert not (value == 0 and value.is_signed())
        assert "E" not in format(value, "f")


@given(st.sampled_from(PROFILES), st.data())
def test_any_words_survive_every_register_of_the_profiles(name: str, data: st.DataObject) -> None:
    rows = profile(name).registers
    one = rows[data.draw(st.sampled_from(sorted(rows)))]
    found = data.draw(st.lists(words, min_size=one.words, max_size=one.words))
    try:
        value = decode(one, found, ct=40, pt=1, apply_ratio=True)
    except BadContent:
        assert one.type == "string"
        return
    if isinstance(value, Decimal):
        assert "E" not in str(value)
        if one.type in INTEGERS:
            assert decode(
                one, encode(one, decode(one, found, apply_ratio=False)), apply_ratio=False
            ) == (decode(one, found, apply_ratio=False))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(12345.599609375)
@example(-0.0)
@example(1e-45)
@example(3.4028234663852886e38)
def test_a_float_is_rounded_once_to_the_decimals_of_the_display(number: float) -> None:
    one = register("float32", decimals=2)
    value = decode(one, float_words(number), apply_ratio=False)
    assert isinstance(value, Decimal)
    assert value.as_tuple().exponent == -2
    assert abs(value - Decimal(number)) <= Decimal("0.005")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_without_known_decimals_is_the_shortest_number_that_is_it(number: float) -> None:
    one = raw_register("reg:4:0:float32")
    value = decode(one, float_words(number), apply_ratio=False)
    assert isinstance(value, Decimal)
    assert struct.pack(">f", float(value)) == struct.pack(">f", number or 0.0)
    assert len(value.normalize().as_tuple().digits) <= 9


@pytest.mark.parametrize(
    "stored", [(0x7FC0, 0), (0xFFC0, 1), (0x7F80, 0), (0xFF80, 0), (0xFFFF, 0xFFFF), (0x7F80, 1)]
)
def test_what_is_no_number_is_no_value(stored: tuple[int, int]) -> None:
    assert decode(register("float32"), stored, apply_ratio=False) is None
    little = register("float32", word_order="little")
    assert decode(little, stored[::-1], apply_ratio=False) is None


def test_a_display_of_hundredths_is_met_exactly() -> None:
    one = profile("eastron_sdm630").register("active_import_total")
    assert str(decode(one, float_words(12345.6), apply_ratio=True)) == "12345.60"


@pytest.mark.parametrize(
    ("kind", "pattern", "neighbour"),
    [
        ("uint16", (0xFFFF,), (0xFFFE,)),
        ("int16", (0x8000,), (0x8001,)),
        ("uint32", (0xFFFF, 0xFFFF), (0x0000, 0xFFFF)),
        ("int32", (0x8000, 0x0000), (0x0000, 0x8000)),
        ("uint64", (0xFFFF,) * 4, (0, 0, 0xFFFF, 0xFFFF)),
        ("int64", (0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF), (0xFFFF,) * 4),
    ],
)
def test_no_value_is_told_by_type_and_width_before_scaling(
    kind: str, pattern: tuple[int, ...], neighbour: tuple[int, ...]
) -> None:
    number = int.from_bytes(struct.pack(f">{len(pattern)}H", *pattern))
    one = register(kind, missing=(number,), scale=Decimal("0.1"), ratio="ct")
    assert decode(one, pattern, ct=200, apply_ratio=True) is None
    assert decode(one, neighbour, ct=200, apply_ratio=True) is not None
    assert encode(one, None) == pattern
    little = register(kind, missing=(number,), word_order="little")
    assert decode(little, pattern[::-1], apply_ratio=False) is None


def test_a_full_low_word_of_a_counter_is_a_value() -> None:
    one = profile("sungrow_sg").register("pv_yield_total")
    assert decode(one, (0xFFFF, 0x0000), apply_ratio=True) == 65535
    assert decode(one, (0xFFFF, 0xFFFF), apply_ratio=True) is None


def test_export_is_not_four_gigawatts() -> None:
    one = profile("acrel_adl400").register("active_power_total")
    raw = struct.unpack(">2H", struct.pack(">i", -2000))
    assert str(decode(one, raw, apply_ratio=True)) == "-2.000"


def test_low_words_first_are_not_read_the_other_way_round() -> None:
    big = raw_register("reg:4:0:float32")
    little = raw_register("reg:4:0:float32:little")
    stored = float_words(232.0)
    assert decode(big, stored, apply_ratio=False) == 232
    assert decode(little, stored[::-1], apply_ratio=False) == 232
    wrong = decode(big, stored[::-1], apply_ratio=False)
    assert isinstance(wrong, Decimal)
    assert wrong < Decimal("1e-40")


def test_a_secondary_value_becomes_a_primary_one_only_when_asked() -> None:
    meter = profile("acrel_adl400")
    energy, volt, amp = (
        meter.register(p) for p in ("active_import_total", "voltage_a", "current_a")
    )
    stored = (0, 12345)
    assert str(decode(energy, stored, ct=40, pt=10, apply_ratio=False)) == "123.45"
    assert str(decode(energy, stored, ct=40, pt=10, apply_ratio=True)) == "49380.00"
    assert str(decode(volt, (2305,), ct=40, pt=10, apply_ratio=True)) == "2305.0"
    assert str(decode(amp, (125,), ct=40, pt=10, apply_ratio=True)) == "50.00"


@pytest.mark.parametrize(
    ("unit", "point", "raw", "expected"),
    [
        ("W", "active_power_total", 403, "0.403"),
        ("Wh", "active_import_total", 1234567, "1234.567"),
        ("MWh", "active_import_total", 3, "3000"),
        ("kW", "active_power_total", 3, "3"),
        ("mV", "voltage_a", 230123, "230.123"),
        ("degC", "temperature", 41, "41"),
        ("1", "power_factor_total", 1, "1"),
    ],
)
def test_the_maps_unit_becomes_the_points_unit_exactly(
    unit: str, point: str, raw: int, expected: str
) -> None:
    one = register("uint32", point=point, unit=unit)
    assert str(decode(one, divmod(raw, 0x10000), apply_ratio=True)) == expected
    assert encode(one, Decimal(expected)) == divmod(raw, 0x10000)


def test_a_text_is_a_text_without_its_filling() -> None:
    one = profile("sungrow_sg").register("serial_number")
    stored = encode(one, "A2350400123")
    assert len(stored) == 10
    assert decode(one, stored, apply_ratio=True) == "A2350400123"
    assert decode(one, (0,) * 10, apply_ratio=True) is None
    with pytest.raises(BadContent) as caught:
        decode(one, (0x4107,) * 10, apply_ratio=True)
    assert caught.value.code == "not_ascii"


def test_a_register_shows_what_is_below_its_step_cut_off() -> None:
    one = profile("acrel_adl400").register("active_import_total")
    assert encode(one, Decimal("1.239")) == (0, 123)
    negative = profile("acrel_adl400").register("active_power_total")
    assert encode(negative, Decimal("-0.0019")) == encode(negative, Decimal("-0.001"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint16", Decimal(65536)),
        ("uint16", Decimal(-1)),
        ("int16", Decimal(32768)),
        ("float32", Decimal("1e39")),
        ("uint32", None),
        ("uint32", Decimal("NaN")),
        ("string", "ü"),
        ("string", "nine char"),
        ("hex", "XY"),
    ],
)
def test_what_a_register_cannot_hold_is_refused(kind: str, value: Decimal | str | None) -> None:
    with pytest.raises(LocalProtocolError):
        encode(register(kind), value)


def test_a_float_without_a_value_is_nan() -> None:
    stored = encode(register("float32"), None)
    assert math.isnan(struct.unpack(">f", struct.pack(">2H", *stored))[0])


def test_the_wrong_number_of_words_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="2 registers, not 1"):
        decode(register("uint32"), (1,), apply_ratio=False)


@pytest.mark.parametrize("name", PROFILES)
def test_every_register_speaks_the_unit_of_its_point(name: str) -> None:
    for one in profile(name).registers.values():
        assert quantity(one.point).name == one.point
