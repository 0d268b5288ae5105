"""Which protocol a paste is of, and Modbus pastes as text and as a command."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headend.cli.main import main
from headend.diagnostics.frame import NoHexError, NotARequestError, bytes_from_text, explain_text
from protocols.dlt645.frame import build
from protocols.modbus.master import read_request

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "frame.schema.json").read_text("utf-8"))
PROFILE = str(ROOT / "config" / "devices" / "eastron_sdm630.yaml")
REQUEST, REPLY = "01 04 00 0C 00 02 B1 C8", "01 04 04 43 C9 AA 46 C1 6C"


def samples(name: str, key: str) -> list[dict[str, Any]]:
    text = (ROOT / "tests" / "data" / f"{name}_vectors.yaml").read_text("utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader)[key]


@pytest.mark.parametrize(
    "sample", [pytest.param(one, id=one["id"]) for one in samples("modbus", "vectors")]
)
def test_modbus_frames_are_known_for_what_they_are(sample: dict[str, Any]) -> None:
    found = explain_text(sample["hex"])
    known = {one["protocol"] for one in found} - {None}
    assert known == {f"modbus-{sample['transport']}"}


@pytest.mark.parametrize(
    "sample", [pytest.param(one, id=one["id"]) for one in samples("dlt645", "frames")]
)
def test_dlt645_frames_are_known_for_what_they_are(sample: dict[str, Any]) -> None:
    for text in (sample["hex"], f"10:11:12 RX {sample['hex']}"):
        known = {one["protocol"] for one in explain_text(text)} - {None}
        assert known <= {"dlt645-2007", "dlt645-1997"}
        assert known


@given(st.integers(1, 247), st.sampled_from([3, 4]), st.integers(0, 65000), st.integers(1, 125))
def test_any_read_request_is_known(unit: int, function: int, address: int, count: int) -> None:
    for transaction, protocol in ((None, "modbus-rtu"), (0x1234, "modbus-tcp")):
        request = read_request(unit, function, address, count, transaction=transaction)
        (one,) = explain_text(request.raw.hex(" "))
        assert (one["protocol"], one["valid"]) == (protocol, True)


@given(st.binary(max_size=40), st.sampled_from([0x11, 0x91]))
def test_any_dlt645_frame_is_known(data: bytes, control: int) -> None:
    one = explain_text(build("000000000161", control, data).hex())[0]
    assert one["protocol"] == "dlt645-2007"


@pytest.mark.parametrize(
    "text",
    [
        f"2026-05-17 10:22:33.123 TX {REQUEST}\n2026-05-17 10:22:33.456 RX {REPLY}",
        f"TX [{REQUEST}] RX [{REPLY}]",
        f"send {REQUEST.replace(' ', '')} recv {REPLY.replace(' ', '')} in 17 ms",
        f"send={REQUEST.replace(' ', '-')}; recv={REPLY.replace(' ', ':')}",
        " ".join(f"0x{byte}" for byte in f"{REQUEST} {REPLY}".split()),
        "b'" + "".join(f"\\x{byte}" for byte in f"{REQUEST} {REPLY}".split()) + "'",
    ],
)
def test_modbus_is_found_in_a_log(text: str) -> None:
    first, second = explain_text(text)
    assert [first["hex"], second["hex"]] == [REQUEST.replace(" ", ""), REPLY.replace(" ", "")]
    assert second["values"]


def test_times_and_counters_of_a_log_are_no_bytes() -> None:
    line = f"1700000000 4711 10:22:33 unit 1 took 0123456789 us: {REPLY}"
    assert bytes_from_text(line, any_start=True) == bytes.fromhex(REPLY)
    with pytest.raises(NoHexError):
        bytes_from_text("at 1700000000 nothing", any_start=True)


@given(st.text(max_size=80))
def test_no_text_breaks_it_whatever_the_protocol(text: str) -> None:
    for protocol in ("modbus-rtu", "modbus-tcp"):
        try:
            found = explain_text(text, protocol=protocol)
        except NoHexError:
            continue
        assert found


def test_what_is_given_as_the_request_must_be_one() -> None:
    with pytest.raises(NotARequestError, match="is no request to read registers"):
        explain_text(REPLY, request="01 02 03 04")


# -- the command ---------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["frame", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_gives_values_with_profile_and_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for profile in (PROFILE, "eastron_sdm630"):
        code, out, err = run(capsys, "--profile", profile, "--request", REQUEST, *REPLY.split())
        assert (code, err) == (0, "")
        assert "active_power_a = 0.4033 kW" in out
        assert "-33H" not in out


def test_the_command_gives_json_of_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--json", "--protocol", "modbus-rtu", f"{REQUEST} {REPLY}")
    assert code == 0
    for line in out.splitlines():
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(line))


def test_a_reply_without_its_request_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(capsys, "--profile", PROFILE, REPLY)
    assert code == 0
    assert "give it with --request" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--request", "0102", REPLY], 2, "is no request to read registers"),
        (["--profile", "no_such_meter", REPLY], 2, "there is no device profile no_such_meter"),
        (["--protocol", "dlt645-2007", "--profile", PROFILE, REPLY], 2, "are of Modbus, not of"),
        (["--protocol", "modbus-tcp", REPLY], 1, ""),
        ([REPLY[:-1] + "D"], 1, ""),
        (["01 83 02 C0 F1"], 0, ""),
    ],
)
def test_the_exit_code_tells(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    got, _, err = run(capsys, *words)
    assert (got, said in err) == (code, True)


def test_a_broken_profile_is_told_with_file_and_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(Path(PROFILE).read_text("utf-8").replace("unit: Hz", "unit: kg"), "utf-8")
    code, _, err = run(capsys, "--profile", str(path), REPLY)
    assert code == 2
    assert "broken.yaml" in err
    assert "kg" in err
