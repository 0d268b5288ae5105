"""Billing's database as a file: copied while the consumer writes, and brought back."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from headend.archive import BadBackup
from headend.billing import backup as billing
from headend.billing import database as opening
from headend.billing.spec import DatabaseSpec
from headend.billing.store import Store
from headend.billing.tables import MIGRATIONS, SCHEMA_VERSION
from headend.cli.main import main
from headend.domain.clock import SystemClock
from tests.backup.backup_kit import Place, everything_in
from tests.backup.make_database import fill_billing
from tests.backup.stored_databases import look_at_billing


@pytest.fixture
def filled(place: Place) -> Path:
    path = place.folder / "billing.db"
    fill_billing(f"sqlite:///{path}")
    return path


def look(path: Path) -> dict:
    return look_at_billing(f"sqlite:///{path}")


def test_a_backup_comes_back_as_it_was_and_what_was_there_is_set_aside(place: Place, filled: Path):
    before = look(filled)
    made = place.json("billing", "backup", "--to", place.folder / "b.tar.gz")
    assert made["manifest"]["kind"] == "billing"
    assert made["manifest"]["counts"]["readings"] == len(before["readings"])
    assert {c["through_seq"] for c in made["manifest"]["cursors"]} == {6, 2}
    with closing(sqlite3.connect(filled)) as db:
        db.execute("DELETE FROM reading")
        db.commit()
    told = place.json("billing", "restore", made["file"])
    assert look(filled) == before
    assert look(Path(told["set_aside"]))["readings"] == []
    assert told["counts"] == made["manifest"]["counts"]
    assert sorted(everything_in(filled.parent)) == sorted(
        ["headend.yaml", "b.tar.gz", "billing.db", Path(told["set_aside"]).name]
    )


def test_it_is_copied_while_the_consumer_has_it_open_and_not_restored(place: Place, filled: Path):
    store = Store(f"sqlite:///{filled}", name="billing", clock=SystemClock(), software="test")
    try:
        store.latest()
        made = place.json("billing", "backup", "--to", place.folder / "b.tar.gz")
        before = filled.read_bytes()
        code, _out, err = place.headend("billing", "restore", made["file"])
        assert code == 5
        assert "in use" in err
        assert "stop `headend billing run`" in err
        assert filled.read_bytes() == before
    finally:
        store.close()
    assert place.headend("billing", "restore", made["file"])[0] == 0


def test_a_lost_or_damaged_database_is_no_obstacle(place: Place, filled: Path):
    before = look(filled)
    made = place.json("billing", "backup", "--to", place.folder / "b.tar.gz")["file"]
    filled.unlink()
    assert place.json("billing", "restore", made)["set_aside"] is None
    assert look(filled) == before
    filled.write_bytes(os.urandom(9000))
    rubbish = filled.read_bytes()
    told = place.json("billing", "restore", made)
    assert look(filled) == before
    assert Path(told["set_aside"]).read_bytes() == rubbish


def test_the_copy_of_an_older_program_is_brought_up_to_date_and_of_a_newer_one_refused(
    place: Place, filled: Path, monkeypatch: pytest.MonkeyPatch
):
    older = place.json("billing", "backup", "--to", place.folder / "older.tar.gz")["file"]

    def add(execute) -> None:
        execute("CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY)")

    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", (*MIGRATIONS, add))
        patch.setattr(opening, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        patch.setattr(billing, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        told = place.json("billing", "restore", older)
        assert told["migrations"] == 1
        newer = place.json("billing", "backup", "--to", place.folder / "newer.tar.gz")["file"]
    before = filled.read_bytes()
    code, _out, err = place.headend("billing", "restore", newer)
    assert code == 1
    assert "newer program" in err
    assert filled.read_bytes() == before


async def test_the_two_kinds_of_backup_are_not_taken_for_each_other(place: Place, filled: Path):
    await place.fill(1, 5)
    journal = place.json("backup", "--to", place.folder / "j.tar.gz")["file"]
    inbox = place.json("billing", "backup", "--to", place.folder / "b.tar.gz")["file"]
    assert "not of a journal" in place.headend("restore", inbox)[2]
    assert "not of billing's" in place.headend("billing", "restore", journal)[2]
    with closing(sqlite3.connect(filled)) as db:
        db.execute("ALTER TABLE reading RENAME TO other")
    with pytest.raises(BadBackup, match="not billing's"):
        billing.back_up(
            DatabaseSpec.of(f"sqlite:///{filled}"),
            place.folder / "c.tar.gz",
            clock=SystemClock(),
            software="test",
            watch=lambda *_: None,
        )


def test_a_servers_database_is_left_to_the_servers_tools(
    place: Place, capsys: pytest.CaptureFixture[str]
):
    text = place.config.read_text().replace("sqlite:///billing.db", "postgresql:///headend")
    place.config.write_text(text)
    for arguments in (["backup"], ["restore", str(place.config)]):
        assert main(["billing", *arguments, "--config", str(place.config)]) == 2
        assert "pg_dump" in capsys.readouterr().err


def test_what_is_shown_to_people(place: Place, filled: Path):
    code, out, _err = place.headend("billing", "backup", "--to", place.folder / "b.tar.gz")
    assert code == 0
    assert "6 readings" in out
    code, out, _err = place.headend("billing", "restore", place.folder / "b.tar.gz")
    assert code == 0
    assert "set aside" in out
    assert "Start billing again" in out
