"""`status`: where the status page and the metrics are."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from headend.config.sections.base import Flag, Section, Text, problem
from headend.domain.hosts import is_loopback

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def _bind(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if (
        not colon
        or not host
        or not (port.isascii() and port.isdecimal())
        or not 0 <= int(port) <= 65_535
    ):
        raise problem(f"{value!r} is not an address to listen on", 'such as "127.0.0.1:8080"')
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise problem(f"{value!r} is not the name of a host", "such as status.example, no port")
    return value.lower()


class StatusSection(Section):
    """`bind`: host and port. `hosts`: names this page is reached by beside addresses.

    Whoever reaches the page sees consumption data, and it is not encrypted: beyond this machine
    it is there only when `allow_plaintext` says so, or through a proxy on this machine that asks
    for a password and whose name stands in `hosts`.
    """

    bind: Annotated[Text, AfterValidator(_bind)]
    allow_plaintext: Flag = False
    hosts: tuple[Annotated[Text, AfterValidator(_host)], ...] = Field(default=(), max_length=16)

    @model_validator(mode="after")
    def _consumption_is_not_shown_to_the_network(self) -> "StatusSection":
        host, _port = self.address
        if not is_loopback(host) and not self.allow_plaintext:
            raise problem(
                f"the status page would be open to whoever reaches {host}",
                'bind "127.0.0.1:8080", or say allow_plaintext: true',
            )
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)
