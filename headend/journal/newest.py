"""The newest stamp the daemon has written into a journal: what its clock must not be before."""

import sqlite3
from contextlib import closing
from pathlib import Path

from headend.domain.errors import JournalError
from headend.journal.opening import connect_read_only
from headend.journal.schema import EXCHANGE_PREFIX, day_tables, table_name


def newest_stamp(path: Path) -> int | None:
    """The stamp written last, milliseconds; None when there is no journal that can be read.

    Written last, not the latest one there is: what a clock that was wrong once has left does not
    count for ever. Stamps by meters' clocks do not count.
    """
    try:
        with closing(connect_read_only(path)) as connection:
            return _newest(connection)
    except (JournalError, sqlite3.Error):
        return None


def _newest(connection: sqlite3.Connection) -> int | None:
    found: list[int] = []
    tables = day_tables(connection)
    last: tuple[int, str] | None = None
    for prefix in EXCHANGE_PREFIX.values():
        for day in tables.get(prefix, ()):
            table = table_name(prefix, day)
            (xid,) = connection.execute(f"SELECT max(xid) FROM {table}").fetchone()  # noqa: S608
            if xid is not None and (last is None or xid > last[0]):
                last = (xid, table)
    if last is not None:
        sql = f"SELECT received_ms FROM {last[1]} WHERE xid=?"  # noqa: S608
        found.append(int(connection.execute(sql, (last[0],)).fetchone()[0]))
    row = connection.execute("SELECT recorded_ms FROM events ORDER BY id DESC LIMIT 1").fetchone()
    if row is not None:
        found.append(int(row[0]))
    return max(found, default=None)
