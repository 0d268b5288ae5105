"""The checker of the kill loop finds what it is there to find: each fault is planted and told."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from headend.billing.store import Arrived, Store
from headend.domain.clock import SystemClock
from headend.domain.exchange import Exchange, Outcome
from headend.domain.reading import Reading
from headend.feed.batching import encoded_batches
from headend.journal import Birth, ConsumerSpec, Journal, JournalSettings
from tests.kill.checker import Checker, Report
from tests.kill.journals import WRITER
from tests.support.influxdb import InfluxDB
from tests.support.waiting import eventually

METERS = 2
STEPS = 5
POINT = "active_import_total"
BEGUN_MS = 1_900_000_000_000
CONSUMERS = (
    ConsumerSpec("billing", frozenset({"billing", "telemetry", "events"})),
    ConsumerSpec(WRITER, frozenset({"billing", "telemetry"})),
)
SETTINGS = JournalSettings(reserve_bytes_telemetry=2, reserve_bytes_billing=1)


class Scene:
    """A folder as the loop leaves it: two meters, five readings each, all at billing."""

    def __init__(self, folder: Path, series: InfluxDB | None = None) -> None:
        self.folder = folder
        self.series = series
        self.journal = folder / "data" / "journal.db"
        self.billing = folder / "billing" / "billing.db"
        for name in ("data", "billing", "journals"):
            (folder / name).mkdir(exist_ok=True)

    async def play(self) -> None:
        """Meters serve, the journal keeps and numbers, billing takes and receipts."""
        clock = SystemClock()
        journal = await Journal.open(
            self.journal, clock=clock, software="test", consumers=CONSUMERS, settings=SETTINGS
        )
        births = [Birth((self.serve(m, s),)) for s in range(STEPS) for m in range(METERS)]
        appended = await journal.append_many(births)
        (self.folder / "acks.jsonl").write_text(
            json.dumps([one.read_id for birth in appended for one in birth]) + "\n"
        )
        part = await journal.read_stream("billing", 1, records_max=100)
        store = Store(f"sqlite:///{self.billing}", name="billing", clock=clock, software="test")
        for batch in encoded_batches(
            "he", journal.epoch, "billing", 1, part.records, part.exchanges
        ):
            store.take([Arrived("he", "meter/v1/he/feed/billing", batch.payload)])
        store.close()
        for consumer in CONSUMERS:
            await journal.receipt(consumer.name, len(births))
        await eventually(lambda: self._receipted() == {len(births)})
        await journal.close()

    def _receipted(self) -> set[int]:
        with closing(sqlite3.connect(self.journal)) as db:
            return {seq for (seq,) in db.execute("SELECT receipted FROM consumers")}

    def serve(self, meter: int, step: int) -> Reading:
        """One answer of a meter, in the truth log, and the reading it becomes."""
        then_ms = at_ms(meter, step)
        value = Decimal(100 * (meter + 1) + step) + Decimal("0.25")
        reply = bytes([0x68, meter, step, 0x16])
        truth = {
            "meter": f"{meter + 1:012d}",
            "points": [POINT],
            "values": [str(value)],
            "at_ms": then_ms,
            "raw": [reply.hex().upper()],
        }
        with (self.folder / "truth.jsonl").open("a") as file:
            file.write(json.dumps(truth) + "\n")
        exchange = Exchange(
            "bus", "m", b"\x68\x16", reply, then_ms - 2, then_ms + 4, 6.0, 1, Outcome.REPLY
        )
        return Reading(
            f"M-{meter:02d}", "SP", POINT, value, "kWh", then_ms, then_ms + 4, exchange=exchange
        )

    def check(self) -> Report:
        """What a fresh checker finds."""
        return Checker(self.folder, series=self.series).check()

    def spoil(self, database: Path, sql: str) -> None:
        """Change something behind everybody's back; `rb` stands for the readings' table."""
        with closing(sqlite3.connect(database)) as db:
            if database == self.journal:
                (name,) = db.execute(
                    "SELECT name FROM sqlite_master WHERE name GLOB 'rb_[0-9]*[0-9]'"
                ).fetchone()
                (stream,) = db.execute(
                    "SELECT name FROM sqlite_master WHERE name GLOB 's_[0-9]*[0-9]'"
                ).fetchone()
                sql = sql.replace("{rb}", name).replace("{s}", stream)
            assert db.execute(sql).rowcount > 0
            db.commit()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene as it is played, once; every test gets a copy to spoil."""
    made = Scene(tmp_path_factory.mktemp("played"))
    asyncio.run(made.play())
    return made.folder


@pytest.fixture(scope="module")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxDB]:
    with InfluxDB(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


@pytest.fixture
def filled(played: Path, tmp_path: Path, influxdb: InfluxDB) -> Scene:
    """The scene with a real InfluxDB that holds its readings, in lines written by hand here."""
    scene = Scene(shutil.copytree(played, tmp_path / "scene"), influxdb)
    influxdb.query(f'DROP DATABASE "{influxdb.database}"')
    influxdb.create_database()
    for meter in range(METERS):
        for step in range(STEPS):
            write(influxdb, meter, step, f"{100 * (meter + 1) + step}.25")
    return scene


def write(influxdb: InfluxDB, meter: int, step: int, value: str, quality: int = 0) -> None:
    """One reading as the operations guide describes its line."""
    line = (
        f"register,headend=he,meter=M-{meter:02d},service_point=SP"
        f" {POINT}={value},{POINT}_quality={quality}i {at_ms(meter, step)}"
    )
    answer = influxdb.write(line.encode())
    assert answer.status == 204, answer


def at_ms(meter: int, step: int) -> int:
    """When a meter answered."""
    return BEGUN_MS + 1000 * step + meter


@pytest.fixture
def scene(played: Path, tmp_path: Path) -> Scene:
    return Scene(shutil.copytree(played, tmp_path / "scene"))


def test_what_agrees_is_found_to_agree(scene: Scene) -> None:
    report = scene.check()
    assert report.findings == []
    assert report.counts["at_billing"] == METERS * STEPS
    assert report.counts["must_be_at_billing"] == METERS * STEPS


def test_a_reading_that_is_lost_on_the_way_to_billing_is_missed(scene: Scene) -> None:
    scene.spoil(scene.billing, "DELETE FROM reading WHERE rowid=3")
    report = scene.check()
    assert report.by_kind["missing"] == 1
    assert "M-00" in report.findings[0].text or "M-01" in report.findings[0].text


def test_a_reading_counted_twice_is_told(scene: Scene) -> None:
    """The same answer of the meter once more, a second later, in the journal and at billing."""
    scene.spoil(
        scene.journal,
        "INSERT INTO {rb} SELECT 99, series, time_ms+1, revision, zeroblob(16), service_point,"
        " value, form, received_ms, due_ms, meter_time_ms, xid FROM {rb} WHERE rid=1",
    )
    scene.spoil(
        scene.billing,
        "INSERT INTO reading SELECT meter, point, time_ms+1, interval_s, revision,"
        " '00000000000000000000000000000000', value, unit, status, verdict, flags, service_point,"
        " received_ms, due_ms, late, final, multiplier, side, evidence, headend, epoch, seq"
        " FROM reading WHERE rowid=1",
    )
    assert scene.check().by_kind["twice"] >= 1


def test_two_current_values_of_a_key_are_told(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.billing)) as db:
        db.executescript(
            "CREATE TABLE loose AS SELECT * FROM reading; DROP TABLE reading;"
            "ALTER TABLE loose RENAME TO reading;"
            "INSERT INTO reading SELECT * FROM reading WHERE rowid=1;"
        )
    assert scene.check().by_kind["twice"] >= 2  # the key, and the id


def test_a_reading_no_journal_ever_had_is_told(scene: Scene) -> None:
    scene.spoil(
        scene.billing, "UPDATE reading SET read_id='ffffffffffffffffffffffffffffffff' WHERE rowid=1"
    )
    report = scene.check()
    assert report.by_kind["foreign"] == 1
    assert report.by_kind["missing"] == 1


def test_another_value_at_billing_is_told(scene: Scene) -> None:
    scene.spoil(scene.billing, "UPDATE reading SET value='999.99' WHERE rowid=2")
    report = scene.check()
    assert report.by_kind["differs"] == 1
    assert report.by_kind["difference"] >= 1


def test_a_value_that_no_meter_said_is_told_though_both_sides_agree(scene: Scene) -> None:
    for database, table in ((scene.journal, "{rb}"), (scene.billing, "reading")):
        scene.spoil(database, f"UPDATE {table} SET value='100.26' WHERE value='100.25'")
    assert scene.check().by_kind["untrue"] == 1


def test_bytes_that_no_meter_sent_are_told(scene: Scene) -> None:
    truth = scene.folder / "truth.jsonl"
    lines = truth.read_text().splitlines(keepends=True)
    truth.write_text("".join(lines[1:]))
    assert scene.check().by_kind["untrue"] == 1


def test_a_reading_dated_outside_its_exchange_is_told(scene: Scene) -> None:
    for database, table in ((scene.journal, "{rb}"), (scene.billing, "reading")):
        scene.spoil(database, f"UPDATE {table} SET time_ms=time_ms+60 WHERE value='100.25'")
    assert scene.check().by_kind["untrue"] == 1


def test_other_bytes_at_billing_are_told(scene: Scene) -> None:
    scene.spoil(scene.billing, "UPDATE exchange SET reply='6816' WHERE rowid=1")
    assert scene.check().by_kind["bytes"] == 1


def test_a_hole_in_the_stream_is_told(scene: Scene) -> None:
    scene.spoil(scene.journal, "UPDATE {s} SET count=count-1")
    assert scene.check().by_kind["hole"] >= 1


def test_an_acknowledged_append_that_is_gone_is_told(scene: Scene) -> None:
    with (scene.folder / "acks.jsonl").open("a") as file:
        file.write(json.dumps(["0" * 32]) + "\n")
    assert scene.check().by_kind["ack_lost"] == 1


def test_a_cursor_beyond_what_billing_has_is_told(scene: Scene) -> None:
    scene.spoil(scene.billing, "UPDATE feed_cursor SET through_seq=through_seq-1")
    assert scene.check().by_kind["cursor"] == 1


def test_a_reading_that_came_to_billing_below_its_cursor_is_told(scene: Scene) -> None:
    scene.spoil(
        scene.billing,
        "INSERT INTO alarm (headend, kind, subject, detail, first_ms, last_ms, times)"
        " SELECT headend, 'unknown_below_cursor', epoch, 'number 3', 1, 1, 1 FROM reading LIMIT 1",
    )
    assert scene.check().by_kind == {"recovered": 1}


def test_a_backlog_is_told(scene: Scene) -> None:
    scene.spoil(scene.journal, "UPDATE consumers SET receipted=receipted-1")
    assert scene.check().by_kind["not_drained"] == 1


def test_of_a_journal_that_is_gone_what_was_receipted_must_be_at_billing(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Receipted up to 4 of 10: the others died with the journal, the fourth must not be missing."""
    aside = scene.folder / "journals" / "001-aside"
    aside.mkdir()
    scene.journal.replace(aside / "journal.db")
    (aside / "through_seq").write_text("4")
    scene.spoil(scene.billing, "UPDATE feed_cursor SET through_seq=4")
    scene.spoil(scene.billing, "DELETE FROM reading WHERE seq>4")
    with closing(sqlite3.connect(aside / "journal.db")) as db:
        db.execute("UPDATE consumers SET receipted=4")
        db.commit()
    other = Scene(tmp_path_factory.mktemp("other"))
    asyncio.run(other.play())
    with closing(sqlite3.connect(other.journal)) as db:  # an empty journal begun anew
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE name GLOB '[rs]*_[0-9]*[0-9]' AND type='table'"
        ).fetchall():
            db.execute(f"DELETE FROM {name}")
        db.execute("UPDATE consumers SET receipted=0, last_seq=0")
        db.commit()
    other.journal.replace(scene.journal)
    assert scene.check().findings == []
    scene.spoil(scene.billing, "DELETE FROM reading WHERE seq=4")
    assert scene.check().by_kind["missing"] == 1


def test_sums_that_count_something_twice_are_told(scene: Scene) -> None:
    checker = Checker(scene.folder)
    assert checker.check().findings == []
    with closing(sqlite3.connect(scene.billing)) as db:
        ids = [i for (i,) in db.execute("SELECT read_id FROM reading ORDER BY meter, time_ms")]

    def span(energy: str) -> dict[str, object]:
        parts = [{"start": {"source": ids[0]}, "end": {"source": ids[STEPS - 1]}}]
        return {
            "service_point": "SP",
            "direction": "import",
            "reason": None,
            "energy": energy,
            "parts": parts,
        }

    assert checker.check_spans([span("4.00")]).findings == []
    assert checker.check_spans([span("5.00")]).by_kind["span"] == 1


def test_a_time_series_that_agrees_is_found_to_agree(filled: Scene) -> None:
    report = filled.check()
    assert report.findings == []
    assert report.counts["in_time_series"] == METERS * STEPS
    assert report.counts["must_be_in_series"] == METERS * STEPS


def test_a_point_deleted_from_the_time_series_is_missed(filled: Scene, influxdb: InfluxDB) -> None:
    ns = at_ms(1, 3) * 1_000_000
    influxdb.query(f'DELETE FROM "register" WHERE "meter"=\'M-01\' AND time={ns}')
    assert filled.check().by_kind == {"series_missing": 1}


def test_a_changed_value_in_the_time_series_is_told(filled: Scene, influxdb: InfluxDB) -> None:
    write(influxdb, 0, 2, "102.26")
    assert filled.check().by_kind == {"series_differs": 1, "series_foreign": 1}


def test_a_value_of_another_meter_in_the_time_series_is_told(
    filled: Scene, influxdb: InfluxDB
) -> None:
    write(influxdb, 7, 0, "100.25")
    assert filled.check().by_kind == {"series_foreign": 1}


def test_a_value_a_millisecond_off_in_the_time_series_is_told(
    filled: Scene, influxdb: InfluxDB
) -> None:
    ns = at_ms(0, 0) * 1_000_000
    influxdb.query(f'DELETE FROM "register" WHERE "meter"=\'M-00\' AND time={ns}')
    line = (
        f"register,headend=he,meter=M-00,service_point=SP {POINT}=100.25,{POINT}_quality=0i"
        f" {at_ms(0, 0) + 1}"
    )
    assert influxdb.write(line.encode()).status == 204
    assert filled.check().by_kind == {"series_missing": 1, "series_foreign": 1}


def test_a_reading_marked_as_withdrawn_in_the_time_series_is_missed(
    filled: Scene, influxdb: InfluxDB
) -> None:
    write(influxdb, 1, 4, "204.25", quality=9)
    assert filled.check().by_kind == {"series_missing": 1}


def test_a_reading_among_the_estimates_of_the_time_series_is_told(
    filled: Scene, influxdb: InfluxDB
) -> None:
    line = (
        f"register_estimated,headend=he,meter=M-00,service_point=SP"
        f" {POINT}=100.25,{POINT}_quality=0i {at_ms(0, 0)}"
    )
    assert influxdb.write(line.encode()).status == 204
    assert filled.check().by_kind == {"series_foreign": 1}


def test_a_backlog_of_the_time_series_writer_is_told(filled: Scene) -> None:
    filled.spoil(
        filled.journal, f"UPDATE consumers SET receipted=receipted-1 WHERE name='{WRITER}'"
    )
    assert filled.check().by_kind == {"not_drained": 1}


def test_a_value_written_before_the_cursor_moved_may_stand_in_the_time_series(
    filled: Scene, influxdb: InfluxDB
) -> None:
    """Of a journal that is gone: what lies beyond the cursor may be there, and need not be."""
    with closing(sqlite3.connect(filled.journal)) as db:
        db.execute(f"UPDATE consumers SET receipted=8 WHERE name='{WRITER}'")
        db.commit()
    ns = at_ms(1, 4) * 1_000_000
    influxdb.query(f'DELETE FROM "register" WHERE "meter"=\'M-01\' AND time={ns}')
    assert filled.check().by_kind == {"not_drained": 1}  # no series_missing, no series_foreign
