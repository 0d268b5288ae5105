"""Gets rid of day tables piece by piece, so that no reading waits behind a big one.

Dropping a table takes as long as reading it. A big one is therefore only written down as gone,
which makes it invisible to everybody at once and for good; its pages are freed afterwards, in
transactions of their own between those of births. A start that finds one half done goes on.
"""

from headend.journal.group import Group
from headend.journal.schema import table_name

ROWS_AT_ONCE = 10_000
_KEY = {"r": "rid", "x": "xid"}


def let_go(group: Group, prefix: str, number: int) -> None:
    """A day's table is no longer there, for nobody. `free_some` gives its pages back."""
    state = group.state
    table = table_name(prefix, number)
    state.tables[prefix].discard(number)
    if _is_small(group, table):
        group.connection.execute(f"DROP TABLE {table}")
    else:
        state.set_gone([*state.gone, table])


def free_some(group: Group) -> bool:
    """Free a piece of what is gone; whether there is more."""
    gone = group.state.gone
    if not gone:
        return False
    table = gone[0]
    execute = group.connection.execute
    index = execute(
        "SELECT name FROM sqlite_master WHERE type='index' AND tbl_name=? AND sql IS NOT NULL",
        (table,),
    ).fetchone()
    if index is not None:
        # An index goes as a whole: row by row it would be written instead of read.
        execute(f"DROP INDEX {index[0]}")
        return True
    key = _KEY.get(table[0])
    if key is not None:
        freed = execute(
            f"DELETE FROM {table} WHERE {key}<(SELECT min({key})+? FROM {table})",  # noqa: S608
            (ROWS_AT_ONCE,),
        )
        if freed.rowcount:
            return True
    execute(f"DROP TABLE {table}")
    group.state.set_gone(gone[1:])
    return len(gone) > 1


def _is_small(group: Group, table: str) -> bool:
    """Whether it can be dropped as fast as a piece of a big one."""
    key = _KEY.get(table[0])
    if key is None:
        (rows,) = group.connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?)",  # noqa: S608
            (ROWS_AT_ONCE + 1,),
        ).fetchone()
    else:
        # Each by itself: SQLite looks up one end of a table, but reads all of it for both.
        first, last = group.connection.execute(
            f"SELECT (SELECT min({key}) FROM {table}), (SELECT max({key}) FROM {table})"  # noqa: S608
        ).fetchone()
        rows = 0 if first is None else last - first + 1
    return bool(rows <= ROWS_AT_ONCE)
