"""Device profiles and raw registers: what is accepted, what is told."""

import copy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import PROFILES, ROOT, profile

from headend.config.errors import ConfigErrors
from headend.config.profiles import load_profile
from headend.config.tree import parse_tree
from protocols.errors import LocalProtocolError
from protocols.modbus.profile import ProfileError, profile_from, raw_register
from protocols.modbus.register import Span
from protocols.quantities import quantity

GOOD: dict[str, Any] = {
    "id": "some_meter",
    "device": "Some meter",
    "kind": "meter",
    "function": 3,
    "registers_max": 50,
    "registers": [
        {
            "point": "active_import_total",
            "address": 10,
            "type": "uint32",
            "unit": "Wh",
            "bill": True,
        },
        {
            "point": "active_export_total",
            "address": 12,
            "type": "uint32",
            "unit": "Wh",
            "bill": True,
        },
        {"point": "voltage_a", "address": 20, "type": "float32", "unit": "V"},
    ],
}


def changed(**top: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **top}


def with_row(index: int, **row: Any) -> dict[str, Any]:
    tree = copy.deepcopy(GOOD)
    tree["registers"][index] = {**tree["registers"][index], **row}
    return tree


def problems(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        profile_from(tree, name="some.yaml")
    assert caught.value.name == "some.yaml"
    return [str(one) for one in caught.value.problems]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_of_the_project_is_the_same_through_any_reader(name: str) -> None:
    text = (ROOT / "config" / "devices" / f"{name}.yaml").read_text(encoding="utf-8")
    tree, errors = parse_tree(text, name)
    assert errors == []
    ours = profile_from(tree, name=name)
    assert ours == profile(name)
    assert ours.id == name
    assert len(ours.registers) >= 7


@pytest.mark.parametrize("name", PROFILES)
def test_only_counters_of_one_direction_are_billed(name: str) -> None:
    billed = {one.point for one in profile(name).registers.values() if one.bill}
    assert billed
    assert billed <= {"active_import_total", "active_export_total", "pv_yield_total"}
    for point in ("active_sum_total", "active_net_total", "reactive_sum_total"):
        assert quantity(point).kind == "instantaneous"


def test_defaults_are_filled_in() -> None:
    found = profile_from(GOOD, name="x")
    assert (found.side, found.gaps, found.even_only, found.turnaround_ms) == (
        "primary", "unknown", False, 20,
    )  # fmt: skip
    one = found.register("voltage_a")
    assert (one.function, one.words, one.decimals, one.scale, one.word_order) == (
        3, 2, 1, Decimal(1), "big",
    )  # fmt: skip
    assert found.register("active_import_total").decimals is None
    watts = with_row(2, point="active_power_a", unit="W")
    assert profile_from(watts, name="x").register("active_power_a").decimals == 1


def test_a_point_the_device_lacks_names_the_nearest() -> None:
    with pytest.raises(KeyError) as caught:
        profile("eastron_sdm630").register("active_imprt_total")
    assert str(caught.value).endswith("the nearest is 'active_import_total'")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (changed(idd=1), "idd: is not a key of a profile (id is meant?)"),
        (changed(id=None), "id: must be a text"),
        (changed(kind="heat"), "kind: is 'heat' (one of meter, inverter)"),
        (changed(registers_max=126), "registers_max: is 126 (a whole number, 1 to 125)"),
        (changed(registers=[]), "registers: must be a list of registers, one at least"),
        (changed(even_only="yes"), "even_only: is 'yes' (true or false)"),
        (changed(missing={"uint16": 0x10000}), "missing.uint16: 65536 does not fit uint16"),
        (changed(missing={"uint17": 1}), "missing.uint17: is not a key"),
        (changed(missing=[1]), "missing: must be a mapping"),
        (changed(function=6), "registers[0].function: is 6"),
        (changed(registers=[7]), "registers[0]: must be a mapping"),
        (with_row(2, adress=1), "registers[2].adress: is not a key of a profile (address"),
        (with_row(2, point="voltage_q"), "registers[2].point: there is no point voltage_q"),
        (with_row(1, point="active_import_total"), "registers[1].point: active_import_total st"),
        (with_row(2, unit="A"), "registers[2].unit: 'A' cannot become 'V' of voltage_a (one of mV"),
        (with_row(2, unit=["V"]), "registers[2].unit: is ['V']"),
        (with_row(2, type="float"), "registers[2].type: is 'float'"),
        (with_row(2, words=4), "registers[2].words: float32 has 2 registers, not 4"),
        (with_row(2, type="string"), "registers[2].words: is needed"),
        (with_row(2, missing=1 << 32), "registers[2].missing: 4294967296 does not fit float32"),
        (with_row(2, address=65535), "registers[2].address: is 65535 (a whole number, 0 to 65534)"),
        (with_row(2, address=True), "registers[2].address: is True"),
        (with_row(2, address=11), "registers[2].address: voltage_a (11 to 12) overlaps"),
        (with_row(2, scale=0), "registers[2].scale: is 0"),
        (with_row(2, scale="x"), "registers[2].scale: is x"),
        (with_row(0, decimals=2), "registers[0].decimals: uint32 has those of its scale"),
        (with_row(2, decimals=10), "registers[2].decimals: is 10"),
        (with_row(2, ratio="ct"), "registers[2].ratio: a device of the primary side has none"),
        (with_row(2, ratio="cd"), "registers[2].ratio: is 'cd' (one of ct, pt, ct*pt)"),
        (with_row(2, bill=True), "registers[2].bill: voltage_a is no counter of one direction"),
        (with_row(0, point="active_sum_total"), "registers[0].bill: active_sum_total is no"),
        (with_row(2, bill=1), "registers[2].bill: is 1 (true or false)"),
        (with_row(2, note=5), "registers[2].note: must be a text"),
        (with_row(1, address=60), "registers[1].bill: the billed registers of function 3 lie 52"),
        (changed(registers_max=1), "registers[0]: 2 registers are more than one request"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tree: dict[str, Any], expected: str) -> None:
    assert any(one.startswith(expected) for one in problems(tree)), problems(tree)


def test_odd_places_are_refused_where_the_device_wants_even_ones() -> None:
    tree = changed(even_only=True)
    tree["registers"][2]["address"] = 21
    (only,) = problems(tree)
    assert only.startswith("registers[2].address: 2 registers from 21 on break even_only (start")


def test_everything_wrong_is_told_at_once() -> None:
    tree = with_row(2, type="x", unit="y", point="z", address=-1)
    tree["kind"] = 5
    assert len(problems(tree)) == 5


def test_two_values_of_the_same_words_agree() -> None:
    tree = copy.deepcopy(GOOD)
    tree["registers"].append({**tree["registers"][0], "point": "active_import_t1", "bill": False})
    assert len(profile_from(tree, name="x").registers) == 4


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 1 << 65), st.floats(), st.text(max_size=8),
    st.sampled_from(["uint16", "float32", "V", "big", "0x10", "voltage_a", "nan", "ct"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@given(st.data())
def test_any_tree_gives_a_profile_or_its_problems(data: st.DataObject) -> None:
    tree = copy.deepcopy(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from([tree, *tree["registers"], tree["registers"][0]]))
        if not isinstance(where, dict):
            continue
        keys = [*where, "missing", "scale", "ratio", "word_order", "decimals", "words", "side"]
        key = data.draw(st.sampled_from(keys))
        if key != "registers":
            where[key] = data.draw(scalars)
    found: list[str] | None = None
    try:
        profile_from(tree, name="x")
    except ProfileError as error:
        found = [str(one) for one in error.problems]
    assert found is None or (found and all(found))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reg:3:72:1", (3, 72, "uint16", 1, "big")),
        ("reg:3:0x48:2", (3, 72, "uint32", 2, "big")),
        ("reg:4:72:4:little", (4, 72, "uint64", 4, "little")),
        ("reg:4:72:3", (4, 72, "hex", 3, "big")),
        ("reg:4:72:float32:big", (4, 72, "float32", 2, "big")),
        ("reg:3:4989:string10", (3, 4989, "string", 10, "big")),
    ],
)
def test_a_register_can_be_named_by_hand(text: str, expected: tuple[Any, ...]) -> None:
    one = raw_register(text)
    assert (one.function, one.address, one.type, one.words, one.word_order) == expected
    assert one.point == text


@pytest.mark.parametrize(
    "text",
    [
        "", "reg", "reg:3:72", "reg:5:72:2", "reg:3:65535:2", "reg:3:-1:2", "reg:3:72:0",
        "reg:3:72:126", "reg:3:72:float", "reg:3:72:string", "reg:3:72:2:middle", "di:3:72:2",
        "reg:3:7.2:2", "reg:x:1:1",
    ],
)  # fmt: skip
def test_a_register_named_wrongly_is_told_how(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="reg:FUNCTION:ADDRESS:WHAT"):
        raw_register(text)


def test_the_files_are_plain_yaml() -> None:
    for name in PROFILES:
        path = ROOT / "config" / "devices" / f"{name}.yaml"
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["id"] == name


# -- what holds for the device, and between its registers


def with_export(**row: Any) -> dict[str, Any]:
    """The good profile with something else about its export register."""
    return with_row(1, **row)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (changed(serial={"baud": 10}), "serial.baud: is 10 (a whole number, 300 to 4000000)"),
        (changed(serial={"parity": "both"}), "serial.parity: is 'both' (one of none, even, odd)"),
        (changed(serial=None), "serial: must be a mapping"),
        (changed(serial={"bauds": 9600}), "serial.bauds: is not a key of a profile (baud is m"),
        (changed(breaks=[1, "x"]), "breaks[1]: is x (an address, 0 to 65535)"),
        (changed(breaks=5), "breaks: must be a list"),
        (changed(breaks=[11]), "registers[0].address: a request for 10 to 11 reaches across 11"),
        (changed(spans=[{"address": 5}]), "spans[0].count: is needed"),
        (changed(spans=[{"address": 65535, "count": 2}]), "spans[0].count: is 2"),
        (changed(spans=[7]), "spans[0]: must be a mapping"),
        (changed(doubtful={"id": 5}), "doubtful.id: must be a text"),
        (changed(doubtful={"speed": "x"}), "doubtful.speed: is not a key"),
        (changed(doubtful=["x"]), "doubtful: must be a mapping"),
        (changed(phases=4), "phases: is 4 (a whole number, 1 to 3)"),
        (changed(filler=-1), "filler: is -1"),
        (changed(bill_apart=""), "bill_apart: must be a text"),
        (changed(missing={"uint32": 0xFFFF}), "missing.uint32: 0xFFFF is a number that uint32 can"),
        (changed(missing={"int64": 0x80000000}), "missing.int64: 0x80000000 is a number that"),
        (changed(missing={"string": 0}), "missing.string: is not a key"),
        (with_row(2, sign="turned"), "registers[2].sign: is 'turned' (one of same, inverted, abs"),
        (with_row(0, sign="inverted"), "registers[0].sign: uint32 has no sign"),
        (with_row(0, type="int32", sign="inverted"), "registers[0].sign: active_import_total cou"),
        (with_row(0, rollover=0), "registers[0].rollover: is 0"),
        (with_row(2, rollover=5), "registers[2].rollover: is 5 (a number above 0, for counters"),
        (with_row(0, rollover=5_000_000_000), "registers[0].rollover: is 5000000000, the register"),
        (with_row(2, type="string", words=2, unit="", scale_address=1), "registers[2].scale_addr"),
        (with_row(2, scale_address=21), "registers[2].scale_address: lies within the value's own"),
        (with_row(2, scale_address=80), "registers[2]: 61 registers with its scale factor are mo"),
        (with_row(2, ratio=None), "registers[2].ratio: is needed"),
        (with_row(2, doubtful=1), "registers[2].doubtful: must be a text"),
        (with_row(2, address="010"), "registers[2].address: is 010"),
        (with_export(address=30), "registers[1].bill: between active_import_total and active_ex"),
        (with_export(function=4), "registers[1].bill: the billed registers are of functions 3 and"),
        (changed(bill_apart="why not"), "bill_apart: one request reads all that is billed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_device_is_told_with_its_place(
    tree: dict[str, Any], expected: str
) -> None:
    found = problems(tree)
    assert any(one.startswith(expected) for one in found), found


def test_what_is_billed_in_two_requests_says_why() -> None:
    tree = with_export(address=30)
    (only,) = problems(tree)
    assert only.endswith(
        "(gaps: ok where the device reads through them, or spans for what exists there; or "
        "bill_apart says why it must be so)"
    )
    for cure in (
        {"bill_apart": "the device gives them one by one"},
        {"spans": [{"address": 10, "count": 30}]},
        {"gaps": "ok", "hole_max": 20},
    ):
        assert profile_from({**tree, **cure}, name="x").id == "some_meter"


def test_settings_of_a_device_are_read() -> None:
    tree = changed(
        phases=3, serial={"baud": 19_200, "parity": "even"}, hole_max=4, filler="0xFFFF",
        breaks=["0x20", 5], spans=[{"address": 60, "count": 4}], connect_pause_ms=1500,
        doubtful={"gaps": "one source"}, byte_order="little",
    )  # fmt: skip
    found = profile_from(tree, name="x")
    assert (found.phases, found.hole_max, found.filler, found.connect_pause_ms) == (
        3, 4, 0xFFFF, 1500,
    )  # fmt: skip
    assert found.serial is not None
    assert (found.serial.baud, found.serial.char_bits) == (19_200, 11)
    assert found.breaks == (5, 0x20)
    assert found.spans == (Span(3, 60, 4),)
    assert found.doubtful == {"gaps": "one source"}
    assert {one.byte_order for one in found.registers.values()} == {"little"}


def test_types_of_sunspec_have_their_own_patterns_in_any_profile() -> None:
    tree = with_row(0, type="acc32")
    one = profile_from(tree, name="x").register("active_import_total")
    assert one.missing == (0,)
    own = profile_from({**tree, "missing": {"acc32": [0, 0xFFFFFFFF]}}, name="x")
    assert own.register("active_import_total").missing == (0, 0xFFFFFFFF)


def test_a_problem_of_a_file_names_file_line_and_key(tmp_path: Path) -> None:
    text = (ROOT / "config" / "devices" / "abb_b23_b24.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("unit: kWh, scale: 0.01, bill: true", "unit: kW, bill: true", 1))
    with pytest.raises(ConfigErrors) as caught:
        load_profile(str(path), tmp_path)
    (error,) = caught.value.errors
    line = next(n for n, row in enumerate(path.read_text().splitlines(), 1) if "unit: kW," in row)
    assert (error.file, error.line, error.key) == (str(path), line, "registers[0].unit")
    assert "kWh" in str(error)
