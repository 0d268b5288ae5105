"""The one wrapper of the MQTT client library: a connection that is used once.

A `Pipe` is made for one connection and thrown away after any error, because the library keeps
what it could not send and would send it again from the same object at its next connect: the
journal is the only queue. It knows no session and no retry. `publish` returns after the broker's
PUBACK and reads its reason code (a broker acknowledges what its access list refuses); what it
returns for is still only "the broker has it". `keep_connected` makes one pipe after the other.
"""

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from headend.config.secret_files import FileFault
from headend.domain.errors import HeadendError
from headend.messages.broker import BrokerSpec, MqttVersion
from headend.messages.connect_words import (
    Code,
    Why,
    why_cut_after_handshake,
    why_login_refused,
    why_no_connection,
    why_tls_answer,
)
from headend.messages.incoming import Incoming, Message
from headend.messages.sockets import NotingSocket, answers_in_tls, check_stays_here
from headend.messages.topics import check_filter

log = logging.getLogger(__name__)

TICK_S = 1.0
CLOSE_WAIT_S = 1.0
_UNSUPPORTED_VERSION = "Unsupported protocol version"
# What a broken or hostile broker can make the library raise out of its read and write calls.
_LIBRARY_ERRORS = (OSError, ValueError, IndexError, KeyError, struct.error, MQTTException)


class PipeLost(HeadendError):
    """The connection is gone or was never there; this pipe will carry nothing more.

    `code` says why; `text` is the message without the broker's name.
    """

    def __init__(self, broker: str, why: Why) -> None:
        self.code, self.text = why
        super().__init__(f"broker {broker}: {why.text}")


class ConnectRefused(PipeLost):
    """The broker answered the connection with a refusal. `reason` is the reason code's name."""

    def __init__(self, broker: str, why: Why, *, reason: str) -> None:
        self.reason = reason
        super().__init__(broker, why)


class NoConnack(PipeLost):
    """Somebody accepted the connection and then said nothing."""


class PublishRefused(HeadendError):
    """The broker acknowledged a message with a failure: it was not delivered to anybody."""

    def __init__(self, message: str, *, topic: str, reason: str) -> None:
        self.topic = topic
        self.reason = reason
        super().__init__(message)


class SubscribeRefused(HeadendError):
    """The broker refused a subscription."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when the connection breaks. QoS 1."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(slots=True)
class _Sent:
    topic: str
    done: asyncio.Future[None]
    at: float


class Pipe:
    """One connection to the broker: `async with Pipe(...) as pipe`. PipeLost when there is none.

    All methods belong to the event loop it was made in. Iterating over it gives the messages
    received, in order, and ends with PipeLost.
    """

    def __init__(self, spec: BrokerSpec, *, client_id: str, will: Will | None = None) -> None:
        self._spec = spec
        self._client_id = client_id
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._client: paho.Client | None = None
        self._fd = -1
        self._lost: Why | None = None
        self._socket: object = None  # as it was opened, for what it noticed
        self._lost_event = asyncio.Event()
        self._connack: asyncio.Future[tuple[ReasonCode, object]] = self._loop.create_future()
        self._sent: dict[int, _Sent] = {}
        self._subscribing: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._inflight_max = spec.inflight_max
        self._room = asyncio.Event()
        self._room.set()
        self._incoming = Incoming()
        self._ticker: asyncio.TimerHandle | None = None
        self.version = MqttVersion.V5

    async def __aenter__(self) -> Self:
        wanted = self._spec.version
        self.version = MqttVersion.V311 if wanted is MqttVersion.V311 else MqttVersion.V5
        try:
            await self._open()
        except BaseException:
            self._drop("not opened")
            raise
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            if self.connected and self._client is not None:
                self._client.disconnect()
                async with asyncio.timeout(CLOSE_WAIT_S):
                    await self._lost_event.wait()
        except TimeoutError:
            log.debug("broker=%s did not take the goodbye", self._spec.name)
        finally:
            self._drop("closed")

    @property
    def dropped(self) -> int:
        """How many messages found the queue full."""
        return self._incoming.dropped

    @property
    def connected(self) -> bool:
        """Whether messages can be published."""
        return self._lost is None and self._connack.done()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1; returns after the PUBACK. PublishRefused, PipeLost."""
        await (await self.send(topic, payload, retain=retain))

    async def send(
        self, topic: str, payload: bytes, *, retain: bool = False
    ) -> "asyncio.Future[None]":
        """Hand a message over as soon as there is room in flight.

        The future ends with the PUBACK: None, PublishRefused or PipeLost. PipeLost is raised at
        once when the pipe is gone already.
        """
        while self._lost is None and len(self._sent) >= self._inflight_max:
            self._room.clear()
            await self._room.wait()
        client = self._alive()
        info = client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lose(f"publish: {paho.error_string(info.rc)}")
        self._alive()
        done: asyncio.Future[None] = self._loop.create_future()
        self._sent[info.mid] = _Sent(topic, done, self._loop.time())
        return done

    async def subscribe(self, *topic_filters: str) -> None:
        """Subscribe at QoS 1; returns after the SUBACK. SubscribeRefused, PipeLost.

        A broker may grant what its access list forbids and then deliver nothing.
        """
        client = self._alive()
        filters = [(check_filter(text), 1) for text in topic_filters]
        rc, mid = client.subscribe(filters)
        codes = await self._acknowledged(rc, mid, "subscribe")
        for text, code in zip(topic_filters, codes, strict=False):
            if code.is_failure:
                raise SubscribeRefused(f"broker {self._spec.name} refused {text}: {code}")

    async def unsubscribe(self, *topic_filters: str) -> None:
        """The broker sends nothing more of these; returns after its acknowledgement. PipeLost."""
        rc, mid = self._alive().unsubscribe(list(topic_filters))
        await self._acknowledged(rc, mid, "unsubscribe")

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while not self._incoming:
            self._alive()
            await self._incoming.wait()
        message, mid = self._incoming.take()
        if mid is not None and self._client is not None and self._lost is None:
            self._client.ack(mid, 1)  # room for the next one at the broker
        return message

    async def wait_lost(self) -> None:
        """Waits until the connection is gone, then raises PipeLost."""
        await self._lost_event.wait()
        self._alive()

    # -- opening and closing

    async def _open(self) -> None:
        try:
            await self._connect()
        except (ConnectRefused, NoConnack) as error:
            # A broker that does not know MQTT 5 says so, or waits for the rest of a packet that
            # it cannot read.
            is_old = isinstance(error, NoConnack) or error.reason == _UNSUPPORTED_VERSION
            if self._spec.version is not MqttVersion.AUTO or not is_old:
                raise
            self._forget_client()
            self._lost = None
            self._lost_event.clear()
            self._connack = self._loop.create_future()
            self.version = MqttVersion.V311
            await self._connect()

    async def _connect(self) -> None:
        """One attempt with one version: `connect_timeout_s` to connect, as long for the answer."""
        spec = self._spec
        client = self._client = self._make_client()
        # The library connects blocking. A cancelled caller waits for the thread to come back
        # (bounded by the connect time-out), so that no socket is left without an owner.
        attempt = self._loop.run_in_executor(None, self._connect_blocking, client)
        try:
            await asyncio.shield(attempt)
        except asyncio.CancelledError:
            await asyncio.wait([attempt])
            if not attempt.cancelled():
                attempt.exception()
            raise
        except (*_LIBRARY_ERRORS, FileFault) as error:
            raise PipeLost(spec.name, why_no_connection(error, spec)) from error
        self._watch_socket(client)
        try:
            async with asyncio.timeout(spec.connect_timeout_s):
                reason, properties = await self._connack
        except TimeoutError as error:
            why = Why(Code.SILENT, "it did not answer the connection")
            raise NoConnack(spec.name, why) from error
        if reason.is_failure:
            name = str(reason)
            raise ConnectRefused(spec.name, why_login_refused(name, spec), reason=name)
        granted = getattr(properties, "ReceiveMaximum", spec.inflight_max)
        self._inflight_max = max(1, min(spec.inflight_max, granted))

    def _make_client(self) -> paho.Client:
        is_v5 = self.version is MqttVersion.V5
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if is_v5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if is_v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = self._spec.connect_timeout_s
        client.on_socket_open = self._on_socket_open
        # More than we ever have in flight: the library must never queue behind our back.
        client.max_inflight_messages_set(self._spec.inflight_max + 8)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
        return client

    def _connect_blocking(self, client: paho.Client) -> None:
        """Runs in a thread: reads the secret files, resolves, connects, does the TLS handshake."""
        spec = self._spec
        if spec.username is not None:
            client.username_pw_set(spec.username, spec.password())
        if spec.tls is not None:
            context = spec.tls.context()
            context.sslsocket_class = NotingSocket
            client.tls_set_context(context)
        check_stays_here(spec)
        properties = None
        if self.version is MqttVersion.V5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = spec.packet_bytes_max
            properties.ReceiveMaximum = spec.incoming_max
        client.connect(spec.host, spec.port, spec.keepalive_s, properties=properties)

    def _watch_socket(self, client: paho.Client) -> None:
        """From here on the event loop serves the socket; no callback ever runs in the thread."""
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_suback
        client.on_unsubscribe = self._on_suback
        sock = client.socket()
        if sock is None:
            raise PipeLost(self._spec.name, self._why_cut())
        if isinstance(sock, socket.socket):
            # Small answers must not wait for the acknowledgement of what went before.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = sock.fileno()
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_write_wanted
        client.on_socket_unregister_write = self._on_write_done
        self._loop.add_reader(self._fd, self._on_readable)
        if client.want_write():
            self._loop.add_writer(self._fd, self._on_writable)
        self._ticker = self._loop.call_later(TICK_S, self._tick)

    def _drop(self, reason: str) -> None:
        """End of this object's life: everything waiting fails, the socket closes. Idempotent."""
        self._lose(reason)
        self._forget_client()

    def _forget_client(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._unwatch()
        client.on_connect = client.on_disconnect = client.on_message = None
        client.on_publish = client.on_subscribe = client.on_unsubscribe = None
        client.on_socket_close = None
        client.on_socket_register_write = client.on_socket_unregister_write = None
        sock = client.socket()
        if sock is not None:
            sock.close()

    def _unwatch(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1

    def _lose(self, reason: str | Why) -> None:
        """The connection is over; whoever waits on it is told. Idempotent."""
        if self._lost is not None:
            return
        why = reason if isinstance(reason, Why) else Why(Code.LOST, reason)
        self._lost = why
        self._unwatch()
        waiting: list[asyncio.Future[Any]] = [sent.done for sent in self._sent.values()]
        waiting += [*self._subscribing.values(), self._connack]
        for future in waiting:
            if not future.done():
                future.set_exception(PipeLost(self._spec.name, why))
                future.exception()  # seen: nobody may be waiting any more
        self._sent.clear()
        self._subscribing.clear()
        self._lost_event.set()
        self._room.set()
        self._incoming.wake()

    def _alive(self) -> paho.Client:
        if self._lost is not None or self._client is None:
            raise PipeLost(self._spec.name, self._lost or Why(Code.LOST, "not connected"))
        return self._client

    def _why_cut(self) -> Why:
        """The broker closed before it answered the connection."""
        if not isinstance(self._socket, NotingSocket):
            return why_no_connection(EOFError(), self._spec)
        trouble = self._socket.trouble
        if isinstance(trouble, ssl.SSLError) and not isinstance(trouble, ssl.SSLEOFError):
            return why_no_connection(trouble, self._spec)
        return why_cut_after_handshake(self._spec)

    # -- what the event loop calls

    def _on_readable(self) -> None:
        client = self._client
        if client is None:
            return
        if not self._connack.done() and answers_in_tls(client.socket()):
            self._lose(why_tls_answer())
            return
        try:
            client.loop_read()
            sock = client.socket()
            # A TLS socket may hold whole packets that select() cannot see.
            while isinstance(sock, ssl.SSLSocket) and sock.pending():
                client.loop_read()
                sock = client.socket()
        except _LIBRARY_ERRORS as error:
            self._lose(f"unreadable packet: {type(error).__name__}")

    def _on_writable(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            client.loop_write()
        except _LIBRARY_ERRORS as error:
            self._lose(f"write failed: {type(error).__name__}")

    def _tick(self) -> None:
        """Once a second: keep-alive, and the age of the oldest message without a PUBACK."""
        client = self._client
        if client is None or self._lost is not None:
            return
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        client.loop_misc()
        for sent in self._sent.values():
            if self._loop.time() - sent.at > self._spec.ack_timeout_s:
                self._lose(f"no PUBACK for {self._spec.ack_timeout_s:.0f} s")
            break

    # -- what the library calls, always inside one of the calls above

    def _on_connect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, props: object
    ) -> None:
        if not self._connack.done():
            self._connack.set_result((reason, props))

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: object,
        reason: ReasonCode,
        _props: object,
    ) -> None:
        self._lose(f"disconnected: {reason}" if self._connack.done() else self._why_cut())

    def _on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("broker=%s a topic that is not UTF-8 was dropped", self._spec.name)
            return
        taken = Message(topic, bytes(message.payload), message.retain)
        mid = message.mid if message.qos else None
        if not self._incoming.put(taken, mid, window=self._spec.incoming_max):
            if self.dropped == 1:
                log.warning("broker=%s sends more than is taken; dropping", self._spec.name)
            if mid is not None:
                client.ack(mid, 1)

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _props: object
    ) -> None:
        sent = self._sent.pop(mid, None)
        if sent is None:
            return
        self._room.set()
        if sent.done.done():
            return
        if reason.is_failure:
            name = str(reason)
            text = f"broker {self._spec.name} refused a message on {sent.topic}: {name}"
            sent.done.set_exception(PublishRefused(text, topic=sent.topic, reason=name))
        else:
            sent.done.set_result(None)

    def _on_suback(
        self, _client: paho.Client, _data: object, mid: int, codes: list[ReasonCode], _props: object
    ) -> None:
        waiting = self._subscribing.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(codes)

    def _on_socket_open(self, _client: paho.Client, _data: object, sock: object) -> None:
        self._socket = sock  # in the connecting thread; read only after it

    def _on_socket_close(self, _client: paho.Client, _data: object, _sock: object) -> None:
        self._unwatch()

    def _on_write_wanted(self, _client: paho.Client, _data: object, _sock: object) -> None:
        if self._fd >= 0:
            self._loop.add_writer(self._fd, self._on_writable)

    def _on_write_done(self, _client: paho.Client, _data: object, _sock: object) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)

    async def _acknowledged(
        self, rc: MQTTErrorCode, mid: int | None, what: str
    ) -> list[ReasonCode]:
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            self._lose(f"{what}: {paho.error_string(rc)}")
        self._alive()
        assert mid is not None
        waiting: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._subscribing[mid] = waiting
        try:
            async with asyncio.timeout(self._spec.ack_timeout_s):
                return await waiting
        except TimeoutError as error:
            why = Why(Code.LOST, f"{what} was not acknowledged")
            self._lose(why)
            raise PipeLost(self._spec.name, why) from error
        finally:
            self._subscribing.pop(mid, None)
