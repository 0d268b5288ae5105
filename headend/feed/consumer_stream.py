"""What the publisher keeps of one consumer's stream beside its position."""

import asyncio
from dataclasses import dataclass

from headend.feed.settings import FeedSettings
from headend.feed.stream import Stream


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
        self.is_refused = False
        self.must_begin = False  # the broker refused what was sent
        self.counters = StreamCounters()
