"""Adds a database of today's schema to `tests/data/databases`, for every release after this one.

`python -m tests.backup.make_database [--again]`, once a schema has a new migration. What a
release has written is never changed: a file that is there stays, unless `--again` says that it
has not been released yet.
"""

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from headend import __version__
from headend.billing.store import Arrived, Store
from headend.billing.tables import SCHEMA_VERSION as BILLING_VERSION
from headend.domain.due import DueKey, DuePoint
from headend.domain.exchange import Outcome
from headend.domain.meter import Event
from headend.domain.reading import Verdict
from headend.journal import Birth, ClockMeasured, KeptState, schema
from tests.backup.stored_databases import (
    FOLDER,
    billing_schema,
    journal_schema,
    look_at_billing,
    look_at_journal,
)
from tests.journal.journal_kit import DAY_MS, NOON_MS, Bench, exchange, reading

sys.path.insert(0, str(Path(__file__).parents[1] / "billing"))
import billing_builder as built  # its folder is no package

POINT = "active_import_total"
DAY = date(2026, 3, 1)


def due(meter: str, at_ms: int) -> DuePoint:
    return DuePoint(DueKey(meter, POINT, at_ms), "street-a", "T-7", at_ms + 60_000)


async def fill_journal(path: Path) -> None:
    """A little of everything that a journal can hold."""
    bench = Bench(path)
    async with await bench.open() as journal:
        await journal.freeze_due(
            DAY, [due("M-1", NOON_MS), due("M-2", NOON_MS), due("M-3", NOON_MS)]
        )
        frozen = tuple(
            reading(value, point=point, due_ms=NOON_MS)
            for point, value in ((POINT, "100.00"), ("active_export_total", "5.50"))
        )
        await journal.append(Birth(frozen))
        await journal.append(Birth((reading("9.99", meter="M-2", due_ms=NOON_MS, late=True),)))
        await journal.append(Birth((reading("10.01", meter="M-2", due_ms=NOON_MS, late=True),)))
        held = reading("0.00", meter="M-3", due_ms=NOON_MS, verdict=Verdict.HELD, flags=("zero",))
        await journal.append(Birth((held,)))
        volts = [
            reading("230.1", point="voltage_a", unit="V", time_ms=NOON_MS + 60_000 * n)
            for n in range(3)
        ]
        await journal.append_many([Birth((one,)) for one in volts])
        await journal.append(
            Birth((reading(None, meter="M-2", time_ms=NOON_MS + 900_000, interval_s=900),))
        )
        journal.record_exchange(exchange(77, outcome=Outcome.SILENCE))
        await journal.due_failed(DueKey("M-3", POINT, NOON_MS), "no_answer:silence")
        await journal.append_event(
            Event("alarm", NOON_MS, {"alarm": "bus_down", "bus": "street-a", "message": "终端"})
        )
        await journal.receipt("billing", 3)
    bench.clock.ms += 5 * DAY_MS
    async with await bench.open() as journal:
        at_ms = NOON_MS + DAY_MS
        await journal.append(Birth((reading("120.00", time_ms=at_ms),)))
        exchanged = Event("meter_exchange", at_ms, {"old_meter": "M-1", "new_meter": "M-9"})
        await journal.apply_meter_event(
            exchanged,
            lambda r: (replace(r, meter="M-9", multiplier=Decimal(40)),),
            meter="M-1",
            from_ms=at_ms,
            successor="M-9",
        )
        await journal.close_due_day(DAY)
        await journal.freeze_due(date(2026, 3, 6), [due("M-9", NOON_MS + 5 * DAY_MS)])
        await journal.park("boot-1", 12.5, exchange(88, at_ms=0), '{"point":"x"}')
        await journal.new_epoch("the sample has two epochs")
        await journal.receipt("board", 2)
        await journal.bases()
        shown = '{"schema":"dlt645_learned/1","refusals":{"0001FF00":1},"tariffs":null}'
        clock = ClockMeasured(NOON_MS, 12_400, 530, 3)
        await journal.clocks_measured([("M-1", clock)])
        journal.learn("M-1", KeptState("dlt645-2007", "000000000001", shown, NOON_MS))


def fill_billing(url: str) -> None:
    """A little of everything that billing can hold."""
    store = Store(url, name="billing", clock=built.FixedClock(), software=f"headend {__version__}")

    def take(payload: bytes) -> None:
        store.take([Arrived("he1", "meter/v1/he1/feed/billing", payload)])

    noon = built.T0 + DAY_MS // 2
    take(
        built.batch(
            [
                built.read(1, "100.00", evidence="x1"),
                built.exchange(
                    2, at_ms=noon, old_final={built.IMPORT: "105.50"},
                    new_initial={built.IMPORT: "0.26"},
                ),
                built.read(3, "3.26", meter="M-2", time_ms=built.T0 + DAY_MS),
                built.freeze(
                    4, {built.IMPORT: "7.00", built.EXPORT: "5.00"}, meter="M-3",
                    service_point="SP-2",
                ),
                built.read(5, "66", time_ms=built.T0 + built.MINUTE),
                built.withdrawn(6, time_ms=built.T0 + built.MINUTE),
            ],
            exchanges=[built.evidence("x1")],
        )
    )  # fmt: skip
    take(built.batch([built.read(9, "1.00", meter="M-4", service_point="SP-3")]))  # 7 and 8: a gap
    take(built.batch([built.read(1, "1.00", meter="M-5")], epoch=built.EPOCH_B))
    # A key's revision again with another value: a conflict.
    take(built.batch([built.read(2, "2.00", meter="M-5")], epoch=built.EPOCH_B))
    take(b"garbage")
    store.close()


def dump(path: Path) -> str:
    """A file as SQL that makes it again."""
    with closing(sqlite3.connect(path)) as db:
        lines = [f"PRAGMA {name}={db.execute(f'PRAGMA {name}').fetchone()[0]};"
                 for name in ("application_id", "user_version")]  # fmt: skip
        return "\n".join([*lines, *db.iterdump()]) + "\n"


def keep(store: str, version: int, sql: str, expected: dict[str, Any], *, again: bool) -> None:
    """Write both files."""
    path = FOLDER / f"{store}-schema{version}-{__version__}.sql"
    if path.exists() and not again:
        print(f"{path} is there and stays as it is")
        return
    path.write_text(sql, encoding="utf-8")
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(f"made {path}")


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="also what is there")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.db"
        asyncio.run(fill_journal(journal))
        version = len(schema.MIGRATIONS)
        seen = {"schema_sha256": journal_schema(version), "look": look_at_journal(journal)}
        keep("journal", version, dump(journal), seen, again=args.again)
        billing = Path(folder) / "billing.db"
        url = f"sqlite:///{billing}"
        fill_billing(url)
        seen = {
            "schema_sha256": billing_schema(BILLING_VERSION),
            "look": look_at_billing(url),
        }
        sql = dump(billing).partition("BEGIN TRANSACTION;")
        # Without SQLite's own words, so that PostgreSQL takes it too.
        keep("billing", BILLING_VERSION, sql[1] + sql[2], seen, again=args.again)


if __name__ == "__main__":
    main()
