"""One group of births, exchanges and events on its way into one transaction.

This is the hot path: rows are collected and written many at a time. Numbers come from memory; the
file is asked only when a key may be there already.
"""

from collections.abc import Sequence

import msgspec

from headend.domain.due import DueKey, DueState
from headend.domain.exchange import Exchange, Outcome
from headend.domain.identity import read_id
from headend.domain.meter import Event
from headend.domain.reading import Reading, Source, Status, Verdict
from headend.journal import codec
from headend.journal.build import freeze_key
from headend.journal.codec import DUE_CODE, Form
from headend.journal.model import (
    DAY_MS,
    Appended,
    Birth,
    Kept,
    RecordClass,
    StreamEntry,
)
from headend.journal.points import point_facts
from headend.journal.schema import EXCHANGE_PREFIX, NO_INTERVAL, table_name
from headend.journal.state import BEFORE_EVERYTHING, Consumer, DayTable, State

_OPEN = DUE_CODE[DueState.OPEN]
_MISSING = DUE_CODE[DueState.MISSING]
REASON_CHARS_MAX = 200

# A member of an Enum costs as much as three lookups of a global.
_HELD, _OK, _ACTUAL = Verdict.HELD, Verdict.OK, Status.ACTUAL
_REPLY = Outcome.REPLY
_ESTIMATES = (Status.ESTIMATED, Status.SUBSTITUTED)
_EVENTS, _BILLING, _TELEMETRY = RecordClass.EVENTS, RecordClass.BILLING, RecordClass.TELEMETRY


Seen = tuple[DayTable, int, int, str, bytes, bool, str | None]
"""A reading held against the file: table, series, revision, read_id as text and as bytes, whether
it is new, and the text of its value."""


class Group:
    """Collects one transaction's rows. The caller begins, calls `flush` and commits.

    `careful`: look into the file before every row (after a key or an id was found taken).
    """

    def __init__(self, state: State, now_ms: int, *, careful: bool = False) -> None:
        self.state = state
        self.now_ms = now_ms
        self.connection = state.connection
        self.entries: dict[str, tuple[int, list[StreamEntry]]] = {}
        self.new_exchanges: list[Exchange] = []
        self.touched: set[str] = set()
        self.moved: str | None = None  # whose cursor was set
        self._careful = careful
        self._new_words: dict[str, list[tuple[object, ...]]] = {}
        self._exchange_rows: dict[tuple[RecordClass, int], list[tuple[object, ...]]] = {}
        self._runs: dict[int, list[int]] = {}
        self._stream_rows: list[list[int]] = []
        self._settle_rows: dict[str, list[tuple[object, ...]]] = {}
        self._reason_rows: dict[str, list[tuple[object, ...]]] = {}
        self._event_rows: list[tuple[object, ...]] = []
        self._software = self.intern(state.software)
        self._due_ms = -1
        self._due_table: str | None = None

    # -- what can be put into a group

    def birth(self, birth: Birth) -> tuple[Appended, ...]:
        """Take readings born together; what became of each, in their order."""
        readings = birth.readings
        if birth.events:
            return self._with_events(birth)
        if len(readings) != 1:
            return self._together(readings)
        reading = readings[0]
        seen = self._judge(reading)
        table, _series, revision, identity, _raw, new, _value = seen
        if new:
            stored = self._write(reading, seen)
            if reading.verdict is not _HELD:
                self._publish(table, (stored,))
        if reading.due_ms is not None:
            self._settle(reading, seen)
        return (Appended(identity, revision, new),)

    def _with_events(self, birth: Birth) -> tuple[Appended, ...]:
        appended = self.birth(Birth(birth.readings))
        if any(one.new for one in appended):
            for event in birth.events:
                self.event(event)
        return appended

    def exchange(self, exchange: Exchange, record_class: RecordClass) -> int:
        """The row id of an attempt, written under the class when it is not there yet."""
        state = self.state
        known = state.exchanges.get(exchange)
        if known is not None:
            xid, kept_as = known
            if kept_as is _TELEMETRY and record_class is _BILLING:
                self._keep_longer(exchange, xid)
            return xid
        xid = state.next_xid
        state.next_xid = xid + 1
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
        entry = StreamEntry(_EVENTS, kept, ())
        for consumer in self.state.streams[_EVENTS]:
            self._next(consumer, entry, 0, number, 1)
        return number

    def due_failed(self, key: DueKey, reason: str) -> None:
        """Remember why a due point is still open."""
        table = self.state.due_table(key.due_ms)
        if table is not None:
            row = (reason[:REASON_CHARS_MAX], key.due_ms, self.series(key.meter, key.point, None))
            self._reason_rows.setdefault(table, []).append(row)

    # -- words

    def intern(self, text: str) -> int:
        """The number of a text."""
        names = self.state.names
        number = names.get(text)
        if number is None:
            number = names[text] = len(names) + 1
            self._new_words.setdefault("names", []).append((number, text))
        return number

    def series(self, meter: str, point: str, interval_s: int | None) -> int:
        """The number of a series."""
        series = self.state.series
        key = (meter, point, interval_s)
        number = series.get(key)
        if number is None:
            number = series[key] = len(series) + 1
            stored = NO_INTERVAL if interval_s is None else interval_s
            self._new_words.setdefault("series", []).append((number, meter, point, stored))
        return number

    def _form(self, reading: Reading, multiplier: str) -> int:
        state = self.state
        form = (
            reading.unit,
            multiplier,
            reading.side,
            reading.status,
            reading.verdict,
            reading.flags,
            reading.late,
            reading.final,
            reading.source,
            state.software,
        )
        number = state.form_ids.get(form)
        if number is None:
            number = state.form_ids[form] = len(state.form_ids) + 1
            kept = Form(*form)
            state.forms.append(kept)
            self._new_words.setdefault("forms", []).append((number, *kept.row()))
        return number

    # -- readings

    def _together(self, readings: Sequence[Reading]) -> tuple[Appended, ...]:
        """Several readings: those that share everything become one record, in one row range."""
        if len({reading.key for reading in readings}) != len(readings):
            # One key twice: the second must find the first in the file.
            return tuple(self.birth(Birth((reading,)))[0] for reading in readings)
        results: list[Appended] = []
        alike: dict[object, list[tuple[Reading, Seen]]] = {}
        for index, reading in enumerate(readings):
            seen = self._judge(reading)
            table, _series, revision, identity, _raw, new, _value = seen
            results.append(Appended(identity, revision, new))
            if new:
                shared = freeze_key(reading, revision)
                key = (table.name, index if shared is None else shared)
                alike.setdefault(key, []).append((reading, seen))
            if reading.due_ms is not None:
                self._settle(reading, seen)
        for same in alike.values():
            stored = tuple(self._write(reading, seen) for reading, seen in same)
            reading, seen = same[0]
            if reading.verdict is not _HELD:
                self._publish(seen[0], stored)
        return tuple(results)

    def _judge(self, reading: Reading) -> Seen:
        meter = reading.meter
        point = reading.point
        time_ms = reading.time_ms
        interval_s = reading.interval_s
        state = self.state
        number = state.series.get((meter, point, interval_s))
        if number is None:
            number = self.series(meter, point, interval_s)
        table = state.reading_table(point_facts(point).record_class, time_ms // DAY_MS)
        value = None if reading.value is None else codec.number_text(reading.value)
        content = codec.content_of(
            value, reading.unit, reading.status, reading.verdict,
            str(reading.multiplier), reading.side,
        )  # fmt: skip
        newest = table.newest
        last_ms = newest.get(number)
        if last_ms is None and table.complete:
            last_ms = BEFORE_EVERYTHING
        revision = 1
        if last_ms is None or time_ms <= last_ms or self._careful:
            latest = self._latest(table, number, time_ms)
            if latest is not None:
                if latest[2] == content:
                    known, identity = latest[0], latest[1]
                    return (table, number, known, identity, bytes.fromhex(identity), False, value)
                revision = latest[0] + 1
        if last_ms is None or time_ms > last_ms:
            newest[number] = time_ms
        identity = read_id(meter, point, time_ms, interval_s, revision, content)
        if self._careful:
            revision, identity = self._without_clash(reading, table, revision, content)
        return (table, number, revision, identity, bytes.fromhex(identity), True, value)

    def _latest(self, table: DayTable, series: int, time_ms: int) -> tuple[int, str, str] | None:
        """Revision, id and content of what the file has for this key."""
        self._flush_readings(table)
        row = self.connection.execute(
            f"SELECT revision, read_id, value, form FROM {table.name}"  # noqa: S608
            " WHERE time_ms=? AND series=? ORDER BY revision DESC LIMIT 1",
            (time_ms, series),
        ).fetchone()
        if row is None:
            return None
        revision, identity, value, form_id = row
        form = self.state.forms[form_id - 1]
        content = codec.content_of(
            value, form.unit, form.status, form.verdict, form.multiplier, form.side
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

    def _write(self, reading: Reading, seen: Seen) -> Kept:
        table, series, revision, identity, raw_id, _new, value = seen
        state = self.state
        record_class = table.record_class
        rid = state.next_rid[record_class]
        state.next_rid[record_class] = rid + 1
        exchange = reading.exchange
        xid = 0 if exchange is None else self.exchange(exchange, record_class)
        service_point = reading.service_point
        table.rows.append(
            (
                rid,
                series,
                reading.time_ms,
                revision,
                raw_id,
                state.names.get(service_point) or self.intern(service_point),
                value,
                self._form(reading, str(reading.multiplier)),
                reading.received_ms,
                reading.due_ms,
                reading.meter_time_ms,
                xid,
            )
        )
        if record_class is _BILLING and point_facts(reading.point).register:
            good = reading.verdict is _OK and reading.status is _ACTUAL
            if not good and state.bases.replaces(series, reading.time_ms, revision):
                self.flush_readings()  # the base before is looked for in the file
            state.bases.judge(series, value, reading.time_ms, revision, good=good)
        return (reading, identity, revision, xid)

    # -- streams, due points, exchanges

    def _publish(self, table: DayTable, kept: tuple[Kept, ...]) -> None:
        """Put on the streams what was written last in its table."""
        record_class = table.record_class
        entry = StreamEntry(record_class, None, kept)
        n = len(kept)
        first_rid = self.state.next_rid[record_class] - n
        for consumer in self.state.streams[record_class]:
            self._next(consumer, entry, table.day, first_rid, n)

    def _next(self, consumer: Consumer, entry: StreamEntry, day: int, rid: int, n: int) -> None:
        seq = consumer.last_seq + 1
        consumer.last_seq = seq
        fresh = self.entries.get(consumer.name)
        if fresh is None:
            self.entries[consumer.name] = (seq, [entry])
            self.touched.add(consumer.name)
            if consumer.oldest is None:
                consumer.oldest = seq
        else:
            fresh[1].append(entry)
        kind = entry.kind
        run = self._runs.get(consumer.id)
        if (
            run is not None
            and run[5] + run[2] * n == rid
            and run[6] == n
            and run[3] == kind
            and run[4] == day
        ):
            run[2] += 1
        else:
            run = self._runs[consumer.id] = [consumer.id, seq, 1, kind, day, rid, n]
            self._stream_rows.append(run)

    def _settle(self, reading: Reading, seen: Seen) -> None:
        due_ms = reading.due_ms
        assert due_ms is not None
        if due_ms != self._due_ms:
            self._due_ms, self._due_table = due_ms, self.state.due_table(due_ms)
        table = self._due_table
        if table is None:
            return
        series = seen[1]
        if reading.interval_s is not None:
            series = self.series(reading.meter, reading.point, None)
        if reading.verdict is _HELD or reading.value is None:
            reason = "held" if reading.verdict is _HELD else "no_value"
            self._reason_rows.setdefault(table, []).append((reason, due_ms, series))
            return
        if reading.status is not _ACTUAL and reading.status in _ESTIMATES:
            became = DueState.ESTIMATED
        elif reading.source is Source.BACKFILL:
            became = DueState.BACKFILLED
        else:
            became = DueState.LATE if reading.late else DueState.READ
        rows = self._settle_rows.get(table)
        if rows is None:
            rows = self._settle_rows[table] = []
        rows.append((DUE_CODE[became], seen[4], due_ms, series, reading.received_ms))

    def _add_exchange(self, exchange: Exchange, xid: int, record_class: RecordClass) -> None:
        place = (record_class, exchange.received_ms // DAY_MS)
        rows = self._exchange_rows.get(place)
        if rows is None:
            self.state.ensure_table(EXCHANGE_PREFIX[record_class], place[1])
            rows = self._exchange_rows[place] = []
        names = self.state.names
        rows.append(
            (
                xid,
                names.get(exchange.bus) or self.intern(exchange.bus),
                names.get(exchange.device) or self.intern(exchange.device),
                exchange.request,
                exchange.reply,
                exchange.stray,
                exchange.sent_ms,
                exchange.received_ms,
                exchange.took_ms,
                exchange.attempt,
                0 if exchange.outcome is _REPLY else codec.outcome_code(exchange.outcome),
                self._software,
            )
        )
        self.state.exchanges.put(exchange, xid, record_class)

    def _keep_longer(self, exchange: Exchange, xid: int) -> None:
        """A billing value came from an attempt that was filed as telemetry: move it."""
        self._flush_exchanges()
        prefix, day = EXCHANGE_PREFIX[_TELEMETRY], exchange.received_ms // DAY_MS
        if day in self.state.tables.get(prefix, ()):
            short = table_name(prefix, day)
            self.connection.execute(f"DELETE FROM {short} WHERE xid=?", (xid,))  # noqa: S608
        self._add_exchange(exchange, xid, _BILLING)
        self.new_exchanges.append(exchange)

    # -- writing

    def flush(self) -> None:
        """Write every row collected; the transaction is whole after this."""
        connection = self.connection
        self._flush_words()
        self.flush_readings()
        self._flush_exchanges()
        if self._event_rows:
            connection.executemany("INSERT INTO events VALUES (?,?,?,?,?)", self._event_rows)
            self._event_rows.clear()
        if self._stream_rows:
            table = self.state.stream_table(self.now_ms)
            connection.executemany(codec.insert_sql(table, codec.STREAM_WIDTH), self._stream_rows)
            self._stream_rows.clear()
            self._runs.clear()
        self._flush_due()
        self.state.bases.write(self.state.next_rid[_BILLING])
        self.state.write_numbers(self.touched)

    def flush_readings(self) -> None:
        """Write the readings collected so far, so that they can be found."""
        for table in list(self.state.loaded_tables()):
            self._flush_readings(table)

    def _flush_readings(self, table: DayTable) -> None:
        if table.rows:
            codec.insert_rows(self.connection, table.name, codec.READING_WIDTH, table.rows)
            table.rows.clear()

    def _flush_words(self) -> None:
        for table, rows in self._new_words.items():
            sql = codec.insert_sql(table, len(rows[0]))
            self.connection.executemany(sql, rows)
        self._new_words.clear()

    def _flush_exchanges(self) -> None:
        for (record_class, day), rows in self._exchange_rows.items():
            name = table_name(EXCHANGE_PREFIX[record_class], day)
            codec.insert_rows(self.connection, name, codec.EXCHANGE_WIDTH, rows)
        self._exchange_rows.clear()

    def _flush_due(self) -> None:
        # Failures first: what failed and was read in one group was not read at the first try.
        for table, rows in self._reason_rows.items():
            self.connection.executemany(
                f"UPDATE {table} SET reason=?, failed=failed+1 WHERE due_ms=? AND series=?"  # noqa: S608
                f" AND state={_OPEN}",
                rows,
            )
        for table, rows in self._settle_rows.items():
            self.connection.executemany(
                f"UPDATE {table} SET after_close=(state={_MISSING}), read_id=?2,"  # noqa: S608
                f" settled_ms=?5, reason=CASE state WHEN {_MISSING} THEN reason END,"
                f" state=CASE state WHEN {_MISSING} THEN state ELSE ?1 END"
                f" WHERE due_ms=?3 AND series=?4 AND state IN ({_OPEN},{_MISSING})",
                rows,
            )
        self._settle_rows.clear()
        self._reason_rows.clear()
