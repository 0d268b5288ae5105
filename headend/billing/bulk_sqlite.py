"""Rows in bulk as SQLite likes them: one prepared statement, stepped row by row."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table

from headend.billing.inbox import Row
from headend.billing.tables import reading, reading_history

LOOKUP_KEYS = 200

_T = TypeVar("_T")
_ROW_COLUMNS = ", ".join(f"r.{column.name}" for column in reading.columns)


def write(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], on_conflict: str
) -> int:
    """Insert the rows with an ON CONFLICT clause; how many were inserted or changed."""
    marks = ", ".join("?" * len(table.columns))
    sql = f"INSERT INTO {table.name} VALUES ({marks}) {on_conflict}"  # noqa: S608 - own names
    return connection.exec_driver_sql(sql, list(rows)).rowcount


def current_rows(
    connection: Connection, keys: Sequence[tuple[str, str, int, int]]
) -> dict[tuple[str, str, int, int], Row]:
    """The current values of those keys that have one."""
    found: dict[tuple[str, str, int, int], Row] = {}
    for chunk in _chunks(keys, LOOKUP_KEYS):
        # Always the same number of keys, so that the statement's text is always the same.
        padded = [*chunk, *[chunk[-1]] * (LOOKUP_KEYS - len(chunk))]
        parameters = tuple(part for key in padded for part in key)
        for values in connection.exec_driver_sql(_LOOKUP, parameters):
            row = Row._make(values)
            found[row.key] = row
    return found


def known_in_history(connection: Connection, read_ids: Sequence[str]) -> set[str]:
    """Those of the ids that were current once."""
    found: set[str] = set()
    column = reading_history.c.read_id
    for chunk in _chunks(read_ids, LOOKUP_KEYS):
        query = reading_history.select().with_only_columns(column).where(column.in_(chunk))
        found.update(connection.execute(query).scalars())
    return found


def _chunks(items: Sequence[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


_KEYS = ", ".join(["(?, ?, ?, ?)"] * LOOKUP_KEYS)
_MATCH = " AND ".join(f"r.{n} = k.{n}" for n in ("meter", "point", "time_ms", "interval_s"))
_LOOKUP = (
    f"WITH k (meter, point, time_ms, interval_s) AS (VALUES {_KEYS}) "  # noqa: S608 - own names
    f"SELECT {_ROW_COLUMNS} FROM k JOIN reading r ON {_MATCH}"
)
