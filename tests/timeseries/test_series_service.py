"""What the configuration makes of it, what the feed sees of it, and the file of dead letters."""

import json
from pathlib import Path

import pytest

from headend.config import load_config
from headend.domain.clock import SystemClock
from headend.feed.publisher import Publisher
from headend.feed.settings import FeedSettings
from headend.journal import ConsumerSpec
from headend.messages.broker import BrokerSpec
from headend.supervisor import Supervisor
from headend.timeseries import deadletters
from headend.timeseries.alarm import StoppedAlarm, alarmed
from headend.timeseries.deadletters import DeadLetter, DeadLetters, letters
from headend.timeseries.service import CLASSES, TimeSeries, consumers, target_of
from tests.journal.journal_kit import BILLING, Bench
from tests.support.waiting import eventually

CONFIG = """
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses: {}
meters: []
plans: {}
timeseries:
  - {kind: influxdb1, url: "https://db.example:8086", database: meters, username: w,
     password_file: $CREDENTIALS_DIRECTORY/influx, ca_file: ca.pem, allow_plaintext: false}
  - {kind: influxdb2, url: "http://127.0.0.1:1", org: o, bucket: b, max_backlog_days: 3}
"""


def letter(seq: int, text: str = "refused", line: str | None = None) -> DeadLetter:
    return DeadLetter(1_772_366_400_000, seq, 400, text, f"a b={seq} 1" if line is None else line)


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "headend.yaml"
    path.write_text(CONFIG.replace(", ca_file: ca.pem", ""), encoding="utf-8")
    return path


@pytest.fixture
def without_databases(tmp_path: Path) -> Path:
    path = tmp_path / "headend.yaml"
    path.write_text(CONFIG[: CONFIG.index("timeseries:")], encoding="utf-8")
    return path


def path_size(path: Path) -> int:
    return path.stat().st_size


def test_a_secret_may_be_a_credential_of_the_service_manager(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    secret = folder / "influx"
    secret.touch(mode=0o400)
    secret.write_text("of systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    config = load_config(config_path)
    target = target_of(config, config.timeseries[0])
    assert target.password_file == secret
    assert target.secret("password_file") == "of systemd"
    assert "of systemd" not in repr(target)


def test_each_database_has_a_cursor_of_its_own(config_path: Path) -> None:
    config = load_config(config_path)
    assert consumers(config) == [
        ConsumerSpec("timeseries:influxdb1", CLASSES, max_backlog_days=30),
        ConsumerSpec("timeseries:influxdb2", CLASSES, max_backlog_days=3),
    ]


async def test_an_alarm_of_a_database_no_longer_configured_is_cleared(
    without_databases: Path, tmp_path: Path
) -> None:
    config = load_config(without_databases)
    journal = await Bench(tmp_path / "journal.db").open()

    async def standing() -> set[str]:
        return alarmed(await journal.meter_events(("alarm", "alarm_cleared")))

    async def is_standing(wanted: set[str]) -> bool:
        return await standing() == wanted

    async with journal, Supervisor() as supervisor:
        before = StoppedAlarm("gone", journal.append_event, SystemClock())
        supervisor.start("before", before.run)
        before.stand("no such database")
        await eventually(lambda: is_standing({"gone"}))
        told = await journal.meter_events(("alarm", "alarm_cleared"))
        series = TimeSeries(config, journal, clock=SystemClock(), buses={}, told=told)
        series.start(supervisor)
        await eventually(lambda: is_standing(set()))
        assert series.report() == []
        with pytest.raises(KeyError):
            await series.replay("gone", 1)


async def test_the_feeds_status_does_not_know_the_writers(tmp_path: Path) -> None:
    spec = ConsumerSpec("timeseries:influxdb1", CLASSES)
    journal = await Bench(tmp_path / "journal.db", consumers=(BILLING, spec)).open()
    async with journal:
        publisher = Publisher(
            journal,
            BrokerSpec("127.0.0.1", 1),
            FeedSettings(),
            headend="he1",
            clock=SystemClock(),
            version="0",
            configuration_hash="0",
            read_now=None,
            told=[],
        )
        assert set(publisher.streams) == {"billing"}
        assert "timeseries" not in str(publisher.status(online=True))
        assert "timeseries" not in str(publisher.report())


# -- dead letters


async def test_a_letter_torn_by_a_power_cut_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    await DeadLetters(path).keep([letter(1)])
    with path.open("ab") as file:
        file.write(b'{"schema": "dead_le')
    again = DeadLetters(path)
    assert again.count == 1
    await again.keep([letter(2), letter(3, line="ä" * 5000)])
    assert [one["seq"] for one in letters(path)] == [1, 2, 3]
    assert DeadLetters(path).count == again.count == 3


async def test_the_same_line_of_the_same_record_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    first = DeadLetters(path)
    await first.keep([letter(1), letter(1), letter(2)])
    await first.keep([letter(2, "in other words"), letter(3)])
    again = DeadLetters(path)
    await again.keep([letter(1), letter(3), letter(1, line="another line")])
    assert [one["seq"] for one in letters(path)] == [1, 2, 3, 1]
    assert again.count == 4


async def test_two_files_are_kept_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "BYTES_MAX", 1000)
    path = tmp_path / "letters"
    kept = DeadLetters(path)
    for seq in range(1, 41):
        await kept.keep([letter(seq)])
        assert kept.count == sum(1 for _ in letters(path))
    seqs = [one["seq"] for one in letters(path)]
    assert seqs == list(range(seqs[0], 41))
    assert seqs[0] > 1
    assert sum(map(path_size, (path, deadletters._older(path)))) < 3000


async def test_a_full_disk_leaves_no_half_letter(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    kept = DeadLetters(path)
    await kept.keep([letter(1)])
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"[Nn]o space|[Ii]llegal|[Ii]nvalid"):
        await kept.keep([letter(2)])
    assert kept.count == 1
    path.unlink()
    await kept.keep([letter(2)])
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [2]
