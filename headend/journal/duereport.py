"""A day's due list as its summary and as lines; used for the frozen report and by readers."""

import sqlite3
from collections.abc import Iterator
from datetime import date
from typing import Any

from headend.domain.due import DueKey, DueState
from headend.journal.codec import DUE_COLUMNS, DUE_STATES, Lexicon
from headend.journal.model import DueLine
from headend.journal.schema import day_number, day_tables, table_name

SCHEMA_DUE = "due/1"


def due_lines(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    day: date,
    *,
    from_ms: int | None = None,
    until_ms: int | None = None,
) -> Iterator[DueLine]:
    """Every due point of a day, by instant; only those in [from_ms, until_ms] where given.

    Nothing for a day never frozen.
    """
    number = day_number(day)
    if number not in day_tables(connection).get("d", ()):
        return
    rows = connection.execute(
        f"SELECT {DUE_COLUMNS} FROM {table_name('d', number)}"  # noqa: S608
        " WHERE due_ms BETWEEN ? AND ? ORDER BY due_ms, series",
        (
            -(1 << 62) if from_ms is None else from_ms,
            1 << 62 if until_ms is None else until_ms,
        ),
    )
    for row in rows:
        yield _line(lexicon, row)


def after_closing(connection: sqlite3.Connection, lexicon: Lexicon, day: date) -> list[DueLine]:
    """The due points of a closed day whose value came afterwards, by instant."""
    number = day_number(day)
    if number not in day_tables(connection).get("d", ()):
        return []
    rows = connection.execute(
        f"SELECT {DUE_COLUMNS} FROM {table_name('d', number)}"  # noqa: S608
        " WHERE after_close=1 ORDER BY due_ms, series"
    )
    return [_line(lexicon, row) for row in rows]


def _line(lexicon: Lexicon, row: tuple[Any, ...]) -> DueLine:
    at_ms, series, bus, area, window_end_ms, state, reason, read_id, after, settled_ms, *rest = row
    failed, concentrator = rest
    meter, point, _interval = lexicon.series(series)
    return DueLine(
        DueKey(meter, point, at_ms),
        lexicon.name(bus),
        lexicon.name(area) if area else None,
        window_end_ms,
        DUE_STATES[state],
        reason,
        None if read_id is None else read_id.hex(),
        bool(after),
        settled_ms,
        failed,
        lexicon.name(concentrator) if concentrator else None,
    )


def due_counts(connection: sqlite3.Connection, day: date, *, until_ms: int) -> dict[DueState, int]:
    """How many of a day's points due up to `until_ms` are in each state; every state is named."""
    counts = dict.fromkeys(DueState, 0)
    number = day_number(day)
    if number in day_tables(connection).get("d", ()):
        rows = connection.execute(
            f"SELECT state, count(*) FROM {table_name('d', number)} WHERE due_ms<=? GROUP BY state",  # noqa: S608
            (until_ms,),
        )
        counts |= {DUE_STATES[code]: count for code, count in rows}
    return counts


def due_summary(connection: sqlite3.Connection, lexicon: Lexicon, day: date) -> dict[str, Any]:
    """The counts of a day as they stand now."""
    (frozen,) = connection.execute(
        "SELECT coalesce(max(frozen), 0) FROM due_days WHERE day=?", (day.isoformat(),)
    ).fetchone()
    summary: dict[str, Any] = {"schema": SCHEMA_DUE, "day": day.isoformat(), "frozen": frozen}
    summary |= {state.value: 0 for state in DueState}
    by_reason: dict[str, int] = {}
    by_bus: dict[str, dict[str, Any]] = {}
    after_close = 0
    number = day_number(day)
    rows: list[tuple[Any, ...]] = []
    if number in day_tables(connection).get("d", ()):
        rows = connection.execute(
            "SELECT bus, state, CASE WHEN state IN (0, 5) THEN reason END, after_close, count(*)"  # noqa: S608
            f" FROM {table_name('d', number)} GROUP BY 1, 2, 3, 4"
        ).fetchall()
    for bus_id, code, reason, after, count in rows:
        bus, state = lexicon.name(bus_id), DUE_STATES[code].value
        line = by_bus.setdefault(bus, {"bus": bus, "frozen": 0} | {s.value: 0 for s in DueState})
        line["frozen"] += count
        line[state] += count
        summary[state] += count
        after_close += count if after else 0
        if reason is not None:
            by_reason[reason] = by_reason.get(reason, 0) + count
    summary["after_close"] = after_close
    summary["closed_at"] = None
    summary["by_reason"] = dict(sorted(by_reason.items()))
    summary["by_bus"] = [by_bus[bus] for bus in sorted(by_bus)]
    return summary
