"""`status`: where the status page listens."""

from typing import Annotated

from pydantic import AfterValidator

from headend.config.sections.base import Section, Text, problem


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


class StatusSection(Section):
    """Host and port; loopback unless told otherwise."""

    bind: Annotated[Text, AfterValidator(_bind)]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)
