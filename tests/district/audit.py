"""What a district's head-end and billing say, held against what really was.

The report is a function of the files and the script: the same run gives the same bytes.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from headend.billing.differences import Difference, ServicePoint
from headend.billing.views import BillingView
from headend.domain.clock import iso
from headend.domain.due import DueState, local_day
from headend.journal import DueLine, JournalReader
from tests.district.run import Lived
from tests.district.script import DAY_MS, HOUR_MS
from tests.district.truth import POINTS, Place, is_kept, is_reachable
from tests.soak.world import ZONE

SCHEMA = "district/1"
FIRST_ROUND_PERCENT = 99.0
IN_TIME_MS = 72 * HOUR_MS
DAILY_WINDOW_MS, LOAD_WINDOW_MS = HOUR_MS, HOUR_MS // 4
LISTED_MAX = 40
_UNWELL = frozenset(("meter_silent", "meter_refuses"))
GOT = frozenset((DueState.READ, DueState.LATE, DueState.BACKFILLED))
_ROWS = ("reading", "reading_history", "conflict", "event", "metering")
QUARTERS_A_DAY = 96


@dataclass
class Audit:
    """What was found. `faults`: what is not as it was promised, in words."""

    days: list[dict[str, Any]] = field(default_factory=list)
    due: Counter[str] = field(default_factory=Counter)
    billed: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    rows: bytes = b""
    report: bytes = b""


def audit(lived: Lived) -> Audit:
    """Look at everything."""
    found = Audit()
    if lived.restarts:
        found.faults.append(f"tasks died: {lived.restarts}")
    with JournalReader(lived.config.journal_path) as reader:
        _due(lived, reader, found)
        _alarms(lived, reader, found)
        journalled = sum(1 for _ in reader.readings())
    _billing(lived, found)
    found.rows, held = _rows(lived, found)
    if held != journalled:
        found.faults.append(f"billing holds {held} of {journalled} current readings")
    script = lived.script
    shown = {
        "schema": SCHEMA,
        "seed": script.seed,
        "meters": script.size.meters,
        "buses": script.size.buses,
        "days": script.size.days,
        "by_day": found.days,
        "due": dict(sorted(found.due.items())),
        "billing": dict(sorted(found.billed.items())),
        "readings": held,
        "rows_sha256": hashlib.sha256(found.rows).hexdigest(),
        "faults": found.faults[:LISTED_MAX],
        "faults_count": len(found.faults),
    }
    found.report = json.dumps(shown, sort_keys=True, separators=(",", ":")).encode()
    return found


# -- what was due


def _due(lived: Lived, reader: JournalReader, found: Audit) -> None:
    by_meter = {life.meter: place for place in lived.places.values() for life in place.lives}
    whole = [local_day(at, ZONE) for at in lived.script.midnights()]
    days = reader.due_days()
    if missing := set(whole) - set(days):
        found.faults.append(f"nothing was due on {sorted(map(str, missing))}")
    for day in days:
        lines = reader.due_lines(day)
        summary = reader.due(day)
        states = {state.value: summary[state.value] for state in DueState}
        frozen = summary["frozen"]
        if sum(states.values()) != frozen or len(lines) != frozen:
            found.faults.append(f"{day}: {states} and {len(lines)} lines are not {frozen}")
        if day in whole and frozen != (expected := _expected(lived)):
            found.faults.append(f"{day}: {frozen} points were listed, not {expected}")
        first = _lines(lived, by_meter, lines, found)
        reachable, read = first["reachable"], first["read"]
        if reachable and read * 100 < FIRST_ROUND_PERCENT * reachable:
            found.faults.append(f"{day}: only {read} of {reachable} were read in the first round")
        closed = reader.due_success(day, ZONE)
        found.days.append(
            {
                "day": day.isoformat(),
                "frozen": frozen,
                "states": states,
                "first_round": {"reachable": reachable, "read": read},
                "closed": None if closed is None or not closed.is_closed else closed.sha256,
            }
        )


def _expected(lived: Lived) -> int:
    daily = sum(len(POINTS) for _ in lived.places)
    load = sum(1 for place in lived.places.values() if place.has_load)
    return daily + load * len(POINTS) * (QUARTERS_A_DAY - 1)


def _lines(
    lived: Lived, by_meter: dict[str, Place], lines: list[DueLine], found: Audit
) -> Counter[str]:
    """Hold every line against what the meter could have told."""
    script = lived.script
    first: Counter[str] = Counter()
    for line in lines:
        key = line.key
        if key.due_ms + LOAD_WINDOW_MS > script.end_ms:
            found.due["not yet"] += 1
            continue
        place = by_meter[key.meter]
        is_daily = (key.due_ms - script.midnight_ms) % DAY_MS == 0
        window_ms = DAILY_WINDOW_MS if is_daily else LOAD_WINDOW_MS
        if is_reachable(place, script, key.due_ms, key.due_ms + window_ms):
            first["reachable"] += 1
            first["read"] += line.state is DueState.READ
        is_got = line.state in GOT
        found.due[line.state.value] += 1
        if not is_kept(place, script, key.due_ms):
            found.due["not kept"] += 1
            if not is_got and line.state is DueState.OPEN and not line.reason:
                found.faults.append(f"{_name(line)}: open without a reason")
            continue
        if not is_got:
            found.faults.append(
                f"{_name(line)}: {line.state.value} {line.reason}, the meter has it"
            )
        elif line.settled_ms is None or line.settled_ms > key.due_ms + IN_TIME_MS:
            found.faults.append(f"{_name(line)}: came only at {line.settled_ms}")
    return first


def _name(line: DueLine) -> str:
    return f"{line.key.meter} {line.key.point} {iso(line.key.due_ms)}"


def _alarms(lived: Lived, reader: JournalReader, found: Audit) -> None:
    """Nobody is sent to a meter that is well."""
    script = lived.script
    ill = set(script.silent) | {span.name for span in script.dark}
    ill |= {swap.meter for swap in script.swaps}
    for event in reader.events(kinds=("alarm",)):
        meter = event.fields.get("meter")
        if event.fields["alarm"] in _UNWELL and meter not in ill:
            found.faults.append(f"{meter}: alarm {event.fields['alarm']} of a meter that is well")


# -- what is billed


def _billing(lived: Lived, found: Audit) -> None:
    script = lived.script
    with BillingView(f"sqlite:///{lived.folder / 'billing.db'}") as view:
        for place in lived.places.values():
            point = view.service_point(place.name)
            for midnight_ms in script.midnights()[:-1]:
                _bill_day(lived, place, point, midnight_ms, found)


def _bill_day(
    lived: Lived, place: Place, point: ServicePoint, midnight_ms: int, found: Audit
) -> None:
    day = local_day(midnight_ms, ZONE)
    end_ms = midnight_ms + DAY_MS
    can_be = all(is_kept(place, lived.script, at) for at in (midnight_ms, end_ms))
    for direction in POINTS:
        billed = point.day(day, ZONE, direction)
        found.billed["meter days"] += 1
        if billed.energy is None:
            found.billed["marked"] += 1
            if can_be:
                found.faults.append(f"{place.name} {day} {direction}: unknown, {billed.reason}")
            continue
        truth = place.day_kwh(direction, midnight_ms)
        if billed.energy == truth:
            found.billed["equal"] += 1
        else:
            found.faults.append(_wrong(place, day, billed, truth))


def _wrong(place: Place, day: date, billed: Difference, truth: object) -> str:
    return f"{place.name} {day} {billed.direction}: {billed.energy} is billed, {truth} was counted"


def _rows(lived: Lived, found: Audit) -> tuple[bytes, int]:
    """Everything of billing's that is a fact, as text; and how many current readings there are."""
    lines: list[str] = []
    with closing(sqlite3.connect(lived.folder / "billing.db")) as held:
        for table in _ROWS:
            rows = held.execute(f"SELECT * FROM {table}").fetchall()
            lines += sorted(json.dumps([table, *row]) for row in rows)
            if table == "conflict" and rows:
                found.faults.append(f"{len(rows)} readings were told in two ways")
        (count,) = held.execute("SELECT count(*) FROM reading").fetchone()
    return "\n".join(lines).encode(), count


__all__ = ["Audit", "audit"]
