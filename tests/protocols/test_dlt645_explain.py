"""Frames in words."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dlt645_samples import by_id, forged, frames, negatives
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645.explain import explain
from protocols.dlt645.functions import FUNCTIONS_1997, FUNCTIONS_2007, edition_of
from protocols.dlt645.meter import build_reply
from protocols.dlt645.profile import profile_from

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "frame.schema.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def explained(hex_text: str, lang: str = "en") -> list[dict[str, Any]]:
    found = explain(bytes.fromhex(hex_text), lang=lang)
    for one in found:
        VALIDATOR.validate(json.loads(json.dumps(one)))
    return found


def only(hex_text: str, lang: str = "en") -> dict[str, Any]:
    (one,) = explained(hex_text, lang)
    return one


def test_a_reply_is_explained_with_everything_in_it() -> None:
    one = only("FEFE6861010000000068910833333433593333338A16")
    assert one["schema"] == "frame/1"
    assert one["protocol"] == "dlt645-2007"
    assert one["valid"] is True
    assert one["errors"] == []
    assert one["offset"] == 2
    assert one["before"] == "FEFE"
    assert one["hex"] == "6861010000000068910833333433593333338A16"
    assert (one["address"], one["direction"], one["function"], one["identifier"]) == (
        "000000000161", "reply", "91", "00010000",
    )  # fmt: skip
    assert one["values"] == [
        {"point": "active_import_total", "value": "0.26", "unit": "kWh", "time": None,
         "snapshot": None},
    ]  # fmt: skip
    assert [(part["offset"], part["raw"], part["name"]) for part in one["parts"]] == [
        (0, "68", "start"),
        (1, "610100000000", "address"),
        (7, "68", "start2"),
        (8, "91", "control"),
        (9, "08", "length"),
        (10, "33333433", "identifier"),
        (14, "59333333", "active_import_total"),
        (18, "8A", "checksum"),
        (19, "16", "end"),
    ]
    assert one["parts"][6]["data"] == "26000000"
    assert one["parts"][6]["meaning"] == "0.26 kWh"


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("sample", [pytest.param(s, id=s["id"]) for s in frames()])
def test_every_sample_is_explained(sample: dict[str, Any], lang: str) -> None:
    one = only(sample["hex"], lang)
    assert one["protocol"] == f"dlt645-{sample['std']}"
    assert one["valid"] == sample["checksum_ok"]
    assert one["address"] == sample["addr"]
    assert one["function"] == f"{sample['ctrl']:02X}"
    assert one["direction"] == ("reply" if sample["ctrl"] & 0x80 else "request")
    if "di" in sample:
        assert one["identifier"] == sample["di"]
    if "err" in sample:
        assert one["refusal"]
    assert "".join(part["raw"] for part in one["parts"]) == one["hex"]
    if "values" in sample and sample["checksum_ok"]:
        assert [value["value"] for value in one["values"]] == sample["values"]
        assert {value["unit"] for value in one["values"]} == {sample["unit"]}
    if not sample["checksum_ok"]:
        assert one["values"] == []
        assert one["errors"][0]["code"] == "checksum"


def test_a_wrong_checksum_says_where_and_what_is_right() -> None:
    one = only("6861010000000068910833333433593333338B16")
    assert one["valid"] is False
    (error,) = one["errors"]
    assert error.pop("message")
    assert error == {
        "layer": "frame",
        "code": "checksum",
        "offset": 18,
        "expected": "8A",
        "got": "8B",
    }
    assert one["values"] == []


def test_a_wrong_end_says_where_and_what_is_right() -> None:
    (error,) = only("6861010000000068910833333433593333338A17")["errors"]
    assert (error["code"], error["offset"], error["expected"], error["got"]) == (
        "end", 19, "16", "17",
    )  # fmt: skip


def test_a_cut_frame_says_how_much_is_missing() -> None:
    (error,) = only("6861010000000068910833333433")["errors"]
    assert (error["code"], error["offset"], error["expected"], error["got"]) == (
        "incomplete", 14, "20", "14",
    )  # fmt: skip


@pytest.mark.parametrize("length", ["07", "09"])
def test_a_wrong_length_byte_is_found_when_another_one_fits(length: str) -> None:
    one = only(f"686101000000006891{length}33333433593333338A16")
    last = one["errors"][-1]
    assert (last["code"], last["offset"], last["expected"], last["got"]) == (
        "length", 9, "08", length,
    )  # fmt: skip
    assert one["values"] == []


@pytest.mark.parametrize(
    ("name", "code"), [("n20", "short_data"), ("n21", "long_data"), ("n17", "not_bcd")]
)
def test_a_whole_frame_that_says_something_impossible_is_valid_with_a_content_error(
    name: str, code: str
) -> None:
    case = next(case for case in negatives() if case["id"] == name)
    one = only(case["hex"])
    assert one["valid"] is True
    assert [(error["layer"], error["code"]) for error in one["errors"]] == [("content", code)]
    assert one["values"] == []


def test_a_reply_without_payload_is_no_value() -> None:
    one = only(build_reply("000000000161", "00010000", b"").hex())
    assert [error["code"] for error in one["errors"]] == ["short_data"]


def test_a_part_that_is_no_frame_is_an_object_of_its_own() -> None:
    first, second, third = explained("0102" + "6861010000000068910833333433593333338A16" + "03FE")
    assert (first["protocol"], first["valid"], first["hex"], first["offset"]) == (
        None, False, "0102", 0,
    )  # fmt: skip
    assert first["errors"][0]["code"] == "no_frame"
    assert second["valid"] is True
    assert (third["hex"], third["offset"], third["after"]) == ("03", 22, "FE")


def test_wake_up_bytes_and_line_ends_are_no_error() -> None:
    frame = "6861010000000068910833333433593333338A16"
    first, second = explained(f"FEFEFEFE{frame}0D0AFE{frame}0D0A")
    assert (first["valid"], second["valid"]) == (True, True)
    assert (first["before"], second["before"], second["after"]) == ("FEFEFEFE", "0D0AFE", "0D0A")


def test_wake_up_bytes_alone_are_no_frame() -> None:
    one = only("FEFE")
    assert (one["protocol"], one["valid"], one["hex"]) == (None, False, "FEFE")
    assert explained("") == []


def test_a_refusal_is_named() -> None:
    assert only(by_id()["m07"]["hex"])["refusal"] == [
        "other", "no_data", "password", "speed", "year_zones", "day_slots", "tariffs",
    ]  # fmt: skip
    assert only(forged("000000000001", 0xC3, b"\x02\x80").hex())["refusal"] == [
        "repeated_top_up",
        "password_setting",
    ]
    assert only(forged("000000000001", 0xDC, b"\x10\x00").hex())["refusal"] == ["command_expired"]
    assert only(forged("000000000001", 0xC1, b"\x01").hex())["refusal"] == ["illegal_data"]


SECRETS = {
    "write": (0x14, "01010004 02 AABBCC 11223344 04100518", ["AABBCC", "11223344"]),
    "write_password": (0x14, "030C0004 02 AABBCC 11223344 99887766", ["99887766"]),
    "change": (0x18, "030C0004 02 AABBCC 02 DDEEFF", ["AABBCC", "DDEEFF"]),
    "changed": (0x98, "02 DDEEFF", ["DDEEFF"]),
    "clear": (0x1A, "02 AABBCC 11223344", ["AABBCC", "11223344"]),
    "relay": (0x1C, "02 AABBCC 11223344 1A00000030129900", ["AABBCC", "11223344"]),
    "security": (0x03, "FF000007 11223344 A1B2C3D4E5F6", ["11223344", "A1B2C3D4E5F6"]),
    "write_1997": (0x04, "10C0 00 AABBCC 06060719", ["AABBCC"]),
    "change_1997": (0x0F, "00 AABBCC 01 DDEEFF", ["AABBCC", "DDEEFF"]),
    "too_long": (0x19, "02 AABBCC 11223344 55667788", ["AABBCC", "11223344", "55667788"]),
}  # fmt: skip


@pytest.mark.parametrize("damage", ["none", "checksum", "cut", "length"])
@pytest.mark.parametrize("name", SECRETS)
def test_passwords_and_operator_codes_are_never_shown(name: str, damage: str) -> None:
    control, data, secrets = SECRETS[name]
    raw = bytearray(forged("000000000001", control, bytes.fromhex(data)))
    if damage == "checksum":
        raw[-2] ^= 0xFF
    elif damage == "cut":
        del raw[-2:]
    elif damage == "length":
        raw[9] = 1
        raw[-2] ^= 0xFF
    text = json.dumps(explained(raw.hex())).upper()
    for secret in secrets:
        wire = bytes((byte + 0x33) & 0xFF for byte in bytes.fromhex(secret)).hex().upper()
        assert secret not in text
        assert wire not in text
        assert bytes.fromhex(secret)[::-1].hex().upper() not in text


def test_every_reason_of_a_refusal_has_its_words_in_both_languages() -> None:
    for control, size in ((0xD1, 1), (0xC1, 1), (0xC3, 2), (0xDC, 2)):
        for bit in range(8 * size):
            raw = forged("000000000001", control, (1 << bit).to_bytes(size, "little"))
            english, chinese = (only(raw.hex(), lang) for lang in ("en", "zh"))
            said = chinese["parts"][5]["meaning"]
            assert said != english["parts"][5]["meaning"], (control, bit)
            assert re.search("[\u4e00-\u9fff]", said), (control, bit)


def test_every_control_code_has_a_name_in_both_languages() -> None:
    for edition, table in (("dlt645-2007", FUNCTIONS_2007), ("dlt645-1997", FUNCTIONS_1997)):
        for code in table:
            for control in (code, code | 0x80, code | 0xC0):
                for lang in ("en", "zh"):
                    (one,) = explain(
                        forged("000000000001", control, bytes(4)), lang=lang, edition=edition
                    )
                    VALIDATOR.validate(one)
                    control_part = one["parts"][3]
                    function = table[code]
                    assert control_part["meaning"].startswith(
                        function.en if lang == "en" else function.zh
                    )


def test_the_edition_is_told_from_the_control_code() -> None:
    assert edition_of(0x91) == "dlt645-2007"
    assert edition_of(0x81) == "dlt645-1997"
    assert edition_of(0x08) == "dlt645-2007"
    assert edition_of(0x1F) == "dlt645-2007"


@pytest.mark.parametrize(
    ("data", "control", "name", "meaning"),
    [
        ("512210050617", 0x08, "clock", "clock to be set: 17-06-05 10:22:51"),
        ("99999999", 0x16, "freeze_time", "freeze now"),
        ("00009999", 0x16, "freeze_time", "freeze every day at 00:00"),
        ("15999999", 0x16, "freeze_time", "freeze every hour, at minute 15"),
        ("30010199", 0x16, "freeze_time", "freeze every month, on day 01 at 01:30"),
        ("30012411", 0x16, "freeze_time", "freeze at 11240130 (month, day, hour, minute)"),
        ("0401", 0x9C, "result", "relay opened, protected supply"),
        ("0000", 0x9C, "result", "no result"),
        ("20", 0x17, "speed", "9600 bit/s"),
        ("30", 0x17, "speed", "30: no single speed"),
        ("01", 0x1D, "output", "demand period"),
        ("120000001020", 0x93, "meter_address", "meter address 201000000012"),
    ],
)
def test_commands_are_said_in_words(data: str, control: int, name: str, meaning: str) -> None:
    one = only(forged("000000000001", control, bytes.fromhex(data)).hex())
    part = next(part for part in one["parts"] if part["name"] == name)
    assert part["meaning"] == meaning


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("g03", {"level": "02", "command": "permit closing", "valid_until": "99-12-30 00:00:00"}),
        ("g04", {"command": "open the relay"}),
        ("h04", {"clock": "17-06-05 10:22:51"}),
        ("h05", {"clock": "17-06-05 10:40:25"}),
        ("w03", {"level": "02", "time": "15:08:55"}),
        ("x01", {"count": "01 records", "from_time": "26-09-01 15:00"}),
        ("x03", {"count": "01 records"}),
        ("m03", {"sequence": "frame number 1"}),
        ("m08", {"freeze_time": "freeze now"}),
        ("m09", {"freeze_time": "every day at 00:00"}),
        ("m10", {"speed": "9600 bit/s"}),
        ("m11", {"identifier": "04000C03", "old_level": "02", "new_level": "02"}),
        ("m12", {"level": "04"}),
        ("m13", {"identifier": "all events"}),
        ("m14", {"output": "demand period"}),
        ("b02", {"meter_address": "201000000012"}),
        ("s01", {"meter_address": "181226034194"}),
        ("k32", {"identifier": "C010", "level": "00"}),
        ("u01", {"identifier": "04A20200 unknown", "level": "00"}),
    ],
)
def test_the_pieces_of_a_captured_command_are_said(name: str, said: dict[str, str]) -> None:
    one = only(by_id()[name]["hex"])
    parts = {part["name"]: f"{part.get('data', '')} {part['meaning']}" for part in one["parts"]}
    for piece, text in said.items():
        assert text in parts[piece]


@pytest.mark.parametrize(
    ("address", "meaning"),
    [
        ("AAAAAAAAAAAA", "any meter (wildcard)"),
        ("999999999999", "all meters (broadcast)"),
        ("AAAAAAAA0161", "any meter whose address ends like this: AAAAAAAA0161"),
        ("00000000BEEF", "00000000BEEF: not decimal digits"),
    ],
)
def test_special_addresses_are_said_in_words(address: str, meaning: str) -> None:
    assert only(forged(address, 0x13).hex())["parts"][1]["meaning"] == meaning


def test_values_of_the_past_say_which_record_they_belong_to() -> None:
    frozen = only(build_reply("000000000001", "05060102", bytes(8)).hex())
    assert [(v["point"], v["snapshot"]) for v in frozen["values"]] == [
        ("active_import_total", "daily_freeze:2"),
        ("active_import_t1", "daily_freeze:2"),
    ]
    settled = only(build_reply("000000000001", "00010003", bytes(4)).hex())
    assert settled["values"][0]["snapshot"] == "settlement:3"


def test_a_demand_says_when_it_occurred_by_the_meters_clock() -> None:
    one = only(by_id()["p04"]["hex"])
    assert one["values"] == [
        {"point": "demand_import_total", "value": "0.0000", "unit": "kW", "time": None,
         "snapshot": None, "meter_time": "2026-11-24T23:55:00"},
    ]  # fmt: skip


def test_an_item_without_a_point_is_named_by_its_identifier() -> None:
    assert only(by_id()["b15"]["hex"])["values"][0] == {
        "point": "di:00900200", "value": "198.56", "unit": "yuan", "time": None, "snapshot": None,
    }  # fmt: skip


def test_powers_of_a_freeze_have_their_own_units() -> None:
    one = only(build_reply("000000000001", "05061001", bytes(24)).hex())
    assert [value["unit"] for value in one["values"]] == ["kW"] * 4 + ["kvar"] * 4


def test_a_weekday_that_does_not_fit_its_date_is_said() -> None:
    right = only(by_id()["b09"]["hex"])
    assert right["parts"][6]["meaning"] == "2016-01-11, Monday"
    wrong = only(build_reply("000000000001", "04000101", bytes.fromhex("02110116")).hex())
    assert wrong["parts"][6]["meaning"] == "2016-01-11, Tuesday (the date is another day)"
    odd = only(build_reply("000000000001", "04000101", bytes.fromhex("07110116")).hex())
    assert odd["parts"][6]["meaning"] == "2016-01-11, weekday 7 (the date is another day)"


def test_an_unknown_identifier_is_shown_and_is_no_error() -> None:
    one = only(build_reply("000000000001", "FF010203", b"\x01\x02").hex())
    assert (one["valid"], one["errors"], one["values"]) == (True, [], [])
    assert "unknown identifier" in one["parts"][5]["meaning"]


def test_the_first_part_of_a_longer_reply_gives_no_values() -> None:
    one = only(by_id()["m02"]["hex"])
    assert (one["valid"], one["values"]) == (True, [])
    assert "more follows" in one["parts"][3]["meaning"]


def test_a_part_of_an_item_says_that_it_is_one() -> None:
    for name in ("m02", "m04", "m05"):
        one = only(by_id()[name]["hex"])
        assert (one["values"], one["errors"]) == ([], [])
        part = next(part for part in one["parts"] if part["name"] == "payload")
        assert part["meaning"].startswith("part of a longer item")
    sequence = next(p for p in only(by_id()["m04"]["hex"])["parts"] if p["name"] == "sequence")
    assert sequence["meaning"] == "frame number 1"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("01000006 01", ["identifier", "sequence"]),
        ("01000006 01 02", ["identifier", "count", "sequence"]),
        ("01000006 01 0015010926 02", ["identifier", "count", "from_time", "sequence"]),
    ],
)
def test_every_way_to_ask_for_a_further_frame_is_cut_right(data: str, names: list[str]) -> None:
    one = only(forged("000000000161", 0x12, bytes.fromhex(data)).hex())
    assert [part["name"] for part in one["parts"][5:-2]] == names


def test_a_status_word_is_said_bit_by_bit() -> None:
    part = only(by_id()["g07"]["hex"])["parts"][6]
    assert part["meaning"].startswith("0050: ")
    assert "relay: open; " in part["meaning"]
    assert "继电器状态: 断" in only(by_id()["g07"]["hex"], "zh")["parts"][6]["meaning"]
    block = only(build_reply("000000000001", "040005FF", bytes(12) + b"\x00\x80").hex())
    assert [value["point"] for value in block["values"]] == [f"di:0400050{n}" for n in range(1, 8)]
    assert block["parts"][12]["meaning"].endswith("bit 15, which has no name here, is set")


def test_a_load_record_is_explained_with_its_values_and_its_time() -> None:
    one = only(by_id()["x02"]["hex"])
    assert one["errors"] == []
    assert len(one["values"]) == 7 + 8 + 4 + 4 + 4 + 2
    assert one["values"][4] == {
        "point": "current_b", "value": "-1.500", "unit": "A", "time": None,
        "snapshot": "load_record:1", "meter_time": "2026-09-01T15:00:00",
    }  # fmt: skip
    shortened = only(by_id()["x05"]["hex"])
    assert "without AA" in shortened["parts"][6]["meaning"]
    assert [value["value"] for value in shortened["values"]] == ["123.45", "67.89", "1.00", "0.50"]


def test_a_load_record_that_is_not_good_is_told() -> None:
    bad = only(by_id()["x06"]["hex"])
    assert (bad["valid"], bad["values"]) == (True, [])
    assert [error["code"] for error in bad["errors"]] == ["record_bad"]
    none = only(by_id()["x07"]["hex"])
    assert (none["errors"], none["values"]) == ([], [])
    rubbish = only(build_reply("000000000001", "06010000", b"\xa0\xa0\x00").hex())
    assert [error["code"] for error in rubbish["errors"]] == ["bad_record"]


def test_the_members_of_an_event_have_names_in_both_languages() -> None:
    payload = bytes.fromhex("555321241126" + "555322241126") + bytes(4 * 16)
    reply = build_reply("000000000001", "03070001", payload).hex()
    one = only(reply)
    assert [value["name"] for value in one["values"][:3]] == [
        "start", "end", "increment of active import total",
    ]  # fmt: skip
    assert one["values"][0]["value"] == "2026-11-24T21:53:55"
    assert (one["values"][2]["value"], one["values"][2]["unit"]) == ("0.00", "kWh")
    assert only(reply, "zh")["values"][0]["name"] == "发生时刻"


def test_who_changed_a_meter_is_not_shown() -> None:
    payload = bytes.fromhex("555321241126" + "44332211" + "FFFFFFFF")
    one = only(build_reply("000000000001", "03300301", payload).hex())
    text = json.dumps(one)
    for secret in ("44332211", "11223344", "77665544"):
        assert secret not in text
    assert [value["name"] for value in one["values"]] == ["start", "cleared identifier"]
    assert one["hex"].count("**") == 4


def test_counts_and_times_of_events_have_their_own_units() -> None:
    one = only(build_reply("000000000001", "03010000", bytes(18)).hex())
    assert [value["unit"] for value in one["values"]] == ["times", "min"] * 3
    demands = only(build_reply("000000000001", "03120000", bytes(18)).hex())
    assert {value["unit"] for value in demands["values"]} == {"times"}


def test_what_a_write_says_is_explained_and_is_no_value_of_the_meter() -> None:
    one = only(by_id()["w01"]["hex"])
    assert one["values"] == []
    assert one["parts"][-3]["meaning"] == "2018-05-10, Thursday"
    old = only(by_id()["k32"]["hex"])
    assert old["values"] == []
    assert old["parts"][-3]["meaning"] == "2019-07-06, Saturday"


def test_a_password_that_a_meter_sends_is_not_shown() -> None:
    for control, di in ((0x91, "020C0004"), (0xB1, "020C0004"), (0x81, "12C2"), (0xA1, "12C2")):
        data = bytes.fromhex(di + "44332211")
        text = json.dumps(only(forged("000000000001", control, data).hex()))
        assert "11223344" not in text
        assert "44332211" not in text
        assert "77665544" not in text


def test_events_that_are_cleared_are_named() -> None:
    assert "all events" in str(only(by_id()["m13"]["hex"])["parts"])


def test_a_model_with_longer_items_is_explained_by_its_profile() -> None:
    tree = {
        "id": "x", "device": "x", "protocol": "dlt645-2007",
        "items": [{"di": "02030000", "format": "XXXX.XXXX", "signed": False}],
    }  # fmt: skip
    raw = build_reply("000000000001", "02030000", bytes.fromhex("45230100"))
    (plain,) = explain(raw)
    assert [error["code"] for error in plain["errors"]] == ["long_data"]
    (one,) = explain(raw, profile=profile_from(tree, name="x"))
    assert one["errors"] == []
    assert one["values"][0]["value"] == "1.2345"


protocol_bytes = st.one_of(
    st.sampled_from([0x68, 0x16, 0xFE, 0x91, 0x00, 0x08, 0x0D, 0x0A]), st.integers(0, 255)
)


@given(
    st.lists(
        st.one_of(
            st.lists(protocol_bytes, max_size=30).map(bytes),
            st.builds(
                forged,
                st.binary(min_size=6, max_size=6).map(bytes.hex),
                st.integers(0, 255),
                st.binary(max_size=30),
            ),
            st.sampled_from([bytes.fromhex(sample["hex"]) for sample in frames()]),
        ),
        max_size=5,
    ).map(b"".join),
    st.sampled_from(["en", "zh"]),
)
def test_every_byte_of_any_input_is_in_exactly_one_object(data: bytes, lang: str) -> None:
    place = 0
    for one in explain(data, lang=lang):
        VALIDATOR.validate(one)
        place += len(one["before"]) // 2
        assert one["offset"] == place
        shown = one["hex"]
        for at in range(0, len(shown), 2):
            assert shown[at : at + 2] in ("**", f"{data[place + at // 2]:02X}")
        place += len(shown) // 2 + len(one.get("after", "")) // 2
        if one["parts"]:
            assert "".join(part["raw"] for part in one["parts"]) == shown
            offset = 0
            for part in one["parts"]:
                assert part["offset"] == offset
                offset += len(part["raw"]) // 2
        assert one["valid"] or one["errors"]
    assert place == len(data)
