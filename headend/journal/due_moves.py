"""Due points that change hands: what an exchanged meter still owed, its successor owes."""

from headend.domain.due import DueKey, DueState
from headend.journal.codec import DUE_CODE, Lexicon
from headend.journal.group import Group
from headend.journal.model import DAY_MS
from headend.journal.schema import day_tables, table_name


def settled_due(group: Group, from_ms: int) -> frozenset[DueKey]:
    """The due points from an instant on that are no longer open."""
    lexicon = Lexicon(group.connection)
    found: set[DueKey] = set()
    for table in _tables(group, from_ms):
        rows = group.connection.execute(
            f"SELECT series, due_ms FROM {table} WHERE due_ms>=? AND state<>?",  # noqa: S608
            (from_ms, DUE_CODE[DueState.OPEN]),
        )
        for number, due_ms in rows:
            series = lexicon.series(number)
            found.add(DueKey(series.meter, series.point, due_ms))
    return frozenset(found)


def hand_over(group: Group, old_meter: str, successor: str, from_ms: int) -> int:
    """Due points of `old_meter` from `from_ms` on become the successor's; how many.

    They are open again: what settled them is withdrawn in the same transaction and settles them
    anew when it is born again under the successor's name. Days that are closed stay as they are,
    and so does a point that the successor owes already.
    """
    pairs = [
        (group.series(successor, point, None), DUE_CODE[DueState.OPEN], number, from_ms)
        for (meter, point, interval_s), number in list(group.state.series.items())
        if meter == old_meter and interval_s is None
    ]
    group.flush()
    moved = 0
    for table in _tables(group, from_ms):
        sql = (
            f"UPDATE OR IGNORE {table} SET series=?, state=?, reason=NULL, read_id=NULL,"  # noqa: S608
            " settled_ms=NULL WHERE series=? AND due_ms>=?"
        )
        moved += sum(group.connection.execute(sql, pair).rowcount for pair in pairs)
    return moved


def _tables(group: Group, from_ms: int) -> list[str]:
    """The due tables of days that are not closed and may hold instants from `from_ms` on."""
    closed = {
        day for (day,) in group.connection.execute(
            "SELECT day FROM due_days WHERE closed_ms IS NOT NULL"
        )
    }  # fmt: skip
    first_day = from_ms // DAY_MS - 1  # a local day may begin up to a day before its UTC name
    tables = [
        table_name("d", day)
        for day in day_tables(group.connection).get("d", ())
        if day >= first_day
    ]
    return [t for t in tables if f"{t[2:6]}-{t[6:8]}-{t[8:10]}" not in closed]
