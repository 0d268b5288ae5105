"""How long meters take to answer, from the exchanges that the journal still holds."""

import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from headend.domain.errors import JournalError
from headend.domain.exchange import Outcome
from headend.journal.codec import Lexicon, outcome_code
from headend.journal.opening import connect_read_only
from headend.journal.schema import EXCHANGE_PREFIX, day_tables, table_name

LOOKED_AT_MAX = 20_000  # newest exchanges of a day table
DAYS = 2
WAKE_UP_MAX = 8  # bytes before a reply that are counted with it


class AnswerTimes(NamedTuple):
    """What a device's answers took together, and the bytes that were on the line meanwhile."""

    answers: int
    took_s: float
    line_bytes: int

    def think_s(self, char_s: float) -> float:
        """From the end of a request to the first byte of its reply, on average."""
        return max(0.0, (self.took_s - self.line_bytes * char_s) / self.answers)


def answer_times(path: Path) -> dict[tuple[str, str], AnswerTimes]:
    """By bus and device, of the newest answers of two days; nothing without a journal to read."""
    try:
        connection = connect_read_only(path)
    except JournalError:
        return {}
    found: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0, 0])
    try:
        lexicon, tables = Lexicon(connection), day_tables(connection)
        for prefix in EXCHANGE_PREFIX.values():
            for day in tables.get(prefix, ())[-DAYS:]:
                rows = connection.execute(
                    "SELECT bus, device, count(*), sum(took_ms), sum(length(request)"  # noqa: S608
                    f"+length(reply)+min(length(stray), {WAKE_UP_MAX})) FROM"
                    f" (SELECT * FROM {table_name(prefix, day)} ORDER BY xid DESC LIMIT ?)"
                    " WHERE outcome=? AND reply IS NOT NULL GROUP BY bus, device",
                    (LOOKED_AT_MAX, outcome_code(Outcome.REPLY)),
                )
                for bus, device, count, took_ms, line_bytes in rows:
                    sums = found[lexicon.name(bus), lexicon.name(device)]
                    sums[0] += count
                    sums[1] += took_ms / 1000
                    sums[2] += line_bytes
    except sqlite3.Error:
        return {}  # plans are made with what is configured
    finally:
        connection.close()
    return {key: AnswerTimes(int(n), took, int(size)) for key, (n, took, size) in found.items()}
