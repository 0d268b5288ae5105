"""Rows in bulk as PostgreSQL likes them: few round trips, whatever their number.

A few rows travel as one JSON text in the statement itself; many are copied into a temporary table
and taken over from there, which costs the server less a row and more a time.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import psycopg
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

from headend.billing.inbox import Row
from headend.billing.tables import reading

COPIED_ROWS_MIN = 500
LOOKUP_KEYS = 5000  # bounds what one statement carries

_ROW_COLUMNS = ", ".join(f"r.{column.name}" for column in reading.columns)
_MATCH = " AND ".join(f"r.{n} = k.{n}" for n in ("meter", "point", "time_ms", "interval_s"))
_LOOKUP = (
    f"SELECT {_ROW_COLUMNS} FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) "  # noqa: S608 - own names
    f"AS k (meter, point, time_ms, interval_s) JOIN reading r ON {_MATCH}"
)
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_encoder = msgspec.json.Encoder()
_HISTORY = "SELECT read_id FROM reading_history WHERE read_id = ANY(%s::text[])"


def write(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], on_conflict: str
) -> int:
    """Insert the rows with an ON CONFLICT clause; how many were inserted or changed."""
    if len(rows) >= COPIED_ROWS_MIN:
        return _write_copied(connection, table, rows, on_conflict)
    names = [column.name for column in table.columns]
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    sql = f"{_insert_from_json(table)} {on_conflict}"
    return connection.exec_driver_sql(sql, (_encoder.encode(objects).decode(),)).rowcount


def _write_copied(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], on_conflict: str
) -> int:
    incoming = f"incoming_{table.name}"
    # What stands in `info` lives as long as the session, and so does the temporary table: a
    # transaction that fails ends the session.
    if incoming not in connection.info:
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {incoming} (LIKE {table.name}) ON COMMIT DELETE ROWS"
        )
        connection.info[incoming] = True
    session = connection.connection.driver_connection
    assert isinstance(session, psycopg.Connection)
    with session.cursor() as cursor:
        with cursor.copy(f"COPY {incoming} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)
        cursor.execute(
            f"INSERT INTO {table.name} SELECT * FROM {incoming} {on_conflict}".encode()  # noqa: S608 - own names
        )
        count = cursor.rowcount
        # The same table may come again in this transaction.
        cursor.execute(f"DELETE FROM {incoming}".encode())  # noqa: S608 - own names
    return count


@cache
def _insert_from_json(table: Table) -> str:
    columns = ", ".join(
        f"{column.name} {column.type.compile(_DIALECT)}" for column in table.columns
    )
    return (
        f"INSERT INTO {table.name} "  # noqa: S608 - own names
        f"SELECT * FROM json_to_recordset(%s::json) AS incoming ({columns})"
    )


def current_rows(
    connection: Connection, keys: Sequence[tuple[str, str, int, int]]
) -> dict[tuple[str, str, int, int], Row]:
    """The current values of those keys that have one."""
    found: dict[tuple[str, str, int, int], Row] = {}
    for start in range(0, len(keys), LOOKUP_KEYS):
        columns = tuple(map(list, zip(*keys[start : start + LOOKUP_KEYS], strict=True)))
        for values in connection.exec_driver_sql(_LOOKUP, columns):
            row = Row._make(values)
            found[row.key] = row
    return found


def known_in_history(connection: Connection, read_ids: Sequence[str]) -> set[str]:
    """Those of the ids that were current once."""
    found: set[str] = set()
    for start in range(0, len(read_ids), LOOKUP_KEYS):
        chunk = list(read_ids[start : start + LOOKUP_KEYS])
        found.update(connection.exec_driver_sql(_HISTORY, (chunk,)).scalars())
    return found
