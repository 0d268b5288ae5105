"""Compares the books at the end of a drill: due list, journal, billing, the meters themselves."""

import sqlite3
from collections import Counter
from decimal import Decimal
from pathlib import Path

from headend.cli.drills.report import Degraded, DrillReport, Lost
from headend.cli.drills.world import REGISTERS, World
from headend.config import Config, load_config
from headend.domain.clock import from_iso
from headend.domain.due import DueState
from headend.journal import DueLine, JournalReader
from headend.messages.records import ReadRecord

TIME_OFF_MS = 2000  # how far a stamp may be off: an exchange and this machine's hurry
BUSY = "overrun"  # another reading took the time: this machine's, not the fault's


def compare(world: World, *, excused: frozenset[str] = frozenset(), shed: bool = False) -> None:
    """Write into the report what is lost.

    `excused`: buses whose meters could not be read for a while, as the drill meant it. `shed`:
    values for charts were refused, as the drill meant it.
    """
    config = load_config(world.config)
    report = world.report
    with JournalReader(config.journal_path) as journal:
        lines = [
            line
            for day in journal.due_days()
            for line in journal.due_lines(day, until_ms=world.until_ms - 1)
        ]
        readings = list(journal.readings(all_revisions=True))
    _due(report, lines, excused, shed=shed)
    _billing(report, config, readings)
    _registers(world, readings)
    _times(world, readings)


def _due(report: DrillReport, lines: list[DueLine], excused: frozenset[str], *, shed: bool) -> None:
    counts = report.counts
    counts.due = len(lines)
    reasons: Counter[str] = Counter()
    unread: list[DueLine] = []
    busy: list[DueLine] = []
    for line in lines:
        if line.read_id is not None:
            counts.read += 1
            counts.late += line.state is DueState.LATE
            continue
        counts.missing += 1
        reasons[line.reason or "open"] += 1
        if line.reason is None:
            continue
        meant = line.bus in excused or (shed and line.key.point not in REGISTERS)
        if not meant:
            (busy if line.reason == BUSY else unread).append(line)
    counts.reasons = dict(reasons)
    _lost(report, "no_state", reasons["open"], "")
    _lost(report, "not_read", len(unread), _example(unread))
    if busy:
        first, last = busy[0].key.due_ms, busy[-1].key.due_ms
        report.degraded.append(Degraded("overrun", first, last, f"{len(busy)} points"))


def _billing(report: DrillReport, config: Config, readings: list[ReadRecord]) -> None:
    """Each current reading of the journal is at billing once, and nothing else is."""
    counts = report.counts
    current: dict[tuple[str, str, str | None], ReadRecord] = {}
    for record in readings:
        if record.verdict == "held":
            continue
        key = (record.meter, record.point, record.time)
        if key not in current or current[key].revision < record.revision:
            current[key] = record
    ours = {record.read_id for record in current.values()}
    held = Counter(read_ids_at_billing(config))
    counts.readings = len(ours)
    counts.at_billing = len(ours & held.keys())
    counts.not_at_billing = len(ours - held.keys())
    counts.only_at_billing = len(held.keys() - {record.read_id for record in readings})
    counts.twice_at_billing = sum(1 for times in held.values() if times > 1)
    missing = sorted(ours - held.keys())
    _lost(report, "not_at_billing", counts.not_at_billing, missing[0] if missing else "")
    _lost(report, "only_at_billing", counts.only_at_billing, "")
    _lost(report, "twice_at_billing", counts.twice_at_billing, "")


def read_ids_at_billing(config: Config) -> list[str]:
    """The id of every current reading that billing holds."""
    url = config.billing_database_url
    assert url is not None
    path = Path(url.removeprefix("sqlite:///"))
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT read_id FROM reading").fetchall()
    finally:
        connection.close()
    return [str(read_id) for (read_id,) in rows]


def _registers(world: World, readings: list[ReadRecord]) -> None:
    """What was read last of each register is what the meter shows: its loads are off since."""
    newest: dict[tuple[str, str], ReadRecord] = {}
    for record in readings:
        if record.point in REGISTERS and record.verdict == "ok" and record.value is not None:
            known = newest.get((record.meter, record.point))
            if known is None or (record.time or "") >= (known.time or ""):
                newest[record.meter, record.point] = record
    wrong: list[str] = []
    for meter in world.plan.meters:
        truth = world.street.truth(meter.asset_id, points=REGISTERS)
        for point, register in truth.items():
            world.report.counts.registers_compared += 1
            last = newest.get((meter.asset_id, point))
            shown = None if last is None else last.value
            if shown != f"{register.shown:f}":
                wrong.append(f"{meter.asset_id} {point}: {shown}, the meter: {register.shown:f}")
    _lost(world.report, "wrong_register", len(wrong), wrong[0] if wrong else "")


def _times(world: World, readings: list[ReadRecord]) -> None:
    """A register read at an instant lies between what the meter showed just before and after it."""
    wrong: list[str] = []
    for record in readings:
        if record.point not in REGISTERS or record.value is None or record.time is None:
            continue
        at_ms, value = from_iso(record.time), Decimal(record.value)
        low, high = (
            world.street.truth(record.meter, at_ms + off_ms, (record.point,))[record.point].shown
            for off_ms in (-TIME_OFF_MS, TIME_OFF_MS)
        )
        if not low <= value <= high:
            wrong.append(f"{record.meter} {record.point} {record.value} at {record.time}")
    _lost(world.report, "wrong_time", len(wrong), wrong[0] if wrong else "")


def _lost(report: DrillReport, what: str, count: int, detail: str) -> None:
    if count:
        report.lost.append(Lost(what, count, detail))


def _example(lines: list[DueLine]) -> str:
    if not lines:
        return ""
    line = lines[0]
    return f"{line.key.meter} {line.key.point} {line.reason}"
