"""Publishes the streams of the journal's consumers and follows their receipts.

The journal is the only queue: what is out and not receipted is read again from it. A consumer's
cursor moves on its receipt and on nothing else; PUBACK only bounds what is in flight. Nothing
here outlives a connection but the numbers of what was sent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from headend.domain.clock import Clock
from headend.domain.errors import FeedError, JournalError
from headend.domain.meter import Event
from headend.feed.batching import encoded_batches
from headend.feed.consumer_stream import ConsumerStream
from headend.feed.inward import Inward
from headend.feed.requests import ReadNow, RequestDesk
from headend.feed.settings import FeedSettings
from headend.feed.stream import Position
from headend.journal.errors import BeyondJournal
from headend.journal.model import CursorState, StreamSlice
from headend.messages.broker import BrokerSpec
from headend.messages.connection import Backoff, keep_connected
from headend.messages.log_limit import LogLimit
from headend.messages.pipe import Pipe, PipeLost, PublishRefused, Will
from headend.messages.records import ConsumerStatus, Status, decode_status, encode
from headend.messages.topics import Topics

log = logging.getLogger(__name__)

ALARMS_MAX = 64
GOODBYE_S = 2.0
CURSOR_RETRY_S = 5.0


class FeedJournal(Protocol):
    """What the feed needs of the journal."""

    @property
    def epoch(self) -> str:
        """The epoch records are numbered in now."""
        ...

    def cursors(self) -> dict[str, CursorState]:
        """Where each configured consumer's stream stands."""
        ...

    async def read_stream(self, consumer: str, from_seq: int, *, records_max: int) -> StreamSlice:
        """Consecutive records from `from_seq` on."""
        ...

    async def receipt(self, consumer: str, through_seq: int) -> None:
        """Move a cursor, durably; BeyondJournal."""
        ...

    async def set_cursor(self, consumer: str, from_seq: int) -> None:
        """Set a cursor by hand; JournalError."""
        ...

    async def new_epoch(self, reason: str) -> str:
        """Begin a new epoch with everything unreceipted."""
        ...

    async def append_event(self, event: Event) -> int:
        """Write an event into every stream that carries events."""
        ...

    def on_append(self, callback: Callable[[], None]) -> None:
        """Call this after every commit that added records."""
        ...


class Publisher:
    """The head-end's end of the feed. `run()` is a supervised task; it never returns by itself.

    `read_now` answers requests for readings on demand; None = they are refused. `version` and
    `configuration_hash` go into the retained status.
    """

    def __init__(
        self,
        journal: FeedJournal,
        broker: BrokerSpec,
        settings: FeedSettings,
        *,
        headend: str,
        clock: Clock,
        version: str,
        configuration_hash: str,
        read_now: ReadNow | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._journal = journal
        self._broker = broker
        self._settings = settings
        self._clock = clock
        self._version = version
        self._backoff = backoff
        self.configuration_hash = configuration_hash
        self.topics = Topics(headend)
        self.streams = {name: ConsumerStream(name, settings) for name in journal.cursors()}
        self.requests = RequestDesk(self.topics, read_now, settings, clock)
        self.inward = Inward(headend, self.streams, self._position, self.set_back, clock)
        self.connected = False
        self._limit = LogLimit(log, clock)
        self._alarms: deque[Event] = deque(maxlen=ALARMS_MAX)
        self._alarm_came = asyncio.Event()
        self._status_due = asyncio.Event()
        journal.on_append(self.wake)

    def wake(self) -> None:
        """There may be something to do: records were appended or a cursor was set."""
        for stream in self.streams.values():
            stream.wake.set()
        self._status_due.set()

    async def run(self) -> None:
        """Publish until cancelled; says goodbye on the way out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_alarms())
            for stream in self.streams.values():
                group.create_task(self._move_cursor(stream))
            await keep_connected(
                self._make_pipe,
                self._session,
                name=f"feed of {self.topics.headend}",
                clock=self._clock,
                backoff=self._backoff,
            )

    async def replay(self, consumer: str, from_seq: int) -> None:
        """Set a consumer's cursor so that `from_seq` goes out next. JournalError says why not."""
        await self._journal.set_cursor(consumer, from_seq)
        self.wake()

    def status(self, *, online: bool) -> Status:
        """What the retained status says now."""
        return Status(
            headend=self.topics.headend,
            online=online,
            version=self._version,
            epoch=self._journal.epoch,
            configuration=self.configuration_hash,
            consumers={
                name: ConsumerStatus(
                    last_seq=state.last_seq,
                    oldest_seq=state.oldest_seq,
                    backlog=state.backlog,
                    expired=state.expired,
                )
                for name, state in self._journal.cursors().items()
            },
        )

    # -- one connection

    def _make_pipe(self) -> Pipe:
        will = Will(self.topics.status, encode(self.status(online=False)))
        return Pipe(self._broker, client_id=f"headend-{self.topics.headend}", will=will)

    async def _session(self, pipe: Pipe) -> None:
        await self._compare_with_status(pipe)
        await pipe.subscribe(self.topics.all_receipts, self.topics.read_requests)
        said = await self._publish_status(pipe)
        self.connected = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_messages(pipe))
                group.create_task(self._keep_status(pipe, said))
                group.create_task(self.requests.run(pipe))
                for stream in self.streams.values():
                    group.create_task(self._publish_stream(pipe, stream))
        finally:
            self.connected = False
            await self._say_goodbye(pipe)

    async def _compare_with_status(self, pipe: Pipe) -> None:
        """What the broker kept of us must not be beyond our journal: else it was set back."""
        topic = self.topics.status
        await pipe.subscribe(topic)
        try:
            async with asyncio.timeout(self._settings.status_wait_s):
                async for message in pipe:
                    if message.topic == topic and message.retain:
                        await self._judge_status(message.payload)
                        break
        except TimeoutError:
            log.debug("headend=%s no retained status", self.topics.headend)
        await pipe.unsubscribe(topic)

    async def _judge_status(self, payload: bytes) -> None:
        if not payload:
            return
        try:
            kept = decode_status(payload)
        except FeedError as error:
            self._limit.warning(
                "status", "retained status is not ours code=%s %s", error.code, error
            )
            return
        if kept.epoch != self._journal.epoch:
            return
        for name, theirs in kept.consumers.items():
            ours = self._journal.cursors().get(name)
            if ours is not None and theirs.last_seq > ours.last_seq:
                await self.set_back(
                    kept.epoch,
                    f"the retained status has {name} at {theirs.last_seq}, "
                    f"the journal ends at {ours.last_seq}",
                )
                return

    async def _take_messages(self, pipe: Pipe) -> None:
        async for message in pipe:
            consumer = self.topics.consumer_of_receipt(message.topic)
            if consumer is not None:
                refusal = await self.inward.take(consumer, message.payload, self._journal.epoch)
                if refusal is not None:
                    await self._publish_refusal(pipe, self.topics.feed(consumer), refusal)
            elif message.topic == self.topics.read_requests:
                await self.requests.take(pipe, message.payload)

    async def _publish_refusal(self, pipe: Pipe, topic: str, payload: bytes) -> None:
        try:
            await pipe.publish(topic, payload)
        except PublishRefused as error:
            self._limit.warning("refusal", "%s", error)

    # -- one stream on one connection

    async def _publish_stream(self, pipe: Pipe, stream: ConsumerStream) -> None:
        self._begin(stream)
        while True:
            stream.wake.clear()
            at = self._position(stream.name)
            now = self._clock.monotonic()
            is_new_epoch = stream.epoch != self._journal.epoch
            if is_new_epoch or stream.must_begin or self._cursor_was_set(stream, at):
                self._begin(stream)
            elif stream.at.is_overdue(at, now):
                self._limit.warning(
                    (stream.name, "silent"),
                    "consumer=%s no receipt for %.0f s, sending again from seq=%d",
                    stream.name,
                    self._settings.receipt_timeout_s,
                    at.receipted_seq + 1,
                )
                stream.counters.resends += 1
                stream.at.begin(at, now, probing=True)
            stream.at.follow(now)
            room = min(stream.at.room(at), self._settings.records_max)
            may_send = now >= stream.blocked_until and stream.blocked_reason is None
            if room and may_send and await self._send(pipe, stream, room):
                continue
            await self._wait(stream, at, has_room=bool(room))

    def _begin(self, stream: ConsumerStream) -> None:
        """Send from cursor + 1: a new connection, a new epoch, a refusal, a cursor set by hand."""
        stream.must_begin = False
        if stream.epoch != self._journal.epoch:
            stream.epoch = self._journal.epoch
            stream.at.forget()
            stream.receipt_to = 0
        at = self._position(stream.name)
        stream.cursor_seen = at.receipted_seq
        stream.at.begin(at, self._clock.monotonic())

    def _cursor_was_set(self, stream: ConsumerStream, at: Position) -> bool:
        """Whether the cursor stands where no receipt of ours has put it."""
        return stream.receipt_to == 0 and at.receipted_seq != stream.cursor_seen

    async def _send(self, pipe: Pipe, stream: ConsumerStream, room: int) -> bool:
        """Send the next records; False when there are none after all."""
        epoch = stream.epoch
        begun_at = stream.at.next_seq
        part = await self._journal.read_stream(stream.name, begun_at, records_max=room)
        if epoch != self._journal.epoch or not part.records:
            return epoch != self._journal.epoch
        topic = self.topics.feed(stream.name)
        try:
            for one in encoded_batches(
                self.topics.headend,
                epoch,
                stream.name,
                part.first_seq,
                part.records,
                part.exchanges,
            ):
                acknowledged = await pipe.send(topic, one.payload)
                if stream.must_begin:
                    return True
                acknowledged.add_done_callback(partial(self._acknowledged, stream))
                stream.at.sent(one.last_seq, one.records, self._clock.monotonic())
                stream.counters.batches += 1
                stream.counters.records += one.records
                stream.counters.payload_bytes += len(one.payload)
        except FeedError as error:
            # Nothing is left out silently: the stream stands still and says so.
            stream.blocked_reason = f"record {stream.at.next_seq} cannot be sent: {error}"
            log.error("consumer=%s %s", stream.name, stream.blocked_reason)  # noqa: TRY400
            self.alarm("feed_stopped", consumer=stream.name, reason=stream.blocked_reason)
        return True

    async def _wait(self, stream: ConsumerStream, at: Position, *, has_room: bool) -> None:
        now = self._clock.monotonic()
        times = [t for t in (stream.at.wake_at(at),) if t is not None]
        if has_room and stream.blocked_until > now:
            times.append(stream.blocked_until)
        try:
            async with asyncio.timeout(max(0.001, min(times) - now) if times else None):
                await stream.wake.wait()
        except TimeoutError:
            return

    def _acknowledged(self, stream: ConsumerStream, done: "asyncio.Future[None]") -> None:
        """The PUBACK of a batch came. It proves nothing but that the broker did not refuse."""
        if done.cancelled():
            return
        error = done.exception()
        if not isinstance(error, PublishRefused):
            return  # a lost pipe ends the session by itself
        settings = self._settings
        stream.counters.refused_by_broker += 1
        now = self._clock.monotonic()
        if now >= stream.blocked_until:
            stream.blocked_s = min(
                max(settings.refused_first_s, 2 * stream.blocked_s), settings.refused_max_s
            )
            stream.blocked_until = now + stream.blocked_s
        stream.must_begin = True
        self._limit.warning(
            (stream.name, "refused"), "consumer=%s %s: not delivered", stream.name, error
        )
        if not stream.is_refused:
            stream.is_refused = True
            self.alarm("feed_refused", consumer=stream.name, reason=error.reason)
        stream.wake.set()

    # -- receipts, epochs, alarms, status

    def _position(self, consumer: str) -> Position:
        state = self._journal.cursors()[consumer]
        stream = self.streams[consumer]
        receipted = max(state.receipted_seq, stream.receipt_to)
        return Position(state.last_seq, receipted, state.oldest_seq)

    async def _move_cursor(self, stream: ConsumerStream) -> None:
        """Writes receipts into the journal, the latest first; those it covers are done with it."""
        while True:
            await stream.receipt_came.wait()
            stream.receipt_came.clear()
            through_seq, epoch = stream.receipt_to, stream.epoch
            if through_seq == 0 or epoch != self._journal.epoch:
                continue
            try:
                await self._journal.receipt(stream.name, through_seq)
            except BeyondJournal as error:
                await self.set_back(epoch, str(error))
                continue
            except JournalError as error:
                self._limit.warning(
                    (stream.name, "cursor"), "consumer=%s receipt not kept: %s", stream.name, error
                )
                stream.receipt_came.set()
                await asyncio.sleep(CURSOR_RETRY_S)
                continue
            if epoch == stream.epoch:
                stream.cursor_seen = through_seq
                if stream.receipt_to == through_seq:
                    stream.receipt_to = 0
            stream.counters.receipts += 1
            self._all_is_well_again(stream)
            stream.wake.set()
            self._status_due.set()

    def _all_is_well_again(self, stream: ConsumerStream) -> None:
        self._limit.forget((stream.name, "silent"))
        stream.blocked_s = 0.0
        if stream.is_refused:
            stream.is_refused = False
            self._limit.forget((stream.name, "refused"))
            self._event("alarm_cleared", {"alarm": "feed_refused", "consumer": stream.name})

    async def set_back(self, epoch: str, reason: str) -> None:
        """Somebody holds what `epoch` of this journal never wrote: a new epoch, with its alarm."""
        if epoch != self._journal.epoch:
            return
        log.error("journal was set back: %s; beginning a new epoch", reason)
        await self._journal.new_epoch(reason)  # the journal raises the alarm
        self.wake()

    def alarm(self, name: str, **fields: str) -> None:
        """Raise an alarm: an event on the streams that carry events."""
        self._event("alarm", {"alarm": name, **fields})

    def _event(self, kind: str, fields: dict[str, str]) -> None:
        self._alarms.append(Event(kind, self._clock.now_ms(), dict(fields)))
        self._alarm_came.set()

    async def _write_alarms(self) -> None:
        while True:
            await self._alarm_came.wait()
            self._alarm_came.clear()
            while self._alarms:
                event = self._alarms.popleft()
                try:
                    await self._journal.append_event(event)
                except JournalError as error:
                    log.warning("alarm %s could not be kept: %s", event.fields, error)

    async def _keep_status(self, pipe: Pipe, said: bytes) -> None:
        """Publish the status again when it changed, at a bounded rate; a new epoch at once."""
        epoch = self._journal.epoch
        said_at = self._clock.monotonic()
        while True:
            await self._status_due.wait()
            self._status_due.clear()
            left = said_at + self._settings.status_gap_s - self._clock.monotonic()
            if left > 0 and epoch == self._journal.epoch:
                try:
                    async with asyncio.timeout(left):
                        await self._epoch_changed(epoch)
                except TimeoutError:
                    self._status_due.clear()
            if encode(self.status(online=True)) != said:
                epoch = self._journal.epoch
                said_at = self._clock.monotonic()
                said = await self._publish_status(pipe)

    async def _epoch_changed(self, epoch: str) -> None:
        while epoch == self._journal.epoch:
            self._status_due.clear()
            await self._status_due.wait()

    async def _publish_status(self, pipe: Pipe) -> bytes:
        """Publish the status as it is now; what was said."""
        said = encode(self.status(online=True))
        try:
            await pipe.publish(self.topics.status, said, retain=True)
        except PublishRefused as error:
            self._limit.warning("status refused", "%s", error)
        return said

    async def _say_goodbye(self, pipe: Pipe) -> None:
        """On the way out of a living connection: offline, said by ourselves."""
        if not pipe.connected:
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                payload = encode(self.status(online=False))
                await pipe.publish(self.topics.status, payload, retain=True)
        except (TimeoutError, PipeLost, PublishRefused):
            log.debug("headend=%s left without a goodbye", self.topics.headend)
