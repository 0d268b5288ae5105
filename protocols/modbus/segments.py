"""Frames of any function in bytes that people paste: where each begins and ends, good or broken.

Only for explaining. It knows no request, so it takes what has a CRC that fits (RTU) or a header
that fits (TCP), and says of the rest whether a frame can have been meant.
"""

from collections.abc import Iterator
from typing import NamedTuple

from protocols.modbus.adu import RTU_BYTES_MAX, RTU_BYTES_MIN, TCP_BYTES_MAX, TCP_HEAD_BYTES
from protocols.modbus.delimiter import crc_fits, measure_tcp
from protocols.modbus.words import is_known

READS = (0x01, 0x02, 0x03, 0x04)
_WRITES = (0x0F, 0x10)


class Segment(NamedTuple):
    """`good`: passed its check. Not good and `head`: a frame may have been meant."""

    offset: int
    raw: bytes
    good: bool
    head: bool


def segments(data: bytes, *, tcp: bool) -> Iterator[Segment]:
    """Everything in `data`, in order."""
    at = plain_from = 0
    while at < len(data):
        size = _tcp_size(data, at, first=at == plain_from) if tcp else _rtu_size(data, at)
        if size:
            yield from _broken(data, plain_from, at, tcp=tcp)
            yield Segment(at, data[at : at + size], good=True, head=True)
            plain_from = at + size
        at += size or 1
    yield from _broken(data, plain_from, len(data), tcp=tcp)


def good_bytes(data: bytes, *, tcp: bool) -> int:
    """How many of the bytes lie in frames that are good beyond doubt."""
    return sum(
        len(one.raw)
        for one in segments(data, tcp=tcp)
        if one.good and (not tcp or pdu_fits(one.raw[TCP_HEAD_BYTES:]))
    )


def is_tcp(data: bytes) -> bool:
    """Whether the bytes are Modbus TCP rather than RTU."""
    line, net = (good_bytes(data, tcp=tcp) for tcp in (False, True))
    if line or net:
        return net > line
    return _tcp_head(data)


def looks_like_modbus(data: bytes) -> bool:
    """Whether bytes without a good frame begin like a read of Modbus, behind two bytes at most."""
    return _tcp_head(data) or any(_rtu_head(data[at:]) for at in range(3))


def pdu_fits(pdu: bytes) -> bool:
    """Whether a PDU of a known function has the size its content asks for."""
    function, size = pdu[0], len(pdu)
    if not is_known(function):
        return False
    if function & 0x80:
        return size == 2
    if function in READS:
        return size == 5 or (size >= 2 and pdu[1] == size - 2 > 0)
    if function in _WRITES:
        return size == 5 or (size > 6 and pdu[5] == size - 6)
    return size == 5 if function in (0x05, 0x06) else size >= 2


def _rtu_size(data: bytes, at: int) -> int:
    """Of the good frame at `at`; 0 for none."""
    held = min(len(data) - at, RTU_BYTES_MAX)
    if held < RTU_BYTES_MIN or not is_known(data[at + 1]):
        return 0
    if not data[at] and data[at + 1] in READS:  # nobody answers a broadcast, so nobody reads by it
        return 0
    sizes = [*rtu_sizes(data[at : at + held]), held]
    return next((s for s in sizes if RTU_BYTES_MIN <= s <= held and crc_fits(data, at, s)), 0)


def rtu_sizes(raw: bytes) -> list[int]:
    """The sizes that a frame with this beginning can have, the likeliest first."""
    function = raw[1]
    if function & 0x80:
        return [5]
    if function in READS or function == 0x11:
        reply = [raw[2] + 5] if len(raw) > 2 and raw[2] else []
        return reply if function == 0x11 else [*reply, 8]
    if function in _WRITES:
        return [8, raw[6] + 9] if len(raw) > 6 else [8]
    return [8] if function in (0x05, 0x06) else []


def _tcp_size(data: bytes, at: int, *, first: bool) -> int:
    """Of the whole frame at `at`; behind other bytes its content must fit too. 0 for none."""
    found = measure_tcp(data, at)
    if not isinstance(found, int):
        return 0
    fits = pdu_fits(data[at + TCP_HEAD_BYTES : at + found])
    return found if first or fits else 0


def _tcp_head(raw: bytes) -> bool:
    """Whether bytes begin like a frame of Modbus TCP, whole or not."""
    if len(raw) < TCP_HEAD_BYTES:
        return False
    length = raw[4] << 8 | raw[5]
    if raw[2:4] == b"\0\0":
        return 1 <= length < TCP_BYTES_MAX
    return length == len(raw) - 6  # only the protocol is wrong


def _rtu_head(raw: bytes) -> bool:
    """Whether bytes begin like a read of registers on a line, whole or not."""
    if len(raw) < 3 or not 1 <= raw[0] <= 247:
        return False
    return raw[1] in (0x03, 0x04) or (is_known(raw[1]) and len(raw) in rtu_sizes(raw))


def _broken(data: bytes, begin: int, end: int, *, tcp: bool) -> Iterator[Segment]:
    """Bytes between good frames: dirt, and what may have been a frame."""
    head_at = next(
        (at for at in range(begin, end) if (_tcp_head if tcp else _rtu_head)(data[at:end])), end
    )
    if begin < head_at:
        yield Segment(begin, data[begin:head_at], good=False, head=False)
    if head_at < end:
        yield Segment(head_at, data[head_at:end], good=False, head=True)
