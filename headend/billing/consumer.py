"""Billing's end of the feed: takes messages, commits them, and only then sends receipts.

The event loop never waits for the database: one thread owns it. What has queued up while a
transaction ran is taken by the next one together. While the database is away the same group is
tried again and nothing new is read from the broker; head-ends keep what is not receipted. Sending
has a task of its own: whoever takes messages must never wait for an acknowledgement that stands
behind other messages in the same socket.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headend.billing.notices import RECEIPT_REFUSED, Notices
from headend.billing.store import Arrived, Result, Store, Stream
from headend.billing.store_thread import StoreThread
from headend.domain.clock import Clock
from headend.domain.errors import FeedError
from headend.messages.broker import BrokerSpec
from headend.messages.connect_words import needs_a_person
from headend.messages.connection import Backoff, ConnectionWatch, keep_connected
from headend.messages.incoming import Message
from headend.messages.pipe import Pipe, PublishRefused
from headend.messages.records import Receipt, Resume, Status, cleaned, decode_status, encode
from headend.messages.topics import Topics

log = logging.getLogger(__name__)

GROUP_MESSAGES_MAX = 32
QUEUE_MESSAGES_MAX = 64  # full: the socket is not read, the broker and the head-end wait
RESUME_AGAIN_S = 5.0
STATUS_WAIT_S = 1.0  # the retained status comes right behind the subscription, if there is one


@dataclass(slots=True)
class Totals:
    """What this consumer did since it was made."""

    batches: int = 0
    readings: int = 0
    refused_messages: int = 0
    receipts: int = 0
    resumes: int = 0


@dataclass(slots=True)
class _Peer:
    """What is known of one head-end."""

    name: str
    topics: Topics
    epoch: str | None = None
    is_online: bool = False
    is_heard: bool = False  # a status came on this connection


class BillingConsumer:
    """The consumer `name` of some head-ends. `run` is supervised; `close` after it has ended.

    `on_ready` is called each time the subscriptions stand. The store stays the caller's.
    """

    def __init__(
        self,
        *,
        broker: BrokerSpec,
        store: Store,
        name: str,
        headends: Sequence[str],
        clock: Clock,
        on_ready: Callable[[], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._name = name
        self._clock = clock
        self._on_ready = on_ready
        self._backoff = backoff or Backoff()
        self._thread = StoreThread(store, name=name, clock=clock)
        self._notices = Notices(store, self._thread, broker.name)
        self.connection = ConnectionWatch(clock, self._notices.connection_changed)
        self._peers = {headend: _Peer(headend, Topics(headend)) for headend in headends}
        self._by_feed = {p.topics.feed(name): p for p in self._peers.values()}
        self._by_status = {p.topics.status: p for p in self._peers.values()}
        self._asked: dict[Stream, tuple[int, float]] = {}
        self._receipts: dict[Stream, int] = {}
        self._resumes: dict[Stream, int] = {}
        self._something_to_say = asyncio.Event()
        self._steps = 0
        self._is_waiting = False
        self._is_connected = False
        self.totals = Totals()

    async def run(self) -> None:
        """Listen, commit, receipt; returns only when cancelled. Reconnects by itself.

        BillingDatabaseError when the database will not come back by itself.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._notices.run())
                await keep_connected(
                    self._make_pipe,
                    self._session,
                    name=f"billing {self._name}",
                    clock=self._clock,
                    backoff=self._backoff,
                    watch=self.connection,
                    files=self._files,
                )
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    @property
    def steps(self) -> int | None:
        """Changes with every step; None while connected with nothing to do.

        A try to reach the broker or the database is a step, whatever comes of it.
        """
        return None if self._is_waiting else self._steps + self._thread.tries

    @property
    def status_line(self) -> str:
        """How it is, in a line for people."""
        code = self.connection.state.code
        broker = "broker connected" if self._is_connected else "broker away"
        if code is not None and needs_a_person(code):
            broker += f" ({code})"
        store = "; database away" if self._thread.is_away else ""
        return f"{self._name}: {broker}{store}"

    async def close(self) -> None:
        """Wait until the writer's thread has finished what it was at."""
        await self._thread.close()

    @property
    def store_failures(self) -> int:
        """How often the database could not do what it was asked."""
        return self._thread.failures

    def _make_pipe(self) -> Pipe:
        return Pipe(self._broker, client_id=f"headend-billing-{self._name}")

    def _files(self) -> object:
        """The state of the files the connection stands on.

        Looked at before every try and each second until the next one, so looking is the step.
        """
        self._steps += 1
        return self._broker.files_stamp()

    # -- one connection

    async def _session(self, pipe: Pipe) -> None:
        self._asked.clear()
        self._receipts.clear()
        self._resumes.clear()
        for peer in self._peers.values():
            peer.is_online = peer.is_heard = False
        latest = await self._thread.ask(self._store.latest)
        await pipe.subscribe(*self._by_feed, *self._by_status)
        if self._on_ready is not None:
            self._on_ready()
        for name, (epoch, _) in latest.items():
            if name in self._peers:
                self._peers[name].epoch = epoch
        queue: asyncio.Queue[Message] = asyncio.Queue(QUEUE_MESSAGES_MAX)
        self._is_connected = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(pipe, queue))
                group.create_task(self._work(queue))
                group.create_task(self._speak(pipe))
                group.create_task(self._ask_the_silent())
        finally:
            self._is_connected = False

    async def _receive(self, pipe: Pipe, queue: asyncio.Queue[Message]) -> None:
        async for message in pipe:
            await queue.put(message)

    async def _work(self, queue: asyncio.Queue[Message]) -> None:
        while True:
            self._steps += 1
            self._is_waiting = True
            try:
                waiting = [await queue.get()]
            finally:
                self._is_waiting = False
            while len(waiting) < GROUP_MESSAGES_MAX and not queue.empty():
                waiting.append(queue.get_nowait())
            group: list[Arrived] = []
            for message in waiting:
                if message.topic in self._by_feed:
                    peer = self._by_feed[message.topic]
                    group.append(Arrived(peer.name, message.topic, message.payload))
                elif message.topic in self._by_status:
                    await self._take_status(self._by_status[message.topic], message)
            if group:
                self._answer(await self._thread.ask(self._store.take, group))

    def _answer(self, result: Result) -> None:
        """Everything in `result` is committed: tell the head-ends, and a person what was odd."""
        counts = result.counts
        self.totals.batches += counts.batches
        self.totals.readings += counts.new + counts.replaced
        self.totals.refused_messages += counts.refused_messages
        for refusal in result.refusals:
            log.warning(
                "headend=%s message refused code=%s reason=%s",
                refusal.headend,
                refusal.code,
                cleaned(refusal.reason),
                extra={"about": (refusal.headend, refusal.code)},
            )
        if counts.conflicts:
            log.warning("conflicting readings kept apart: %d", counts.conflicts)
        if counts.recovered:
            log.warning("readings below the cursor that were unknown: %d", counts.recovered)
        self._receipts.update(result.receipts)
        self._something_to_say.set()
        for stream, from_seq in result.resumes.items():
            peer = self._peers[stream[0]]
            # Nobody answers for an epoch that has ended; a new one is announced by its status.
            if stream[1] == peer.epoch or not peer.is_heard:
                self._ask(stream, from_seq)

    # -- what head-ends say of themselves

    async def _take_status(self, peer: _Peer, message: Message) -> None:
        if not message.payload:
            return  # somebody cleared the retained message
        try:
            status = decode_status(message.payload)
            _check_sender(status, peer.name)
        except FeedError as error:
            self.totals.refused_messages += 1
            log.warning(
                "headend=%s status refused code=%s reason=%s",
                peer.name,
                error.code,
                cleaned(str(error)),
                extra={"about": (peer.name, "status", error.code)},
            )
            arrived = Arrived(peer.name, message.topic, message.payload)
            await self._thread.ask(self._store.refuse, arrived, error)
            return
        if status.online and self._name not in status.consumers:
            log.warning(
                "headend=%s does not know the consumer %s: add it to feed.consumers there",
                peer.name,
                self._name,
                extra={"about": (peer.name, "not configured")},
            )
        if peer.epoch not in (None, status.epoch):
            log.warning("headend=%s epoch=%s begins", peer.name, status.epoch)
        is_news = status.epoch != peer.epoch or (status.online and not peer.is_online)
        peer.epoch, peer.is_online, peer.is_heard = status.epoch, status.online, True
        if is_news and status.online:
            # Whatever was asked before this head-end was there, it did not hear.
            through_seq = await self._thread.ask(self._store.learn_epoch, peer.name, status.epoch)
            self._ask((peer.name, status.epoch), through_seq + 1, again=True)

    async def _ask_the_silent(self) -> None:
        """A head-end whose status is not there may listen all the same."""
        await asyncio.sleep(STATUS_WAIT_S)
        for name, (epoch, through_seq) in (await self._thread.ask(self._store.latest)).items():
            peer = self._peers.get(name)
            if peer is not None and not peer.is_heard:
                self._ask((name, epoch), through_seq + 1)

    def _ask(self, stream: Stream, from_seq: int, *, again: bool = False) -> None:
        """Ask for the stream from `from_seq` on; not for the same twice within a few seconds.

        `again`: ask even so.
        """
        asked, at = self._asked.get(stream, (0, float("-inf")))
        now = self._clock.monotonic()
        if asked == from_seq and now - at < RESUME_AGAIN_S and not again:
            return
        self._asked[stream] = (from_seq, now)
        self._resumes[stream] = from_seq
        self._something_to_say.set()

    async def _speak(self, pipe: Pipe) -> None:
        """Send what there is to say; of several receipts of a stream only the latest."""
        while True:
            await self._something_to_say.wait()
            self._something_to_say.clear()
            while self._receipts or self._resumes:
                if self._receipts:
                    (headend, epoch), through_seq = self._receipts.popitem()
                    receipt = Receipt(epoch=epoch, through_seq=through_seq)
                    if await self._send(pipe, self._peers[headend], encode(receipt)):
                        self.totals.receipts += 1
                if self._resumes:
                    (headend, epoch), from_seq = self._resumes.popitem()
                    resume = Resume(epoch=epoch, from_seq=from_seq)
                    if await self._send(pipe, self._peers[headend], encode(resume)):
                        self.totals.resumes += 1

    async def _send(self, pipe: Pipe, peer: _Peer, payload: bytes) -> bool:
        topic = peer.topics.receipts(self._name)
        try:
            await pipe.publish(topic, payload)
        except PublishRefused as error:
            if self._notices.bad(peer.name, RECEIPT_REFUSED, topic, error.reason):
                log.warning("headend=%s %s: nothing is receipted there", peer.name, error)
            return False
        self._notices.good(peer.name, RECEIPT_REFUSED, topic)
        return True


def _check_sender(status: Status, headend: str) -> None:
    if status.headend != headend:
        msg = f"a status of {status.headend} on the topic of {headend}"
        raise FeedError(msg, code="wrong_stream")
