"""Many rows at once, and looking up many keys at once.

How a database likes them is its own: `bulk_sqlite.py` and `bulk_postgresql.py`. Nothing else in
the room knows which one it works on. Rows are tuples in the order of the table's columns.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Table

from headend.billing import bulk_postgresql, bulk_sqlite
from headend.billing.inbox import Row
from headend.billing.tables import reading

Key = tuple[str, str, int, int]


class _Dialect(Protocol):
    """What both modules have."""

    def write(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[tuple[Any, ...]],
        on_conflict: str,
    ) -> int:
        """Insert the rows with an ON CONFLICT clause; how many were inserted or changed."""

    def current_rows(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """The current values of those keys that have one."""

    def known_in_history(self, connection: Connection, read_ids: Sequence[str]) -> set[str]:
        """Those of the ids that were current once."""


_SQLITE: _Dialect = bulk_sqlite
_POSTGRESQL: _Dialect = bulk_postgresql


def insert_absent(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert the rows whose primary key is not there yet; how many that were."""
    if not rows:
        return 0
    return _of(connection).write(connection, table, rows, "ON CONFLICT DO NOTHING")


def upsert_readings(connection: Connection, rows: Sequence[Row]) -> None:
    """Make each row the current value of its key, unless a later revision stands there.

    A key comes once.
    """
    if not rows:
        return
    key = [column.name for column in reading.primary_key]
    changes = ", ".join(
        f"{column.name} = excluded.{column.name}"
        for column in reading.columns
        if column.name not in key
    )
    on_conflict = (
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes} "
        "WHERE excluded.revision > reading.revision"
    )
    _of(connection).write(connection, reading, rows, on_conflict)


def count_up(
    connection: Connection,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    *,
    latest: Sequence[str],
) -> None:
    """Insert rows with a `times` column; one that is there already counts up.

    The columns named in `latest` take the new value. A key comes once.
    """
    if not rows:
        return
    key = ", ".join(column.name for column in table.primary_key)
    changes = ", ".join(f"{name} = excluded.{name}" for name in latest)
    on_conflict = (
        f"ON CONFLICT ({key}) DO UPDATE SET times = {table.name}.times + excluded.times, {changes}"
    )
    _of(connection).write(connection, table, rows, on_conflict)


def current_rows(connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
    """The current values of those keys that have one."""
    return _of(connection).current_rows(connection, keys)


def known_in_history(connection: Connection, read_ids: Sequence[str]) -> set[str]:
    """Those of the ids that were current once."""
    return _of(connection).known_in_history(connection, read_ids)


def _of(connection: Connection) -> _Dialect:
    return _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL
