"""How the feed works. Durations in seconds, sizes in records, batches or bytes as named."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """Bounds and waits of the publisher.

    `records_max`: records of a batch. `window_batches`/`window_records`: how much may be sent
    beyond the consumer's receipt. `receipt_timeout_s`: without a receipt for so long, sending
    begins again at cursor + 1, one batch at a time until a receipt comes. `resume_gap_s`: at most
    one resume of a consumer in so long is followed, the latest. `status_wait_s`: how long a new
    connection waits for the retained status. `status_gap_s`: the status goes out at most so often.
    `refused_first_s`/`refused_max_s`: pauses of a stream whose messages the broker refuses.
    `receipts_missing_s`: records that wait for a receipt for so long bring about an alarm.
    """

    records_max: int = 200
    window_batches: int = 20
    window_records: int = 4000
    receipt_timeout_s: float = 30.0
    resume_gap_s: float = 0.5
    status_wait_s: float = 1.0
    status_gap_s: float = 5.0
    refused_first_s: float = 1.0
    refused_max_s: float = 60.0
    receipts_missing_s: float = 600.0
    requests_max: int = 16
    request_workers: int = 2
    request_points_max: int = 64
    request_deadline_max_s: float = 600.0

    def __post_init__(self) -> None:
        if not 1 <= self.records_max <= self.window_records or self.window_batches < 1:
            msg = "the window must hold at least one batch of at least one record"
            raise ValueError(msg)
