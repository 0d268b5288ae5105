"""The inbox on its database: what is stored, what is answered, what a failure leaves."""

import pytest
from billing_builder import (
    EPOCH_A,
    EPOCH_B,
    EXPORT,
    IMPORT,
    MINUTE,
    T0,
    FixedClock,
    Inbox,
    batch,
    evidence,
    exchange,
    freeze,
    read,
    reads,
    resume_refused,
    withdrawn,
)
from billing_databases import TABLES, FailingCommits
from sqlalchemy import create_engine, inspect

from headend.billing import store as store_module
from headend.billing import tables
from headend.billing.database import (
    BillingDatabaseError,
    DatabaseAway,
    open_reader,
    open_writer,
)
from headend.billing.inbox import Row
from headend.domain.errors import ConfigError, FeedError
from headend.messages.records import ExpiredRecord

A = ("he1", EPOCH_A)
B = ("he1", EPOCH_B)


def test_a_batch_is_stored_and_receipted_up_to_its_last_number(inbox):
    result = inbox.take(reads(1, 5))
    assert result.receipts == {A: 5}
    assert result.resumes == {}
    assert len(inbox.values()) == 5
    assert inbox.through() == 5


def test_everything_delivered_twice_counts_once(inbox):
    first = inbox.take(reads(1, 5), reads(6, 9))
    before = {name: inbox.rows(name) for name in ("reading", "exchange", "reading_history")}
    again = inbox.take(reads(1, 5), reads(6, 9), reads(1, 9))
    assert {name: inbox.rows(name) for name in before} == before
    assert first.receipts == again.receipts == {A: 9}
    assert again.counts.known == 18


def test_a_repeat_is_receipted_with_the_durable_cursor_not_with_its_own_end(inbox):
    """A copied journal that begins again below our cursor must hear how far we are."""
    inbox.take(reads(1, 9))
    assert inbox.take(reads(3, 4)).receipts == {A: 9}


def test_frames_of_a_journal_that_was_set_back_do_not_pass_for_others(inbox):
    """It numbers its next exchanges like those it lost, in the same epoch until that is noticed."""
    for minute, reply in ((0, "68AA16"), (1, "68BB16")):
        record = read(1, "1.25", time_ms=T0 + minute * MINUTE, evidence="x1")
        inbox.take(batch([record], exchanges=[evidence("x1", reply=reply)]))
    readings = [Row._make(row) for row in inbox.rows("reading", "time_ms")]
    frames = {row[2]: row[4] for row in inbox.rows("exchange")}
    assert [frames[row.evidence] for row in readings] == ["68AA16", "68BB16"]


def test_a_hole_stores_nothing_and_asks_from_the_cursor(inbox):
    inbox.take(reads(1, 2))
    result = inbox.take(reads(4, 5))
    assert result.receipts == {}
    assert result.resumes == {A: 3}
    assert len(inbox.values()) == 2


def test_a_stream_never_seen_that_begins_later_is_asked_for_from_one(inbox):
    assert inbox.take(reads(7, 9)).resumes == {A: 1}
    assert inbox.through() == 0


def test_a_hole_filled_in_the_same_group_is_not_asked_for(inbox):
    result = inbox.take(reads(3, 4), reads(1, 2), reads(3, 4))
    assert result.receipts == {A: 4}
    assert result.resumes == {}


def test_an_overlapping_batch_adds_only_what_is_beyond_the_cursor(inbox):
    inbox.take(reads(1, 5))
    result = inbox.take(reads(4, 8))
    assert result.receipts == {A: 8}
    assert (result.counts.new, result.counts.known) == (3, 2)
    assert len(inbox.values()) == 8


def test_a_later_revision_replaces_and_never_adds(inbox):
    inbox.take(batch([read(1, "10.00")]))
    inbox.take(batch([read(2, "11.00", revision=2)]))
    assert inbox.values() == {("M-1", IMPORT, T0): ("11.00", 2)}
    history = inbox.rows("reading_history")
    assert [Row._make(row[:-1]).value for row in history] == ["10.00"]


def test_revisions_of_one_key_in_one_group_end_in_the_last(inbox):
    records = [read(1, "10"), read(2, "11", revision=2), read(3, "12", revision=3)]
    inbox.take(batch(records[:2]), batch(records[2:]))
    assert inbox.values() == {("M-1", IMPORT, T0): ("12", 3)}
    assert len(inbox.rows("reading_history")) == 2


def test_an_old_revision_that_comes_again_changes_nothing(inbox):
    inbox.take(batch([read(1, "10")]), batch([read(2, "11", revision=2)]))
    again = inbox.take(batch([read(1, "10")], epoch=EPOCH_B))
    assert again.counts.known == 1
    assert again.counts.conflicts == 0
    assert inbox.values() == {("M-1", IMPORT, T0): ("11", 2)}


def test_a_new_epoch_that_sends_the_unreceipted_again_makes_no_doubles(inbox):
    inbox.take(reads(1, 9))
    result = inbox.take(reads(1, 12, epoch=EPOCH_B))
    assert result.receipts == {B: 12}
    assert (result.counts.known, result.counts.new) == (9, 3)
    assert len(inbox.values()) == 12
    assert inbox.through(EPOCH_A) == 9
    assert inbox.store.latest() == {"he1": (EPOCH_B, 12)}


def test_frames_of_readings_known_already_are_not_kept_again(inbox):
    inbox.take(reads(1, 3))
    inbox.take(reads(1, 4, epoch=EPOCH_B))
    assert len(inbox.rows("exchange")) == 4


def test_two_headends_have_cursors_of_their_own(inbox):
    inbox.take(reads(1, 4))
    result = inbox.take(reads(1, 2, headend="he2"), headend="he2")
    assert result.receipts == {("he2", EPOCH_A): 2}
    assert inbox.through() == 4
    assert inbox.through(headend="he2") == 2
    assert len(inbox.values()) == 6


def test_the_same_reading_over_two_headends_counts_once(inbox):
    inbox.take(batch([read(1, "10")]))
    result = inbox.take(batch([read(1, "10")], headend="he2"), headend="he2")
    assert result.counts.known == 1
    assert len(inbox.values()) == 1


@pytest.mark.parametrize("revision", [0, 1])
def test_a_revision_that_is_not_later_and_says_otherwise_is_a_conflict(inbox, revision):
    inbox.take(batch([read(1, "10")]))
    for _ in range(2):
        result = inbox.take(batch([read(1, "12", revision=revision)], epoch=EPOCH_B))
        assert result.counts.conflicts == 1
    assert inbox.values() == {("M-1", IMPORT, T0): ("10", 1)}
    assert len(inbox.rows("conflict")) == 1
    assert [row[1] for row in inbox.rows("alarm")] == ["conflict"]


def test_the_same_content_under_a_lower_revision_is_no_conflict(inbox):
    inbox.take(batch([read(1, "10.0", revision=3)]))
    result = inbox.take(batch([read(1, "10.00", revision=2)], epoch=EPOCH_B))
    assert result.counts.conflicts == 0
    assert inbox.values() == {("M-1", IMPORT, T0): ("10.0", 3)}


def test_a_withdrawn_reading_has_no_value_and_can_be_born_again(inbox):
    inbox.take(batch([read(1, "10")]))
    inbox.take(batch([withdrawn(2)]))
    assert inbox.values() == {("M-1", IMPORT, T0): (None, 2)}
    inbox.take(batch([read(3, "20", meter="M-2"), read(4, "10", revision=3)]))
    assert inbox.values() == {("M-1", IMPORT, T0): ("10", 3), ("M-2", IMPORT, T0): ("20", 1)}


def test_a_freeze_gives_the_ids_that_reads_would_have(inbox):
    inbox.take(batch([freeze(1, {IMPORT: "10.00", EXPORT: None})]))
    alone = [read(1, "10.00"), read(2, None, point=EXPORT)]
    assert {row[5] for row in inbox.rows("reading")} == {record.read_id for record in alone}
    assert inbox.take(batch(alone, epoch=EPOCH_B)).counts.known == 2


def test_a_record_dropped_by_retention_moves_the_cursor_and_is_noted(inbox):
    inbox.take(reads(1, 2))
    result = inbox.take(batch([ExpiredRecord(first_seq=3, last_seq=90), read(91, "5")]))
    assert result.receipts == {A: 91}
    assert [row[2:5] for row in inbox.rows("gap")] == [(3, 90, "expired")]
    assert [row[1] for row in inbox.rows("alarm")] == ["gap"]


def test_a_repeated_note_of_dropped_records_covers_only_what_never_came(inbox):
    inbox.take(reads(1, 5))
    inbox.take(batch([ExpiredRecord(first_seq=1, last_seq=3), read(4, "5")]))
    assert inbox.rows("gap") == []


def test_a_refused_resume_moves_the_cursor_notes_the_gap_and_goes_on(inbox):
    inbox.take(reads(1, 2), reads(9, 9))
    result = inbox.take(resume_refused(3, 8))
    assert result.resumes == {A: 8}
    assert [row[2:5] for row in inbox.rows("gap")] == [(3, 7, "resume_refused")]
    assert inbox.take(reads(8, 9)).receipts == {A: 9}


@pytest.mark.parametrize(("from_seq", "oldest_seq"), [(1, 50), (3, 3), (3, 2), (9, 50)])
def test_a_refusal_of_something_else_than_our_place_changes_nothing(inbox, from_seq, oldest_seq):
    inbox.take(reads(1, 2))
    assert inbox.take(resume_refused(from_seq, oldest_seq)).resumes == {}
    assert inbox.through() == 2


def test_a_refusal_for_an_epoch_never_met_changes_nothing(inbox):
    inbox.take(resume_refused(1, 50))
    assert inbox.rows("feed_cursor") == []


def test_an_unknown_reading_below_the_cursor_is_kept_and_reported(inbox):
    """A journal that was set back numbers new readings with old numbers: nothing may be lost."""
    inbox.take(reads(1, 9))
    result = inbox.take(batch([read(9, "77", meter="M-new")]))
    assert result.receipts == {A: 9}
    assert result.counts.recovered == 1
    assert ("M-new", IMPORT, T0) in inbox.values()
    assert [row[1] for row in inbox.rows("alarm")] == ["unknown_below_cursor"]


def test_an_event_told_again_under_another_number_is_one_event(inbox):
    told = {"at_ms": T0, "old_final": {IMPORT: "9"}, "new_initial": {IMPORT: "0"}}
    inbox.take(batch([exchange(1, **told)]))
    inbox.take(batch([read(1, "1"), exchange(2, **told)], epoch=EPOCH_B))
    assert len(inbox.rows("event")) == 1


def test_meters_of_a_service_point_are_remembered(inbox):
    inbox.take(batch([read(1, "1"), read(2, "2", meter="M-2")]))
    assert inbox.rows("metering", "2") == [("SP-1", "M-1"), ("SP-1", "M-2")]


# --- hostile messages ------------------------------------------------------------------------


def test_a_refused_message_leaves_a_dead_letter_and_its_neighbours_unharmed(inbox):
    result = inbox.take(reads(1, 2), b"\x00\xff garbage", reads(3, 4))
    assert result.receipts == {A: 4}
    assert [r.code for r in result.refusals] == ["not_json"]
    (letter,) = inbox.rows("dead_letter")
    assert letter[3] == "not_json"
    assert bytes.fromhex(letter[6]) == b"\x00\xff garbage"


def test_dead_letters_are_bounded_in_number_and_size(inbox, monkeypatch):
    monkeypatch.setattr(store_module, "DEAD_LETTERS_MAX", 5)
    for number in range(20):
        inbox.clock.ms += 1
        inbox.take(b"x%d" % number + b"y" * 10_000)
    letters = inbox.rows("dead_letter")
    assert len(letters) == 5
    assert {len(bytes.fromhex(row[6])) for row in letters} == {store_module.DEAD_LETTER_BYTES}
    assert sorted(row[7] for row in letters) == [T0 + n for n in range(16, 21)]


def test_the_same_garbage_again_is_counted_not_kept_again(inbox):
    for _ in range(3):
        inbox.take(b"{}")
    assert [row[-1] for row in inbox.rows("dead_letter")] == [3]


def test_a_message_refused_elsewhere_is_kept_too(inbox):
    arrived = store_module.Arrived("he1", "meter/v1/he1/status", b"?")
    inbox.store.refuse(arrived, FeedError("no status", code="not_json"))
    assert inbox.rows("dead_letter")[0][2] == "meter/v1/he1/status"


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 3])
def test_a_failed_commit_leaves_nothing_and_the_next_attempt_everything(inbox, failures):
    inbox.take(reads(1, 2))
    commits = FailingCommits(inbox)
    commits.failing = True
    for _ in range(failures):
        with pytest.raises(DatabaseAway, match=r"disk is full|No space left"):
            inbox.take(reads(3, 4))
        assert inbox.through() == 2
        assert len(inbox.values()) == 2
    commits.failing = False
    assert inbox.take(reads(3, 4)).receipts == {A: 4}
    assert len(inbox.values()) == 4
    assert len(inbox.rows("metering")) == 3


def test_another_process_that_took_the_records_meanwhile_makes_no_doubles(sqlite):
    """Every transaction looks at the durable cursor, not at one remembered."""
    inbox, other = Inbox(sqlite), Inbox(sqlite)
    inbox.take(reads(1, 2))
    assert other.take(reads(1, 4)).receipts == {A: 4}
    assert inbox.take(reads(3, 6)).receipts == {A: 6}
    other.close()
    inbox.close()
    assert len(inbox.values()) == 6


# --- the database --------------------------------------------------------------------------------


def test_the_released_tables_are_the_ones_the_program_uses(inbox):
    engine = create_engine(inbox.url.replace("postgresql:", "postgresql+psycopg:"))
    inspector = inspect(engine)
    assert set(inspector.get_table_names()) == set(tables.metadata.tables)
    assert {t for t in tables.metadata.tables if t != "schema_version"} == set(TABLES)
    for name, table in tables.metadata.tables.items():
        found = [(c["name"], c["nullable"]) for c in inspector.get_columns(name)]
        assert found == [(c.name, c.nullable) for c in table.columns]
        key = inspector.get_pk_constraint(name)["constrained_columns"]
        assert set(key) == {c.name for c in table.primary_key}
    engine.dispose()


def test_the_rows_of_code_and_table_have_the_same_columns():
    assert tuple(c.name for c in tables.reading.columns) == Row._fields


def test_every_unique_key_contains_the_column_it_would_be_partitioned_by():
    for name, table in tables.metadata.tables.items():
        if name != "schema_version":
            key = {c.name for c in table.primary_key}
            assert key & {"headend", "meter"}, name


def test_what_was_taken_is_there_after_reopening(database):
    first = Inbox(database)
    first.take(reads(1, 3))
    first.close()
    second = Inbox(database)
    assert second.take(reads(1, 5)).counts.new == 2
    second.close()


def test_commits_to_a_file_are_durable_when_they_return(sqlite):
    inbox = Inbox(sqlite)
    with inbox.store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    inbox.close()


def _open(database):
    return open_writer(database.url, clock=FixedClock(), software="test")


def test_a_file_that_is_no_database_is_refused_and_kept(sqlite):
    path = sqlite.path
    path.write_bytes(b"this is not a database, really not" * 100)
    before = path.read_bytes()
    with pytest.raises(BillingDatabaseError, match="Nothing was changed"):
        _open(sqlite)
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused_and_kept(sqlite):
    path = sqlite.path
    made = Inbox(sqlite)
    for number in range(40):
        made.take(reads(number * 50 + 1, number * 50 + 50))
    made.close()
    content = bytearray(path.read_bytes())
    for page in range(3, 40):
        content[page * 4096 : page * 4096 + 2000] = b"\xa5" * 2000
    path.write_bytes(content)
    with pytest.raises(BillingDatabaseError, match=r"damaged|cannot be used"):
        _open(sqlite)
    assert path.read_bytes() == bytes(content)


def test_a_truncated_file_is_refused(sqlite):
    path = sqlite.path
    made = Inbox(sqlite)
    made.take(reads(1, 200))
    made.close()
    path.write_bytes(path.read_bytes()[: 4096 * 6])
    with pytest.raises(BillingDatabaseError):
        _open(sqlite)


@pytest.mark.parametrize(
    "foreign",
    [
        ["CREATE TABLE recipes (name TEXT)"],
        ["CREATE TABLE schema_version (installed_rank INTEGER, version TEXT)"],
        ["CREATE VIEW recipes AS SELECT 1 AS one"],
        [
            "CREATE TABLE schema_version (version INTEGER, applied_ms BIGINT, software TEXT)",
            "CREATE TABLE reading (name TEXT)",
        ],
    ],
    ids=["tables", "another program's version", "a view", "no version"],
)
def test_a_database_of_something_else_is_refused_and_kept(database, foreign):
    database.execute(*foreign)
    for _ in range(2):
        with pytest.raises(BillingDatabaseError, match=r"something else.*Nothing was changed"):
            _open(database)
    with pytest.raises(BillingDatabaseError, match="something else"):
        open_reader(database.url)
    with pytest.raises(Exception, match="feed_cursor"):
        database.rows("SELECT * FROM feed_cursor")


def test_a_database_of_a_newer_program_is_refused(inbox):
    inbox.database.execute("INSERT INTO schema_version VALUES (99, 0, 'newer')")
    inbox.close()
    with pytest.raises(BillingDatabaseError, match="newer"):
        _open(inbox.database)
    with pytest.raises(BillingDatabaseError, match="version 99"):
        open_reader(inbox.url)


def test_a_database_that_lacks_a_table_is_refused(inbox):
    inbox.close()
    inbox.database.execute("DROP TABLE conflict")
    with pytest.raises(BillingDatabaseError, match=r"lacks conflict.*Nothing was changed"):
        _open(inbox.database)


def test_looking_at_a_file_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(BillingDatabaseError, match="billing run"):
        open_reader(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_looking_at_an_empty_database_makes_no_tables(postgresql):
    with pytest.raises(BillingDatabaseError, match="is empty: `headend billing run`"):
        open_reader(postgresql.url)
    with pytest.raises(Exception, match="feed_cursor"):
        postgresql.rows("SELECT * FROM feed_cursor")


@pytest.mark.parametrize("url", ["postgresql://u@h/db", "mysql://u@h/db", "nonsense"])
def test_a_url_that_cannot_be_used_is_a_configuration_error(url):
    with pytest.raises(ConfigError):
        open_reader(url)


def test_the_order_of_time_in_a_series_is_start_plus_interval(inbox):
    from headend.messages.records import SeriesRecord

    record = SeriesRecord(
        seq=1,
        meter="M-1",
        service_point="SP-1",
        point=IMPORT,
        unit="kWh",
        start="2026-02-28T16:00:00Z",
        interval_s=900,
        values=["0.12", None, "0.14"],
        received_at="2026-03-01T00:00:00Z",
        status="actual",
        verdict="ok",
        flags=["a", "b"],
        revision=1,
        late=True,
        multiplier="100",
        side="secondary",
        evidence="x1",
    )
    inbox.take(batch([record], exchanges=[evidence("x1")]))
    rows = [Row._make(row) for row in inbox.rows("reading", "time_ms")]
    assert [(r.time_ms - T0, r.interval_s, r.value) for r in rows] == [
        (0, 900, "0.12"),
        (15 * MINUTE, 900, None),
        (30 * MINUTE, 900, "0.14"),
    ]
    assert rows[0].flags == "a,b"
    assert (rows[0].read_id, rows[0].late) == (
        read(1, "0.12", interval_s=900, multiplier="100").read_id,
        1,
    )
