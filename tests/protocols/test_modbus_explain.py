"""Modbus frames in words."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_samples import READS, ROOT, profile, raw_of, vector, vectors, with_crc

from protocols.modbus.device import build_exception, build_reply
from protocols.modbus.explain import explain
from protocols.modbus.master import EXCEPTIONS, read_request
from protocols.modbus.segments import segments
from protocols.modbus.sunspec import chain_of, sunspec_profile

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "frame.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
REQUEST = bytes.fromhex("0104000C0002B1C8")
REPLY = bytes.fromhex("01040443C9AA46C16C")


def explained(data: bytes, **more: Any) -> list[dict[str, Any]]:
    found = explain(data, **more)
    for one in found:
        VALIDATOR.validate(json.loads(json.dumps(one)))
        assert "".join(part["raw"] for part in one["parts"]) in ("", one["hex"])
    assert "".join(one["hex"] for one in found) == data.hex().upper()
    return found


def only(data: bytes, **more: Any) -> dict[str, Any]:
    (one,) = explained(data, **more)
    return one


def codes(one: dict[str, Any]) -> list[str]:
    return [error["code"] for error in one["errors"]]


@pytest.mark.parametrize("sample", [pytest.param(one, id=one["id"]) for one in vectors()])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_frame_of_the_collection_is_told_as_what_it_is(
    sample: dict[str, Any], lang: str
) -> None:
    found = explained(raw_of(sample), lang=lang)
    good = [one for one in found if one["valid"]]
    if sample["verdict"] in ("ok", "exception", "ok_after_skip"):
        assert good
        assert good[-1]["protocol"] == f"modbus-{sample['transport']}"
    elif sample["reason"] in ("bad_crc", "incomplete", "protocol_id_not_zero", "length_too_small"):
        assert not good
        assert found[0]["errors"]
    if sample["verdict"] == "exception":
        assert good[0]["refusal"] == [EXCEPTIONS[sample["exception"]]]
    if sample["kind"] == "request" and sample["fc"] in READS:
        (one,) = found
        assert (one["direction"], one["address"]) == ("request", str(sample["unit"]))
        assert one["identifier"] == f"{sample['addr']:04X}"


def test_a_request_is_explained_byte_by_byte() -> None:
    one = only(REQUEST)
    assert (one["protocol"], one["valid"], one["errors"]) == ("modbus-rtu", True, [])
    assert (one["address"], one["direction"], one["function"], one["identifier"]) == (
        "1", "request", "04", "000C",
    )  # fmt: skip
    assert [(p["offset"], p["raw"], p["name"], p["meaning"]) for p in one["parts"]] == [
        (0, "01", "unit", "unit 1"),
        (1, "04", "function", "read input registers, request"),
        (2, "000C", "address", "from register 12 on"),
        (4, "0002", "count", "2 registers"),
        (6, "B1C8", "crc", "CRC of all bytes before it, low byte first"),
    ]


def test_a_reply_alone_shows_its_registers_and_no_values() -> None:
    one = only(REPLY, profile=profile("eastron_sdm630"))
    assert one["values"] == []
    assert one["identifier"] is None
    meanings = [part["meaning"] for part in one["parts"] if part["name"] == "register"]
    assert meanings == ["register no. 1: 17353", "register no. 2: 43590"]


def test_a_reply_with_its_request_gives_registers_and_with_a_profile_values() -> None:
    one = only(REPLY, request=REQUEST)
    assert [(v["point"], v["value"]) for v in one["values"]] == [
        ("reg:4:12:1", "17353"), ("reg:4:13:1", "43590"),
    ]  # fmt: skip
    one = only(REPLY, request=REQUEST, profile=profile("eastron_sdm630"))
    assert one["identifier"] == "000C"
    assert one["values"] == [
        {"point": "active_power_a", "value": "0.4033", "unit": "kW", "time": None, "snapshot": None}
    ]


def test_a_request_in_front_of_its_reply_is_used() -> None:
    first, second = explained(REQUEST + REPLY, profile=profile("eastron_sdm630"))
    assert first["direction"] == "request"
    assert second["offset"] == 8
    assert [value["value"] for value in second["values"]] == ["0.4033"]


def test_a_request_of_the_other_framing_serves_too() -> None:
    rtu = read_request(1, 4, 5030, 2)
    reply = raw_of(vector("tcp-rsp-sungrow-power"))
    one = only(reply, request=rtu.raw, profile=profile("sungrow_sg"))
    assert [(v["point"], v["value"], v["unit"]) for v in one["values"]] == [
        ("active_power_total", "0.431", "kW")
    ]
    tcp = read_request(1, 4, 12, 2, transaction=9)
    assert only(REPLY, request=tcp.raw)["values"]


def test_secondary_values_say_that_they_are_not_multiplied() -> None:
    request = read_request(5, 3, 0x61, 1)
    _, one = explained(request.raw + build_reply(request, [2305]), profile=profile("acrel_adl400"))
    assert one["values"][0]["value"] == "230.5"
    assert one["parts"][3]["meaning"] == "230.5 V (secondary side, not multiplied by PT)"


def test_no_value_is_said_as_that() -> None:
    request = read_request(1, 4, 5007, 1)
    one = only(build_reply(request, [0x7FFF]), request=request.raw, profile=profile("sungrow_sg"))
    assert one["values"][0]["value"] is None
    assert one["parts"][3]["meaning"] == "no value"


def test_registers_the_profile_does_not_know_are_shown_as_they_are() -> None:
    request = read_request(1, 4, 5034, 5)
    one = only(
        build_reply(request, [999, 500, 7, 0x8000, 9]),
        request=request.raw,
        profile=profile("sungrow_sg"),
    )
    assert [part["name"] for part in one["parts"][3:-1]] == [
        "power_factor_total", "frequency", "register", "status", "register",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (build_reply(read_request(2, 4, 12, 2), [1, 2]), "it is of another unit"),
        (build_reply(read_request(1, 4, 12, 3), [1, 2, 3]), "it answers another request"),
        (build_reply(read_request(1, 3, 12, 2), [1, 2]), "it answers another request"),
        (build_exception(read_request(1, 3, 12, 2), 2), "it answers another request"),
    ],
)
def test_what_does_not_answer_the_request_given_is_told(answer: bytes, what: str) -> None:
    one = only(answer, request=REQUEST, profile=profile("eastron_sdm630"))
    assert one["valid"] is True
    assert codes(one) == ["not_the_reply"]
    assert what in one["errors"][0]["message"]
    assert one["values"] == []


def test_a_stale_transaction_is_told() -> None:
    request = read_request(1, 3, 0, 8, transaction=21)
    one = only(raw_of(vector("tcp-neg-tid-late")), request=request.raw)
    assert codes(one) == ["not_the_reply"]


def test_a_wrong_crc_is_told_with_place_and_both_values() -> None:
    one = only(REPLY[:-1] + b"\x6d")
    assert one["valid"] is False
    assert one["errors"] == [
        {
            "layer": "frame", "code": "checksum", "offset": 7, "expected": "C16C", "got": "C16D",
            "message": "the CRC is C16D, the bytes give C16C (as sent, low byte first)",
        }
    ]  # fmt: skip
    assert one["values"] == []
    assert codes(only(REPLY[:-2] + REPLY[:-3:-1])) == ["checksum", "crc_order"]


def test_a_frame_cut_off_says_how_much_is_missing() -> None:
    one = only(REPLY[:6])
    assert codes(one) == ["incomplete"]
    assert (one["errors"][0]["expected"], one["errors"][0]["got"]) == ("9", "6")
    assert one["direction"] == "reply"
    assert codes(only(raw_of(vector("tcp-neg-short")))) == ["incomplete"]


def test_a_byte_count_that_contradicts_the_length_is_told() -> None:
    one = only(raw_of(vector("tcp-neg-bytecount")))
    assert codes(one) == ["byte_count"]
    assert codes(only(raw_of(vector("rtu-neg-bytecount-doc")))) == ["checksum", "byte_count"]
    assert codes(only(with_crc(bytes.fromhex("0103050001020304")))) == ["byte_count"]


def test_noise_and_frames_are_told_apart() -> None:
    found = explained(b"\x00\xff" + REQUEST + b"\x00" + REPLY + REPLY[:5])
    assert [one["offset"] for one in found] == [0, 2, 10, 11, 20]
    assert [one["valid"] for one in found] == [False, True, False, True, False]
    assert [codes(one) for one in found] == [["no_frame"], [], ["no_frame"], [], ["incomplete"]]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("code", [*EXCEPTIONS, 9, 255])
def test_every_exception_has_a_meaning_in_both_languages(code: int, lang: str) -> None:
    request = read_request(1, 3, 0, 1)
    one = only(build_exception(request, code), lang=lang)
    part = next(part for part in one["parts"] if part["name"] == "exception")
    assert str(code) in part["meaning"]
    assert any(letter >= "一" for letter in part["meaning"]) == (lang == "zh")
    assert one["refusal"] == [EXCEPTIONS.get(code, "unknown_exception")]


@pytest.mark.parametrize(
    ("pdu", "names"),
    [
        ("010000000A", ["address", "count"]),
        ("0102FF01", ["byte_count", "data"]),
        ("050001FF00", ["address", "value"]),
        ("0600010002", ["address", "value"]),
        ("1005500002", ["address", "count"]),
        ("10055000020400018100", ["address", "count", "byte_count", "data"]),
        ("0F0000000A02FF03", ["address", "count", "byte_count", "data"]),
        ("2B0E0100", ["data"]),
        ("11030401FF", ["data"]),
        ("8602", ["exception"]),
    ],
)
def test_other_functions_are_explained_too(pdu: str, names: list[str]) -> None:
    one = only(with_crc(b"\x01" + bytes.fromhex(pdu)))
    assert one["valid"] is True
    assert [part["name"] for part in one["parts"]][2:-1] == names
    tcp = b"\x00\x01\x00\x00" + (len(pdu) // 2 + 1).to_bytes(2) + b"\x01" + bytes.fromhex(pdu)
    assert only(tcp)["protocol"] == "modbus-tcp"


def test_bytes_behind_what_a_frame_can_hold_are_shown_too() -> None:
    one = only(bytes.fromhex("FF00000000FFFFFFFF000102030405"), tcp=True)
    assert codes(one) == ["length"]
    assert [part["name"] for part in one["parts"]][-2:] == ["exception", "rest"]


def test_impossible_requests_are_told() -> None:
    assert codes(only(with_crc(bytes.fromhex("01030000007E")))) == ["count"]
    assert codes(only(with_crc(bytes.fromhex("0103FFFF0002")))) == ["range"]


@given(st.binary(max_size=80), st.sampled_from([None, True, False]), st.booleans())
def test_any_bytes_are_explained_without_losing_one(
    data: bytes, tcp: bool | None, with_profile: bool
) -> None:
    explained(data, tcp=tcp, profile=profile("sungrow_sg") if with_profile else None)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from([raw_of(one) for one in vectors()]),
            st.sampled_from([raw_of(one) for one in vectors()]).map(lambda raw: raw[:-3]),
        ),
        max_size=5,
    ).map(b"".join),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, *[raw_of(one) for one in vectors() if one["kind"] == "request"]]),
)
def test_any_mixture_of_frames_is_explained_without_losing_a_byte(
    data: bytes, tcp: bool | None, request_: bytes | None
) -> None:
    explained(data, tcp=tcp, request=request_, profile=profile("eastron_sdm630"))
    for net in (True, False):
        assert b"".join(one.raw for one in segments(data, tcp=net)) == data


def test_a_value_is_told_with_the_scale_factor_that_came_with_it() -> None:
    device = sunspec_profile(chain_of((1, 103)))
    power = device.register("active_power_total")
    request = read_request(1, power.function, power.address, 2)
    (made,) = explain(build_reply(request, (12_345, 0xFFFF)), profile=device, request=request.raw)
    assert [(one["point"], one["value"]) for one in made["values"]] == [
        ("active_power_total", "1.2345")
    ]


def test_a_value_whose_scale_factor_did_not_come_is_not_told() -> None:
    device = sunspec_profile(chain_of((1, 103)))
    power = device.register("active_power_total")
    request = read_request(1, power.function, power.address, 1)
    (made,) = explain(build_reply(request, (12_345,)), profile=device, request=request.raw)
    assert made["values"] == []
    assert any("12345" in part["meaning"] for part in made["parts"])
