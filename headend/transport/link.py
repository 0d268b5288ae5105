"""What a byte link is."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class Receiver(Protocol):
    """Who gets the bytes. Both methods are called from the event loop and must not block."""

    def bytes_received(self, data: bytes, bad: Sequence[int]) -> None:
        """Bytes came in; `bad`: indexes in `data` of bytes with a parity or framing error."""
        ...

    def link_lost(self, reason: Exception | None) -> None:
        """The port is gone. Called at most once an `open`, and never after `close`."""
        ...


class Link(Protocol):
    """A byte pipe to a medium. It may be opened again after it was lost or closed.

    `name` is for messages ("/dev/ttyUSB0", "127.0.0.1:4001"). `parity_seen`: damaged bytes are
    marked (known only once the port is open; False until then unless the specification says so).
    `char_s`: seconds one character takes on the wire, 0.0 when the medium has no known speed.
    """

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def parity_seen(self) -> bool:
        """Damaged bytes are marked."""
        ...

    @property
    def char_s(self) -> float:
        """Seconds a character takes on the wire."""
        ...

    async def open(self, receiver: Receiver) -> None:
        """Open and configure the port. PortGone or PortBusy, with a message that says what to do.

        Cancel-safe: a cancelled open leaves nothing open.
        """
        ...

    def write(self, data: bytes) -> None:
        """Send; never blocks. PortGone when the link is lost or takes no bytes any more."""
        ...

    async def close(self) -> None:
        """Close; never raises; a second close does nothing."""
        ...


@runtime_checkable
class Returning(Protocol):
    """A link that can tell cheaply, without opening, whether its device is there at all."""

    def present(self) -> bool:
        """The device's path exists (a plugged-in adapter shows up here first)."""
        ...
