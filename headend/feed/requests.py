"""Readings asked for over the feed: bounded, each answered or refused with a reason."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

from headend.domain.clock import Clock, from_iso
from headend.domain.errors import FeedError, HeadendError
from headend.feed.alarms import PUBLISH_REFUSED, FeedAlarms
from headend.feed.settings import FeedSettings
from headend.messages.pipe import Pipe, PublishRefused
from headend.messages.records import cleaned
from headend.messages.requests import (
    Fault,
    PointAnswer,
    ReadReply,
    ReadRequest,
    decode_read_request,
    encode_read_reply,
)
from headend.messages.topics import Topics

log = logging.getLogger(__name__)

ReadNow = Callable[[str, Sequence[str], float], Awaitable[Sequence[PointAnswer]]]
"""meter, points, seconds allowed -> one answer a point. HeadendError when nothing can be read,
KeyError when the meter or a point is not known."""


class RequestDesk:
    """Takes requests from the broker, has them read one after the other by a few workers."""

    def __init__(
        self,
        topics: Topics,
        read_now: ReadNow | None,
        settings: FeedSettings,
        clock: Clock,
        alarms: FeedAlarms,
    ) -> None:
        self._topics = topics
        self._read_now = read_now
        self._settings = settings
        self._clock = clock
        self._alarms = alarms
        self._queue: deque[tuple[ReadRequest, int]] = deque()
        self._arrived = asyncio.Event()
        self._busy = 0
        self.refused: Counter[str] = Counter()
        self.answered = 0

    async def take(self, pipe: Pipe, payload: bytes) -> None:
        """Queue one request, or refuse it at once."""
        try:
            request = decode_read_request(payload)
        except FeedError as error:
            self._count(error.code, str(error))
            return
        if not self._topics.is_reply_topic(request.reply_to):
            self._count("bad_reply_to", f"reply_to {cleaned(request.reply_to)}")
            return
        try:
            deadline_ms = from_iso(request.deadline)
        except ValueError:
            await self._refuse(pipe, request, "bad_deadline", "the deadline is no time")
            return
        fault = self._fault(request, deadline_ms)
        if fault is not None:
            await self._refuse(pipe, request, fault.code, fault.message)
            return
        self._queue.append((request, deadline_ms))
        self._arrived.set()

    async def run(self, pipe: Pipe) -> None:
        """Work the queue until cancelled. What was queued on an earlier connection is dropped."""
        self._queue.clear()
        self._busy = 0
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.request_workers):
                group.create_task(self._work(pipe))

    def _fault(self, request: ReadRequest, deadline_ms: int) -> Fault | None:
        settings = self._settings
        left_s = (deadline_ms - self._clock.now_ms()) / 1000
        if self._read_now is None:
            return Fault(code="not_offered", message="this head-end reads nothing on demand")
        if len(request.points) > settings.request_points_max:
            most = settings.request_points_max
            return Fault(code="too_many_points", message=f"at most {most} points a request")
        if left_s <= 0:
            return Fault(code="deadline", message="the deadline has passed")
        if left_s > settings.request_deadline_max_s:
            most_s = settings.request_deadline_max_s
            return Fault(code="deadline", message=f"a deadline is at most {most_s:.0f} s away")
        if len(self._queue) + self._busy >= settings.requests_max:
            return Fault(code="busy", message="too many requests are waiting")
        return None

    async def _work(self, pipe: Pipe) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            request, deadline_ms = self._queue.popleft()
            self._busy += 1
            try:
                await self._serve(pipe, request, deadline_ms)
            finally:
                self._busy -= 1

    async def _serve(self, pipe: Pipe, request: ReadRequest, deadline_ms: int) -> None:
        left_s = (deadline_ms - self._clock.now_ms()) / 1000
        if left_s <= 0 or self._read_now is None:
            await self._refuse(pipe, request, "deadline", "the deadline passed in the queue")
            return
        try:
            async with asyncio.timeout(left_s):
                results = await self._read_now(request.meter, request.points, left_s)
        except TimeoutError:
            await self._refuse(pipe, request, "deadline", "no answer before the deadline")
            return
        except KeyError as error:
            await self._refuse(pipe, request, "unknown", f"not known here: {error}")
            return
        except HeadendError as error:
            await self._refuse(pipe, request, _word(error), str(error))
            return
        reply = ReadReply(
            id=request.id,
            headend=self._topics.headend,
            meter=request.meter,
            results=list(results),
        )
        self.answered += 1
        await self._publish(pipe, request.reply_to, reply)

    async def _refuse(self, pipe: Pipe, request: ReadRequest, code: str, message: str) -> None:
        self._count(code, f"id {request.id}: {message}")
        reply = ReadReply(
            id=request.id,
            headend=self._topics.headend,
            meter=request.meter,
            results=[],
            refused=Fault(code=code, message=message[:512]),
        )
        await self._publish(pipe, request.reply_to, reply)

    async def _publish(self, pipe: Pipe, topic: str, reply: ReadReply) -> None:
        # One alarm for all of them: whoever asks chooses the topic.
        everywhere = self._topics.replies
        try:
            await pipe.publish(topic, encode_read_reply(reply))
        except FeedError as error:
            log.warning("a reply was not delivered: %s", error)
        except PublishRefused as error:
            self._alarms.raise_once(PUBLISH_REFUSED, everywhere, reason=error.reason)
        else:
            self._alarms.clear(PUBLISH_REFUSED, everywhere)

    def _count(self, code: str, text: str) -> None:
        self.refused[code] += 1
        log.warning("read request refused code=%s %s", code, text, extra={"about": code})


def _word(error: HeadendError) -> str:
    """`NoAnswer` -> `no_answer`."""
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
