"""Brings one database everything the journal holds, in the journal's order, from a cursor of its
own.

The cursor moves when the database has acknowledged every line up to there, or refused one for
good and that line is kept as a dead letter. Until then the same bytes are sent again: the same
series and time overwrite themselves. What comes in between:

- a passing fault (no connection, no answer, 429, 5xx): the same bytes again, with back-off
- a line that is refused for good: found by halving, then point by point; the others are written
- a request that is too long: halved
- a fault of the configuration (password, rights, no such database, not this kind of server): the
  writer stops with an alarm and tries again slowly, with secrets read anew; the journal grows
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headend.config.secret_files import FileFault
from headend.domain.clock import Clock, iso
from headend.journal import Journal
from headend.journal.model import TIMESERIES_PREFIX
from headend.timeseries.alarm import StoppedAlarm
from headend.timeseries.batch import Batch, Pending
from headend.timeseries.deadletters import DeadLetter, DeadLetters
from headend.timeseries.extra import ExtraLines
from headend.timeseries.lines import EncodeError, Line, LineEncoder
from headend.timeseries.outcome import BadLines, Misconfigured, TooLarge, TryAgain, Written
from headend.timeseries.target import Dialect, Target, open_dialect

log = logging.getLogger(__name__)

SMALL_LINES = 100  # a request of so few lines is not too much for any server


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """Bounds and waits. Durations in seconds, sizes in lines, records or bytes as named.

    `lines_max`, `bytes_max`: of a request. `records_read`: read and encoded in one go, then the
    other tasks have their turn. `linger_s`: how long new records wait for others, so that a
    trickle does not become a request each. `retry_*`: pauses after passing faults. `stopped_*`:
    pauses after faults of the configuration. `extra_retry_s`: pause after statistics could not be
    sent.
    """

    lines_max: int = 2000
    bytes_max: int = 900_000
    records_read: int = 250
    linger_s: float = 0.5
    retry_first_s: float = 0.5
    retry_max_s: float = 60.0
    stopped_first_s: float = 15.0
    stopped_max_s: float = 300.0
    extra_retry_s: float = 30.0


class _Encoded(NamedTuple):
    """A record that was read and not sent yet."""

    seq: int
    received_ms: int
    lines: list[Line]


class _Stop(Exception):
    """Nothing will be taken until a person changes something."""


class SeriesWriter:
    """One supervised task: `run`. `wake` is for what the journal does not tell of itself."""

    def __init__(
        self,
        journal: Journal,
        target: Target,
        *,
        name: str,
        headend: str,
        clock: Clock,
        letters: DeadLetters,
        alarm: StoppedAlarm,
        settings: WriterSettings | None = None,
        make: Callable[[Target, Clock], Dialect] = open_dialect,
    ) -> None:
        self.name = name
        self.consumer = TIMESERIES_PREFIX + name
        self.letters = letters
        self.extra = ExtraLines(on_put=self.wake)
        self._journal = journal
        self._target = target
        self._clock = clock
        self._alarm = alarm
        self._settings = settings or WriterSettings()
        self._make = make
        self._encoder = LineEncoder(headend)
        self._wake = asyncio.Event()
        self._wake.set()
        self._cursor_moves = asyncio.Lock()
        # what was read and encoded beyond the cursor, and how far
        self._ahead: deque[_Encoded] = deque()
        self._ahead_bad: list[DeadLetter] = []
        self._receipted = -1
        self._through = -1
        self._epoch = ""
        # what is under way: parts of a batch, the first on top, and how far the batch reaches
        self._waiting: list[list[Pending]] = []
        self._reaches = -1
        # for people
        self.written_lines = 0
        self.requests = 0
        self._failures = 0
        self._trouble: str | None = None
        self._stopped = False
        self._since_ms = clock.now_ms()
        self._last_ms: int | None = None
        self._oldest_ms: int | None = None
        self._extra_at = 0.0
        journal.on_append(self.wake)

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def replay(self, from_seq: int) -> int:
        """Write everything again from a record on, 0: the oldest kept; the record it begins with.

        What is under way meanwhile does not move the cursor. JournalError says why not.
        """
        async with self._cursor_moves:
            first = from_seq or self._journal.cursors()[self.consumer].oldest_seq
            await self._journal.set_cursor(self.consumer, first)
        self.wake()
        return first

    async def run(self) -> None:
        """Write until cancelled."""
        pause_s = self._settings.stopped_first_s
        self._receipted = -1  # begin at the cursor, whatever a life before this one left behind
        while True:
            answered = self.requests
            try:
                dialect = self._make(self._target, self._clock)
                try:
                    await self._work(dialect)
                finally:
                    await dialect.close()
            except (_Stop, FileFault) as error:
                self._stand_still(str(error))
                await self._look_at_oldest()
            if self.requests != answered:  # it worked in between
                pause_s = self._settings.stopped_first_s
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._settings.stopped_max_s)

    def report(self) -> dict[str, Any]:
        """How the writer stands, JSON-ready (`timeseries_status/1` has the same)."""
        backlog = self._journal.cursors()[self.consumer].backlog
        state = "stopped" if self._stopped else "retrying" if self._failures else "writing"
        return {
            "database": self.name,
            "kind": self._target.kind,
            "url": self._target.url,
            "state": state,
            "since": iso(self._since_ms),
            "message": self._trouble,
            "failures": self._failures,
            "backlog": backlog,
            "lag_s": self.lag_s(),
            "last_written": None if self._last_ms is None else iso(self._last_ms),
            "written_lines": self.written_lines,
            "dead_letters": self.letters.count,
            "statistics_waiting": len(self.extra),
            "statistics_dropped": self.extra.dropped,
        }

    def lag_s(self) -> float:
        """Age of the oldest reading that is not written; 0 when there is none."""
        if not self._journal.cursors()[self.consumer].backlog or self._oldest_ms is None:
            return 0.0
        return max(0.0, (self._clock.now_ms() - self._oldest_ms) / 1000)

    # -- with one client

    async def _work(self, dialect: Dialect) -> None:
        settings = self._settings
        while True:
            self._wake.clear()
            await self._take_up()
            if self._reaches > self._receipted:
                await self._deliver(dialect)
                await self._receipt(self._reaches)
            await self._send_extra(dialect)
            if not self._more():
                await self._wake.wait()
                if self._journal.cursors()[self.consumer].backlog < settings.lines_max:
                    await asyncio.sleep(settings.linger_s)

    async def _receipt(self, through: int) -> None:
        """Move the cursor, unless somebody else moved it: then it is begun there."""
        async with self._cursor_moves:
            cursor = self._journal.cursors()[self.consumer]
            if self._epoch != self._journal.epoch or cursor.receipted_seq != self._receipted:
                return
            await self._journal.receipt(self.consumer, through)
            self._receipted = through
            self._oldest_ms = self._ahead[0].received_ms if self._ahead else None

    def _more(self) -> bool:
        """Whether the journal is known to hold more than was written."""
        return self._journal.cursors()[self.consumer].last_seq > self._receipted

    async def _take_up(self) -> None:
        """The next batch, unless one is under way still (a fault of the configuration was mended).

        Then it goes on with the part that was not taken: with many bad lines a batch is long.
        """
        cursor = self._journal.cursors()[self.consumer]
        if cursor.receipted_seq != self._receipted or self._epoch != self._journal.epoch:
            # The start, a replay, or a journal that numbers anew: begin at the cursor.
            self._ahead.clear()
            self._ahead_bad.clear()
            self._waiting.clear()
            self._oldest_ms = None
            self._receipted = self._through = self._reaches = cursor.receipted_seq
            self._epoch = self._journal.epoch
        if self._reaches <= self._receipted:
            batch, self._reaches = await self._gather()
            self._waiting = [batch.pending()] if len(batch) else []

    async def _gather(self) -> tuple[Batch, int]:
        """The next lines, and the number they reach to; what does not fit stays for the next."""
        batch = Batch(self._settings.lines_max)
        while True:
            while self._ahead:
                first = self._ahead[0]
                if not batch.add(first.seq, first.lines):
                    return batch, first.seq - 1
                if self._oldest_ms is None:
                    self._oldest_ms = first.received_ms
                self._ahead.popleft()
            if len(batch) >= self._settings.lines_max or not await self._read():
                return batch, self._through

    async def _read(self) -> bool:
        """Read and encode some records; whether there were any."""
        found = await self._journal.read_entries(
            self.consumer, self._through + 1, records_max=self._settings.records_read
        )
        if found.through_seq <= self._through or self._epoch != self._journal.epoch:
            return False
        self._through = found.through_seq
        if found.expired:
            log.warning(
                "timeseries=%s records=%d were dropped by retention before they were written",
                self.name, found.expired,
            )  # fmt: skip
        for seq, entry in found.entries:
            if not entry.items:
                continue  # an event
            received_ms = entry.items[0][0].received_ms
            self._ahead.append(_Encoded(seq, received_ms, self._encoded(seq, entry.items)))
        await asyncio.sleep(0)  # meters must not wait for a long way behind
        return True

    def _encoded(self, seq: int, items: Sequence[Any]) -> list[Line]:
        try:
            return self._encoder.encode(items)
        except EncodeError:
            pass
        lines: list[Line] = []
        for item in items:
            try:
                lines += self._encoder.encode((item,))
            except EncodeError as error:
                reading = item[0]
                shown = f"{reading.meter} {reading.point} {reading.time_ms} {reading.value}"
                self._ahead_bad.append(
                    DeadLetter(self._clock.now_ms(), seq, None, str(error), shown)
                )
        return lines

    # -- sending

    async def _deliver(self, dialect: Dialect) -> None:
        """Until every line under way is written or a dead letter. _Stop: the rest still waits."""
        bad = [letter for letter in self._ahead_bad if letter.seq <= self._reaches]
        if bad:
            await self._bury(bad)
            self._ahead_bad = [one for one in self._ahead_bad if one.seq > self._reaches]
        waiting = self._waiting
        while waiting:
            part = waiting[-1]
            body = b"".join([pending.encoded() for pending in part])
            if len(body) > self._settings.bytes_max and len(part) > 1:
                waiting[-1:] = _halves(part)
                continue
            outcome = await self._write(dialect, body, smaller=len(part) > SMALL_LINES)
            if outcome is None:
                self.written_lines += len(part)
                waiting.pop()
                continue
            if len(part) == 1 and len(part[0].line.fields) > 1:
                part = list(part[0].split())
            if len(part) > 1:
                waiting[-1:] = _halves(part)
                continue
            shown = part[0].line.text()
            await self._bury(
                [DeadLetter(self._clock.now_ms(), part[0].seq, outcome.status, outcome.text, shown)]
            )
            waiting.pop()

    async def _write(
        self, dialect: Dialect, body: bytes, *, smaller: bool
    ) -> BadLines | TooLarge | None:
        """Send until there is an answer that decides: None = written."""
        pause_s = self._settings.retry_first_s
        while True:
            outcome = await dialect.write(body)
            match outcome:
                case Written():
                    self._written()
                    return None
                case Misconfigured(text):
                    raise _Stop(text)
                case BadLines() | TooLarge():
                    self._answered()
                    return outcome
                case TryAgain(reason, after_s, big):
                    self._failed(reason)
                    if big and smaller and self._failures % 3 == 0:
                        return TooLarge(reason, 0)
                    wait_s = max(pause_s * random.uniform(0.75, 1.25), after_s or 0.0)  # noqa: S311
                    await asyncio.sleep(wait_s)
                    pause_s = min(pause_s * 2, self._settings.retry_max_s)

    async def _send_extra(self, dialect: Dialect) -> None:
        """Statistics, once: what fails is kept for later as far as there is room."""
        loop = asyncio.get_running_loop()
        while len(self.extra) and loop.time() >= self._extra_at:
            lines = self.extra.take(self._settings.lines_max)
            try:
                outcome = await dialect.write(b"\n".join(lines) + b"\n")
            except asyncio.CancelledError:
                self.extra.give_back(lines)
                raise
            match outcome:
                case Written():
                    self._written()
                case BadLines(text) | TooLarge(text):
                    self._answered()
                    self.extra.dropped += len(lines)
                    log.warning(
                        "timeseries=%s statistics: %s", self.name, text, extra={"about": self.name}
                    )
                case TryAgain(reason):
                    self.extra.give_back(lines)
                    self._failed(reason)
                    self._extra_at = loop.time() + self._settings.extra_retry_s
                case Misconfigured(text):
                    self.extra.give_back(lines)
                    raise _Stop(text)

    async def _bury(self, found: Sequence[DeadLetter]) -> None:
        """Keep dead letters; nothing goes on before they are on the disk."""
        while True:
            try:
                await self.letters.keep(found)
            except OSError as error:
                self._failed(f"a refused line could not be kept: {error}")
                await asyncio.sleep(self._settings.retry_max_s)
            else:
                break
        for letter in found:
            log.warning(
                "timeseries=%s refused for good: %s line=%s",
                self.name,
                letter.text,
                letter.line[:200],
                extra={"about": self.name},
            )

    # -- how it stands

    def _written(self) -> None:
        self._answered()
        self._last_ms = self._clock.now_ms()

    def _answered(self) -> None:
        """The database took notice of what was sent."""
        self.requests += 1
        if self._failures or self._stopped:
            log.warning("timeseries=%s writes again", self.name)
            self._since_ms = self._clock.now_ms()
        self._failures, self._stopped, self._trouble = 0, False, None
        self._alarm.clear()

    def _failed(self, reason: str) -> None:
        if not self._failures:
            self._since_ms = self._clock.now_ms()
        self._failures += 1
        self._trouble = reason
        log.warning(
            "timeseries=%s is tried again: %s", self.name, reason, extra={"about": self.name}
        )

    async def _look_at_oldest(self) -> None:
        """So that the lag shows although nothing could be begun."""
        if self._oldest_ms is None:
            cursor = self._journal.cursors()[self.consumer]
            found = await self._journal.read_entries(
                self.consumer, cursor.receipted_seq + 1, records_max=1
            )
            for _seq, entry in found.entries:
                if entry.items:
                    self._oldest_ms = entry.items[0][0].received_ms

    def _stand_still(self, text: str) -> None:
        if not self._stopped:
            self._since_ms = self._clock.now_ms()
        self._stopped, self._trouble = True, text
        self._failures += 1
        self._alarm.stand(text)


def _halves(part: list[Pending]) -> list[list[Pending]]:
    """As a stack takes them: what is first in the journal's order is on top."""
    middle = len(part) // 2
    return [part[middle:], part[:middle]]
