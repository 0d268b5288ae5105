"""Work that has a transaction of its own: due lists, meter events, epochs, retention, waiting.

Everything here runs in the writer thread, inside the transaction that the writer has begun.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from hashlib import sha256

import msgspec

from headend.domain import alarms
from headend.domain.clock import iso
from headend.domain.due import DuePoint, DueState, local_day
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Event
from headend.domain.reading import Reading, Source, Status, Verdict
from headend.journal.codec import (
    DUE_CODE,
    DUE_WIDTH,
    READING_COLUMNS,
    STREAM_WIDTH,
    Lexicon,
    insert_sql,
    stored_from_row,
)
from headend.journal.disposal import let_go
from headend.journal.due_moves import hand_over
from headend.journal.due_success import success_report
from headend.journal.duereport import due_summary
from headend.journal.group import Group
from headend.journal.model import (
    DAY_MS,
    Appended,
    Base,
    Birth,
    Parked,
    RecordClass,
)
from headend.journal.opening import new_epoch_row
from headend.journal.schema import (
    EXCHANGE_PREFIX,
    READING_PREFIX,
    day_number,
    day_of,
    day_tables,
    table_name,
)
from headend.journal.stream import find_exchanges

WITHDRAWN = "withdrawn"

# -- due points


def freeze_due(group: Group, day: date, points: Sequence[DuePoint]) -> int:
    """Write a day's list, once."""
    state = group.state
    if day.isoformat() in state.frozen_days:
        return 0
    for point in points:
        if local_day(point.key.due_ms, group.state.zone) != day:
            msg = f"{point.key} is not due on {day}"
            raise ValueError(msg)
    number = day_number(day)
    state.ensure_table("d", number)
    open_code = DUE_CODE[DueState.OPEN]
    rows = {
        point.key: (
            point.key.due_ms,
            group.series(point.key.meter, point.key.point, None),
            group.intern(point.bus),
            0 if point.area is None else group.intern(point.area),
            point.window_end_ms,
            open_code,
            None,
            None,
            0,
            None,
            0,
            0 if point.concentrator is None else group.intern(point.concentrator),
        )
        for point in points
    }
    execute = group.connection.execute
    group.connection.executemany(insert_sql(table_name("d", number), DUE_WIDTH), rows.values())
    execute(
        "INSERT INTO due_days (day, frozen, frozen_ms) VALUES (?,?,?)",
        (day.isoformat(), len(rows), group.now_ms),
    )
    state.frozen_days.add(day.isoformat())
    state.new_due_table()
    return len(rows)


def close_due_day(group: Group, day: date) -> bytes:
    """What is open becomes missing; the report is made once."""
    row = group.connection.execute(
        "SELECT closed_ms, report FROM due_days WHERE day=?", (day.isoformat(),)
    ).fetchone()
    if row is None:
        msg = f"nothing was frozen for {day}: there is no such day to close"
        raise ValueError(msg)
    if row[0] is not None:
        return bytes(row[1])
    group.flush()
    table = table_name("d", day_number(day))
    group.connection.execute(
        f"UPDATE {table} SET state=?, reason=coalesce(reason, 'never_tried') WHERE state=?",  # noqa: S608
        (DUE_CODE[DueState.MISSING], DUE_CODE[DueState.OPEN]),
    )
    lexicon = Lexicon(group.connection)
    summary = due_summary(group.connection, lexicon, day)
    summary["closed_at"] = iso(group.now_ms)
    report = json.dumps(summary, ensure_ascii=False).encode()
    success = success_report(
        group.connection, lexicon, day, group.state.zone, closed_at_ms=group.now_ms
    )
    group.connection.execute(
        "UPDATE due_days SET closed_ms=?, report=?, success=?, success_sha256=? WHERE day=?",
        (group.now_ms, report, success, sha256(success).hexdigest(), day.isoformat()),
    )
    return report


def last_frozen_day(group: Group) -> date | None:
    """The newest day with a frozen list."""
    days = group.state.frozen_days
    return date.fromisoformat(max(days)) if days else None


def open_days(group: Group) -> list[date]:
    """Frozen days that are not closed."""
    rows = group.connection.execute("SELECT day FROM due_days WHERE closed_ms IS NULL ORDER BY day")
    return [date.fromisoformat(day) for (day,) in rows]


# -- what was kept


def bases(group: Group) -> dict[tuple[str, str], Base]:
    """Every base, by names."""
    kept = group.state.bases.items()
    return {
        (meter, point): Base(Decimal(kept[number][0]), kept[number][1])
        for (meter, point, _interval), number in group.state.series.items()
        if number in kept
    }


def events(group: Group, kinds: Sequence[str]) -> list[Event]:
    """Events of some kinds by their date."""
    marks = ",".join("?" * len(kinds))
    rows = group.connection.execute(
        f"SELECT kind, at_ms, fields FROM events WHERE kind IN ({marks})"  # noqa: S608
        " ORDER BY at_ms, id",
        tuple(kinds),
    )
    return [Event(kind, at_ms, msgspec.json.decode(fields)) for kind, at_ms, fields in rows]


# -- meter events


def apply_meter_event(
    group: Group,
    event: Event,
    change: Callable[[Reading], Sequence[Reading]],
    *,
    meter: str,
    from_ms: int,
    successor: str | None = None,
) -> int:
    """The event, then for each reading it makes wrong: its withdrawal and what is right."""
    group.event(event)
    withdrawn = 0
    if successor is not None:
        hand_over(group, meter, successor, from_ms)
    series = [number for key, number in group.state.series.items() if key[0] == meter]
    for page in _current(group, series, from_ms):
        births: list[Reading] = []
        for reading in page:
            flags = tuple(sorted({*reading.flags, WITHDRAWN}))
            gone = replace(
                reading,
                value=None,
                status=Status.NULL,
                verdict=Verdict.OK,
                flags=flags,
                due_ms=None,
                source=Source.DERIVED,
            )
            group.birth(Birth((gone,)))
            births += [replace(r, source=Source.DERIVED) for r in change(reading)]
            withdrawn += 1
        for reading in births:
            group.birth(Birth((reading,)))
        group.flush()
    return withdrawn


def _current(group: Group, series: Sequence[int], from_ms: int) -> Iterator[list[Reading]]:
    """The current readings of series from an instant on, table by table, exchanges attached."""
    lexicon = Lexicon(group.connection)
    tables = day_tables(group.connection)
    marks = ",".join(map(str, series))
    for record_class, prefix in READING_PREFIX.items():
        for day in tables.get(prefix, ()):
            if (day + 1) * DAY_MS <= from_ms:
                continue
            rows = group.connection.execute(
                f"SELECT {READING_COLUMNS} FROM {table_name(prefix, day)}"  # noqa: S608
                f" WHERE series IN ({marks}) AND time_ms>=? ORDER BY series, time_ms, revision",
                (from_ms,),
            )
            latest = {(row[1], row[2]): row for row in rows}
            stored = [stored_from_row(row, lexicon) for row in latest.values()]
            wanted = {s.exchange_id for s in stored} - {0}
            exchanges = find_exchanges(group.connection, lexicon, tables, wanted)
            for xid, exchange, _software in exchanges.values():
                group.state.exchanges.put(exchange, xid, record_class)
            page = []
            for s in stored:
                if WITHDRAWN in s.reading.flags:
                    continue
                found = exchanges.get(s.exchange_id)
                page.append(replace(s.reading, exchange=None if found is None else found[1]))
            yield page


# -- cursors and epochs


def set_cursor(group: Group, consumer: str, from_seq: int) -> None:
    """Put a cursor where it is wanted, back or forward."""
    state = group.state.consumers[consumer]
    state.receipted = from_seq - 1
    state.expired = False
    group.touched.add(consumer)
    group.moved = consumer


def new_epoch(group: Group, reason: str) -> str:
    """Number every stream again from its first unreceipted record."""
    state = group.state
    execute = group.connection.execute
    epoch = new_epoch_row(group.connection, group.now_ms, reason)
    before = state.epoch
    state.epoch = epoch
    for consumer in state.consumers.values():
        gone = consumer.receipted
        for day in state.tables.get("s", ()):
            table = table_name("s", day)
            rows = execute(
                f"SELECT seq, count, kind, day, rid, n FROM {table} WHERE consumer=?"  # noqa: S608
                " AND seq+count-1>? ORDER BY seq",
                (consumer.id, gone),
            ).fetchall()
            execute(f"DELETE FROM {table} WHERE consumer=?", (consumer.id,))  # noqa: S608
            kept = []
            for seq, count, kind, content_day, rid, n in rows:
                cut = max(0, gone + 1 - seq)  # the receipted part of a run
                kept.append(
                    (
                        consumer.id,
                        seq + cut - gone,
                        count - cut,
                        kind,
                        content_day,
                        rid + cut * n,
                        n,
                    )
                )
            group.connection.executemany(insert_sql(table, STREAM_WIDTH), kept)
        consumer.last_seq -= gone
        consumer.receipted = 0
        group.touched.add(consumer.name)
    state.find_oldest()
    fields = {
        "alarm": "new_epoch",
        "epoch": epoch,
        "before": before,
        "reason": reason,
        "message": f"a new epoch has begun: {reason}",
    }
    group.event(Event("alarm", group.now_ms, fields))
    return epoch


# -- retention


def drop_days_before(group: Group, day: date, record_class: RecordClass) -> list[date]:
    """Drop what every cursor has passed; tell what held something back too long."""
    assert record_class is not RecordClass.EVENTS
    _expire_overdue(group)
    group.flush()
    state = group.state
    limit = day_number(day)
    held = _held_days(group)
    dropped: list[date] = []
    prefixes = (READING_PREFIX[record_class], EXCHANGE_PREFIX[record_class])
    for prefix in prefixes:
        for number in sorted(state.tables.get(prefix, ())):
            if number >= limit or (record_class, number) in held:
                continue
            if prefix == EXCHANGE_PREFIX[record_class] and _needed(group, record_class, number):
                continue
            let_go(group, prefix, number)
            if prefix == READING_PREFIX[record_class]:
                dropped.append(day_of(number))
    if record_class is RecordClass.BILLING:
        _drop_lists(group, limit)
    state.forget_tables()
    state.find_oldest()
    return dropped


def _needed(group: Group, record_class: RecordClass, number: int) -> bool:
    """Readings that are still kept may have come from this day's exchanges."""
    kept = group.state.tables.get(READING_PREFIX[record_class], set())
    return number in kept or number - 1 in kept


def _drop_lists(group: Group, limit: int) -> None:
    """Stream rows that everybody has receipted, closed due lists, old alarms."""
    state = group.state
    execute = group.connection.execute
    active = [c for c in state.consumers.values() if c.active and not c.expired]
    for number in sorted(state.tables.get("s", ())):
        if number >= limit or number == state.stream_day:
            break
        waits = any(
            execute(
                f"SELECT 1 FROM {table_name('s', number)}"  # noqa: S608
                " WHERE consumer=? AND seq+count-1>? LIMIT 1",
                (c.id, c.receipted),
            ).fetchone()
            for c in active
        )
        if waits:
            break
        let_go(group, "s", number)
    closed = {
        date.fromisoformat(d)
        for (d,) in execute("SELECT day FROM due_days WHERE closed_ms IS NOT NULL")
    }
    for number in sorted(state.tables.get("d", ())):
        if number < limit and day_of(number) in closed:
            let_go(group, "d", number)
    _drop_alarms(group, limit * DAY_MS)


def _drop_alarms(group: Group, before_ms: int) -> None:
    """Old alarms and clearings; one that stands is kept, however old: it is not over."""
    rows = group.connection.execute(
        "SELECT id, kind, at_ms, fields, recorded_ms FROM events WHERE kind IN (?,?)"
        " ORDER BY at_ms, id",
        alarms.KINDS,
    ).fetchall()
    events = [Event(kind, at_ms, msgspec.json.decode(fields)) for _, kind, at_ms, fields, _ in rows]
    kept = alarms.raised_and_standing(events)
    old = [
        (row[0],) for number, row in enumerate(rows) if row[4] < before_ms and number not in kept
    ]
    group.connection.executemany("DELETE FROM events WHERE id=?", old)


def _expire_overdue(group: Group) -> None:
    """A consumer that has been away longer than it may no longer holds anything back."""
    today = group.now_ms // DAY_MS
    for consumer in list(group.state.consumers.values()):
        if not consumer.active or consumer.expired:
            continue
        limit = today - consumer.max_backlog_days
        waiting = _oldest_waiting_day(group, consumer.id, consumer.receipted)
        if waiting is None or waiting >= limit:
            continue
        consumer.expired = True
        group.touched.add(consumer.name)
        since = day_of(waiting)
        fields = {
            "alarm": "consumer_expired",
            "consumer": consumer.name,
            "waiting_since": since.isoformat(),
            "backlog": consumer.last_seq - consumer.receipted,
            "message": f"consumer {consumer.name} has not receipted anything since {since}: it "
            "no longer holds back retention; what is dropped reaches it as one expired record",
        }
        group.event(Event("alarm", group.now_ms, fields))


def _oldest_waiting_day(group: Group, consumer: int, receipted: int) -> int | None:
    for number in sorted(group.state.tables.get("s", ())):
        found = group.connection.execute(
            f"SELECT 1 FROM {table_name('s', number)} WHERE consumer=? AND seq+count-1>? LIMIT 1",  # noqa: S608
            (consumer, receipted),
        ).fetchone()
        if found:
            return number
    return None


def _held_days(group: Group) -> set[tuple[RecordClass, int]]:
    """The days whose readings somebody has still to receipt."""
    held: set[tuple[RecordClass, int]] = set()
    for consumer in group.state.consumers.values():
        if not consumer.active or consumer.expired:
            continue
        for number in group.state.tables.get("s", ()):
            rows = group.connection.execute(
                f"SELECT DISTINCT kind, day FROM {table_name('s', number)}"  # noqa: S608
                " WHERE consumer=? AND seq+count-1>?",
                (consumer.id, consumer.receipted),
            )
            held |= {(RecordClass(kind), day) for kind, day in rows}
    return held


# -- waiting for the clock


def park(group: Group, boot_id: str, monotonic_s: float, exchange: Exchange, payload: str) -> int:
    """Keep what cannot be dated."""
    cursor = group.connection.execute(
        "INSERT INTO waiting (boot_id, monotonic_s, bus, device, request, reply, stray, took_ms,"
        " attempt, outcome, payload) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            boot_id, monotonic_s, exchange.bus, exchange.device, exchange.request, exchange.reply,
            exchange.stray, exchange.took_ms, exchange.attempt, exchange.outcome.value, payload,
        ),
    )  # fmt: skip
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def parked(group: Group) -> list[Parked]:
    """Everything parked. The wall stamps of its exchanges are 0: nobody knows them yet."""
    rows = group.connection.execute(
        "SELECT id, boot_id, monotonic_s, payload, bus, device, request, reply, stray, took_ms,"
        " attempt, outcome FROM waiting ORDER BY id"
    )
    return [
        Parked(
            row[0],
            row[1],
            row[2],
            Exchange(
                bus=row[4],
                device=row[5],
                request=row[6],
                reply=row[7],
                sent_ms=0,
                received_ms=0,
                took_ms=row[9],
                attempt=row[10],
                outcome=Outcome(row[11]),
                stray=row[8],
            ),
            row[3],
        )
        for row in rows
    ]


def adopt(
    group: Group, numbers: Sequence[int], births: Sequence[Birth]
) -> list[tuple[Appended, ...]]:
    """Bear what waited and forget that it did."""
    appended = [group.birth(birth) for birth in births]
    group.connection.executemany("DELETE FROM waiting WHERE id=?", [(n,) for n in numbers])
    return appended
