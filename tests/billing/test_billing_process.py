"""`headend billing` as people and programs run it: a process on a real broker, killed and read."""

import asyncio
import json
import random
import signal
import sqlite3
from pathlib import Path

import jsonschema
import psycopg
import pytest
from billing_builder import (
    EXPORT,
    IMPORT,
    MINUTE,
    T0,
    Inbox,
    batch,
    evidence,
    exchange,
    freeze,
    read,
    withdrawn,
)
from billing_databases import Database
from billing_headend import scripted_headend
from billing_run import Process, configuration, holds_every_record_once

from headend.cli.main import main
from headend.domain.clock import iso
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
DAY_MS = 86_400_000


@pytest.fixture
def config(tmp_path, database):
    return configuration(tmp_path, database)


@pytest.fixture
def filled(config, database):
    """Two days of SP-1 with an exchange, a gap and a withdrawn reading; SP-2 with export."""
    path = config()
    inbox = Inbox(database)
    inbox.take(
        batch(
            [
                read(1, "100.00", evidence="x1"),
                exchange(
                    2,
                    at_ms=T0 + DAY_MS // 2,
                    old_final={IMPORT: "105.50"},
                    new_initial={IMPORT: "0.26"},
                ),
                read(3, "3.26", meter="M-2", time_ms=T0 + DAY_MS, due_ms=T0 + DAY_MS),
                freeze(4, {IMPORT: "7.00", EXPORT: "5.00"}, meter="M-3", service_point="SP-2"),
                freeze(
                    5,
                    {IMPORT: "7.00", EXPORT: "9.50"},
                    meter="M-3",
                    service_point="SP-2",
                    time=iso(T0 + DAY_MS),
                    due_at=None,
                ),
                read(6, "66", time_ms=T0 + MINUTE),
                withdrawn(7, time_ms=T0 + MINUTE),
            ],
            exchanges=[evidence("x1")],
        ),
        b"garbage",
    )
    inbox.close()
    return path


def objects(capsys, name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one in found:
        jsonschema.validate(one, schema)
    return found


def billing(*arguments) -> int:
    return main(["billing", *map(str, arguments)])


def test_show_gives_every_day_and_direction_across_an_exchange(filled, capsys):
    assert billing("show", "--config", filled, "--json") == 0
    found = {
        (d["service_point"], d["day"], d["direction"]): d
        for d in objects(capsys, "billing_difference")
    }
    day = "2026-03-01"
    changed = found["SP-1", day, "import"]
    assert changed["energy"] == "8.50"
    assert [p["meter"] for p in changed["parts"]] == ["M-1", "M-2"]
    assert changed["sources"][0] == read(1, "100.00").read_id
    assert found["SP-1", day, "export"]["energy"] is None
    assert found["SP-1", day, "export"]["reason"] == "no_start"
    assert found["SP-2", day, "import"]["energy"] == "0.00"
    assert found["SP-2", day, "export"]["energy"] == "4.50"
    assert found["SP-2", "2026-03-02", "export"]["reason"] == "no_end"


def test_show_of_one_day_and_service_point(filled, capsys):
    options = ("--day", "2026-03-01", "--service-point", "SP-2", "--json")
    assert billing("show", "--config", filled, *options) == 0
    found = objects(capsys, "billing_difference")
    assert [(d["direction"], d["energy"]) for d in found] == [
        ("import", "0.00"),
        ("export", "4.50"),
    ]


def test_show_from_the_first_to_the_last_reading(filled, capsys):
    assert billing("show", "--config", filled, "--span", "--json") == 0
    found = objects(capsys, "billing_difference")
    energies = {(d["service_point"], d["direction"]): d["energy"] for d in found}
    assert energies["SP-1", "import"] == "8.50"
    assert energies["SP-1", "export"] is None
    assert {d["day"] for d in found} == {None}


def test_show_for_people_names_the_readings_it_stands_on(filled, capsys):
    assert billing("show", "--config", filled, "--day", "2026-03-01") == 0
    out = capsys.readouterr().out
    assert read(1, "100.00").read_id[:12] in out
    assert "event:" in out
    assert "unknown: no_start" in out


def test_readings_are_the_feeds_records(filled, capsys):
    assert billing("readings", "--config", filled, "--json") == 0
    found = objects(capsys, "billing_reading")
    assert len(found) == 7
    gone = next(r for r in found if r["status"] == "null")
    assert (gone["value"], gone["flags"], gone["revision"]) == (None, ["withdrawn"], 2)
    assert billing("readings", "--config", filled, "--meter", "M-3", "--point", EXPORT) == 0
    assert capsys.readouterr().out.count("\n") == 3


def test_bytes_shows_the_frames_of_a_reading(filled, capsys):
    read_id = read(1, "100.00").read_id
    assert billing("bytes", read_id, "--config", filled, "--json") == 0
    (found,) = objects(capsys, "billing_bytes")
    assert (found["request"], found["reply"]) == ("FEFE68", "68AA16")
    assert billing("bytes", read_id[:8].upper(), "--config", filled) == 0
    assert "68 AA 16" in capsys.readouterr().out


def test_bytes_of_a_replaced_reading_are_found_too(filled, capsys):
    old = read(6, "66", time_ms=T0 + MINUTE).read_id
    assert billing("bytes", old, "--config", filled, "--json") == 1  # no frames were sent
    (found,) = objects(capsys, "billing_bytes")
    assert (found["current"], found["value"], found["request"]) == (False, "66", None)


def test_bytes_of_a_reading_that_is_not_there_says_so(filled, capsys):
    assert billing("bytes", "0" * 32, "--config", filled) == 1
    assert "no reading begins with" in capsys.readouterr().err


def test_status_tells_cursors_alarms_and_refused_messages(filled, capsys):
    assert billing("status", "--config", filled, "--json") == 0
    (found,) = objects(capsys, "billing_status")
    assert found["cursors"][0]["through_seq"] == 7
    assert found["counts"]["dead_letters"] == 1
    assert billing("status", "--config", filled) == 0
    assert "not_json" in capsys.readouterr().out


def test_a_configuration_without_billing_is_refused(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text("headend: {name: he1, zone: Asia/Shanghai, data: ./data}\n")
    assert billing("show", "--config", path) == 2
    assert "billing" in capsys.readouterr().err


def test_a_damaged_file_is_reported_and_kept(sqlite, tmp_path, capsys):
    path = configuration(tmp_path, sqlite)()
    file = sqlite.path
    file.write_bytes(b"not a database at all" * 50)
    for action in ("show", "readings", "status", "run"):
        assert billing(action, "--config", path) == 1
        assert "Nothing was changed" in capsys.readouterr().err
    assert file.read_bytes() == b"not a database at all" * 50


# --- the process -----------------------------------------------------------------------------


async def test_sigterm_ends_the_process_cleanly(config, tmp_path):
    with Mosquitto(tmp_path / "broker") as broker:
        process = Process(config(broker.port))
        await process.start()
        try:
            async with scripted_headend(broker) as he1:
                he1.append(20)
                await he1.announce()
                await eventually(lambda: he1.receipted == 20)
        finally:
            code = await process.end(signal.SIGTERM)
        assert code == 0, process.stderr
        assert "Traceback" not in process.stderr
    assert not (tmp_path / "billing.db-wal").exists()


async def test_a_process_without_a_broker_waits_for_it(config, database, tmp_path):
    broker = Mosquitto(tmp_path / "broker")
    process = Process(config(broker.port))
    starting = asyncio.create_task(process.start())
    try:
        await eventually(lambda: _has_tables(database))
        broker.start()
        await starting
    finally:
        await process.end(signal.SIGTERM)
        broker.stop()


def _has_tables(database: Database) -> bool:
    try:
        return bool(database.rows("SELECT version FROM schema_version"))
    except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
        return False


async def test_killed_again_and_again_every_record_counts_once(config, database, tmp_path):
    """SIGKILL between any two steps: what was receipted is there, nothing is there twice."""
    dice = random.Random(5)
    with Mosquitto(tmp_path / "broker") as broker:
        path = config(broker.port)
        async with scripted_headend(broker) as he1:
            for _ in range(6):
                process = Process(path)
                await process.start()
                await he1.announce(online=False)
                he1.append(200)
                start = he1.receipted
                await he1.announce()
                target = start + dice.randint(1, len(he1.records) - start)
                await eventually(lambda n=target: he1.receipted >= n)
                await process.end(signal.SIGKILL)
                ((through_seq,),) = database.rows("SELECT through_seq FROM feed_cursor")
                assert through_seq >= he1.receipted
            process = Process(path)
            await process.start()
            await he1.announce(online=False)
            await he1.announce()
            await eventually(lambda: he1.receipted == 1200)
            assert await process.end(signal.SIGTERM) == 0
    holds_every_record_once(database, he1.records)
