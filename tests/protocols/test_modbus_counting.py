"""Steps, rollovers, signs and orders of registers; ratios against the device's own."""

import struct
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import PROFILES, profile

from protocols.modbus.counting import counting_of
from protocols.modbus.decode import decode, encode
from protocols.modbus.ratio import Mismatch, Ok, ratio_check, ratio_points
from protocols.modbus.register import Register


def float_words(value: float) -> tuple[int, ...]:
    return struct.unpack(">2H", struct.pack(">f", value))


@pytest.mark.parametrize(
    ("name", "point", "step", "limit"),
    [
        ("acrel_adl400", "active_import_total", "0.01", "42949672.96"),
        ("acrel_adl400_primary", "active_import_total", "0.1", "429496729.6"),
        ("carlo_gavazzi_em340", "active_export_total", "0.1", "214748364.8"),
        ("abb_b23_b24", "active_import_total", "0.01", "184467440737095516.16"),
        ("schneider_iem3000_pm5000", "active_import_total", "0.001", "9223372036854775.808"),
        ("sungrow_sg", "pv_yield_total", "1", "4294967296"),
        ("sungrow_sg_fine", "pv_yield_total", "0.1", "429496729.6"),
        ("huawei_sun2000", "pv_yield_total", "0.01", "42949672.96"),
        ("eastron_sdm630", "active_import_total", "0.01", None),
    ],
)
def test_a_counter_begins_anew_at_the_end_of_its_register(
    name: str, point: str, step: str, limit: str | None
) -> None:
    counting = counting_of(profile(name).register(point))
    assert counting.step == Decimal(step)
    assert counting.limit == (None if limit is None else Decimal(limit))


def test_a_display_that_ends_earlier_ends_the_count() -> None:
    one = profile("acrel_adl400").register("active_import_total")
    assert counting_of(replace(one, rollover=Decimal(1_000_000))).limit == 1_000_000
    watts = replace(one, unit="Wh", rollover=Decimal(1_000_000))
    assert counting_of(watts).limit == 1000
    floats = profile("eastron_sdm630").register("active_import_total")
    assert counting_of(replace(floats, rollover=Decimal(1_000_000))).limit == 1_000_000


@pytest.mark.parametrize(
    ("value", "step"),
    [(1.0, "0.01"), (65_536.0, "0.01"), (131_072.0, "0.015625"), (1_000_000.0, "0.0625")],
)
def test_a_float_knows_less_the_more_it_holds(value: float, step: str) -> None:
    one = profile("eastron_sdm630").register("active_import_total")
    assert counting_of(one, float_words(value)).step == Decimal(step)
    little = replace(one, word_order="little")
    assert counting_of(little, float_words(value)[::-1]).step == Decimal(step)


def test_zero_says_nothing_where_a_device_gives_it_for_what_it_lacks() -> None:
    for name in PROFILES:
        device = profile(name)
        one = next(iter(device.registers.values()))
        says_nothing = counting_of(one, profile=device).zero_says_nothing
        assert says_nothing == name.startswith("eastron")


# -- signs and orders


def test_a_count_that_runs_the_other_way_is_turned() -> None:
    one = profile("huawei_sun2000").register("grid_active_power_total")
    assert decode(one, encode(one, Decimal(-2)), apply_ratio=True) == Decimal(-2)
    assert decode(one, (0, 2000), apply_ratio=True) == Decimal(-2)  # 2000 W feed-in
    export = profile("huawei_sun2000").register("grid_active_export_total")
    minus = struct.unpack(">2H", struct.pack(">i", -12_345))
    assert decode(export, minus, apply_ratio=True) == Decimal("123.45")
    assert decode(export, (0, 12_345), apply_ratio=True) == Decimal("123.45")


@given(st.integers(0, 0xFFFFFFFF))
def test_bytes_and_words_come_in_four_orders(number: int) -> None:
    raw = number.to_bytes(4)
    a, b, c, d = raw
    expected = {
        ("big", "big"): (a << 8 | b, c << 8 | d),
        ("little", "big"): (c << 8 | d, a << 8 | b),
        ("big", "little"): (b << 8 | a, d << 8 | c),
        ("little", "little"): (d << 8 | c, b << 8 | a),
    }
    for (words, octets), stored in expected.items():
        one = Register("reg:3:0:2", 3, 0, "uint32", 2, word_order=words, byte_order=octets)  # type: ignore[arg-type]
        assert decode(one, stored, apply_ratio=False) == number
        assert encode(one, Decimal(number)) == stored


@pytest.mark.parametrize(
    ("value", "shown"),
    [(12_345.6, "12345.60"), (0.005, "0.00"), (65_536.0078, "65536.01"), (999_999.94, "999999.94")],
)
def test_a_float_is_rounded_once_to_what_the_meter_shows(value: float, shown: str) -> None:
    one = profile("eastron_sdm630").register("active_import_total")
    assert str(decode(one, float_words(value), apply_ratio=True)) == shown


@pytest.mark.parametrize(
    ("kind", "missing", "words"),
    [
        ("uint32", 0xFFFFFFFF, (0x0000, 0xFFFF)),
        ("int32", 0x80000000, (0x0000, 0x8000)),
        ("uint64", 0xFFFFFFFFFFFFFFFF, (0, 0, 0xFFFF, 0xFFFF)),
        ("int64", 0x7FFFFFFFFFFFFFFF, (0, 0, 0, 0x7FFF)),
    ],
)
def test_a_pattern_of_fewer_words_is_a_number(
    kind: str, missing: int, words: tuple[int, ...]
) -> None:
    one = Register("reg:3:0:2", 3, 0, kind, len(words), missing=(missing,))
    expected = int.from_bytes(b"".join(word.to_bytes(2) for word in words))
    assert decode(one, words, apply_ratio=False) == expected
    held = missing.to_bytes(2 * len(words))
    pattern = struct.unpack(f">{len(words)}H", held)
    assert decode(one, pattern, apply_ratio=False) is None


# -- ratios


def test_ratios_that_agree_are_told_with_what_was_looked_at() -> None:
    device = profile("chint_dtsu666")
    assert ratio_points(device) == ("ct_ratio", "pt_ratio")
    registers = {"ct_ratio": (40,), "pt_ratio": (10,)}
    assert ratio_check(device, registers, 40, 1) == Ok(("ct_ratio", "pt_ratio"))
    assert ratio_check(device, {}, 40, 1) == Ok(())


def test_a_ratio_that_differs_is_a_mismatch_with_both_numbers() -> None:
    device = profile("chint_dtsu666")
    found = ratio_check(device, {"ct_ratio": (30,), "pt_ratio": (10,)}, Decimal(40), Decimal(1))
    assert isinstance(found, Mismatch)
    assert found.sure
    assert str(found) == "ct_ratio of the device is 30, configured is 40"


def test_a_mismatch_of_a_register_that_is_in_doubt_says_so() -> None:
    found = ratio_check(profile("acrel_adl400"), {"ct_ratio": (0, 30)}, 40, 1)
    assert isinstance(found, Mismatch)
    assert not found.sure
    assert "compare with the nameplate" in str(found)


def test_a_device_that_multiplies_itself_is_not_to_be_multiplied_again() -> None:
    device = profile("eastron_sdm630")
    assert ratio_points(device) == ()
    assert ratio_check(device, {}, 1, 1) == Ok(())
    found = ratio_check(device, {}, 40, 1)
    assert isinstance(found, Mismatch)
    assert found.sure
