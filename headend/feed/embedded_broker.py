"""A broker inside this process, for the demo and the laptop.

It speaks MQTT 3.1.1, takes no passwords and forgets everything when it ends; receipts and resumes
survive that. It listens on this machine only.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from amqtt.broker import Broker

from headend.domain.errors import ConfigError
from headend.messages.broker import is_loopback

_CHATTY = ("amqtt", "transitions")


@asynccontextmanager
async def embedded_broker(host: str, port: int) -> AsyncIterator[int]:
    """A running broker at host:port for as long as the block lasts; gives the port.

    ConfigError for a host other than this machine. OSError when the port is taken.
    """
    if not is_loopback(host):
        raise ConfigError(
            f"the embedded broker takes no passwords and listens on this machine only, not {host}",
            hint="127.0.0.1, or a broker of its own",
        )
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    await broker.start()
    try:
        yield port
    finally:
        await broker.shutdown()
