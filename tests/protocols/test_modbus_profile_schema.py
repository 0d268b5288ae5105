"""The JSON Schema of a profile and the reader of profiles know the same keys."""

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import PROFILES, ROOT

from protocols.modbus.profile import ProfileError, profile_from
from protocols.modbus.profile_schema import REGISTER_KEYS, TOP_KEYS, profile_schema
from protocols.modbus.profile_tree import as_decimal, as_integer

PATH = ROOT / "docs" / "schemas" / "device_profile.schema.json"
CHECKER = jsonschema.Draft202012Validator(profile_schema())


def tree(name: str) -> dict[str, Any]:
    text = (ROOT / "config" / "devices" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader)


def test_the_schema_in_the_documents_is_the_one_the_model_makes() -> None:
    assert json.loads(PATH.read_text(encoding="utf-8")) == profile_schema()
    jsonschema.Draft202012Validator.check_schema(profile_schema())


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_of_the_schema(name: str) -> None:
    CHECKER.validate(tree(name))


@pytest.mark.parametrize(
    "wrong",
    [
        {"idd": "x"},
        {"kind": "heat"},
        {"registers_max": 126},
        {"registers": []},
        {"registers": [{"point": "voltage_a", "address": 1}]},
        {"registers": [{"point": "voltage_a", "address": 1, "type": "float"}]},
        {"registers": [{"point": "voltage_a", "address": 1, "type": "int16", "scale": 0}]},
        {"spans": [{"address": 1}]},
        {"serial": {"baud": 1}},
        {"missing": {"string": 0}},
    ],
)
def test_what_the_reader_refuses_by_itself_the_schema_refuses_too(wrong: dict[str, Any]) -> None:
    bad = {**tree("eastron_sdm120"), **wrong}
    assert list(CHECKER.iter_errors(bad))
    with pytest.raises(ProfileError):
        profile_from(bad, name="x")


values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 1 << 20), st.floats(), st.text(max_size=6),
    st.sampled_from(
        ["uint16", "acc32", "float32", "V", "kWh", "big", "little", "0x10", "12", "voltage_a",
         "nan", "ct", "inverted", "absolute", "even", 1, 2, 3, 4, 9600, "1.5", "0.1"],
    ),
    st.lists(st.one_of(st.integers(0, 70_000), st.just("0xFFFF")), max_size=2),
    st.dictionaries(
        st.sampled_from(["uint16", "float32", "baud", "parity", "registers_max"]),
        st.sampled_from([0xFFFF, "nan", 9600, "even", "one source"]), max_size=2,
    ),
    st.just([{"address": 5, "count": 3}]),
)  # fmt: skip


@given(st.data())
def test_what_the_reader_takes_the_schema_takes(data: st.DataObject) -> None:
    """So that an editor never marks a profile that works."""
    one = copy.deepcopy(tree(data.draw(st.sampled_from(["eastron_sdm120", "acrel_adl400"]))))
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            keys = [key for key in TOP_KEYS if key not in ("registers", "id")]
            one[data.draw(st.sampled_from(keys))] = data.draw(values)
        else:
            row = data.draw(st.sampled_from(one["registers"]))
            row[data.draw(st.sampled_from(REGISTER_KEYS))] = data.draw(values)
    try:
        profile_from(one, name="x")
    except ProfileError:
        return
    assert list(CHECKER.iter_errors(one)) == []


@given(st.one_of(st.text(max_size=8), st.integers(0, 70_000).map(hex), st.floats().map(str)))
def test_numbers_in_texts_are_read_as_the_schema_has_them(text: str) -> None:
    row = {"point": "active_import_total", "address": 0, "type": "uint16", "unit": "kWh"}
    base = {"id": "x", "device": "x", "kind": "meter", "function": 3}
    for key, reads in (("address", as_integer(text)), ("scale", as_decimal(text))):
        one = {**base, "registers": [{**row, key: text}]}
        schema_takes = not list(CHECKER.iter_errors(one))
        if reads is not None and 0 < reads < 0x10000:
            assert schema_takes
