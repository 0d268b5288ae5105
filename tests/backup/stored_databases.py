"""Databases of every released schema, kept as SQL in `tests/data/databases`.

Each `<store>-schema<N>-<release>.sql` has a `.json` beside it: what is to be read from it, and
the hash of the schema it has. `python -m tests.backup.make_database` adds those of today.
"""

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from headend.billing.tables import MIGRATIONS as BILLING_MIGRATIONS
from headend.billing.views import BillingView
from headend.domain.clock import iso
from headend.journal import JournalReader, schema

FOLDER = Path(__file__).parents[1] / "data" / "databases"
NAME = re.compile(r"^(journal|billing)-schema(\d+)-(\d+\.\d+\.\d+)$")


@dataclass(frozen=True)
class Kept:
    """One of them."""

    sql: Path
    store: str
    version: int
    release: str

    @property
    def text(self) -> str:
        return self.sql.read_text(encoding="utf-8")

    @property
    def expected(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sql.with_suffix(".json").read_text("utf-8"))
        return found

    def lay_out(self, path: Path) -> Path:
        """As a file of SQLite's."""
        with closing(sqlite3.connect(path)) as made:
            made.executescript(self.text)
        return path


def kept(store: str) -> list[Kept]:
    """Those of a store, oldest first."""
    found = []
    for sql in sorted(FOLDER.glob(f"{store}-*.sql")):
        match = NAME.match(sql.stem)
        assert match, f"{sql.name} does not say what it is"
        found.append(Kept(sql, store, int(match[2]), match[3]))
    return sorted(found, key=lambda one: (one.version, one.release))


# -- what a schema is


def journal_schema(version: int) -> str:
    """The hash of what the first `version` migrations make, and of the day tables."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for step in schema.MIGRATIONS[:version]:
            step(made)
        for prefix in ("rb", "rt", "xb", "xt", "s", "d"):
            schema.create_day_table(made, schema.table_name(prefix, 0))
        return schema_hash(made)


def billing_schema(version: int) -> str:
    """The hash of what the first `version` migrations make."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        for step in BILLING_MIGRATIONS[:version]:
            step(lambda statement: made.execute(statement).close())
        return schema_hash(made)


def schema_hash(connection: sqlite3.Connection) -> str:
    """Of every table's and index's text, whatever its layout."""
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    text = "\n".join(" ".join(sql.split()) for (sql,) in rows)
    return hashlib.sha256(text.encode()).hexdigest()


# -- what is in it


def look_at_journal(path: Path) -> dict[str, Any]:
    """Everything that a reader of a journal can see."""
    with JournalReader(path) as reader:
        days = reader.due_days()
        return {
            "epoch": reader.epoch,
            "readings": [msgspec.to_builtins(r) for r in reader.readings(all_revisions=True)],
            "traces": {
                r.read_id: _traced(reader, r.read_id)
                for r in reader.readings()
                if r.evidence is not None
            },
            "cursors": {
                name: [c.cursor.last_seq, c.cursor.receipted_seq, list(c.classes), c.active]
                for name, c in reader.feed_status().items()
            },
            "due": {day.isoformat(): _plain(reader.due(day)) for day in days},
            "due_lines": [
                [*line.key, line.bus, line.area, line.state.value, line.reason, line.read_id]
                for day in days
                for line in reader.due_lines(day)
            ],
            "reports": {
                day.isoformat(): report.decode()
                for day in days
                if (report := reader.due_report(day)) is not None
            },
            "events": [[e.kind, iso(e.at_ms), e.fields] for e in reader.events()],
        }


def _traced(reader: JournalReader, read_id: str) -> list[str | None]:
    trace = reader.trace(read_id)
    assert trace is not None
    if trace.exchange is None:
        return [None, None, None]
    reply = trace.exchange.reply
    return [
        trace.exchange.request.hex(),
        None if reply is None else reply.hex(),
        trace.exchange_software,
    ]


def _plain(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value, default=str))


def look_at_billing(url: str) -> dict[str, Any]:
    """Everything that a reader of billing's database can see."""
    with BillingView(url) as view:
        status = view.status()
        points = view.service_points()
        return {
            "readings": [dict(row._asdict()) for row in view.readings()],
            "service_points": points,
            "spans": {
                name: {
                    direction: str(view.service_point(name).span(direction).energy)
                    for direction in ("import", "export")
                }
                for name in points
            },
            "status": _plain(status),
        }
