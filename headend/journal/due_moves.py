"""Due points that change hands: what an exchanged meter still owed, its successor owes."""

from headend.domain.due import DueKey, DueState
from headend.journal.codec import DUE_CODE, Names
from headend.journal.group import Group
from headend.journal.model import DAY_MS
from headend.journal.schema import day_tables, table_name


def settled_due(group: Group, from_ms: int) -> frozenset[DueKey]:
    """The due points from an instant on that are no longer open."""
    names = Names(group.connection)
    found: set[DueKey] = set()
    for table in _tables(group, from_ms):
        rows = group.connection.execute(
            f"SELECT meter, point, due_ms FROM {table} WHERE due_ms>=? AND state<>?",  # noqa: S608
            (from_ms, DUE_CODE[DueState.OPEN]),
        )
        found.update(DueKey(names[m], names[p], due_ms) for m, p, due_ms in rows)
    return frozenset(found)


def hand_over(group: Group, old_meter: int, successor: str, from_ms: int) -> int:
    """Due points of `old_meter` from `from_ms` on become the successor's; how many.

    They are open again: what settled them is withdrawn in the same transaction and settles them
    anew when it is born again under the successor's name. Days that are closed stay as they are,
    and so does a point that the successor owes already.
    """
    group.flush()
    new_meter = group.intern(successor)
    group.flush()
    moved = 0
    for table in _tables(group, from_ms):
        moved += group.connection.execute(
            f"UPDATE OR IGNORE {table} SET meter=?, state=?, reason=NULL, read_id=NULL"  # noqa: S608
            " WHERE meter=? AND due_ms>=?",
            (new_meter, DUE_CODE[DueState.OPEN], old_meter, from_ms),
        ).rowcount
    group.connection.execute(
        "DELETE FROM bases WHERE meter=? AND time_ms>=?", (old_meter, from_ms)
    )
    group.state.new_due_table()
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
        table_name("d", day) for day in day_tables(group.connection).get("d", ()) if day >= first_day
    ]
    return [t for t in tables if f"{t[2:6]}-{t[6:8]}-{t[8:10]}" not in closed]
