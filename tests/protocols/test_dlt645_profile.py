"""Profiles of models, status words, and directions that only the status words tell."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.items import decode
from protocols.dlt645.load_profile import LoadShape
from protocols.dlt645.profile import (
    GENERIC,
    MeterProfile,
    ProfileError,
    profile_from,
    profile_schema,
)
from protocols.dlt645.status import (
    meanings,
    signed_by_status,
    states,
    unnamed_bits,
    words_of_directions,
)
from protocols.errors import BadContent

ROOT = Path(__file__).parents[2]
PLACES = sorted((ROOT / "config" / "devices" / "dlt645").glob("*.yaml"))
SCHEMA = ROOT / "docs" / "schemas" / "dlt645_profile.schema.json"


def tree_of(place: Path) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(place.read_text("utf-8"))
    return tree


def packaged(name: str) -> MeterProfile:
    place = next(place for place in PLACES if place.stem == name)
    return profile_from(tree_of(place), name=place.name)


@pytest.mark.parametrize("place", [pytest.param(p, id=p.stem) for p in PLACES])
def test_every_profile_that_comes_with_the_program_is_good(place: Path) -> None:
    profile = profile_from(tree_of(place), name=place.name)
    assert profile.id == place.stem
    jsonschema.validate(tree_of(place), profile_schema())


def test_the_schema_in_the_documents_is_the_readers() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == profile_schema()


def test_the_generic_profile_is_the_standard() -> None:
    generic = packaged("generic")
    assert generic.item("00010000") is lookup("00010000")
    assert generic.items == {}
    assert (generic.edition, generic.wakeup, generic.blocks) == ("dlt645-2007", 4, True)
    assert (GENERIC.tariffs, GENERIC.pause_ms) == (generic.tariffs, generic.pause_ms)
    assert packaged("generic_1997").edition == "dlt645-1997"


def test_longer_items_are_read_by_their_profile_and_by_nothing_else() -> None:
    iot = packaged("iot_three_phase")
    current, power = iot.item("02020100"), iot.item("02030000")
    assert current is not None
    assert power is not None
    assert (current.point, current.unit, current.length, current.scale) == ("current_a", "A", 4, 3)
    assert [str(v) for v in decode(current, bytes.fromhex("00500100"))] == ["15.000"]
    assert [str(v) for v in decode(power, bytes.fromhex("45230100"))] == ["1.2345"]
    # The highest bit is a digit of such a meter.
    assert [str(v) for v in decode(power, bytes.fromhex("00000080"))] == ["8000.0000"]
    with pytest.raises(BadContent) as caught:
        decode(power, bytes.fromhex("452301"))
    assert caught.value.code == "short_data"
    standard = lookup("02030000")
    assert standard is not None
    with pytest.raises(BadContent) as caught:
        decode(standard, bytes.fromhex("45230100"))
    assert caught.value.code == "long_data"


def test_a_block_of_longer_items_keeps_its_members() -> None:
    block = packaged("iot_three_phase").item("0203FF00")
    assert block is not None
    assert block.length == 16
    assert [block.point_at(n) for n in range(4)] == [
        "active_power_total", "active_power_a", "active_power_b", "active_power_c",
    ]  # fmt: skip
    assert block.block_members


def test_an_item_of_a_make_has_its_point() -> None:
    profile = packaged("frequency_1997")
    assert profile.di_of("frequency") == "B660"
    item = profile.item("B660")
    assert item is not None
    assert (item.point, item.unit) == ("frequency", "Hz")
    assert [str(v) for v in decode(item, bytes.fromhex("9849"))] == ["49.98"]
    assert packaged("generic_1997").di_of("frequency") is None


def test_the_shape_of_load_records_is_in_the_profile() -> None:
    profile = packaged("sparse_load_records")
    assert profile.load == LoadShape("data_only")
    assert profile.load_all_di == "060000FF"
    assert GENERIC.load == LoadShape()


BASE = {"id": "x", "device": "y", "protocol": "dlt645-2007"}


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"id": 7}, ("id",), "must be a text"),
        ({"protocol": "dlt645"}, ("protocol",), "is 'dlt645'"),
        ({"wakeups": 4}, ("wakeups",), "is not a key"),
        ({"wakeup": 9}, ("wakeup",), "is 9"),
        ({"wakeup": True}, ("wakeup",), "is True"),
        ({"blocks": 1}, ("blocks",), "is 1"),
        ({"suffix": "0D0"}, ("suffix",), "is '0D0'"),
        ({"suffix": 0}, ("suffix",), "is 0"),
        ({"refuses": "90FF"}, ("refuses",), "must be a list"),
        ({"refuses": ["90FF"]}, ("refuses", 0), "is '90FF'"),
        ({"refuses": [10000]}, ("refuses", 0), "is 10000"),
        ({"load_records": []}, ("load_records",), "must be a mapping"),
        ({"load_records": {"separators": "some"}}, ("load_records", "separators"), "is 'some'"),
        ({"items": {}}, ("items",), "must be a list"),
        ({"items": [{"format": "XX"}]}, ("items", 0, "di"), "is needed"),
        ({"items": [{"di": "02030000"}]}, ("items", 0, "format"), "is None"),
        ({"items": [{"di": "02030000", "format": "XXX"}]}, ("items", 0, "format"), "is 'XXX'"),
        ({"items": [{"di": "F0030000", "format": "XX"}]}, ("items", 0), "is not in the catalogue"),
        (
            {"items": [{"di": "02030000", "format": "XX"}, {"di": "02030000", "format": "XX"}]},
            ("items", 1, "di"), "stands there twice",
        ),
        (
            {"items": [{"di": "02030000", "format": "XX", "point": "voltage_x"}]},
            ("items", 0, "point"), "there is no quantity",
        ),
        (
            {"items": [{"di": "02030000", "format": "XX", "point": "frequency", "unit": "kHz"}]},
            ("items", 0, "unit"), "is 'kHz'",
        ),
        ({"protocol": "dlt645-1997", "load_records": {}}, ("load_records",), "2007 edition"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_profile_is_told_with_its_place(
    change: dict[str, Any], path: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ProfileError) as caught:
        profile_from({**BASE, **change}, name="mine.yaml")
    problems = {problem.path: str(problem) for problem in caught.value.problems}
    assert path in problems
    assert message in problems[path]
    assert "mine.yaml" in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ProfileError) as caught:
        profile_from({"wakeup": "4", "tarifs": 4}, name="mine.yaml")
    assert len(caught.value.problems) == 5
    assert "tariffs is meant?" in str(caught.value)


# -- status words


def test_a_status_word_is_said_in_words() -> None:
    relay = {state.text("en") for state in states("04000503", "0050")}
    assert {"relay: open", "relay command: open", "supply: main"} <= relay
    assert "继电器状态: 断" in {state.text("zh") for state in states("04000503", "0050")}
    closed = {state.text("en") for state in states("04000503", "0000")}
    assert {"relay: closed", "relay command: close"} <= closed
    supply = {state.text("en") for state in states("04000503", "0204")}
    assert {"supply: battery", "prepayment: money"} <= supply


def test_all_seven_words_and_all_their_bits_have_meanings() -> None:
    for number in range(1, 8):
        word = meanings(f"0400050{number}")
        assert len(word) >= 6
        taken: set[int] = set()
        for one in word:
            bits = set(range(one.first_bit, one.last_bit + 1))
            assert not taken & bits
            taken |= bits
            assert len(one.states_en) == len(one.states_zh) == 2 ** len(bits)
            assert max(bits) <= 15
    for phase, number in (("A", 4), ("B", 5), ("C", 6)):
        assert all(one.name_en.endswith(f"phase {phase}") for one in meanings(f"0400050{number}"))


def test_bits_that_no_table_names_are_shown_as_numbers() -> None:
    assert unnamed_bits("04000507", "8000") == [15]
    assert unnamed_bits("04000503", "0050") == []
    assert states("00010000", "FFFF") == []
    assert meanings("00010000") == ()


@pytest.mark.parametrize(
    ("point", "value", "words", "expected"),
    [
        ("active_power_total", "1.2345", {"04000501": "0010"}, "-1.2345"),
        ("active_power_total", "1.2345", {"04000501": "0000"}, "1.2345"),
        ("reactive_power_total", "1.2345", {"04000501": "0020"}, "-1.2345"),
        ("active_power_b", "0.5", {"04000502": "0002"}, "-0.5"),
        ("active_power_c", "0.5", {"04000502": "0002"}, "0.5"),
        ("reactive_power_c", "0.5", {"04000502": "0040"}, "-0.5"),
        ("current_a", "15.000", {"04000502": "0001"}, "-15.000"),
        ("active_power_total", "-1.2345", {"04000501": "0010"}, "-1.2345"),  # it has a sign
        ("active_power_total", "0.0000", {"04000501": "0010"}, "0.0000"),
        ("voltage_a", "230.1", {"04000502": "0001"}, "230.1"),
        ("active_power_total", "1.2345", {"04000502": "0001"}, None),  # the word is not there
        ("active_power_total", "1.2345", {}, None),
    ],
)
def test_a_power_without_a_sign_gets_its_direction_from_the_status_words(
    point: str, value: str, words: dict[str, str], expected: str | None
) -> None:
    found = signed_by_status(point, Decimal(value), words)
    assert (None if found is None else str(found)) == expected


def test_the_words_that_are_needed_are_known_beforehand() -> None:
    assert words_of_directions(["voltage_a"]) == []
    assert words_of_directions(["active_power_total", "active_power_a"]) == ["04000501", "04000502"]
