"""`headend timeseries` with a real database, while the daemon runs and when it does not."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headend.cli.main import main
from headend.config import load_config
from headend.domain.clock import SystemClock
from headend.domain.reading import Reading
from headend.journal import Birth, Journal, JournalSettings
from headend.timeseries.deadletters import DeadLetter, DeadLetters
from headend.timeseries.service import consumers, letters_path
from tests.journal.journal_kit import reading
from tests.support.influxdb import InfluxDB
from tests.support.mosquitto import free_port

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
CONFIG = """
headend: {{name: he1, zone: Asia/Shanghai, data: ./data, reserve_mb: {{telemetry: 2, billing: 1}}}}
buses:
  street-a: {{link: "tcp://127.0.0.1:{closed}?baud=9600"}}
meters:
  - {{id: M-1, service_point: SP-1, bus: street-a, protocol: dlt645-2007,
     address: "000000000001", plan: p}}
plans:
  p: {{daily: {{at: "00:00", points: [active_import_total]}}}}
feed:
  broker: "embedded://127.0.0.1:{broker}"
  consumers: [{{name: billing, classes: [billing]}}]
timeseries:
  - {{kind: influxdb1, name: charts, url: "http://127.0.0.1:{port}", database: meters}}
"""


@dataclass
class Place:
    """A configuration with a journal that holds some readings."""

    config: Path
    capsys: pytest.CaptureFixture[str]

    def headend(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.capsys.readouterr()
        code = main([*arguments, "--config", str(self.config)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def json(self, schema: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and objects, each held against its schema."""
        code, out, _err = self.headend("timeseries", *arguments, "--json")
        told = json.loads((SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8"))
        found = [json.loads(line) for line in out.splitlines()]
        for one in found:
            jsonschema.validate(one, told)
        return code, found

    def status(self, wanted: str) -> tuple[int, dict[str, Any]]:
        """Until the state is so."""
        end = time.monotonic() + 20
        while True:
            code, (one,) = self.json("timeseries_status", "status")
            if one["state"] == wanted and (wanted != "writing" or not one["backlog"]):
                return code, one
            assert time.monotonic() < end, one
            time.sleep(0.05)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """`headend run`, until it is ready; SIGTERM afterwards."""
        command = [sys.executable, "-m", "headend.cli.main", "run", "--config", str(self.config)]
        log = self.config.with_name("run.log")
        with log.open("w") as err, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("READY"), log.read_text()
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=15) == 0, log.read_text()


def fill(config: Path, readings: list[Reading]) -> None:
    """Put readings into the journal as the daemon would."""

    async def run() -> None:
        found = load_config(config)
        found.data_path.mkdir(exist_ok=True)
        journal = await Journal.open(
            found.journal_path,
            clock=SystemClock(),
            software="test",
            consumers=consumers(found),
            settings=JournalSettings(free_bytes=lambda: 1 << 40),
        )
        async with journal:
            await journal.append_many([Birth((one,)) for one in readings])

    asyncio.run(run())


@pytest.fixture
def influx(tmp_path: Path) -> InfluxDB:
    """One that is not started."""
    return InfluxDB(tmp_path / "influxdb", create=False)


@pytest.fixture
def place(tmp_path: Path, influx: InfluxDB, capsys: pytest.CaptureFixture[str]) -> Place:
    config = tmp_path / "headend.yaml"
    text = CONFIG.format(closed=free_port(), broker=free_port(), port=influx.port)
    config.write_text(text, encoding="utf-8")
    now_ms = SystemClock().now_ms()
    fill(config, [reading(f"{n}.25", time_ms=now_ms - n * 60_000) for n in range(1, 11)])
    return Place(config, capsys)


def test_with_the_daemon_its_state_is_told_and_a_replay_brings_everything_again(
    place: Place, influx: InfluxDB
) -> None:
    with place.daemon():
        code, one = place.status("retrying")
        assert code == 0
        assert one["backlog"] == one["last_seq"] == 10
        assert "no connection" in one["message"]
        assert one["lag_s"] > 0
        with influx:
            code, one = place.status("stopped")
            assert code == 1
            assert "database not found" in one["message"]
            code, out, _err = place.headend("timeseries", "status")
            assert code == 1
            assert "charts" in out
            assert "database not found" in out
        # The pause after such a fault is long: a new start does not wait for it.
    with influx:
        influx.create_database()
        with place.daemon():
            code, one = place.status("writing")
            assert (code, one["backlog"], one["lag_s"]) == (0, 0, 0.0)
            assert one["last_written"] is not None
            assert influx.count("register", "active_import_total") == 10
            influx.query("DROP SERIES FROM register")
            assert influx.count("register", "active_import_total") == 0
            code, (told,) = place.json("timeseries_replay", "replay", "--database", "charts")
            assert (code, told["database"], told["from_seq"]) == (0, "charts", 1)
            place.status("writing")
            assert influx.count("register", "active_import_total") == 10
            code, out, _err = place.headend(
                "timeseries", "replay", "--database", "charts", "--from", "9"
            )
            assert (code, out) == (0, "charts: records from 9 on are written again\n")
            for beyond in ("5000", "-3"):
                code, _out, err = place.headend(
                    "timeseries", "replay", "--database", "charts", "--from", beyond
                )
                assert code in (1, 2)
                assert beyond in err
                assert "Traceback" not in err


def test_the_feed_does_not_know_the_writers(place: Place) -> None:
    with place.daemon():
        code, out, _err = place.headend("feed", "status", "--json")
        assert code == 0
        assert [json.loads(line)["consumer"] for line in out.splitlines()] == ["billing"]
        code, out, _err = place.headend("feed", "status")
        assert "timeseries" not in out
        arguments = ("feed", "replay", "--consumer", "timeseries:charts", "--from", "1")
        code, out, err = place.headend(*arguments)
        assert code != 0, out
        assert "timeseries:charts" in err


def test_without_the_daemon_the_journal_and_the_letters_tell(place: Place) -> None:
    code, (one,) = place.json("timeseries_status", "status")
    assert code == 0
    assert (one["state"], one["backlog"], one["receipted_seq"]) == ("no_daemon", 10, 0)
    assert (one["lag_s"], one["last_written"]) == (None, None)
    code, _out, err = place.headend("timeseries", "status")
    assert code == 0
    assert "no daemon is running here" in err
    code, _out, err = place.headend("timeseries", "replay", "--database", "charts")
    assert code == 4
    assert "headend run" in err


def test_dead_letters_are_shown_with_the_databases_words(place: Place) -> None:
    assert place.json("dead_letter", "dead-letters") == (0, [])
    path = letters_path(load_config(place.config), "charts")
    letters = DeadLetters(path)
    kept = [
        DeadLetter(1_772_366_400_000, 7, 400, "field type conflict", "register a=1 1"),
        DeadLetter(1_772_366_400_000, 8, None, "no number: \x1b[31m", "M-1 voltage_a NaN"),
    ]
    asyncio.run(letters.keep(kept))
    assert path.stat().st_mode & 0o077 == 0
    code, found = place.json("dead_letter", "dead-letters", "--database", "charts")
    assert code == 0
    assert [(one["database"], one["seq"], one["status"]) for one in found] == [
        ("charts", 7, 400),
        ("charts", 8, None),
    ]
    code, out, _err = place.headend("timeseries", "dead-letters")
    assert code == 0
    assert "record 7 (400)" in out
    assert "field type conflict" in out
    assert "not sent" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("what", ["dead-letters", "replay"])
def test_a_database_that_is_not_configured_is_named(place: Place, what: str) -> None:
    code, _out, err = place.headend("timeseries", what, "--database", "nothing")
    assert code == 2
    assert "no database is named nothing" in err
    assert "there are: charts" in err


def test_without_a_database_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "headend.yaml"
    text = CONFIG.format(closed=1, broker=2, port=3)
    config.write_text(text[: text.index("timeseries:")], encoding="utf-8")
    code, out, err = Place(config, capsys).headend("timeseries", "status")
    assert (code, out) == (0, "")
    assert "no database for charts is configured" in err
