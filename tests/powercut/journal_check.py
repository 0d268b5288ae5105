"""Holds a disk that a power cut left behind against what the journal had promised."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from headend.journal import Birth, JournalReader
from headend.messages.records import ExpiredRecord, encode
from tests.powercut.journal_story import (
    DAY_MS,
    FILE,
    NOON_MS,
    HandClock,
    State,
    Trail,
    open_journal,
    reading,
    records_of,
    state_of,
)


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass
class Tally:
    """What was looked at."""

    images: int = 0
    fresh: int = 0  # nothing had been promised yet, and nothing was there
    newest: int = 0  # what was being committed was there as well
    traced: int = 0
    records: int = 0
    kinds: set[str] = field(default_factory=set)


async def check_journal(
    folder: Path, trail: Trail, at: int, tally: Tally, *, goes_on: bool = True
) -> None:
    """Open the journal in `folder`, whose power was cut at step `at`, and look. `Broken`."""
    low, high = trail.allowed(at)
    clock = HandClock(NOON_MS + 3 * DAY_MS)
    async with await open_journal(folder, clock) as journal:
        tally.images += 1
        found = _state(folder)
        states = [state for _at, state in trail.states[low : high + 1]]
        if found in states or found in trail.revived(low, high):
            tally.newest += found not in states[:1]
        elif None in states and _is_fresh(found):
            tally.fresh += 1
        else:
            raise Broken(_difference(found, states, (low, high)))
        for consumer in journal.cursors():
            truth = trail.streams.get((journal.epoch, consumer), {})
            records = await records_of(journal, consumer)
            seqs = [r.last_seq if isinstance(r, ExpiredRecord) else r.seq for r in records]
            if seqs != sorted(set(seqs)):
                raise Broken(f"{consumer}: {seqs}")
            for record in records:
                tally.records += 1
                if isinstance(record, ExpiredRecord):
                    continue
                if encode(record) != truth.get(record.seq):
                    raise Broken(f"{consumer}: {record} was never said, or otherwise")
        _trace(folder, trail, at, tally)
        if goes_on:
            last_seq = journal.cursors()["billing"].last_seq
            new = Birth((reading(999, meter="M-9", time_ms=NOON_MS + 3 * DAY_MS),))
            (appended,) = await journal.append(new)
            if not appended.new or journal.cursors()["billing"].last_seq != last_seq + 1:
                raise Broken(f"a new reading is {appended} behind {last_seq}")
    _nothing_set_aside(folder)


def _nothing_set_aside(folder: Path) -> None:
    set_aside = sorted(p.name for p in folder.iterdir() if "damaged" in p.name)
    if set_aside:
        raise Broken(f"set aside: {set_aside}")


def _state(folder: Path) -> State:
    uri = f"{(folder / FILE).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return state_of(connection)


def _is_fresh(state: State) -> bool:
    """A journal that has just been begun, with nothing in it."""
    return not any(row.startswith(("rb_", "rt_", "s_", "d_", "events(")) for row in state)


def _trace(folder: Path, trail: Trail, at: int, tally: Tally) -> None:
    with JournalReader(folder / FILE) as reader:
        for read_id, evidence in trail.promised(at):
            trace = reader.trace(read_id)
            if trace is None or trace.exchange is None:
                raise Broken(f"{read_id} was acknowledged and is not there")
            same = (trace.exchange.request, trace.exchange.reply, trace.exchange.stray)
            if same != (evidence.request, evidence.reply, evidence.stray):
                raise Broken(f"{read_id}: its evidence has other bytes")
            tally.traced += 1


def _difference(found: State, states: list[State | None], which: tuple[int, int]) -> str:
    lines = [f"none of the states {which[0]} to {which[1]} that it may be in"]
    for state in states:
        if state is None:
            lines.append("not fresh")
        else:
            missing = sorted(state - found)
            lines.append(f"missing {len(missing)}: {missing[:4]}")
            lines.append(f"invented {len(found - state)}: {sorted(found - state)[:4]}")
    return "\n  ".join(lines)
