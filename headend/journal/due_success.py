"""How well a day's due list was read: the report that is made once, when the day is closed.

Every share has the frozen list as its denominator. A point counts as read by a mark when its value
was received by then and is a reading (`read`, `late`, `backfilled`): an estimate is none. The marks
count from the first local midnight at or after the point's instant, so that the freeze at 00:00 of
the day has to be there by 06:00 of the same day, and everything else of it by 06:00 of the next.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from headend.domain.clock import iso, to_ms
from headend.domain.due import DueState, day_bounds_ms
from headend.journal.codec import DUE_CODE, Lexicon
from headend.journal.schema import day_number, day_tables, table_name

SCHEMA = "due_report/1"
JUDGED_FROM_METERS = 20  # a group with fewer is shown by its counts alone
LISTED_MAX = 500  # of the worst meters; the rest of them are counted
MORNING = time(6)
HOUR_MS = 3_600_000
MARKS = ("first_pass", "by_06", "by_24h", "by_72h")
_STATES = tuple(DueState)
_FIELDS = ("frozen", *MARKS, *(state.value for state in _STATES))
_READ = ",".join(str(DUE_CODE[s]) for s in (DueState.READ, DueState.LATE, DueState.BACKFILLED))


@dataclass(frozen=True, slots=True)
class _Marks:
    """By when points are to be in that are due at a local midnight, or in the day before it."""

    by_06: int
    by_24h: int
    by_72h: int

    @classmethod
    def after(cls, midnight_day: date, zone: ZoneInfo) -> "_Marks":
        midnight_ms = day_bounds_ms(midnight_day, zone)[0]
        morning = datetime.combine(midnight_day, MORNING, tzinfo=zone)
        return cls(
            to_ms(morning.astimezone(UTC)), midnight_ms + 24 * HOUR_MS, midnight_ms + 72 * HOUR_MS
        )

    def to_json(self) -> dict[str, str]:
        return {"by_06": iso(self.by_06), "by_24h": iso(self.by_24h), "by_72h": iso(self.by_72h)}


@dataclass(slots=True)
class _Tally:
    """Counts of one group: `_FIELDS` in their order, and whose points they are."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_FIELDS))
    meters: set[str] = field(default_factory=set)

    def add(self, meter: str, counts: Iterable[int]) -> None:
        self.counts = [mine + more for mine, more in zip(self.counts, counts, strict=True)]
        self.meters.add(meter)

    def to_json(self, **name: str | None) -> dict[str, Any]:
        shown: dict[str, Any] = {**name, "meters": len(self.meters)}
        shown |= zip(_FIELDS, self.counts, strict=True)
        frozen = shown["frozen"]
        is_judged = len(self.meters) >= JUDGED_FROM_METERS and frozen
        shown["percent"] = (
            {mark: percent(shown[mark], frozen) for mark in MARKS} if is_judged else None
        )
        return shown

    @property
    def rank(self) -> tuple[int, ...]:
        """The lowest is the worst: by what was read in the end, then by how soon."""
        of = dict(zip(_FIELDS, self.counts, strict=True))
        in_the_end = of["read"] + of["late"] + of["backfilled"]
        parts = (in_the_end, of["by_24h"], of["by_06"], of["first_pass"])
        return tuple(part * 1_000_000 // of["frozen"] for part in parts)


def percent(part: int, whole: int) -> str:
    """Rounded down to a hundredth: 100.00 is all of it and nothing less."""
    hundredths = part * 10_000 // whole
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def success_report(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    day: date,
    zone: ZoneInfo,
    *,
    closed_at_ms: int | None = None,
) -> bytes:
    """The report of a local day in canonical JSON (`due_report/1`), as the list stands now.

    Keys in order, no spaces, UTF-8: the same list gives the same bytes. `closed_at_ms`: when the
    day was closed; None while it is open.
    """
    at_midnight, later = _Marks.after(day, zone), _Marks.after(day + timedelta(days=1), zone)
    total = _Tally()
    groups: dict[str, dict[str | None, _Tally]] = {"bus": {}, "concentrator": {}, "area": {}}
    meters: dict[str, _Tally] = {}
    for meter, places, counts in _rows(connection, lexicon, day, zone, at_midnight, later):
        total.add(meter, counts)
        meters.setdefault(meter, _Tally()).add(meter, counts)
        for kind, place in places.items():
            if place is not None or kind == "area":
                groups[kind].setdefault(place, _Tally()).add(meter, counts)
    report = {
        "schema": SCHEMA,
        "day": day.isoformat(),
        "zone": zone.key,
        "closed_at": None if closed_at_ms is None else iso(closed_at_ms),
        "judged_from_meters": JUDGED_FROM_METERS,
        "marks": {"due_at_midnight": at_midnight.to_json(), "due_later": later.to_json()},
        "total": total.to_json(),
        "by_reason": _reasons(connection, day),
        **{f"by_{kind}": _shown(kind, tallies) for kind, tallies in groups.items()},
        "worst_tenth": _worst(meters),
    }
    text = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _rows(
    connection: sqlite3.Connection,
    lexicon: Lexicon,
    day: date,
    zone: ZoneInfo,
    at_midnight: _Marks,
    later: _Marks,
) -> Iterable[tuple[str, dict[str, str | None], list[int]]]:
    """Meter, where it hung, and the counts of `_FIELDS`, a series and place at a time."""
    number = day_number(day)
    if number not in day_tables(connection).get("d", ()):
        return
    marks = [
        f"count(CASE WHEN state IN ({_READ}) AND settled_ms <="
        f" CASE due_ms WHEN :midnight THEN :{name}_0 ELSE :{name} END THEN 1 END)"
        for name in MARKS[1:]
    ]
    states = [f"count(CASE WHEN state={DUE_CODE[state]} THEN 1 END)" for state in _STATES]
    first = f"count(CASE WHEN state={DUE_CODE[DueState.READ]} AND failed=0 THEN 1 END)"
    sql = (
        f"SELECT series, bus, concentrator, area, count(*), {first}, {', '.join(marks + states)}"  # noqa: S608
        f" FROM {table_name('d', number)} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
    values = {"midnight": day_bounds_ms(day, zone)[0]}
    values |= {f"{name}_0": getattr(at_midnight, name) for name in MARKS[1:]}
    values |= {name: getattr(later, name) for name in MARKS[1:]}
    for series, bus, concentrator, area, *counts in connection.execute(sql, values):
        places = {
            "bus": lexicon.name(bus),
            "concentrator": lexicon.name(concentrator) if concentrator else None,
            "area": lexicon.name(area) if area else None,
        }
        yield lexicon.series(series)[0], places, counts


def _reasons(connection: sqlite3.Connection, day: date) -> dict[str, int]:
    """Why what is open or missing is so."""
    number = day_number(day)
    if number not in day_tables(connection).get("d", ()):
        return {}
    unread = f"{DUE_CODE[DueState.OPEN]},{DUE_CODE[DueState.MISSING]}"
    rows = connection.execute(
        f"SELECT reason, count(*) FROM {table_name('d', number)}"  # noqa: S608
        f" WHERE state IN ({unread}) AND reason IS NOT NULL GROUP BY 1"
    )
    return dict(rows.fetchall())


def _shown(kind: str, tallies: Mapping[str | None, _Tally]) -> list[dict[str, Any]]:
    names = sorted(tallies, key=lambda name: (name is None, name or ""))
    return [tallies[name].to_json(**{kind: name}) for name in names]


def _worst(meters: Mapping[str, _Tally]) -> dict[str, Any]:
    """The tenth of the meters that was read worst, together, and by name what was not all read."""
    ranked = sorted(meters, key=lambda name: (meters[name].rank, name))
    tenth = ranked[: -(-len(ranked) // 10)]
    together = _Tally()
    for name in tenth:
        together.add(name, meters[name].counts)
    shown = together.to_json()
    wanting = [name for name in tenth if min(meters[name].rank) < 1_000_000]
    shown["list"] = [
        {"meter": name, **dict(zip(_FIELDS, meters[name].counts, strict=True))}
        for name in wanting[:LISTED_MAX]
    ]
    shown["not_listed"] = max(0, len(wanting) - LISTED_MAX)
    return shown
