"""Journals and billing's database as plain SQL sees them; nothing of the product is used here."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HELD = "held"
SETTLED = (1, 2)  # read, late
BILLING_KIND, EVENTS_KIND, TELEMETRY_KIND = 1, 0, 2  # of stream rows
KINDS = {"rb": BILLING_KIND, "rt": TELEMETRY_KIND}
CONSUMER = "billing"
WRITER = "timeseries:influxdb"


class Said(NamedTuple):
    """What a reading says. The same in a journal and at billing, field by field."""

    meter: str
    point: str
    time_ms: int
    interval_s: int  # 0 = none
    revision: int
    read_id: str
    value: str | None
    unit: str
    status: str
    verdict: str
    flags: str
    service_point: str
    received_ms: int
    due_ms: int | None
    late: int
    final: int
    multiplier: str
    side: str

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What there is one current value for."""
        return self[:4]


class Attempt(NamedTuple):
    """The exchange a reading came from."""

    request: bytes
    reply: bytes | None
    sent_ms: int
    received_ms: int


class Kept(NamedTuple):
    """A reading as a journal keeps it. `rid` counts within its kind."""

    kind: int
    rid: int
    said: Said
    xid: int


class StreamRecord(NamedTuple):
    """One record of billing's stream: `n` readings from `rid` on, or an event."""

    seq: int
    kind: int
    rid: int
    n: int


@dataclass
class JournalView:
    """One journal file, read whole."""

    path: Path
    epoch: str = ""
    epochs: list[str] = field(default_factory=list)
    last_seq: int = 0
    receipted: int = 0
    written: int = 0  # the time-series writer's cursor
    readings: dict[tuple[int, int], Kept] = field(default_factory=dict)  # by kind and rid
    attempts: dict[int, Attempt] = field(default_factory=dict)
    stream: list[StreamRecord] = field(default_factory=list)
    series: list[StreamRecord] = field(default_factory=list)  # the time-series writer's stream
    series_last: int = 0
    events: dict[int, tuple[str, int, str]] = field(default_factory=dict)
    due: dict[tuple[str, str, int], tuple[int, str | None]] = field(default_factory=dict)


def read_only(path: Path) -> sqlite3.Connection:
    """A database to look at."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.execute("PRAGMA busy_timeout=5000")
    return connection


def read_journal(path: Path) -> JournalView:
    """Everything of a journal file that the checker needs."""
    view = JournalView(path)
    with closing(read_only(path)) as db:
        view.epoch = dict(db.execute("SELECT key, value FROM meta"))["epoch"]
        view.epochs = [epoch for (epoch,) in db.execute("SELECT epoch FROM epochs ORDER BY id")]
        consumer, view.last_seq, view.receipted = db.execute(
            "SELECT id, last_seq, receipted FROM consumers WHERE name=?", (CONSUMER,)
        ).fetchone()
        writer = db.execute(
            "SELECT id, last_seq, receipted FROM consumers WHERE name=?", (WRITER,)
        ).fetchone()
        if writer is not None:
            _, view.series_last, view.written = writer
        for table in _tables(db):
            prefix = table.partition("_")[0]
            if prefix in KINDS:
                _read_readings(db, table, view, KINDS[prefix])
            elif prefix in ("xb", "xt"):
                for xid, *attempt in db.execute(
                    f"SELECT xid, request, reply, sent_ms, received_ms FROM {table}"
                ):
                    view.attempts[xid] = Attempt(*attempt)
            elif prefix == "s":
                view.stream += _records(db, table, consumer)
                if writer is not None:
                    view.series += _records(db, table, writer[0])
            elif prefix == "d":
                _read_due(db, table, view)
        for number, *event in db.execute("SELECT id, kind, at_ms, fields FROM events"):
            view.events[number] = (event[0], event[1], _same_json(event[2]))
    view.stream.sort()
    return view


def _tables(db: sqlite3.Connection) -> list[str]:
    """The day tables."""
    found = db.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND name GLOB '*_[0-9]*' ORDER BY name"
    )
    return [name for (name,) in found]


def _records(db: sqlite3.Connection, table: str, consumer: int) -> list[StreamRecord]:
    """A row is a run: records one after another, of n readings each."""
    rows = db.execute(f"SELECT seq, count, kind, rid, n FROM {table} WHERE consumer=?", (consumer,))
    return [
        StreamRecord(seq + i, kind, rid + i * n, n)
        for seq, count, kind, rid, n in rows
        for i in range(count)
    ]


def _read_readings(db: sqlite3.Connection, table: str, view: JournalView, kind: int) -> None:
    rows = db.execute(
        "SELECT r.rid, r.xid, s.meter, s.point, r.time_ms, max(0, s.interval_s), r.revision,"
        " lower(hex(r.read_id)), r.value, f.unit, f.status, f.verdict, f.flags, p.text,"
        " r.received_ms, r.due_ms, f.late, f.final, f.multiplier, f.side"
        f" FROM {table} r JOIN series s ON s.id=r.series JOIN forms f ON f.id=r.form"
        " JOIN names p ON p.id=r.service_point"
    )
    for rid, xid, *said in rows:
        view.readings[kind, rid] = Kept(kind, rid, Said(*said), xid)


def _read_due(db: sqlite3.Connection, table: str, view: JournalView) -> None:
    rows = db.execute(
        "SELECT s.meter, s.point, d.due_ms, d.state, lower(hex(d.read_id))"
        f" FROM {table} d JOIN series s ON s.id=d.series"
    )
    for meter, point, due_ms, state, read_id in rows:
        view.due[meter, point, due_ms] = (state, read_id or None)


@dataclass
class BillingView:
    """Billing's database, read whole."""

    current: list[tuple[Said, str, str | None]] = field(default_factory=list)  # epoch, evidence
    history: list[Said] = field(default_factory=list)
    conflicts: list[Said] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    replies: dict[tuple[str, str], str | None] = field(default_factory=dict)
    events: set[tuple[str, int, str]] = field(default_factory=set)
    gaps: list[tuple[object, ...]] = field(default_factory=list)
    dead_letters: list[tuple[object, ...]] = field(default_factory=list)
    alarms: dict[str, int] = field(default_factory=dict)
    recovered: set[str] = field(default_factory=set)  # epochs with news below the cursor


_COLUMNS = ", ".join(Said._fields)


def read_billing(connect: Callable[[], Any]) -> BillingView:
    """Everything of billing's database that the checker needs; the same SQL for any database."""
    view = BillingView()
    with closing(connect()) as db:
        for *said, epoch, evidence in db.execute(
            f"SELECT {_COLUMNS}, epoch, evidence FROM reading"
        ):
            view.current.append((Said(*said), epoch, evidence))
        view.history = [Said(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM reading_history")]
        view.conflicts = [Said(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM conflict")]
        view.cursors = dict(db.execute("SELECT epoch, through_seq FROM feed_cursor").fetchall())
        view.replies = {
            (epoch, ref): reply
            for epoch, ref, reply in db.execute("SELECT epoch, ref, reply FROM exchange")
        }
        view.events = {
            (kind, at_ms, _same_json(fields))
            for kind, at_ms, fields in db.execute("SELECT kind, at_ms, fields FROM event")
        }
        view.gaps = db.execute("SELECT epoch, first_seq, last_seq, reason FROM gap").fetchall()
        view.dead_letters = db.execute("SELECT topic, code, reason FROM dead_letter").fetchall()
        view.alarms = {
            kind: int(times)
            for kind, times in db.execute("SELECT kind, sum(times) FROM alarm GROUP BY kind")
        }
        view.recovered = {
            epoch
            for (epoch,) in db.execute(
                "SELECT subject FROM alarm WHERE kind='unknown_below_cursor'"
            )
        }
    return view


def _same_json(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)
