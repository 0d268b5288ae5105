"""A broker in memory: both ends of the feed on one loop, and no time passes on the way.

It knows what the feed uses of one: subscriptions with wildcards, retained messages, a will. What is
handed over is acknowledged at once and delivered some seconds later, with all that came meanwhile;
`cut` breaks every connection as a dead network does, and what was on its way is gone.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from headend.messages.broker import BrokerSpec, MqttVersion
from headend.messages.connect_words import Code, Why
from headend.messages.incoming import Incoming, Message
from headend.messages.pipe import Pipe, PipeLost, Will

WINDOW = 4096
ON_THE_WAY_S = 5.0


class MemoryBroker:
    """Who is connected, and what is retained."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.pipes: list[MemoryPipe] = []
        self.is_up = True
        self._on_the_way: list[Message] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """To whoever subscribed."""
        if retain:
            self.retained[topic] = payload
        if not self._on_the_way:
            asyncio.get_running_loop().call_later(ON_THE_WAY_S, self._arrive)
        self._on_the_way.append(Message(topic, payload, retain=False))

    def _arrive(self) -> None:
        arrived, self._on_the_way = self._on_the_way, []
        for message in arrived:
            for pipe in self.pipes:
                if any(fits(text, message.topic) for text in pipe.filters):
                    pipe.deliver(message)

    def cut(self, client: str | None = None) -> None:
        """Break the connections of one client, or of all; without `client` none comes back."""
        self.is_up = self.is_up and client is not None
        for pipe in list(self.pipes):
            if client is None or pipe.client_id == client:
                pipe.lose("the line is cut")
        self._on_the_way.clear()

    def made_for(self) -> type[Pipe]:
        """The pipe class whose pipes end here."""
        broker = self

        class Bound(MemoryPipe):
            """Connects to this broker."""

            def __init__(
                self, spec: BrokerSpec, *, client_id: str, will: Will | None = None
            ) -> None:
                super().__init__(broker, spec, client_id=client_id, will=will)

        return Bound


class MemoryPipe(Pipe):
    """One connection, as `Pipe` promises them."""

    def __init__(
        self, broker: MemoryBroker, spec: BrokerSpec, *, client_id: str, will: Will | None
    ) -> None:
        self._to = broker
        self._name = spec.name
        self.client_id = client_id
        self._goodbye = will
        self._taken = Incoming()
        self._gone = asyncio.Event()
        self._why: str | None = "not connected"
        self.filters: list[str] = []
        self.version = MqttVersion.V5

    async def __aenter__(self) -> Self:
        if not self._to.is_up:
            raise self._lost_error()
        self._why = None
        self._to.pipes.append(self)
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._goodbye = None
        self.lose("closed")

    @property
    def dropped(self) -> int:
        """How many messages found the queue full."""
        return self._taken.dropped

    @property
    def connected(self) -> bool:
        """Whether messages can be published."""
        return self._why is None

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message over."""
        await (await self.send(topic, payload, retain=retain))

    async def send(
        self, topic: str, payload: bytes, *, retain: bool = False
    ) -> "asyncio.Future[None]":
        """The same; the acknowledgement is there at once."""
        self._check()
        self._to.publish(topic, payload, retain=retain)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def subscribe(self, *topic_filters: str) -> None:
        """From now on; what is retained comes first."""
        self._check()
        self.filters += topic_filters
        for topic, payload in sorted(self._to.retained.items()):
            if any(fits(text, topic) for text in topic_filters):
                self.deliver(Message(topic, payload, retain=True))

    async def unsubscribe(self, *topic_filters: str) -> None:
        """Nothing more of these."""
        self._check()
        self.filters = [text for text in self.filters if text not in topic_filters]

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while not self._taken:
            self._check()
            await self._taken.wait()
        return self._taken.take()[0]

    async def wait_lost(self) -> None:
        """Until the connection is gone; then PipeLost."""
        await self._gone.wait()
        self._check()

    def deliver(self, message: Message) -> None:
        """A message for this end."""
        self._taken.put(message, 1, window=WINDOW)

    def lose(self, why: str) -> None:
        """The connection is over."""
        if self._why is not None:
            return
        self._why = why
        self._to.pipes.remove(self)
        self._gone.set()
        self._taken.wake()
        if self._goodbye is not None:
            self._to.publish(self._goodbye.topic, self._goodbye.payload, retain=True)

    def _check(self) -> None:
        if self._why is not None:
            raise self._lost_error()

    def _lost_error(self) -> PipeLost:
        return PipeLost(self._name, Why(Code.LOST, self._why or "not there"))


def fits(topic_filter: str, topic: str) -> bool:
    """Whether a topic is among those of a filter."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, text in enumerate(wanted):
        if text == "#":
            return True
        if at >= len(levels) or text not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)
