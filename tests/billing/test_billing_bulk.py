"""Rows in bulk: whatever text and number they hold, both databases do the same with them."""

import pytest
from billing_builder import Inbox
from billing_databases import PostgresDatabase, SqliteDatabase
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headend.billing import bulk, bulk_postgresql, tables
from headend.billing.inbox import Row

TEXT = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=12
) | st.sampled_from(
    ["\\N", "\\.", "a\tb", "a\nb", "'\"", "{}", "NULL", "%s", "中文", "\x7f", "-0.00"]
)
BIG = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-(2**31), 2**31 - 1)
ROWS = st.lists(
    st.builds(
        Row,
        meter=st.sampled_from(["M-1", "m-1", "M_1", "É", "\\N"]),
        point=st.sampled_from(["a", "B"]),
        time_ms=st.sampled_from([0, 2**62]),
        interval_s=st.sampled_from([0, 900]),
        revision=st.integers(0, 3),
        read_id=TEXT,
        value=st.none() | TEXT,
        unit=TEXT,
        status=TEXT,
        verdict=TEXT,
        flags=TEXT,
        service_point=TEXT,
        received_ms=BIG,
        due_ms=st.none() | BIG,
        late=SMALL,
        final=SMALL,
        multiplier=TEXT,
        side=TEXT,
        evidence=st.none() | TEXT,
        headend=TEXT,
        epoch=TEXT,
        seq=BIG,
    ),
    max_size=8,
    unique_by=lambda row: row.key,
)
ALARMS = st.dictionaries(
    st.tuples(st.sampled_from(["he1", "he2"]), TEXT, TEXT), st.tuples(TEXT, BIG), max_size=5
)


@pytest.fixture(scope="module")
def both(postgresql_server, tmp_path_factory):
    made = (
        Inbox(SqliteDatabase(tmp_path_factory.mktemp("bulk") / "billing.db")),
        Inbox(PostgresDatabase(postgresql_server.place())),
    )
    yield made
    for inbox in made:
        inbox.close()


def outcome(inbox, groups, alarms):
    """What is said and what is held after the same has been done to it."""
    inbox.empty()
    said = []
    for rows in groups:
        with inbox.store._database.begin() as connection:
            bulk.upsert_readings(connection, rows)
            history = [(*row, "later") for row in rows]
            said.append(bulk.insert_absent(connection, tables.reading_history, history))
            found = bulk.current_rows(connection, [row.key for row in rows])
            said.append(sorted(found.values(), key=lambda row: row.key))
            said.append(bulk.known_in_history(connection, [*(row.read_id for row in rows), "?"]))
    for _ in range(2):
        with inbox.store._database.begin() as connection:
            rows = [(*key, detail, at, at, 2) for key, (detail, at) in alarms.items()]
            bulk.count_up(connection, tables.alarm, rows, latest=("detail", "last_ms"))
    held = {
        name: sorted(inbox.rows(name), key=repr) for name in ("reading", "reading_history", "alarm")
    }
    return said, held


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(groups=st.lists(ROWS, min_size=1, max_size=3), alarms=ALARMS)
@pytest.mark.parametrize("copied_from", [1, 500], ids=["copied", "in the statement"])
def test_both_databases_hold_the_same_to_the_last_character(
    both, monkeypatch, copied_from, groups, alarms
):
    monkeypatch.setattr(bulk_postgresql, "COPIED_ROWS_MIN", copied_from)
    groups = [[row for row in rows if row.read_id] for rows in groups]
    one, other = (outcome(inbox, [rows for rows in groups if rows], alarms) for inbox in both)
    assert one == other


def test_more_keys_than_one_lookup_carries_are_all_found(inbox, monkeypatch):
    monkeypatch.setattr(bulk_postgresql, "LOOKUP_KEYS", 7)
    rows = [
        Row(
            *(f"M-{n}", "p", n, 0, 1, f"id{n}", "1", "kWh", "actual", "ok", "", "SP", 0, None),
            *(0, 0, "1", "primary", None, "he1", "e", n + 1),
        )
        for n in range(1300)
    ]
    with inbox.store._database.begin() as connection:
        bulk.upsert_readings(connection, rows)
    with inbox.store._database.begin() as connection:
        found = bulk.current_rows(connection, [row.key for row in rows])
    assert found == {row.key: row for row in rows}
