"""What a time-series database holds, beside the journals it was filled from.

Read over plain HTTP with its digits, compared with the journals as plain SQL shows them; nothing
of the product is used here. The layout is that of the operations guide: a measurement for each
kind of point, `_estimated` or `_rejected` behind it, a field for each point and one for its
quality.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from tests.kill.journals import EVENTS_KIND, HELD, JournalView, Said

STATISTICS = ("bus", "due", "writer")  # the head-end's own, not of the journal
VALUE_MAX = 2  # qualities up to here have a value beside them
FAIL = "fail"
ESTIMATES = ("estimated", "substituted", "manual")
VARIANTS = ("estimated", "rejected")
WRITER_NAME = "influxdb"
_QUALITY = re.compile(r"(.+)_quality")


class Server(Protocol):
    """A database that can be asked."""

    def measurements(self) -> set[str]: ...

    def rows(self, text: str) -> list[dict[str, Any]]: ...


class Place(NamedTuple):
    """Where one value stands."""

    variant: str  # "" for readings, or one of VARIANTS
    meter: str
    service_point: str
    point: str
    time_ms: int


class Finding(NamedTuple):
    """A kind of disagreement and its text."""

    kind: str
    text: str


def place_of(said: Said) -> Place:
    """Where a reading of a journal must stand."""
    variant = "rejected" if said.verdict == FAIL else ""
    if not variant and said.status in ESTIMATES:
        variant = "estimated"
    return Place(variant, said.meter, said.service_point, said.point, said.time_ms)


def read_series(server: Server) -> dict[Place, Decimal]:
    """Every value that stands there and is not marked as withdrawn."""
    found: dict[Place, Decimal] = {}
    for measurement in server.measurements():
        if measurement in STATISTICS:
            continue
        variant = measurement.rpartition("_")[2]
        variant = variant if variant in VARIANTS else ""
        for row in server.rows(f'SELECT * FROM "{measurement}"'):
            for column, quality in row.items():
                match = _QUALITY.fullmatch(column)
                if match is None or quality is None or quality > VALUE_MAX:
                    continue
                place = Place(
                    variant,
                    row["meter"],
                    row["service_point"],
                    match[1],
                    row["time"],
                )
                assert place not in found, f"two values for {place}"
                value = row[match[1]]
                found[place] = Decimal(value) if isinstance(value, int) else value
    return found


class Compared(NamedTuple):
    """What does not agree, and for how many places a journal says what must stand there."""

    findings: list[Finding]
    must: int


def compare(found: dict[Place, Decimal], views: Iterable[JournalView]) -> Compared:
    """What is missing there, what differs, and what no journal ever had."""
    findings: list[Finding] = []
    must: set[Place] = set()
    said_ever: dict[Place, set[Decimal]] = defaultdict(set)
    for view in views:
        waiting = _not_written(view)
        newest: dict[Place, Said] = {}
        for (kind, rid), kept in view.readings.items():
            said = kept.said
            if said.verdict == HELD or said.value is None:
                continue
            place = place_of(said)
            said_ever[place].add(Decimal(said.value))
            if (kind, rid) in waiting:
                continue
            if place not in newest or newest[place].revision < said.revision:
                newest[place] = said
        must |= newest.keys()
        for place, said in newest.items():
            value = found.get(place)
            if value is None:
                findings.append(
                    Finding("series_missing", f"{view.path}: the database has not {said}")
                )
            elif value != Decimal(said.value or ""):
                text = f"{view.path}: the database says {value}: {said}"
                findings.append(Finding("series_differs", text))
    for place, value in found.items():
        if value not in said_ever.get(place, ()):
            text = f"no journal ever had {value} for {place}"
            findings.append(Finding("series_foreign", text))
    return Compared(findings, len(must))


def _not_written(view: JournalView) -> set[tuple[int, int]]:
    """Readings the writer had not written for certain when this journal was last in use."""
    return {
        (kind, one)
        for seq, kind, rid, n in view.series
        if kind != EVENTS_KIND and seq > view.written
        for one in range(rid, rid + n)
    }
