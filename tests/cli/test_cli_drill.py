"""`headend drill`: servers that go away, and a drill that did lose something."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import yaml
from drill_bench import SCHEMA, check_passed, hold, hold_all, short_folder

from headend.cli.drills import NAMES
from headend.cli.drills.report import Degraded, DrillReport, Lost
from headend.cli.drills.words import keys, word
from headend.cli.main import main

DROPPING = Path(__file__).parent / "dropping_billing.py"
LOST = SCHEMA["properties"]["lost"]["items"]["properties"]["what"]["enum"]
DEGRADED = SCHEMA["properties"]["degraded"]["items"]["properties"]["what"]["enum"]


@pytest.mark.timeout(400)
async def test_broker_and_series_come_back_and_a_reading_that_billing_dropped_is_found() -> None:
    with short_folder() as folder:
        held, spoilt = await asyncio.gather(
            hold_all(("broker-lost", "influx-lost"), folder),
            hold("broker-lost", folder / "spoilt", "--consumer", f"{DROPPING}"),
        )
    for one in held.values():
        check_passed(one)
        assert one.report["counts"]["missing"] == one.report["counts"]["reasons"].get("overrun", 0)
    assert "receipts_missing billing" in held["broker-lost"].report["alarms"]
    # One reading was dropped by the consumer, and the drill says so.
    assert spoilt.code == 1
    assert not spoilt.report["passed"]
    assert [(one["what"], one["count"]) for one in spoilt.report["lost"]] == [("not_at_billing", 1)]


def test_every_drill_says_what_it_does_in_both_languages(capsys: pytest.CaptureFixture) -> None:
    assert main(["drill", "--list", "--lang", "zh"]) == 0
    shown = capsys.readouterr().out
    assert main(["drill", "--list", "--lang", "en", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["drill"] for one in told] == list(NAMES)
    for name in NAMES:
        assert word(f"does.{name}", "zh") in shown
        assert re.search(r"[\u4e00-\u9fff]", word(f"does.{name}", "zh"))


def test_a_drill_that_is_not_named_is_a_usage_error(capsys: pytest.CaptureFixture) -> None:
    assert main(["drill"]) == 2
    assert "broker-lost" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-3", "long", "nan", "1e9"])
def test_a_duration_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["drill", "broker-lost", f"--for={text}"])
    assert ended.value.code == 2
    assert "no duration" in capsys.readouterr().err


def test_a_folder_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    assert main(["drill", "broker-lost", "--dir", str(tmp_path / ("x" * 100))]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    assert main(["drill", "broker-lost", "--dir", str(tmp_path)]) == 2
    assert (tmp_path / "mine").read_text() == "keep"


def test_every_text_has_both_languages_and_the_schema_knows_every_word() -> None:
    file = Path(sys.modules[word.__module__].__file__ or "").with_name("words.yaml")
    for key, both in yaml.safe_load(file.read_text()).items():
        assert set(both) == {"en", "zh"}, key
        assert set(re.findall(r"{(\w+)}", both["en"])) == set(re.findall(r"{(\w+)}", both["zh"]))
    assert {key.removeprefix("lost.") for key in keys() if key.startswith("lost.")} == set(LOST)
    degraded = {key.removeprefix("degraded.") for key in keys() if key.startswith("degraded.")}
    assert degraded == set(DEGRADED)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_report_says_what_was_lost_and_for_how_long_something_was_degraded(
    language: str,
) -> None:
    report = DrillReport("broker-lost", 12.3)
    report.degraded.append(Degraded("delivery", 1_000, 25_500))
    assert word("passed", language) in report.text(language)
    report.lost += [Lost(what, 3, "M-0001") for what in LOST]
    report.unseen.append("feed_away")
    text = report.text(language)
    assert word("failed", language) in text
    assert "24.5" in text
    for what in LOST:
        assert word(f"lost.{what}", language) in text
    assert word("seen.feed_away", language) in text


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_drill_leaves_nothing_behind(
    number: signal.Signals,
) -> None:
    with short_folder() as folder:
        await interrupt(folder / "drill", number)


async def interrupt(folder: Path, number: signal.Signals) -> None:
    """End a drill in its middle; nothing of it runs on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headend.cli.main", "drill", "adapter-pulled", "--lang", "en",
        "--dir", str(folder), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    while b"a street of" not in await process.stderr.readline():
        pass
    assert processes_with(str(folder))
    process.send_signal(number)
    await process.stderr.read()
    assert await process.wait() == 128 + number
    assert processes_with(str(folder)) == []


def processes_with(text: str) -> list[int]:
    """Processes whose command line holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode()
        except (OSError, NotADirectoryError):
            continue
        if text in line and entry.name.isdecimal() and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
