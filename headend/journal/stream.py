"""A consumer's stream as it stands in the file. Short reads on a connection of one's own."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headend.domain.exchange import Exchange
from headend.domain.meter import Event
from headend.journal.build import (
    build_record,
    entry_bytes,
    evidence,
    evidence_bytes,
    merge_expired,
)
from headend.journal.codec import (
    EXCHANGE_COLUMNS,
    READING_COLUMNS,
    Lexicon,
    exchange_from_row,
)
from headend.journal.model import EntrySlice, Kept, RecordClass, StreamEntry, StreamSlice
from headend.journal.schema import EXCHANGE_PREFIX, READING_PREFIX, day_tables, table_name
from headend.messages.records import ExchangeEvidence, ExpiredRecord, Record

_IN_MAX = 500

Row = tuple[int, int, int, int, int]  # seq, kind, day, rid, n


def read_slice(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    consumer: str,
    from_seq: int,
    *,
    records_max: int,
    bytes_max: int,
) -> StreamSlice:
    """Records from `from_seq` on, as far as the bounds allow; what is gone as `expired`."""
    connection.execute("BEGIN")
    try:
        return _read_slice(connection, lexicon, consumer, from_seq, records_max, bytes_max)
    finally:
        connection.execute("COMMIT")


def _read_slice(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    consumer: str,
    from_seq: int,
    records_max: int,
    bytes_max: int,
) -> StreamSlice:
    row = connection.execute(
        "SELECT id, last_seq FROM consumers WHERE name=?", (consumer,)
    ).fetchone()
    if row is None or from_seq > row[1]:
        return StreamSlice(from_seq, [], [])
    tables = day_tables(connection)
    rows = _rows(connection, tables.get("s", []), row[0], from_seq, records_max)
    entries = _entries(connection, lexicon, tables, rows)
    exchanges = _exchanges(connection, lexicon, tables, entries)
    records: list[Record] = []
    used: dict[str, ExchangeEvidence] = {}
    size = 0
    expected = from_seq
    for seq, entry in entries:
        if seq > expected:
            records.append(ExpiredRecord(first_seq=expected, last_seq=seq - 1))
        expected = seq + 1
        if entry is None:
            records.append(ExpiredRecord(first_seq=seq, last_seq=seq))
            continue
        found = None
        size += entry_bytes(entry)
        if entry.kind is RecordClass.BILLING and entry.items:
            found = exchanges.get(entry.items[0][3])
        if found is not None and f"x{found[0]}" not in used:
            size += evidence_bytes(found[1])
        if records and size > bytes_max:
            break
        if found is not None:
            used.setdefault(f"x{found[0]}", evidence(*found))
        records.append(build_record(seq, entry))
    else:
        if not entries and expected <= row[1]:
            # Every row up to the newest has been dropped.
            records.append(ExpiredRecord(first_seq=expected, last_seq=row[1]))
    return StreamSlice(from_seq, merge_expired(records), list(used.values()))


def read_entry_slice(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    consumer: str,
    from_seq: int,
    records_max: int,
) -> EntrySlice:
    """Entries from `from_seq` on, their evidence not looked for."""
    connection.execute("BEGIN")
    try:
        row = connection.execute(
            "SELECT id, last_seq FROM consumers WHERE name=?", (consumer,)
        ).fetchone()
        if row is None or from_seq > row[1]:
            return EntrySlice(from_seq - 1, [], 0)
        tables = day_tables(connection)
        rows = _rows(connection, tables.get("s", []), row[0], from_seq, records_max)
        found = _entries(connection, lexicon, tables, rows)
    finally:
        connection.execute("COMMIT")
    through_seq = found[-1][0] if found else row[1]
    kept = [(seq, entry) for seq, entry in found if entry is not None]
    return EntrySlice(through_seq, kept, through_seq - from_seq + 1 - len(kept))


def _rows(
    connection: sqlite3.Connection, days: Sequence[int], consumer: int, from_seq: int, limit: int
) -> list[Row]:
    """Stream rows from a number on, over the day tables; the newest table is asked first."""
    start = 0
    for index in range(len(days) - 1, -1, -1):
        (first,) = connection.execute(
            f"SELECT min(seq) FROM {table_name('s', days[index])} WHERE consumer=?",  # noqa: S608
            (consumer,),
        ).fetchone()
        if first is not None and first <= from_seq:
            start = index
            break
    rows: list[Row] = []
    for day in days[start:]:
        table = table_name("s", day)
        runs = connection.execute(
            f"SELECT seq, count, kind, day, rid, n FROM {table} WHERE consumer=?1 AND seq>="  # noqa: S608
            f" coalesce((SELECT max(seq) FROM {table} WHERE consumer=?1 AND seq<=?2), 0)"
            " ORDER BY seq LIMIT ?3",
            (consumer, from_seq, limit + 1),
        )
        for seq, count, kind, content_day, rid, n in runs:
            skipped = max(0, from_seq - seq)
            rows += [
                (seq + i, kind, content_day, rid + i * n, n)
                for i in range(skipped, min(count, skipped + limit - len(rows)))
            ]
            if len(rows) >= limit:
                return rows
    return rows


def _entries(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    tables: dict[str, list[int]],
    rows: Sequence[Row],
) -> list[tuple[int, StreamEntry | None]]:
    """The content of stream rows; None where retention has dropped it."""
    wanted: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        wanted.setdefault((row[1], row[2]), []).append(row)
    content: dict[int, StreamEntry] = {}
    for (kind, day), some in wanted.items():
        if kind == RecordClass.EVENTS:
            content.update(_events(connection, some))
        else:
            content.update(_readings(connection, lexicon, tables, RecordClass(kind), day, some))
    return [(row[0], content.get(row[0])) for row in rows]


def _events(connection: sqlite3.Connection, rows: Sequence[Row]) -> dict[int, StreamEntry]:
    by_id = {rid: seq for seq, _kind, _day, rid, _n in rows}
    found: dict[int, StreamEntry] = {}
    for some in _chunks(list(by_id)):
        marks = ",".join("?" * len(some))
        sql = f"SELECT id, kind, at_ms, fields FROM events WHERE id IN ({marks})"  # noqa: S608
        for number, kind, at_ms, fields in connection.execute(sql, some):
            event = Event(kind, at_ms, msgspec.json.decode(fields))
            found[by_id[number]] = StreamEntry(RecordClass.EVENTS, event, ())
    return found


def _readings(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    tables: dict[str, list[int]],
    record_class: RecordClass,
    day: int,
    rows: Sequence[Row],
) -> dict[int, StreamEntry]:
    prefix = READING_PREFIX[record_class]
    if day not in tables.get(prefix, ()):
        return {}
    first = min(rid for _s, _k, _d, rid, _n in rows)
    last = max(rid + n - 1 for _s, _k, _d, rid, n in rows)
    sql = (
        f"SELECT {READING_COLUMNS} FROM {table_name(prefix, day)}"  # noqa: S608
        " WHERE rid BETWEEN ? AND ?"
    )
    kept_of = lexicon.kept
    by_rid: dict[int, Kept] = {
        row[0]: kept_of(row) for row in connection.execute(sql, (first, last))
    }
    found: dict[int, StreamEntry] = {}
    for seq, _kind, _day, rid, n in rows:
        try:
            items = tuple([by_rid[i] for i in range(rid, rid + n)])
        except KeyError:  # retention has dropped some of it
            continue
        found[seq] = StreamEntry(record_class, None, items)
    return found


def _exchanges(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    tables: dict[str, list[int]],
    entries: Iterable[tuple[int, StreamEntry | None]],
) -> dict[int, tuple[int, Exchange, str]]:
    """The exchanges that the billing entries came from, by id."""
    wanted: set[int] = set()
    for _seq, entry in entries:
        if entry is not None and entry.kind is RecordClass.BILLING and entry.items:
            wanted.add(entry.items[0][3])
    wanted.discard(0)
    return find_exchanges(connection, lexicon, tables, wanted)


def find_exchanges(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    tables: dict[str, list[int]],
    wanted: Iterable[int],
) -> dict[int, tuple[int, Exchange, str]]:
    """Exchanges by id, wherever they lie: newest day first, until all are found."""
    missing = set(wanted)
    found: dict[int, tuple[int, Exchange, str]] = {}
    places = sorted(
        ((day, prefix) for prefix in EXCHANGE_PREFIX.values() for day in tables.get(prefix, ())),
        reverse=True,
    )
    for day, prefix in places:
        if not missing:
            break
        for some in _chunks(sorted(missing)):
            marks = ",".join("?" * len(some))
            sql = (
                f"SELECT {EXCHANGE_COLUMNS} FROM {table_name(prefix, day)}"  # noqa: S608
                f" WHERE xid IN ({marks})"
            )
            for row in connection.execute(sql, some):
                found[row[0]] = exchange_from_row(row, lexicon)
        missing -= found.keys()
    return found


def _chunks(values: Sequence[int]) -> Iterable[Sequence[Any]]:
    return (values[i : i + _IN_MAX] for i in range(0, len(values), _IN_MAX))
