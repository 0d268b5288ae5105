"""Frames out of what people paste, and the command that explains them."""

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headend.cli.main import main
from headend.diagnostics.frame import NoHexError, bytes_from_text, explain_text

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "frame.schema.json").read_text("utf-8"))
VECTORS = yaml.load(
    (ROOT / "tests" / "data" / "dlt645_vectors.yaml").read_text("utf-8"), Loader=yaml.CSafeLoader
)

GOOD = "6861010000000068910833333433593333338A16"
REQUEST = "68610100000000681104333334331416"
PAIRS = [GOOD[at : at + 2] for at in range(0, len(GOOD), 2)]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.lower(),
        " ".join(PAIRS),
        ", ".join(f"0x{pair}" for pair in PAIRS),
        ",".join(PAIRS),
        "".join(f"\\x{pair}" for pair in PAIRS),
        "b'" + "".join(f"\\x{pair}" for pair in PAIRS) + "'",
        "{" + ", ".join(f"0x{pair}" for pair in PAIRS) + "}",
        ":".join(PAIRS),
        "-".join(PAIRS),
        " ".join(f"{pair}H" for pair in PAIRS),
        f"0x{GOOD}",
        " ".join(PAIRS[:9]) + "\n" + " ".join(PAIRS[9:]),
        f"2026-11-24 10:22:33.123 INFO rx len=20 {' '.join(PAIRS)}",
        f"[10:22:33] COM3 <- {' '.join(PAIRS)} (20 bytes)",
        f"2026-11-24T10:22:33Z bus=1 frame={GOOD} took_ms=212",
        f"收到 20 字节：{' '.join(PAIRS)}",
        f"1732443753 12 rx: {' '.join(PAIRS)}",
    ],
)
def test_a_frame_is_found_in_any_dress(text: str) -> None:
    (one,) = explain_text(text)
    assert (one["valid"], one["hex"]) == (True, GOOD)


def test_a_dump_is_taken_without_its_places_and_its_text() -> None:
    data = bytes.fromhex(GOOD)
    like_hexdump = (
        "00000000  68 61 01 00 00 00 00 68  91 08 33 33 34 33 59 33  |ha.....h..334.Y3|\n"
        "00000010  33 33 8a 16                                       |33..|\n"
        "00000014\n"
    )
    like_xxd = (
        "00000000: 6861 0100 0000 0068 9108 3333 3433 5933  ha.....h..3343Y3\n"
        "00000010: 3333 8a16                                33..\n"
    )
    like_a_tool = (
        "0000: 68 61 01 00 00 00 00 68 91 08\n000A: 33 33 34 33 59 33 33 33 8A\n0013: 16\n"
    )
    for dump in (like_hexdump, like_xxd, like_a_tool):
        assert bytes_from_text(dump) == data


def test_several_frames_of_a_log_are_all_explained() -> None:
    log = f"10:22:33 tx FE FE FE FE {' '.join(REQUEST[i : i + 2] for i in range(0, 32, 2))}\n"
    log += f"10:22:34 rx {' '.join(PAIRS)}\n10:22:35 nothing more\n"
    assert [one["hex"] for one in explain_text(log)] == [REQUEST, GOOD]


def test_a_frame_split_over_two_lines_of_a_log_is_put_together() -> None:
    log = f"10:22:34 rx {' '.join(PAIRS[:9])}\n10:22:34 rx {' '.join(PAIRS[9:])}\n"
    (one,) = explain_text(log)
    assert one["valid"] is True


def test_single_digits_are_bytes_only_with_their_mark() -> None:
    assert bytes_from_text("0x6, 0x68, 0x0") == b"\x06\x68\x00"
    assert bytes_from_text("1 2 3") == b"\x01\x02\x03"


@pytest.mark.parametrize("text", ["", "hello", "12:30:01 nothing", "681", "68 611"])
def test_text_without_whole_bytes_is_a_usage_error(text: str) -> None:
    with pytest.raises(NoHexError):
        bytes_from_text(text)


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    try:
        found = explain_text(text)
    except NoHexError:
        return
    assert found


@given(st.binary(min_size=1, max_size=60))
def test_plain_hex_is_taken_byte_for_byte(data: bytes) -> None:
    assert bytes_from_text(data.hex(" ")) == data
    assert bytes_from_text(data.hex()) == data


@pytest.mark.parametrize("sample", VECTORS["frames"], ids=lambda sample: sample["id"])
def test_every_sample_is_one_json_line_and_an_exit_code(
    sample: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["frame", "--json", sample["hex"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    one = json.loads(lines[0])
    jsonschema.validate(one, SCHEMA)
    assert one["valid"] == sample["checksum_ok"]
    assert code == (0 if one["valid"] and not one["errors"] else 1)
    if sample["checksum_ok"] and not sample.get("fields", {}).get("invalid_bcd"):
        # h03 has a payload that cannot be; of x06 the meter itself says that it is bad.
        assert code == (1 if sample["id"] in ("h03", "x06") else 0)


def test_words_of_the_shell_are_pieces_of_one_frame(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frame", "--json", *PAIRS]) == 0
    assert json.loads(capsys.readouterr().out)["hex"] == GOOD


def test_lines_of_the_shell_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frame", "--json", f"12:00:01 tx {REQUEST}", f"12:00:02 rx {GOOD}"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_stdin_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"rx {GOOD}\nrx {GOOD[:-2]}17\n"))
    assert main(["frame", "--json", "-"]) == 1
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["valid"] is True
    assert second["errors"][0]["code"] == "end"


def test_no_hex_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frame", "hello"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no hex bytes" in captured.err


def test_an_unknown_protocol_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["frame", "--protocol", "zmodem", GOOD])
    assert caught.value.code == 2


def test_the_protocol_decides_what_a_shared_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    clock = next(s for s in VECTORS["frames"] if s["id"] == "h04")["hex"]
    for protocol in ("auto", "dlt645-2007", "dlt645-1997"):
        assert main(["frame", "--json", "--protocol", protocol, clock]) == 0
        expected = "dlt645-2007" if protocol == "auto" else protocol
        assert json.loads(capsys.readouterr().out)["protocol"] == expected


def test_text_is_aligned_and_tells_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frame", "--lang", "en", "FEFE" + GOOD]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dlt645-2007, at byte 2: whole and good"
    assert lines[-1] == "  active_import_total = 0.26 kWh"
    columns = {line.index("68") for line in lines[2:3]} | {lines[1].index("raw")}
    assert len(columns) == 1
    assert any("current forward active (import) energy total" in line for line in lines)


def test_text_is_chinese_when_the_locale_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert main(["frame", GOOD[:-2] + "17"]) == 1
    text = capsys.readouterr().out
    assert "正向有功总电能" in text
    assert "结束符是 17, 应为 16" in text


def test_text_of_dirt_and_of_a_missing_value(capsys: pytest.CaptureFixture[str]) -> None:
    voltages = next(s for s in VECTORS["frames"] if s["id"] == "b07")["hex"]
    assert main(["frame", "--lang", "en", "0102" + voltages]) == 1
    text = capsys.readouterr().out
    assert "no frame, at byte 0" in text
    assert "voltage_b = no value" in text
