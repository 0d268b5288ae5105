"""Where one consumer's stream stands: what goes out next, what is out, what came back. Pure.

The durable cursor is the journal's. Here is only the send position, which may lie below it (the
consumer asked for old records again) or above it (records are out and not receipted).
"""

from collections import deque
from enum import Enum
from typing import NamedTuple

SENT_REMEMBERED_MAX = 10_000


class Position(NamedTuple):
    """The journal's numbers of one stream, as of now."""

    last_seq: int  # the newest record's number, 0 before the first
    receipted_seq: int  # the durable cursor
    oldest_seq: int  # the oldest record still kept


class ReceiptIs(Enum):
    """What a receipt means."""

    PROGRESS = "progress"  # the cursor moves
    REPEAT = "repeat"  # all of it is receipted already; harmless
    NOT_SENT = "not_sent"  # no batch that was sent ends there
    BEYOND = "beyond"  # beyond everything the journal ever wrote


class ResumeIs(Enum):
    """What a resume means."""

    FOLLOWED = "followed"  # will be sent from there
    TOO_OLD = "too_old"  # below the oldest kept
    BEYOND = "beyond"  # beyond everything the journal ever wrote


class Stream:
    """The send side of one consumer's stream. Times are `Clock.monotonic()`."""

    def __init__(
        self,
        consumer: str,
        *,
        window_batches: int,
        window_records: int,
        receipt_timeout_s: float,
        resume_gap_s: float,
    ) -> None:
        self.consumer = consumer
        self.next_seq = 1  # what goes out next
        self._window_batches = window_batches
        self._window_records = window_records
        self._receipt_timeout_s = receipt_timeout_s
        self._resume_gap_s = resume_gap_s
        self._out: deque[tuple[int, int]] = deque()  # (last_seq, records) of batches not receipted
        self._out_records = 0
        self._sent: dict[int, None] = {}  # every last_seq sent and not yet receipted, oldest first
        self._acked = 0  # the consumer holds all up to here, as far as this pass knows
        self._waiting_since = 0.0
        self._is_probing = False
        self._resume_to: int | None = None
        self._resumed_at = float("-inf")

    def begin(self, at: Position, now: float, *, probing: bool = False) -> None:
        """Send from cursor + 1 on. `probing`: one batch at a time until a receipt comes."""
        self._go_to(at.receipted_seq + 1, now)
        self._is_probing = probing

    def forget(self) -> None:
        """A new epoch: nothing that was sent before counts any more."""
        self._sent.clear()
        self._out.clear()
        self._out_records = 0
        self._resume_to = None

    def room(self, at: Position) -> int:
        """How many records may go out now as one batch; 0 = none."""
        if self.next_seq > at.last_seq or self._resume_to is not None:
            return 0
        batches = 1 if self._is_probing else self._window_batches
        if len(self._out) >= batches:
            return 0
        return max(0, self._window_records - self._out_records)

    def sent(self, last_seq: int, records: int, now: float) -> None:
        """A batch of `records` from `next_seq` to `last_seq` was handed to the broker."""
        assert last_seq >= self.next_seq
        self.next_seq = last_seq + 1
        if not self._out:
            self._waiting_since = now
        self._out.append((last_seq, records))
        self._out_records += records
        self._sent[last_seq] = None
        while len(self._sent) > SENT_REMEMBERED_MAX:
            del self._sent[next(iter(self._sent))]

    def receipt(self, through_seq: int, at: Position, now: float) -> ReceiptIs:
        """Judge a receipt; what it covers leaves the window."""
        if through_seq > at.last_seq:
            return ReceiptIs.BEYOND
        if through_seq not in self._sent:
            return ReceiptIs.REPEAT if through_seq <= at.receipted_seq else ReceiptIs.NOT_SENT
        for seq in [seq for seq in self._sent if seq <= through_seq]:
            del self._sent[seq]
        while self._out and self._out[0][0] <= through_seq:
            self._out_records -= self._out.popleft()[1]
        self._acked = max(self._acked, through_seq)
        self._waiting_since = now
        self._is_probing = False
        return ReceiptIs.PROGRESS if through_seq > at.receipted_seq else ReceiptIs.REPEAT

    def resume(self, from_seq: int, at: Position) -> ResumeIs:
        """Judge a resume; a good one is followed by `follow` (the latest wins)."""
        if from_seq > at.last_seq + 1:
            return ResumeIs.BEYOND
        if from_seq < at.oldest_seq:
            return ResumeIs.TOO_OLD
        self._resume_to = from_seq
        return ResumeIs.FOLLOWED

    def follow(self, now: float) -> bool:
        """Move to where the consumer asked to resume, at most once in `resume_gap_s`."""
        if self._resume_to is None or now < self._resumed_at + self._resume_gap_s:
            return False
        self._go_to(self._resume_to, now)
        self._is_probing = False
        self._resume_to = None
        self._resumed_at = now
        return True

    def is_overdue(self, at: Position, now: float) -> bool:
        """Something was sent, or skipped, and no receipt came in the stated time."""
        deadline = self._receipt_deadline(at)
        return deadline is not None and now >= deadline

    def wake_at(self, at: Position) -> float | None:
        """When something will have to be done even if nothing happens; None = never."""
        times = [] if self._resume_to is None else [self._resumed_at + self._resume_gap_s]
        deadline = self._receipt_deadline(at)
        if deadline is not None:
            times.append(deadline)
        return min(times, default=None)

    def _receipt_deadline(self, at: Position) -> float | None:
        sent_through = self.next_seq - 1
        if sent_through <= at.receipted_seq and sent_through <= self._acked:
            return None
        return self._waiting_since + self._receipt_timeout_s

    def _go_to(self, seq: int, now: float) -> None:
        self.next_seq = seq
        self._out.clear()
        self._out_records = 0
        self._acked = seq - 1
        self._waiting_since = now
