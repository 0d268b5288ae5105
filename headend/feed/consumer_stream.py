"""What the publisher keeps of one consumer's stream beside its position."""

import asyncio
from dataclasses import dataclass

from headend.feed.settings import FeedSettings
from headend.feed.stream import Position, Stream


@dataclass(slots=True)
class StreamCounters:
    """What happened on one stream since the start."""

    batches: int = 0
    records: int = 0
    payload_bytes: int = 0
    receipts: int = 0
    resumes: int = 0
    resends: int = 0
    refused_by_broker: int = 0


class ConsumerStream:
    """One consumer's stream with everything the publisher keeps beside its position."""

    def __init__(self, name: str, settings: FeedSettings) -> None:
        self.name = name
        self.at = Stream(
            name,
            window_batches=settings.window_batches,
            window_records=settings.window_records,
            receipt_timeout_s=settings.receipt_timeout_s,
            resume_gap_s=settings.resume_gap_s,
        )
        self.epoch = ""
        self.wake = asyncio.Event()
        self.receipt_to = 0  # receipted and not yet in the journal's cursor
        self.receipt_came = asyncio.Event()
        self.cursor_seen = 0
        self.blocked_until = float("-inf")
        self.blocked_s = 0.0
        self.blocked_reason: str | None = None  # why nothing more can be sent, until a restart
        self.refused_through = 0  # the first batch that the broker refused ends there; 0 = none
        self.unreceipted_since: float | None = None  # records wait, and no receipt came since then
        self.receipted_then = 0
        self.must_begin = False  # the broker refused what was sent
        self.counters = StreamCounters()

    def waits_s(self, at: Position, now: float) -> float:
        """How long records have been waiting without any receipt; 0 when none wait."""
        if at.last_seq <= at.receipted_seq:
            self.unreceipted_since = None
        elif self.unreceipted_since is None or at.receipted_seq != self.receipted_then:
            self.unreceipted_since = now
        self.receipted_then = at.receipted_seq
        return 0.0 if self.unreceipted_since is None else now - self.unreceipted_since
