"""A broker inside this process, for the demo and the laptop.

It speaks MQTT 3.1.1, takes no passwords and forgets everything when it ends; receipts and resumes
survive that. It listens on this machine only. The listening and the connections are ours, because
the library's own shutdown can wait for ever for a client that is still talking.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker

from headend.domain.errors import ConfigError
from headend.messages.broker import is_loopback

log = logging.getLogger(__name__)

LISTENER = "default"
SHUTDOWN_S = 3.0
_CHATTY = ("amqtt", "transitions")
_CONFIG = {
    "listeners": {LISTENER: {"type": "external", "bind": "127.0.0.1:0"}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


@asynccontextmanager
async def embedded_broker(host: str, port: int) -> AsyncIterator[int]:
    """A running broker at host:port for as long as the block lasts; gives the port.

    Port 0 takes a free one. ConfigError for a host other than this machine, OSError when the port
    is taken. Connections to it use MQTT 3.1.1: it does not understand the greeting of version 5.
    """
    if not is_loopback(host):
        raise ConfigError(
            f"the embedded broker takes no passwords and listens on this machine only, not {host}",
            hint="127.0.0.1, or a broker of its own",
        )
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    broker = Broker(_CONFIG)
    await broker.start()
    connections = _Connections(broker)
    try:
        server = await asyncio.start_server(connections.serve, host, port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await connections.end()
    finally:
        await _shut_down(broker)


class _Connections:
    """Every conversation there is, so that all of them can be ended."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it goes or is sent away."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            await self._broker.external_connected(
                StreamReaderAdapter(reader), StreamWriterAdapter(writer), LISTENER
            )
        except (OSError, EOFError) as error:
            log.debug("embedded broker: a client went away: %s", error)
        finally:
            writer.transport.abort()
            del self._open[task]

    async def end(self) -> None:
        """Cut every connection and wait, not for ever, until its conversation has ended."""
        for writer in self._open.values():
            writer.transport.abort()
        tasks = list(self._open)
        if tasks:
            await asyncio.wait(tasks, timeout=SHUTDOWN_S)
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _shut_down(broker: Broker) -> None:
    try:
        async with asyncio.timeout(SHUTDOWN_S):
            await broker.shutdown()
    except TimeoutError:
        log.warning("the embedded broker did not end in %.0f s and was left behind", SHUTDOWN_S)
