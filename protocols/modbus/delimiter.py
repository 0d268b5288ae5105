"""Finding Modbus frames in a stream of bytes.

RTU has no start byte: a frame is known by its function, its byte count and a CRC that fits. A head
that fits by chance may ask for more bytes than ever come, so a finder that knows what it waits for
looks ahead: when the answer to the outstanding request is whole behind an incomplete head, that
head is none. Silence is never needed to find a good frame that is not behind such a head.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocols.checksum import crc16
from protocols.framing import Rejected
from protocols.modbus.adu import (
    PDU_BYTES_MAX,
    RTU_BYTES_MAX,
    TCP_BYTES_MAX,
    TCP_HEAD_BYTES,
    TCP_UNIT_AT,
)

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from protocols.values import dataclass

READ_FUNCTIONS = (0x03, 0x04)  # read holding registers, read input registers
REFUSED = 0x80  # added to the function of a refused request
REQUEST_BYTES = 8  # of a read request in RTU
EXCEPTION_BYTES = 5
REPLY_OVERHEAD_BYTES = 5  # of an RTU reply: unit, function, byte count, CRC
COUNT_MAX = 125

_DIRT = Rejected("dirt")
_CHECKSUM = Rejected("checksum")

Bytes = bytes | bytearray
Measured = int | Rejected | None


def crc_fits(buffer: Bytes, at: int, size: int) -> bool:
    """Whether the `size` bytes from `at` on end with their own CRC."""
    end = at + size
    return crc16(buffer[at : end - 2]) == buffer[end - 2] | buffer[end - 1] << 8


def measure_rtu(buffer: Bytes, at: int) -> Measured:
    """A frame of a read at `at`, of whatever unit: request, reply or exception.

    A request and the reply to another one can begin alike; the CRC decides, the shorter first.
    """
    held = len(buffer) - at
    if held < 2:
        return None
    function = buffer[at + 1]
    if function & ~REFUSED not in READ_FUNCTIONS:
        return _DIRT
    if held < EXCEPTION_BYTES:
        return None
    if function & REFUSED:
        return EXCEPTION_BYTES if crc_fits(buffer, at, EXCEPTION_BYTES) else _CHECKSUM
    reply = _reply_size(buffer[at + 2])
    if 0 < reply <= held and crc_fits(buffer, at, reply):
        return reply
    if held >= REQUEST_BYTES and crc_fits(buffer, at, REQUEST_BYTES):
        return REQUEST_BYTES
    return None if held < max(reply, REQUEST_BYTES) else _CHECKSUM


def _reply_size(byte_count: int) -> int:
    """Of a reply with that byte count; 0 when no reply has it."""
    if byte_count % 2 or not 2 <= byte_count <= 2 * COUNT_MAX:
        return 0
    return byte_count + REPLY_OVERHEAD_BYTES


def measure_tcp(buffer: Bytes, at: int) -> Measured:
    """A frame with an MBAP header at `at`, of whatever function."""
    held = len(buffer) - at
    if held >= 4 and (buffer[at + 2] or buffer[at + 3]):
        return _DIRT
    if held < TCP_UNIT_AT:
        return None
    length = buffer[at + 4] << 8 | buffer[at + 5]
    if not 2 <= length <= PDU_BYTES_MAX + 1:
        return _DIRT
    size = TCP_UNIT_AT + length
    return size if size <= held else None


@dataclass(frozen=True, slots=True)
class RtuAnswerDelimiter:
    """Finds what may answer one RTU read request, and whole frames of others.

    `head` is unit, function and byte count of the expected reply.
    """

    request: bytes
    head: bytes
    start: bytes = b""  # a frame may begin with any byte

    def measure(self, buffer: Bytes, at: int) -> Measured:
        """As `Delimiter.measure`. The expected reply and our own echo are looked for first."""
        held = len(buffer) - at
        size = self.head[2] + REPLY_OVERHEAD_BYTES
        if buffer.startswith(self.request[:held], at):
            # A beginning of our own request is no reply, whatever its CRC happens to say.
            return REQUEST_BYTES if held >= REQUEST_BYTES else self._unless_behind(buffer, at)
        if buffer.startswith(self.head, at):
            # The first eight bytes of a reply may be a request by their CRC: wait for the whole.
            if held < size:
                return self._unless_behind(buffer, at)
            if crc_fits(buffer, at, size):
                return size
        found = measure_rtu(buffer, at)
        if found is None:
            return self._unless_behind(buffer, at)
        if found is _CHECKSUM and not buffer.startswith(self.head, at):
            return _DIRT  # only a head of what was asked for says that the answer is damaged
        return found

    def _unless_behind(self, buffer: Bytes, at: int) -> Rejected | None:
        """None (more bytes), unless the answer is whole within reach of the head at `at`."""
        end = min(len(buffer), at + RTU_BYTES_MAX)
        refused = bytes((self.head[0], self.head[1] | REFUSED))
        size = self.head[2] + REPLY_OVERHEAD_BYTES
        if _find_whole(buffer, at + 1, end, self.head, size) or _find_whole(
            buffer, at + 1, end, refused, EXCEPTION_BYTES
        ):
            return _DIRT
        return None


def _find_whole(buffer: Bytes, begin: int, end: int, head: bytes, size: int) -> bool:
    """Whether a good frame with this head lies within begin..end."""
    at = buffer.find(head, begin, end)
    while 0 <= at <= end - size:
        if crc_fits(buffer, at, size):
            return True
        at = buffer.find(head, at + 1, end)
    return False


@dataclass(frozen=True, slots=True)
class TcpAnswerDelimiter:
    """Finds MBAP frames while one request is outstanding.

    `heads` are what its good answers begin with, from the transaction to the byte count or, for a
    refusal, to the function.
    """

    heads: tuple[bytes, ...]
    start: bytes = b""  # a frame may begin with any byte

    def measure(self, buffer: Bytes, at: int) -> Measured:
        """As `Delimiter.measure`. Every whole frame is one, of whatever transaction.

        Unless the answer is whole within its reach: then it was cut off, or no frame at all.
        """
        found = measure_tcp(buffer, at)
        if isinstance(found, Rejected) or buffer.startswith(self.heads, at):
            return found
        reach = at + (found or TCP_BYTES_MAX) - 1  # the last place where it could begin
        for head in self.heads:
            place = buffer.find(head, at + 1, reach + len(head))
            if place >= 0 and isinstance(measure_tcp(buffer, place), int):
                return _DIRT
        return found


@dataclass(frozen=True, slots=True)
class AnyDelimiter:
    """Finds frames with nothing known of what was asked: the reads of a line, or MBAP frames."""

    measure_one: Callable[[Bytes, int], Measured]
    start: bytes = b""

    def measure(self, buffer: Bytes, at: int) -> Measured:
        """As `Delimiter.measure`."""
        return self.measure_one(buffer, at)


def _measure_request(buffer: Bytes, at: int) -> Measured:
    """As `measure_rtu`; a good request behind an incomplete head proves that head wrong."""
    found = measure_rtu(buffer, at)
    if found is not None:
        return found
    end = min(len(buffer), at + RTU_BYTES_MAX)
    for function in READ_FUNCTIONS:
        place = buffer.find(function, at + 2, end)
        while 0 <= place <= end - REQUEST_BYTES + 1:
            if crc_fits(buffer, place - 1, REQUEST_BYTES):
                return _DIRT
            place = buffer.find(function, place + 1, end)
    return None


ANY_RTU = AnyDelimiter(measure_rtu)
ANY_TCP = AnyDelimiter(measure_tcp)
REQUESTS_RTU = AnyDelimiter(_measure_request)

__all__ = [
    "ANY_RTU",
    "ANY_TCP",
    "COUNT_MAX",
    "EXCEPTION_BYTES",
    "READ_FUNCTIONS",
    "REFUSED",
    "REPLY_OVERHEAD_BYTES",
    "REQUESTS_RTU",
    "REQUEST_BYTES",
    "TCP_HEAD_BYTES",
    "RtuAnswerDelimiter",
    "TcpAnswerDelimiter",
    "crc_fits",
    "measure_rtu",
    "measure_tcp",
]
