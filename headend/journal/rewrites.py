"""What a dated event makes wrong is withdrawn and borne again, with the event, in one transaction.

Runs in the writer thread. What is right instead is somebody else's to say (`Rule`); here every
reading that may be concerned is found, whichever meter's name it stands under.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple, Protocol

from headend.domain.due import DueState, local_day
from headend.domain.meter import Event
from headend.domain.reading import Reading, Source, Status, Verdict
from headend.journal.codec import DUE_CODE, READING_COLUMNS, Lexicon, stored_from_row
from headend.journal.due_moves import hand_over
from headend.journal.group import Group
from headend.journal.model import DAY_MS, Base, Birth, RecordClass
from headend.journal.operations import WITHDRAWN
from headend.journal.points import point_facts
from headend.journal.schema import READING_PREFIX, day_tables, table_name
from headend.journal.stream import find_exchanges

KEPT_DAYS = 70  # meters keep 62 daily freezes

LookUp = Callable[[str, str], Base | None]


class Rule(Protocol):
    """Says what a reading is now that the event holds. Pure, but for what it has seen before."""

    def seed(self, before: LookUp) -> None:
        """How to find a register's last good value before everything that is concerned."""
        ...

    def __call__(self, reading: Reading) -> Reading | None:
        """What it is; None when there was no such reading. Called in the order of their time."""
        ...

    def follow_up(self) -> Sequence[Event]:
        """What else there is to tell when every reading has been seen."""
        ...


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One dated event and what it changes.

    `events` are recorded first. Readings of `meters` at `service_point` are concerned when they
    hold for `from_ms` or later, or were received since then. `owners`: from when on whose the due
    points are; `areas`: from when on which area they belong to. `revive`: what was withdrawn is
    looked at as well, since the event may not have been.
    """

    events: Sequence[Event]
    service_point: str
    meters: frozenset[str]
    from_ms: int
    rule: Callable[[], Rule] | None = None
    owners: Sequence[tuple[int, str]] = ()
    areas: Sequence[tuple[int, str | None]] = ()
    revive: bool = False


class Rewritten(NamedTuple):
    """How many readings were withdrawn, and how many born again."""

    withdrawn: int
    born: int


class _Found(NamedTuple):
    reading: Reading
    is_withdrawn: bool
    revision: int


def rewrite(group: Group, change: Rewrite) -> Rewritten:
    """The events, then for each reading they make wrong: its withdrawal and what is right."""
    for event in change.events:
        group.event(event)
    for from_ms, owner in change.owners:
        for meter in sorted(change.meters - {owner}):
            hand_over(group, meter, owner, max(from_ms, change.from_ms))
    _move_areas(group, change)
    if change.rule is None:
        return Rewritten(0, 0)
    rule = change.rule()
    rule.seed(_looker(group, change.from_ms))
    withdrawn = born = 0
    for page in _pages(group, change):
        gone, fresh = _decide(group, page, rule)
        for reading in gone:
            group.birth(Birth((_withdrawal(reading),)))
        group.flush()
        _reopen(group, gone)
        for reading in fresh:
            group.birth(Birth((reading,)))
        group.flush()
        withdrawn += len(gone)
        born += len(fresh)
    for event in rule.follow_up():
        group.event(event)
    return Rewritten(withdrawn, born)


def last_good(group: Group, meter: str, points: Iterable[str], before_ms: int) -> dict[str, Base]:
    """The newest good registers of a meter held for an instant before; those that there are."""
    look = _looker(group, before_ms)
    found = {point: look(meter, point) for point in points}
    return {point: base for point, base in found.items() if base is not None}


def _decide(
    group: Group, page: Iterable[_Found], rule: Rule
) -> tuple[list[Reading], list[Reading]]:
    """What is withdrawn and what is born. A published reading that changes is withdrawn first."""
    gone: list[Reading] = []
    fresh: list[Reading] = []
    taken = set()
    for reading, is_withdrawn, revision in page:
        right = rule(reading)
        if right is not None and right.key in taken:
            continue  # a reading that was withdrawn has come again already
        if right is not None:
            taken.add(right.key)
        if is_withdrawn:
            if right is not None:
                fresh.append(_derived(right, reading))
            continue
        if right is not None and right.key == reading.key:
            if _content(right) == _content(reading):
                continue
            fresh.append(_derived(right, reading))
            if reading.verdict is not Verdict.HELD:
                gone.append(reading)
            continue
        gone.append(reading)
        if right is not None:
            fresh.append(_derived(right, reading))
        earlier = _earlier(group, reading, revision, rule) if revision > 1 else None
        if earlier is not None and earlier.key not in taken:
            taken.add(earlier.key)
            fresh.append(_derived(earlier, reading))
    return gone, fresh


def _earlier(group: Group, reading: Reading, revision: int, rule: Rule) -> Reading | None:
    """What another device's answer had taken the place of: the last revision that still holds."""
    record_class = point_facts(reading.point).record_class
    table = table_name(READING_PREFIX[record_class], reading.time_ms // DAY_MS)
    number = group.state.series[reading.meter, reading.point, reading.interval_s]
    lexicon = Lexicon(group.connection)
    rows = group.connection.execute(
        f"SELECT {READING_COLUMNS} FROM {table} WHERE time_ms=? AND series=? AND revision<?"  # noqa: S608
        " ORDER BY revision DESC",
        (reading.time_ms, number, revision),
    ).fetchall()
    for row in rows:
        stored = stored_from_row(row, lexicon)
        found = stored.reading
        if WITHDRAWN in found.flags or found.value is None:
            continue
        exchanges = find_exchanges(
            group.connection, lexicon, day_tables(group.connection), {stored.exchange_id} - {0}
        )
        for xid, exchange, _software in exchanges.values():
            group.state.exchanges.put(exchange, xid, record_class)
            found = replace(found, exchange=exchange)
        right = rule(found)
        if right is not None and right.key == reading.key:
            return right
    return None


def _derived(right: Reading, was: Reading) -> Reading:
    source = was.source if was.source is Source.BACKFILL else Source.DERIVED
    return replace(right, source=source)


def _content(reading: Reading) -> tuple[object, ...]:
    return (
        reading.value, reading.unit, reading.status, reading.verdict, reading.multiplier,
        reading.side,
    )  # fmt: skip


def _withdrawal(reading: Reading) -> Reading:
    return replace(
        reading,
        value=None,
        status=Status.NULL,
        verdict=Verdict.OK,
        flags=tuple(sorted({*reading.flags, WITHDRAWN})),
        due_ms=None,
        source=Source.DERIVED,
    )


def _looker(group: Group, before_ms: int) -> LookUp:
    def look(meter: str, point: str) -> Base | None:
        number = group.state.series.get((meter, point, None))
        return None if number is None else _good_before(group, number, before_ms)

    return look


def _good_before(group: Group, number: int, before_ms: int) -> Base | None:
    """The newest good register that was held for, and was received, before an instant."""
    for day in reversed(day_tables(group.connection).get("rb", [])):
        if day * DAY_MS >= before_ms:
            continue
        rows = group.connection.execute(
            f"SELECT value, time_ms, form FROM {table_name('rb', day)}"  # noqa: S608
            " WHERE series=? AND time_ms<? AND received_ms<? ORDER BY time_ms DESC, revision DESC",
            (number, before_ms, before_ms),
        )
        seen_ms = None
        for value, time_ms, form in rows:
            good = value is not None and group.state.forms[form - 1].good
            if time_ms != seen_ms and good:
                return Base(Decimal(value), time_ms)
            seen_ms = time_ms  # what follows of this instant is an older revision
    return None


# -- due points


def _reopen(group: Group, gone: Iterable[Reading]) -> None:
    """What a withdrawn reading had settled is open again, on days that are not closed."""
    closed = _closed_days(group)
    for reading in gone:
        if reading.due_ms is None:
            continue
        table = group.state.due_table(reading.due_ms)
        if table is None or local_day(reading.due_ms, group.state.zone).isoformat() in closed:
            continue
        group.connection.execute(
            f"UPDATE {table} SET state=?, reason=?, read_id=NULL, settled_ms=NULL"  # noqa: S608
            " WHERE due_ms=? AND series=?",
            (
                DUE_CODE[DueState.OPEN],
                WITHDRAWN,
                reading.due_ms,
                group.series(reading.meter, reading.point, None),
            ),
        )


def _closed_days(group: Group) -> set[str]:
    rows = group.connection.execute("SELECT day FROM due_days WHERE closed_ms IS NOT NULL")
    return {day for (day,) in rows}


def _move_areas(group: Group, change: Rewrite) -> None:
    """Due points of days that are not closed belong to the area that holds for their instant."""
    if not change.areas:
        return
    closed = _closed_days(group)
    series = [n for key, n in list(group.state.series.items()) if key[0] in change.meters]
    marks = ",".join(map(str, series))
    for from_ms, area in change.areas:
        number = 0 if area is None else group.intern(area)
        group.flush()
        since_ms = max(from_ms, change.from_ms)
        for day in day_tables(group.connection).get("d", ()):
            table = table_name("d", day)
            if f"{table[2:6]}-{table[6:8]}-{table[8:10]}" in closed:
                continue
            group.connection.execute(
                f"UPDATE {table} SET area=? WHERE due_ms>=? AND series IN ({marks})",  # noqa: S608
                (number, since_ms),
            )


# -- finding readings


def _pages(group: Group, change: Rewrite) -> Iterator[list[_Found]]:
    """What is concerned, a day's table at a time, in the order of the instants held for."""
    group.flush()
    lexicon = Lexicon(group.connection)
    numbers = [n for key, n in group.state.series.items() if key[0] in change.meters]
    marks = ",".join(map(str, numbers))
    for record_class, prefix in READING_PREFIX.items():
        for day in day_tables(group.connection).get(prefix, []):
            where, values = "(time_ms>=? OR received_ms>=?)", [change.from_ms, change.from_ms]
            if (day + 1) * DAY_MS <= change.from_ms:
                # What a meter keeps may have been fetched since then, as far back as it keeps it.
                if change.from_ms - day * DAY_MS > KEPT_DAYS * DAY_MS:
                    continue
                where, values = "received_ms>=?", [change.from_ms]
            rows = group.connection.execute(
                f"SELECT {READING_COLUMNS} FROM {table_name(prefix, day)}"  # noqa: S608
                f" WHERE series IN ({marks}) AND {where} ORDER BY revision",
                values,
            ).fetchall()
            page = _current(rows, lexicon, change)
            if page:
                yield _with_exchanges(group, lexicon, page, record_class)


def _current(
    rows: Sequence[Sequence[object]], lexicon: Lexicon, change: Rewrite
) -> list[tuple[int, _Found]]:
    """The current reading of each key, and what was withdrawn when that is asked for."""
    latest: dict[tuple[object, object], Sequence[object]] = {}
    valued: dict[tuple[object, object], Sequence[object]] = {}
    for row in rows:
        key = (row[1], row[2])
        latest[key] = row
        if WITHDRAWN not in stored_from_row(row, lexicon).reading.flags:
            valued[key] = row
    page = []
    for key, row in latest.items():
        stored = stored_from_row(row, lexicon)
        is_withdrawn = WITHDRAWN in stored.reading.flags
        if is_withdrawn:
            if not change.revive or key not in valued:
                continue
            stored = stored_from_row(valued[key], lexicon)
        if stored.reading.service_point == change.service_point:
            found = _Found(stored.reading, is_withdrawn, stored.revision)
            page.append((stored.exchange_id, found))
    page.sort(key=lambda one: (one[1].reading.time_ms, one[1].is_withdrawn, one[1].reading.point))
    return page


def _with_exchanges(
    group: Group,
    lexicon: Lexicon,
    page: Sequence[tuple[int, _Found]],
    record_class: RecordClass,
) -> list[_Found]:
    """The readings with the attempts they came from, which keep their rows."""
    wanted = {xid for xid, _ in page} - {0}
    exchanges = find_exchanges(group.connection, lexicon, day_tables(group.connection), wanted)
    for xid, exchange, _software in exchanges.values():
        group.state.exchanges.put(exchange, xid, record_class)
    whole = []
    for xid, found in page:
        known = exchanges.get(xid)
        reading = replace(found.reading, exchange=None if known is None else known[1])
        whole.append(found._replace(reading=reading))
    return whole
