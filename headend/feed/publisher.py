"""Publishes the streams of the journal's consumers and follows their receipts.

The journal is the only queue: what is out and not receipted is read again from it. A consumer's
cursor moves on its receipt and on nothing else; PUBACK only bounds what is in flight. Nothing
here outlives a connection but the numbers of what was sent.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from headend.domain.clock import Clock, iso
from headend.domain.errors import FeedError, JournalError
from headend.domain.meter import Event
from headend.feed.alarms import (
    BROKER_REFUSED,
    FEED_STOPPED,
    PUBLISH_REFUSED,
    RECEIPTS_MISSING,
    FeedAlarms,
)
from headend.feed.batching import encoded_batches
from headend.feed.consumer_stream import ConsumerStream
from headend.feed.inward import Inward
from headend.feed.requests import ReadNow, RequestDesk
from headend.feed.retained import RetainedStatus
from headend.feed.settings import FeedSettings
from headend.feed.stream import Position
from headend.journal.errors import BeyondJournal
from headend.journal.model import CursorState, StreamSlice, is_feed_consumer
from headend.messages.broker import BrokerSpec
from headend.messages.connect_words import needs_a_person
from headend.messages.connection import Backoff, ConnectionState, ConnectionWatch, keep_connected
from headend.messages.pipe import Pipe, PublishRefused, Will
from headend.messages.records import ConsumerStatus, Status, decode_status, encode
from headend.messages.topics import Topics

log = logging.getLogger(__name__)

CURSOR_RETRY_S = 5.0
RECEIPTS_LOOK_S = 1.0


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
    `configuration_hash` go into the retained status. `told`: alarms and clearings that the journal
    knows from earlier, in order.
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
        told: Iterable[Event] = (),
    ) -> None:
        self._journal = journal
        self._broker = broker
        self._settings = settings
        self._clock = clock
        self._version = version
        self._backoff = backoff
        self.configuration_hash = configuration_hash
        self.topics = Topics(headend)
        self.streams = {
            name: ConsumerStream(name, settings)
            for name in journal.cursors()
            if is_feed_consumer(name)
        }
        self.alarms = FeedAlarms(journal.append_event, clock, on_change=self._alarms_changed)
        self._retained = RetainedStatus(
            self.topics.status, self.status, settings, clock, self.alarms
        )
        self.connection = ConnectionWatch(clock, self._connection_changed)
        self.requests = RequestDesk(self.topics, read_now, settings, clock, self.alarms)
        self.inward = Inward(headend, self.streams, self._position, self.set_back, clock)
        self.connected = False
        self._take_up(told)
        journal.on_append(self.wake)

    def wake(self) -> None:
        """There may be something to do: records were appended or a cursor was set."""
        for stream in self.streams.values():
            stream.wake.set()
        self._retained.wake()

    async def run(self) -> None:
        """Publish until cancelled; says goodbye on the way out."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.alarms.run())
            group.create_task(self._watch_receipts())
            for stream in self.streams.values():
                group.create_task(self._move_cursor(stream))
            await keep_connected(
                self._make_pipe,
                self._session,
                name=f"feed of {self.topics.headend}",
                clock=self._clock,
                backoff=self._backoff,
                watch=self.connection,
                files=self._broker.files_stamp,
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
                if name in self.streams
            },
            alarms=sorted({str(alarm["alarm"]) for alarm in self.alarms.standing()}),
        )

    def report(self) -> dict[str, Any]:
        """How the connection stands and what is alarmed, JSON-ready."""
        state = self.connection.state
        return {
            "broker": self._broker.name,
            "connected": state.is_connected,
            "since": iso(state.since_ms),
            "code": None if state.code is None else state.code.value,
            "message": state.text,
            "failures": state.failures,
            "alarms": self.alarms.standing(),
        }

    # -- one connection

    def _make_pipe(self) -> Pipe:
        will = Will(self.topics.status, encode(self.status(online=False)))
        return Pipe(self._broker, client_id=f"headend-{self.topics.headend}", will=will)

    async def _session(self, pipe: Pipe) -> None:
        await self._compare_with_status(pipe)
        await pipe.subscribe(self.topics.all_receipts, self.topics.read_requests)
        await self._retained.publish(pipe)
        self.connected = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_messages(pipe))
                group.create_task(self._retained.keep(pipe))
                group.create_task(self.requests.run(pipe))
                for stream in self.streams.values():
                    group.create_task(self._publish_stream(pipe, stream))
        finally:
            self.connected = False
            await self._retained.say_goodbye(pipe)

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
            log.warning("retained status is not ours code=%s %s", error.code, error)
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
            self.alarms.raise_once(PUBLISH_REFUSED, topic, reason=error.reason)

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
                log.warning(
                    "consumer=%s no receipt for %.0f s, sending again from seq=%d",
                    stream.name,
                    self._settings.receipt_timeout_s,
                    at.receipted_seq + 1,
                    extra={"about": (stream.name, "silent")},
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
            stream.refused_through = 0
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
                acknowledged.add_done_callback(partial(self._acknowledged, stream, one.last_seq))
                stream.at.sent(one.last_seq, one.records, self._clock.monotonic())
                stream.counters.batches += 1
                stream.counters.records += one.records
                stream.counters.payload_bytes += len(one.payload)
        except FeedError as error:
            # Nothing is left out silently: the stream stands still and says so.
            stream.blocked_reason = f"record {stream.at.next_seq} cannot be sent: {error}"
            log.error("consumer=%s %s", stream.name, stream.blocked_reason)  # noqa: TRY400
            self.alarms.raise_once(
                FEED_STOPPED, stream.name, record=stream.at.next_seq, reason=stream.blocked_reason
            )
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

    def _acknowledged(
        self, stream: ConsumerStream, last_seq: int, done: "asyncio.Future[None]"
    ) -> None:
        """The PUBACK of a batch came. It proves nothing but that the broker did not refuse."""
        if done.cancelled():
            return
        topic = self.topics.feed(stream.name)
        error = done.exception()
        if error is None:
            # Only what was refused shows that it is taken again: smaller or other batches may pass
            # all the time, and each pair of alarm and clearing is two records more.
            if last_seq >= stream.refused_through:
                stream.refused_through = 0
                self.alarms.clear(PUBLISH_REFUSED, topic, consumer=stream.name)
            return
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
        if stream.refused_through == 0:
            stream.refused_through = last_seq
        self.alarms.raise_once(PUBLISH_REFUSED, topic, consumer=stream.name, reason=error.reason)
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
                log.warning(
                    "consumer=%s receipt not kept: %s",
                    stream.name,
                    error,
                    extra={"about": (stream.name, "cursor")},
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
            self._retained.wake()

    def _all_is_well_again(self, stream: ConsumerStream) -> None:
        stream.blocked_s = 0.0
        stopped = self.alarms.standing_event(FEED_STOPPED, stream.name)
        if stopped and stream.cursor_seen >= int(stopped.fields.get("record", 0)):
            self.alarms.clear(FEED_STOPPED, stream.name)
        self.alarms.clear(RECEIPTS_MISSING, stream.name, backlog=self._backlog(stream))

    def _backlog(self, stream: ConsumerStream) -> int:
        at = self._position(stream.name)
        return at.last_seq - at.receipted_seq

    async def _watch_receipts(self) -> None:
        """Records that wait without a receipt for long bring about an alarm, whatever the reason.

        A broker of MQTT 3.1.1 takes a message that it will not deliver without a word, so this is
        the only sign of it.
        """
        missing_s = self._settings.receipts_missing_s
        while True:
            now = self._clock.monotonic()
            for name, stream in self.streams.items():
                waits_s = stream.waits_s(self._position(name), now)
                if waits_s == 0.0:
                    self.alarms.clear(RECEIPTS_MISSING, name, backlog=0)
                elif waits_s >= missing_s and not self._journal.cursors()[name].expired:
                    state = self.connection.state
                    self.alarms.raise_once(
                        RECEIPTS_MISSING,
                        name,
                        waited_s=int(waits_s),
                        backlog=self._backlog(stream),
                        broker="connected" if state.is_connected else str(state.code),
                    )
            await asyncio.sleep(min(RECEIPTS_LOOK_S, missing_s / 4))

    def _connection_changed(self, state: ConnectionState) -> None:
        if state.is_connected:
            self.alarms.clear(BROKER_REFUSED, self._broker.name)
        elif state.code is not None and needs_a_person(state.code):
            self.alarms.raise_once(
                BROKER_REFUSED, self._broker.name, code=state.code.value, reason=state.text or ""
            )

    def _alarms_changed(self) -> None:
        self._retained.wake()

    def _take_up(self, told: Iterable[Event]) -> None:
        """The alarms of earlier lives stand, but those whose subject is not there any more."""
        self.alarms.restore(told)
        topics = [self.topics.feed(name) for name in self.streams]
        self.alarms.clear_others(
            PUBLISH_REFUSED, [*topics, self.topics.status, self.topics.replies]
        )
        self.alarms.clear_others(RECEIPTS_MISSING, self.streams)
        self.alarms.clear_others(FEED_STOPPED, self.streams)
        self.alarms.clear_others(BROKER_REFUSED, [self._broker.name])

    async def set_back(self, epoch: str, reason: str) -> None:
        """Somebody holds what `epoch` of this journal never wrote: a new epoch, with its alarm."""
        if epoch != self._journal.epoch:
            return
        log.error("journal was set back: %s; beginning a new epoch", reason)
        await self._journal.new_epoch(reason)  # the journal raises the alarm
        self.wake()
