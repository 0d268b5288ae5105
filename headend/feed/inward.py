"""What comes in on the receipts topics: judged, never believed."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from headend.domain.clock import Clock
from headend.domain.errors import FeedError
from headend.feed.consumer_stream import ConsumerStream
from headend.feed.stream import Position, ReceiptIs, ResumeIs
from headend.messages.records import (
    Receipt,
    Resume,
    ResumeRefused,
    cleaned,
    decode_from_consumer,
    encode,
)

log = logging.getLogger(__name__)


class Inward:
    """Receipts and resumes of every name, wanted or not.

    `refused` counts what was not taken, by kind: `unknown_consumer`, `foreign_epoch`, `not_sent`,
    `too_old`, and the codes of messages that could not be decoded. Each kind is logged at most
    once a minute.
    """

    def __init__(
        self,
        headend: str,
        streams: Mapping[str, ConsumerStream],
        position: Callable[[str], Position],
        set_back: Callable[[str, str], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._headend = headend
        self._streams = streams
        self._position = position
        self._set_back = set_back
        self._clock = clock
        self.refused: Counter[str] = Counter()

    async def take(self, consumer: str, payload: bytes, epoch: str) -> bytes | None:
        """Take one message; the answer to publish on the consumer's feed topic, if there is one."""
        stream = self._streams.get(consumer)
        if stream is None:
            self._refuse("unknown_consumer", "?", f"from {cleaned(consumer, 64)}")
            return None
        try:
            message = decode_from_consumer(payload)
        except FeedError as error:
            self._refuse(error.code, consumer, str(error))
            return None
        if message.epoch != epoch or stream.epoch != epoch:
            self._refuse("foreign_epoch", consumer, f"epoch {message.epoch} is not {epoch}")
            return None
        if isinstance(message, Receipt):
            await self._receipt(stream, message)
            return None
        return await self._resume(stream, message)

    async def _receipt(self, stream: ConsumerStream, message: Receipt) -> None:
        at = self._position(stream.name)
        through_seq = message.through_seq
        meaning = stream.at.receipt(through_seq, at, self._clock.monotonic())
        if meaning is ReceiptIs.BEYOND:
            reason = f"{stream.name} receipts {through_seq}, the journal ends at {at.last_seq}"
            await self._set_back(message.epoch, reason)
        elif meaning is ReceiptIs.NOT_SENT:
            self._refuse("not_sent", stream.name, f"no batch that was sent ends at {through_seq}")
        elif meaning is ReceiptIs.PROGRESS:
            stream.receipt_to = max(stream.receipt_to, through_seq)
            stream.receipt_came.set()
        stream.wake.set()

    async def _resume(self, stream: ConsumerStream, message: Resume) -> bytes | None:
        at = self._position(stream.name)
        meaning = stream.at.resume(message.from_seq, at)
        if meaning is ResumeIs.BEYOND:
            reason = (
                f"{stream.name} resumes at {message.from_seq}, the journal ends at {at.last_seq}"
            )
            await self._set_back(message.epoch, reason)
            return None
        if meaning is ResumeIs.TOO_OLD:
            self._refuse("too_old", stream.name, f"resume from {message.from_seq}")
            refusal = ResumeRefused(
                headend=self._headend,
                epoch=message.epoch,
                consumer=stream.name,
                from_seq=message.from_seq,
                oldest_seq=at.oldest_seq,
            )
            return encode(refusal)
        stream.counters.resumes += 1
        stream.wake.set()
        return None

    def _refuse(self, code: str, consumer: str, text: str) -> None:
        self.refused[code] += 1
        log.warning(
            "feed message refused code=%s consumer=%s %s",
            code,
            consumer,
            text,
            extra={"about": (code, consumer)},
        )
