"""Good frames of DL/T 645 made into other good frames: replies of others, to others, unasked."""

from collections.abc import Callable

from protocols.dlt645.frame import OVERHEAD_BYTES, Frame645, build, parse
from protocols.errors import RemoteProtocolError

_FOLLOW_UP = 0x12
_REPORT = bytes.fromhex("01150004") + b"\x01" + bytes(11)  # 04001501, twelve bytes


def in_frame(data: bytes, change: Callable[[Frame645], bytes]) -> bytes:
    """The frame in some bytes changed, whatever stands before and behind it; without one all stays.

    `change` gives the whole frame anew.
    """
    start = data.find(b"\x68")
    while start >= 0:
        size = data[start + 9] + OVERHEAD_BYTES if len(data) > start + 9 else 0
        try:
            frame = parse(data[start : start + size], check=False)
        except RemoteProtocolError:
            start = data.find(b"\x68", start + 1)
            continue
        return data[:start] + change(frame) + data[start + size :]
    return data


def of_other_meter(data: bytes, address: str) -> bytes:
    """The same said by another meter."""
    return in_frame(data, lambda frame: build(address, frame.control, frame.data))


def to_other_question(data: bytes) -> bytes:
    """A reply to another question: the identifier's second byte is one further."""

    def change(frame: Frame645) -> bytes:
        if len(frame.data) < 4:
            return frame.raw
        di = bytes((frame.data[0], (frame.data[1] + 1) & 0xFF)) + frame.data[2:4]
        return build(frame.address, frame.control, di + frame.data[4:])

    return in_frame(data, change)


def with_other_number(data: bytes) -> bytes:
    """A follow-up frame with the number of another one; other frames stay as they are."""

    def change(frame: Frame645) -> bytes:
        if frame.function != _FOLLOW_UP or len(frame.data) < 5:
            return frame.raw
        other = frame.data[:-1] + bytes(((frame.data[-1] + 1) & 0xFF,))
        return build(frame.address, frame.control, other)

    return in_frame(data, change)


def report(address: str) -> bytes:
    """The report state word, as meters send it unasked."""
    return build(address, 0x91, _REPORT)
