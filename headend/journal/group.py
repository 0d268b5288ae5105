"""One group of births, exchanges and events on its way into one transaction.

This is the hot path: rows are collected and written with one `executemany` a table. Numbers come
from memory; the file is asked only when a key may be there already.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from headend.domain.due import DueKey, DueState
from headend.domain.exchange import Exchange
from headend.domain.identity import content_text, read_id
from headend.domain.meter import Event
from headend.domain.reading import Reading, Source, Status, Verdict
from headend.journal import codec
from headend.journal.build import freeze_key
from headend.journal.codec import DUE_CODE
from headend.journal.model import (
    DAY_MS,
    Appended,
    Birth,
    RecordClass,
    Stored,
    StreamEntry,
)
from headend.journal.points import point_facts
from headend.journal.schema import EXCHANGE_PREFIX, NO_INTERVAL, table_name
from headend.journal.state import BEFORE_EVERYTHING, Consumer, DayTable, State

_OPEN = DUE_CODE[DueState.OPEN]
_MISSING = DUE_CODE[DueState.MISSING]
REASON_CHARS_MAX = 200


class Seen(NamedTuple):
    """A reading held against what the file has for its key."""

    reading: Reading
    table: DayTable
    meter: int
    point: int
    revision: int
    read_id: str
    new: bool


class Group:
    """Collects one transaction's rows. The caller begins, calls `flush` and commits."""

    def __init__(self, state: State, now_ms: int, *, careful: bool = False) -> None:
        self.state = state
        self.now_ms = now_ms
        self.entries: dict[str, tuple[int, list[StreamEntry]]] = {}
        self.new_exchanges: list[Exchange] = []
        self.touched: set[str] = set()
        self.moved: str | None = None  # whose cursor was set
        self._careful = careful
        self.connection = state.connection
        self._names = state.names
        self._new_names: list[tuple[int, str]] = []
        self._exchange_rows: dict[str, list[tuple[object, ...]]] = {}
        self._stream_rows: list[tuple[object, ...]] = []
        self._settle_rows: dict[str, list[tuple[object, ...]]] = {}
        self._reason_rows: dict[str, list[tuple[object, ...]]] = {}
        self._event_rows: list[tuple[object, ...]] = []
        self._based: set[tuple[int, int]] = set()
        self._software = self.intern(state.software)

    # -- what can be put into a group

    def birth(self, birth: Birth) -> tuple[Appended, ...]:
        """Take readings born together; what became of each, in their order."""
        readings = birth.readings
        if len(readings) != 1:
            return self._together(readings)
        seen = self._judge(readings[0])
        if seen.new:
            stored = self._write(seen)
            if seen.reading.verdict is not Verdict.HELD:
                self._publish(seen.table, (stored,))
        if seen.reading.due_ms is not None:
            self._settle(seen)
        return (Appended(seen.read_id, seen.revision, seen.new),)

    def exchange(self, exchange: Exchange, record_class: RecordClass) -> int:
        """The row id of an attempt, written under the class when it is not there yet."""
        known = self.state.exchanges.get(exchange)
        if known is not None:
            xid, kept_as = known
            if kept_as is RecordClass.TELEMETRY and record_class is RecordClass.BILLING:
                self._keep_longer(exchange, xid)
            return xid
        xid = self.state.next_xid
        self.state.next_xid = xid + 1
        self._add_exchange(exchange, xid, record_class)
        self.new_exchanges.append(exchange)
        return xid

    def event(self, event: Event) -> int:
        """Record an event and put it on the streams; its row id."""
        number = self.state.next_event
        self.state.next_event = number + 1
        fields = msgspec.json.encode(event.fields, order="sorted").decode()
        # What travels is what a reader of the file would find: tuples have become lists.
        kept = Event(event.kind, event.at_ms, msgspec.json.decode(fields))
        self._event_rows.append((number, event.kind, event.at_ms, self.now_ms, fields))
        entry = StreamEntry(RecordClass.EVENTS, kept, ())
        for consumer in self.state.streams[RecordClass.EVENTS]:
            self._next(consumer, entry, 0, number, 1)
        return number

    def due_failed(self, key: DueKey, reason: str) -> None:
        """Remember why a due point is still open."""
        table = self.state.due_table(key.due_ms)
        if table is not None:
            meter, point = self.intern(key.meter), self.intern(key.point)
            row = (reason[:REASON_CHARS_MAX], meter, point, key.due_ms)
            self._reason_rows.setdefault(table, []).append(row)

    def intern(self, text: str) -> int:
        """The number of a text."""
        number = self._names.get(text)
        if number is None:
            number = self._names[text] = len(self._names) + 1
            self._new_names.append((number, text))
        return number

    # -- readings

    def _together(self, readings: Sequence[Reading]) -> tuple[Appended, ...]:
        """Several readings: those that share everything become one record, in one row range."""
        if len({reading.key for reading in readings}) != len(readings):
            # One key twice: the second must find the first in the file.
            return tuple(self.birth(Birth((reading,)))[0] for reading in readings)
        results: list[Appended] = []
        alike: dict[object, list[Seen]] = {}
        for index, reading in enumerate(readings):
            seen = self._judge(reading)
            results.append(Appended(seen.read_id, seen.revision, seen.new))
            if seen.new:
                shared = freeze_key(reading, seen.revision)
                key = (seen.table.name, index if shared is None else shared)
                alike.setdefault(key, []).append(seen)
            if reading.due_ms is not None:
                self._settle(seen)
        for same in alike.values():
            stored = tuple(self._write(seen) for seen in same)
            if same[0].reading.verdict is not Verdict.HELD:
                self._publish(same[0].table, stored)
        return tuple(results)

    def _judge(self, reading: Reading) -> Seen:
        names = self._names
        meter = names.get(reading.meter) or self.intern(reading.meter)
        point = names.get(reading.point) or self.intern(reading.point)
        record_class = point_facts(reading.point).record_class
        time_ms = reading.time_ms
        table = self.state.reading_table(record_class, time_ms // DAY_MS)
        content = content_text(
            reading.value, reading.unit, reading.status, reading.verdict,
            reading.multiplier, reading.side,
        )  # fmt: skip
        last_ms = table.newest.get((meter, point))
        if last_ms is None:
            last_ms = self._newest(table, meter, point)
        revision = 1
        if time_ms > last_ms:
            table.newest[meter, point] = time_ms
        else:
            latest = self._latest(table, meter, point, reading)
            if latest is not None:
                if latest[2] == content:
                    return Seen(reading, table, meter, point, latest[0], latest[1], new=False)
                revision = latest[0] + 1
        identity = read_id(
            reading.meter, reading.point, time_ms, reading.interval_s, revision, content
        )
        if self._careful:
            revision, identity = self._without_clash(reading, table, revision, content)
        return Seen(reading, table, meter, point, revision, identity, new=True)

    def _newest(self, table: DayTable, meter: int, point: int) -> int:
        found = None
        if not table.complete:
            (found,) = self.connection.execute(
                f"SELECT max(time_ms) FROM {table.name} WHERE meter=? AND point=?",  # noqa: S608
                (meter, point),
            ).fetchone()
        newest = table.newest[meter, point] = BEFORE_EVERYTHING if found is None else found
        return newest

    def _latest(
        self, table: DayTable, meter: int, point: int, reading: Reading
    ) -> tuple[int, str, str] | None:
        """Revision, id and content of what the file has for this key."""
        self._flush_readings(table)
        interval_s = NO_INTERVAL if reading.interval_s is None else reading.interval_s
        row = self.connection.execute(
            f"SELECT r.revision, r.read_id, r.value, u.text, r.status, r.verdict, m.text, r.bits"  # noqa: S608
            f" FROM {table.name} r JOIN names u ON u.id=r.unit JOIN names m ON m.id=r.multiplier"
            " WHERE r.meter=? AND r.point=? AND r.time_ms=? AND r.interval_s=?"
            " ORDER BY r.revision DESC LIMIT 1",
            (meter, point, reading.time_ms, interval_s),
        ).fetchone()
        if row is None:
            return None
        revision, identity, value, unit, status, verdict, multiplier, bits = row
        content = content_text(
            None if value is None else Decimal(value),
            unit,
            codec.STATUSES[status],
            codec.VERDICTS[verdict],
            Decimal(multiplier),
            codec.side_of(bits),
        )
        return revision, identity.hex(), content

    def _without_clash(
        self, reading: Reading, table: DayTable, revision: int, content: str
    ) -> tuple[int, str]:
        """A revision whose id nobody else has; a clash is told, and nothing is dropped for it."""
        while True:
            identity = read_id(
                reading.meter, reading.point, reading.time_ms, reading.interval_s, revision, content
            )
            self._flush_readings(table)
            taken = self.connection.execute(
                f"SELECT 1 FROM {table.name} WHERE read_id=?",  # noqa: S608
                (bytes.fromhex(identity),),
            ).fetchone()
            if taken is None:
                return revision, identity
            fields = {
                "alarm": "read_id_clash",
                "read_id": identity,
                "meter": reading.meter,
                "point": reading.point,
                "revision": revision,
                "message": f"two different readings have the id {identity}; the second was given"
                f" revision {revision + 1}",
            }
            self.event(Event("alarm", self.now_ms, fields))
            revision += 1

    def _write(self, seen: Seen) -> Stored:
        reading = seen.reading
        state = self.state
        table = seen.table
        names = self._names
        rid = state.next_rid
        state.next_rid = rid + 1
        value = None if reading.value is None else codec.number_text(reading.value)
        multiplier = str(reading.multiplier)
        flags = ",".join(reading.flags)
        exchange = reading.exchange
        xid = 0 if exchange is None else self.exchange(exchange, table.record_class)
        table.rows.append((
            rid,
            seen.meter,
            seen.point,
            reading.time_ms,
            NO_INTERVAL if reading.interval_s is None else reading.interval_s,
            seen.revision,
            bytes.fromhex(seen.read_id),
            names.get(reading.service_point) or self.intern(reading.service_point),
            value,
            names.get(reading.unit) or self.intern(reading.unit),
            reading.received_ms,
            reading.due_ms,
            codec.status_code(reading.status),
            codec.verdict_code(reading.verdict),
            names.get(flags) or self.intern(flags),
            names.get(multiplier) or self.intern(multiplier),
            codec.bits_of(reading),
            reading.meter_time_ms,
            xid,
            0 if exchange is None else exchange.received_ms // DAY_MS,
            self._software,
        ))  # fmt: skip
        if table.record_class is RecordClass.BILLING and point_facts(reading.point).register:
            self._rebase(seen, value)
        return Stored(reading, seen.read_id, seen.revision, xid, state.software, rid)

    def _rebase(self, seen: Seen, value: str | None) -> None:
        """A good value becomes the base; one that replaces the base's own reading undoes it."""
        reading = seen.reading
        key = (seen.meter, seen.point)
        base = self.state.bases.get(key)
        good = (
            value is not None and reading.verdict is Verdict.OK and reading.status is Status.ACTUAL
        )
        if good and (base is None or reading.time_ms >= base[1]):
            assert value is not None
            self.state.bases[key] = (value, reading.time_ms)
            self._based.add(key)
        elif not good and base is not None and base[1] == reading.time_ms and seen.revision > 1:
            self.find_base(key, reading.time_ms)

    def find_base(self, key: tuple[int, int], before_ms: int) -> None:
        """Go back to the last good register value before an instant."""
        self.flush_readings()
        found: tuple[str, int] | None = None
        for day in sorted(self.state.tables.get("rb", ()), reverse=True):
            if day * DAY_MS >= before_ms:
                continue
            rows = self.connection.execute(
                f"SELECT value, time_ms, status, verdict FROM {table_name('rb', day)}"  # noqa: S608
                " WHERE meter=? AND point=? AND time_ms<? AND interval_s=?"
                " ORDER BY time_ms DESC, revision DESC",
                (*key, before_ms, NO_INTERVAL),
            )
            seen_ms = None
            for value, time_ms, status, verdict in rows:
                if time_ms == seen_ms:
                    continue  # an older revision
                seen_ms = time_ms
                if value is not None and status == 0 and verdict == 0:
                    found = (value, time_ms)
                    break
            if found is not None:
                break
        if found is None:
            self.state.bases.pop(key, None)
        else:
            self.state.bases[key] = found
        self._based.add(key)

    # -- streams, due points, exchanges

    def _publish(self, table: DayTable, stored: tuple[Stored, ...]) -> None:
        entry = StreamEntry(table.record_class, None, stored)
        for consumer in self.state.streams[table.record_class]:
            self._next(consumer, entry, table.day, stored[0].rid, len(stored))

    def _next(self, consumer: Consumer, entry: StreamEntry, day: int, rid: int, n: int) -> None:
        seq = consumer.last_seq + 1
        consumer.last_seq = seq
        if consumer.oldest is None:
            consumer.oldest = seq
        self._stream_rows.append((consumer.id, seq, entry.kind, day, rid, n))
        fresh = self.entries.get(consumer.name)
        if fresh is None:
            self.entries[consumer.name] = (seq, [entry])
            self.touched.add(consumer.name)
        else:
            fresh[1].append(entry)

    def _settle(self, seen: Seen) -> None:
        reading = seen.reading
        assert reading.due_ms is not None
        table = self.state.due_table(reading.due_ms)
        if table is None:
            return
        if reading.verdict is Verdict.HELD or reading.value is None:
            reason = "held" if reading.verdict is Verdict.HELD else "no_value"
            row: tuple[object, ...] = (reason, seen.meter, seen.point, reading.due_ms)
            self._reason_rows.setdefault(table, []).append(row)
            return
        if reading.status in (Status.ESTIMATED, Status.SUBSTITUTED):
            became = DueState.ESTIMATED
        elif reading.source is Source.BACKFILL:
            became = DueState.BACKFILLED
        else:
            became = DueState.LATE if reading.late else DueState.READ
        row = (
            DUE_CODE[became], bytes.fromhex(seen.read_id), seen.meter, seen.point, reading.due_ms
        )  # fmt: skip
        self._settle_rows.setdefault(table, []).append(row)

    def _add_exchange(self, exchange: Exchange, xid: int, record_class: RecordClass) -> None:
        day = exchange.received_ms // DAY_MS
        prefix = EXCHANGE_PREFIX[record_class]
        self.state.ensure_table(prefix, day)
        self._exchange_rows.setdefault(table_name(prefix, day), []).append((
            xid,
            self.intern(exchange.bus),
            self.intern(exchange.device),
            exchange.request,
            exchange.reply,
            exchange.stray,
            exchange.sent_ms,
            exchange.received_ms,
            exchange.took_ms,
            exchange.attempt,
            codec.outcome_code(exchange.outcome),
            self._software,
        ))  # fmt: skip
        self.state.exchanges.put(exchange, xid, record_class)

    def _keep_longer(self, exchange: Exchange, xid: int) -> None:
        """A billing value came from an attempt that was filed as telemetry: move it."""
        self._flush_exchanges()
        short = table_name(EXCHANGE_PREFIX[RecordClass.TELEMETRY], exchange.received_ms // DAY_MS)
        self.connection.execute(f"DELETE FROM {short} WHERE xid=?", (xid,))  # noqa: S608
        self._add_exchange(exchange, xid, RecordClass.BILLING)
        self.new_exchanges.append(exchange)

    # -- writing

    def flush(self) -> None:
        """Write every row collected; the transaction is whole after this."""
        connection = self.connection
        self.flush_readings()
        self._flush_exchanges()
        if self._event_rows:
            connection.executemany("INSERT INTO events VALUES (?,?,?,?,?)", self._event_rows)
        if self._stream_rows:
            table = self.state.stream_table(self.now_ms)
            connection.executemany(codec.insert_sql(table, 6), self._stream_rows)
        self._flush_due()
        self._flush_bases()
        self._flush_numbers()
        if self._new_names:
            connection.executemany("INSERT INTO names VALUES (?,?)", self._new_names)
        for rows in (self._event_rows, self._stream_rows):
            rows.clear()
        self._new_names.clear()

    def flush_readings(self) -> None:
        """Write the readings collected so far, so that they can be found."""
        for table in list(self.state.loaded_tables()):
            self._flush_readings(table)

    def _flush_readings(self, table: DayTable) -> None:
        if self._new_names:
            # `_latest` joins on names.
            self.connection.executemany("INSERT INTO names VALUES (?,?)", self._new_names)
            self._new_names.clear()
        if table.rows:
            sql = codec.insert_sql(table.name, codec.READING_WIDTH)
            self.connection.executemany(sql, table.rows)
            table.rows.clear()

    def _flush_exchanges(self) -> None:
        for name, rows in self._exchange_rows.items():
            self.connection.executemany(codec.insert_sql(name, codec.EXCHANGE_WIDTH), rows)
        self._exchange_rows.clear()

    def _flush_due(self) -> None:
        for table, rows in self._settle_rows.items():
            self.connection.executemany(
                f"UPDATE {table} SET after_close=(state={_MISSING}), read_id=?2,"  # noqa: S608
                f" reason=CASE state WHEN {_MISSING} THEN reason END,"
                f" state=CASE state WHEN {_MISSING} THEN state ELSE ?1 END"
                f" WHERE meter=?3 AND point=?4 AND due_ms=?5 AND state IN ({_OPEN},{_MISSING})",
                rows,
            )
        for table, rows in self._reason_rows.items():
            self.connection.executemany(
                f"UPDATE {table} SET reason=? WHERE meter=? AND point=? AND due_ms=?"  # noqa: S608
                f" AND state={_OPEN}",
                rows,
            )
        self._settle_rows.clear()
        self._reason_rows.clear()

    def _flush_bases(self) -> None:
        bases = self.state.bases
        kept = [(*key, *bases[key]) for key in self._based if key in bases]
        gone = [key for key in self._based if key not in bases]
        if kept:
            self.connection.executemany("INSERT OR REPLACE INTO bases VALUES (?,?,?,?)", kept)
        if gone:
            self.connection.executemany("DELETE FROM bases WHERE meter=? AND point=?", gone)
        self._based.clear()

    def _flush_numbers(self) -> None:
        state = self.state
        counters = (
            (str(state.next_rid), "next_rid"),
            (str(state.next_xid), "next_xid"),
            (str(state.next_event), "next_event"),
        )
        self.connection.executemany("UPDATE meta SET value=? WHERE key=?", counters)
        for name in self.touched:
            c = state.consumers[name]
            self.connection.execute(
                "UPDATE consumers SET last_seq=?, receipted=?, expired=? WHERE id=?",
                (c.last_seq, c.receipted, c.expired, c.id),
            )
