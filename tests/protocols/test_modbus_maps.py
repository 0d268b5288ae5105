"""The profiles against the maps they were made from: what a profile lacks has a reason."""

from decimal import Decimal
from functools import cache
from typing import Any

import pytest
import yaml
from modbus_samples import PROFILES, ROOT, profile

from protocols.modbus.register import DeviceProfile, Register

# Quantities that the maps name otherwise.
NAMES = {
    "device_type_code": "device_type",
    "model_number": "device_type",
    "grid_power_factor": "grid_power_factor_total",
    "pv_yield_total_fine": "pv_yield_total",
}
# Rows of a map that belong to another way of reading the same device: a profile of its own.
VARIANTS = {
    ("acrel_adl400", "primary_page"): "acrel_adl400_primary",
    ("chint_dtsu666", "page10"): "chint_dtsu666",
    ("chint_dtsu666", "page40"): "chint_dtsu666_page40",
    ("sungrow_sg", "models that answer it"): "sungrow_sg_fine",
}
# What no profile has, and why.
LEFT_OUT = {
    ("schneider_iem3000_pm5000", "active_import_float"): (
        "the same energy as 3203, with less resolution: nothing is billed or charted from it"
    ),
}
# What a profile has beyond its map, and why.
ADDED = {
    ("acrel_adl400", "ct_ratio"): "the notes of the map name it, unconfirmed",
}
# Profiles that differ from a map in one thing: (map, what)
OF_A_MAP = {"sungrow_sg_winet": "sungrow_sg"}
OTHER_SCALE = {("sungrow_sg_winet", "frequency"): Decimal("0.01")}


@cache
def maps() -> dict[str, dict[str, Any]]:
    text = (ROOT / "tests" / "data" / "modbus_maps.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader)


def rows() -> list[Any]:
    return [
        pytest.param(name, row, id=f"{name}-{row['q']}-{row['addr']}")
        for name, one in maps().items()
        for row in one["registers"]
    ]


def number(text: object) -> int:
    return int(str(text), 0)


def check_row(device: DeviceProfile, one: dict[str, Any], row: dict[str, Any]) -> None:
    found = device.register(NAMES.get(row["q"], row["q"]))
    assert found.function == row.get("fc", one["fc"])
    assert (found.address, found.type) == (row["addr"], row["type"])
    assert found.words == row.get("length", found.words)
    assert found.word_order == (one["word_order"] if found.words > 1 else found.word_order)
    scale = OTHER_SCALE.get((device.id, found.point), Decimal(str(row.get("scale", 1))))
    assert found.scale == abs(scale)
    assert found.sign == (
        "inverted" if scale < 0 else "absolute" if row.get("absolute") else "same"
    )
    if row["type"] != "string":
        assert (found.unit or "1") == row["unit"]
    assert found.ratio == row.get("ratio")
    assert found.bill == row.get("bill", False)
    check_missing(found, one, row)
    if row.get("doubtful"):
        assert found.doubtful


def check_missing(found: Register, one: dict[str, Any], row: dict[str, Any]) -> None:
    wanted = row.get("missing", one["missing"].get(found.type))
    if wanted not in (None, "nan"):
        assert number(wanted) in found.missing


@pytest.mark.parametrize(("name", "row"), rows())
def test_every_row_of_a_map_is_in_a_profile_or_left_out_for_a_reason(
    name: str, row: dict[str, Any]
) -> None:
    if (name, row["q"]) in LEFT_OUT:
        assert NAMES.get(row["q"], row["q"]) not in profile(name).registers
        return
    home = VARIANTS.get((name, row.get("variant")), name)
    check_row(profile(home), maps()[name], row)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_has_nothing_that_its_map_has_not(name: str) -> None:
    source = next(
        (m for (m, _), home in VARIANTS.items() if home == name), OF_A_MAP.get(name, name)
    )
    known = {(NAMES.get(row["q"], row["q"]), row["addr"]) for row in maps()[source]["registers"]}
    for one in profile(name).registers.values():
        assert (one.point, one.address) in known or (name, one.point) in ADDED


@pytest.mark.parametrize("name", sorted(maps()))
def test_the_settings_of_a_map_are_those_of_its_profile(name: str) -> None:
    one, device = maps()[name], profile(name)
    assert (device.kind, device.side, device.gaps, device.registers_max, device.phases) == (
        one["kind"], one["side"], one["gaps"], one["max_regs"], one["phases"],
    )  # fmt: skip
    if "serial" in one:
        assert device.serial is not None
        baud, parity, stop_bits = one["serial"]
        assert (device.serial.baud, device.serial.parity[0].upper(), device.serial.stop_bits) == (
            baud, parity, stop_bits,
        )  # fmt: skip


def test_other_ways_of_reading_a_device_differ_only_in_what_they_are_for() -> None:
    plain, dongle = profile("sungrow_sg"), profile("sungrow_sg_winet")
    assert dongle.breaks == (5039,)
    differ = {p for p, one in plain.registers.items() if dongle.registers[p] != one}
    assert differ == {"frequency"}
    fine = profile("sungrow_sg_fine")
    assert {p for p, one in plain.registers.items() if fine.registers[p] != one} == {
        "pv_yield_total"
    }
    old, new = profile("chint_dtsu666_page40"), profile("chint_dtsu666")
    assert set(old.registers) < set(new.registers)
    moved = {p for p, one in old.registers.items() if new.registers[p] != one}
    assert moved == {"active_import_total", "active_export_total"}


def test_every_profile_comes_from_a_map() -> None:
    assert set(PROFILES) == {*maps(), *VARIANTS.values(), *OF_A_MAP}


def test_what_is_not_sure_is_told_with_the_setting() -> None:
    assert "registers_max" in profile("carlo_gavazzi_em340").doubtful
    assert profile("acrel_adl400").register("ct_ratio").doubtful
    assert profile("chint_ddsu666").register("active_import_total").doubtful
