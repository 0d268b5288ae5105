"""How far off meters' clocks were: one row a measurement. Kept for months, dropped by the next one.

Not readings: nobody is billed by them. The bytes they came from are among the attempts.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from headend.journal.group import Group

KEPT_MS = 120 * 86_400_000
ROWS_MAX = 1000  # of one meter


class ClockMeasured(NamedTuple):
    """A meter's clock at one time: the truth lies within offset_ms +- uncertainty_ms.

    Positive = fast. `looks`: how many looks it stands on. `began`: the clock had been set since the
    measurement before, so that nothing before it says how it drifts.
    """

    at_ms: int
    offset_ms: int
    uncertainty_ms: int
    looks: int
    began: bool = False


def measured(group: Group, found: Sequence[tuple[str, ClockMeasured]]) -> None:
    """Write measurements, one instead of another of the same instant."""
    connection = group.connection
    connection.executemany(
        "INSERT OR REPLACE INTO clocks VALUES (?,?,?,?,?,?)",
        [(meter, *row[:4], int(row.began)) for meter, row in found],
    )
    connection.executemany(
        "DELETE FROM clocks WHERE meter=? AND at_ms<?",
        [(meter, row.at_ms - KEPT_MS) for meter, row in found],
    )


def history(
    connection: sqlite3.Connection, from_ms: int, meter: str | None = None
) -> dict[str, list[ClockMeasured]]:
    """Measurements from an instant on, by meter, oldest first; of each the newest ROWS_MAX."""
    found: dict[str, list[ClockMeasured]] = {}
    rows = connection.execute(
        "SELECT meter, at_ms, offset_ms, uncertainty_ms, looks, began FROM clocks"
        " WHERE at_ms>=?1 AND (?2 IS NULL OR meter=?2) ORDER BY meter, at_ms",
        (from_ms, meter),
    )
    for name, at_ms, offset_ms, uncertainty_ms, looks, began in rows:
        row = ClockMeasured(at_ms, offset_ms, uncertainty_ms, looks, bool(began))
        found.setdefault(name, []).append(row)
    return {name: rows[-ROWS_MAX:] for name, rows in found.items()}
