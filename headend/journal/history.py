"""What the journal holds of one meter's past, and what it still owes: for closing gaps.

Short questions to the file, in the daemon's reader thread. What is known here is what is committed.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from headend.domain.due import DueKey, DueState
from headend.domain.reading import Status, Verdict
from headend.journal.codec import DUE_CODE, Lexicon
from headend.journal.model import DAY_MS, Base
from headend.journal.points import point_facts
from headend.journal.schema import (
    NO_INTERVAL,
    READING_PREFIX,
    day_number,
    day_of,
    day_tables,
    table_name,
)

NEIGHBOUR_DAYS = 62  # how far a neighbour of a stretch is looked for


@dataclass(slots=True)
class PointHistory:
    """One point in a stretch of time.

    `instants`: everything that is known, whatever its verdict, ascending. `good`: the registers
    among them that others can be judged by, ascending, with the last one before the stretch and
    the first one behind it.
    """

    instants: list[int] = field(default_factory=list)
    good: list[Base] = field(default_factory=list)


class Owed(NamedTuple):
    """A due point without a reading: open, or closed as missing. `reason`: the latest failure."""

    key: DueKey
    window_end_ms: int
    state: DueState
    reason: str | None


class OwedDay(NamedTuple):
    """Due points of one day without a reading; `is_whole` False: there are more than were asked
    for."""

    owed: list[Owed]
    is_whole: bool


def point_history(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    meter: str,
    points: Sequence[str],
    from_ms: int,
    to_ms: int,
) -> dict[str, PointHistory]:
    """What is known of points of a meter for instants in [from_ms, to_ms)."""
    found = {point: PointHistory() for point in points}
    days = day_tables(connection)
    for point in points:
        series = _series(connection, meter, point)
        if series is None:
            continue
        facts = point_facts(point)
        prefix = READING_PREFIX[facts.record_class]
        having = days.get(prefix, [])
        one = found[point]
        inside = [day for day in having if from_ms < (day + 1) * DAY_MS and day * DAY_MS < to_ms]
        for day in inside:
            latest = _latest(connection, table_name(prefix, day), series, from_ms, to_ms)
            for time_ms, (value, form) in sorted(latest.items()):
                one.instants.append(time_ms)
                if facts.register and value is not None and _is_good(lexicon, form):
                    one.good.append(Base(Decimal(value), time_ms))
        if facts.register:
            before = _neighbour(connection, lexicon, series, having, from_ms, prefix, later=False)
            after = _neighbour(connection, lexicon, series, having, to_ms, prefix, later=True)
            one.good = [*before, *one.good, *after]
    return found


def owed_of_day(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    day: date,
    *,
    until_ms: int,
    most: int,
    meters: Iterable[str] | None = None,
) -> OwedDay:
    """Due points of a local day, due before an instant, that have no reading; oldest first.

    `meters`: of these only.
    """
    number = day_number(day)
    if number not in day_tables(connection).get("d", ()):
        return OwedDay([], is_whole=True)
    wanted = None if meters is None else set(meters)
    rows = connection.execute(
        f"SELECT due_ms, series, window_end_ms, state, reason FROM {table_name('d', number)}"  # noqa: S608
        " WHERE due_ms<? AND state IN (?,?) AND read_id IS NULL ORDER BY due_ms, series",
        (until_ms, DUE_CODE[DueState.OPEN], DUE_CODE[DueState.MISSING]),
    )
    owed: list[Owed] = []
    for due_ms, series, window_end_ms, state, reason in rows:
        meter, point, _interval = lexicon.series(series)
        if wanted is not None and meter not in wanted:
            continue
        if len(owed) >= most:
            rows.close()
            return OwedDay(owed, is_whole=False)
        is_open = state == DUE_CODE[DueState.OPEN]
        became = DueState.OPEN if is_open else DueState.MISSING
        owed.append(Owed(DueKey(meter, point, due_ms), window_end_ms, became, reason))
    return OwedDay(owed, is_whole=True)


def owed_days(connection: sqlite3.Connection, _lexicon: Lexicon, *, first: date) -> list[date]:
    """The days from `first` on that have a list, oldest first."""
    numbers = day_tables(connection).get("d", ())
    return [day_of(number) for number in numbers if number >= day_number(first)]


def _series(connection: sqlite3.Connection, meter: str, point: str) -> int | None:
    row = connection.execute(
        "SELECT id FROM series WHERE meter=? AND point=? AND interval_s=?",
        (meter, point, NO_INTERVAL),
    ).fetchone()
    return None if row is None else int(row[0])


def _latest(
    connection: sqlite3.Connection, table: str, series: int, from_ms: int, to_ms: int
) -> dict[int, tuple[str | None, int]]:
    """Value and form of the newest revision of each instant."""
    rows = connection.execute(
        f"SELECT time_ms, value, form FROM {table} WHERE series=? AND time_ms>=? AND time_ms<?"  # noqa: S608
        " ORDER BY time_ms, revision",
        (series, from_ms, to_ms),
    )
    return {time_ms: (value, form) for time_ms, value, form in rows}


def _is_good(lexicon: Lexicon, form: int) -> bool:
    found, _multiplier = lexicon.form(form)
    return found.verdict == Verdict.OK and found.status == Status.ACTUAL


def _neighbour(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    series: int,
    days: Sequence[int],
    edge_ms: int,
    prefix: str,
    *,
    later: bool,
) -> list[Base]:
    """The good register nearest to an instant: before it, or from it on (`later`)."""
    edge = edge_ms // DAY_MS
    if later:
        near = [day for day in days if edge <= day <= edge + NEIGHBOUR_DAYS]
    else:
        near = [day for day in reversed(days) if edge - NEIGHBOUR_DAYS <= day <= edge]
    compared, order = (">=", "ASC") if later else ("<", "DESC")
    for day in near:
        rows = connection.execute(
            f"SELECT time_ms, value, form FROM {table_name(prefix, day)} WHERE series=?"  # noqa: S608
            f" AND time_ms{compared}? ORDER BY time_ms {order}, revision DESC",
            (series, edge_ms),
        )
        decided_ms: int | None = None  # only the newest revision of an instant counts
        for time_ms, value, form in rows:
            if time_ms == decided_ms:
                continue
            decided_ms = time_ms
            if value is not None and _is_good(lexicon, form):
                rows.close()
                return [Base(Decimal(value), time_ms)]
    return []
