"""Holds a journal to what its simulated meters really counted."""

from decimal import Decimal
from pathlib import Path

from headend.domain.clock import from_iso
from headend.domain.due import DueState
from headend.journal import JournalReader
from headend.messages.records import ReadRecord
from tests.soak.world import Estate, Hung

# An exchange takes a fraction of a second; the stamp lies in the middle of it.
AROUND_MS = 1500
SERVED = frozenset({DueState.READ, DueState.LATE})


def check_journal(path: Path, estate: Estate, until_ms: int) -> tuple[int, list[str]]:
    """How many points were due by then, and what is not as it has to be, in words.

    Every point read, by exactly one reading of its own, each reading once, with its bytes, and
    showing what the meter showed.
    """
    found: list[str] = []
    with JournalReader(path) as journal:
        lines = [
            line for day in journal.due_days() for line in journal.due_lines(day, until_ms=until_ms)
        ]
        records = list(journal.readings(to_ms=until_ms, all_revisions=True))
        for record in records:
            trace = journal.trace(record.read_id)
            if trace is None or trace.exchange is None or not trace.exchange.reply:
                found.append(f"no bytes are kept of {_named(record)}")
    found += [
        f"{line.key} is {line.state} ({line.reason})" for line in lines if line.state not in SERVED
    ]
    served = [line.read_id for line in lines if line.read_id is not None]
    held = [record.read_id for record in records]
    if len(set(served)) != len(served):
        found.append("one reading serves two due points")
    if len(set(held)) != len(held) or any(record.revision != 1 for record in records):
        found.append("a value is there twice, or was revised")
    if set(served) != set(held):
        found.append(f"{len(set(held) - set(served))} readings serve nothing")
    for record in records:
        found += _against_meter(record, estate.meters[record.meter])
    return len(lines), found


def _against_meter(record: ReadRecord, hung: Hung) -> list[str]:
    at_ms = from_iso(record.time)
    low = hung.source.register(record.point, at_ms - AROUND_MS)
    high = hung.source.register(record.point, at_ms + AROUND_MS)
    if low is None or high is None or record.value is None:
        return [f"{_named(record)}: nobody has such a value"]
    if not low.shown <= Decimal(record.value) <= high.shown:
        return [f"{_named(record)}: {record.value}, the meter showed {low.shown}..{high.shown}"]
    return []


def _named(record: ReadRecord) -> str:
    return f"{record.meter} {record.point} {record.time}"
