"""Records of a stream as messages that fit the feed's size limit."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from headend.domain.errors import FeedError
from headend.messages.records import (
    Batch,
    ExchangeEvidence,
    FreezeRecord,
    ReadRecord,
    Record,
    SeriesRecord,
    encode_batch,
    last_seq_of,
)

_Part = tuple[int, list[Record], list[ExchangeEvidence]]


class Encoded(NamedTuple):
    """One message: its bytes, the last sequence number and the number of records in it."""

    payload: bytes
    last_seq: int
    records: int


def encoded_batches(
    headend: str,
    epoch: str,
    consumer: str,
    first_seq: int,
    records: Sequence[Record],
    exchanges: Sequence[ExchangeEvidence],
) -> Iterator[Encoded]:
    """The records as one message, or as several where one would be above the limit.

    Each message carries the exchanges its own records point at. A single record above the limit
    goes without its exchange; FeedError `too_large` when even that does not fit.
    """
    if not records:
        return
    last_seq = last_seq_of(records[-1])
    batch = Batch(
        headend=headend,
        epoch=epoch,
        consumer=consumer,
        first_seq=first_seq,
        last_seq=last_seq,
        records=list(records),
        exchanges=list(exchanges),
    )
    try:
        payload = encode_batch(batch)
    except FeedError as error:
        if error.code != "too_large" or (len(records) == 1 and not exchanges):
            raise
        yield from _halves(batch)
        return
    yield Encoded(payload, last_seq, len(records))


def _halves(batch: Batch) -> Iterator[Encoded]:
    if len(batch.records) == 1:
        parts: list[_Part] = [(batch.first_seq, batch.records, [])]
    else:
        middle = len(batch.records) // 2
        left, right = batch.records[:middle], batch.records[middle:]
        parts = [
            (batch.first_seq, left, _of(left, batch.exchanges)),
            (last_seq_of(left[-1]) + 1, right, _of(right, batch.exchanges)),
        ]
    for first_seq, records, exchanges in parts:
        yield from encoded_batches(
            batch.headend, batch.epoch, batch.consumer, first_seq, records, exchanges
        )


def _of(records: Sequence[Record], exchanges: Sequence[ExchangeEvidence]) -> list[ExchangeEvidence]:
    wanted = {
        record.evidence
        for record in records
        if isinstance(record, ReadRecord | FreezeRecord | SeriesRecord)
    }
    return [exchange for exchange in exchanges if exchange.ref in wanted]
