"""Finding frames in a stream of bytes: one mechanism for every protocol.

A `Delimiter` knows how one protocol's frames begin, how long they are and whether their check
fits; a `Framer` does the rest: it keeps what may still become a frame, gives out what is one, and
gives out everything else as `Noise`. Nothing is thrown away silently: the raw bytes of all events
in the order of their offsets, followed by the pending bytes, are exactly what was fed.

After a false start the search goes on ONE byte further, inside the bytes that are kept: a good
frame behind (or inside) a false head is found. No I/O, no clock: the caller says when the line
went quiet (`idle`).
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from protocols.values import dataclass

BUFFER_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class FrameFound:
    """Bytes that passed boundary, length and check. `offset`: place of the first in the stream."""

    raw: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Bytes that are no frame, and why.

    `reason`: `dirt` (nothing of the protocol), `checksum`, `end` (a head whose frame failed there;
    the bytes up to the next start follow it), `parity` (a frame or a head with a damaged byte),
    `incomplete` (a head whose frame never ended), `overflow` (a head that asks for more than the
    buffer holds).
    """

    raw: bytes
    reason: str
    offset: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """No frame begins here. `reason` as in `Noise`; `dirt` when there is not even a head."""

    reason: str


Event = FrameFound | Noise


class Delimiter(Protocol):
    """One protocol's way to find its frames. Stateless."""

    @property
    def start(self) -> bytes:
        """The byte a frame begins with; nothing when any byte may be the first."""
        ...

    def measure(self, buffer: bytes | bytearray, at: int) -> int | Rejected | None:
        """What begins at `at` (where a start byte is): a good frame of that many bytes, or not.

        None = it may become one, more bytes are needed. Must not take longer than the longest
        frame is, whatever the buffer holds.
        """
        ...


class Match(Enum):
    """What a whole frame is to the request that is outstanding."""

    REPLY = "reply"
    REFUSAL = "refusal"
    ECHO = "echo"  # our own request came back
    FOREIGN = "foreign"  # from or for another device
    STALE = "stale"  # from the device, but an answer to something else
    UNSOLICITED = "unsolicited"  # nobody asked: a report of the device, another master
    UNREACHED = "unreached"  # a gateway says that it does not reach the device


class Framer:
    """Cuts one stream into frames and noise. Holds at most `buffer_max` bytes."""

    def __init__(self, delimiter: Delimiter, *, buffer_max: int = BUFFER_BYTES_MAX) -> None:
        if buffer_max < 1:
            msg = f"a framer needs room for at least one byte, not {buffer_max}"
            raise ValueError(msg)
        self._start = delimiter.start
        self._measure = delimiter.measure
        self._buffer_max = buffer_max
        self._buffer = bytearray()
        self._offset = 0  # of the buffer's first byte in the stream
        self._bad: list[int] = []  # stream offsets of damaged bytes in the buffer, ascending

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not complete yet."""
        return len(self._buffer)

    @property
    def pending_bytes(self) -> bytes:
        """The held bytes themselves."""
        return bytes(self._buffer)

    def feed(self, data: bytes, bad: Sequence[int] = ()) -> list[Event]:
        """Take bytes as they came; `bad` = indexes in `data` that came with a parity error."""
        if not bad and not self._buffer and len(data) <= self._buffer_max:
            # The usual case: one whole frame and nothing behind it, given as `_scan` would.
            at = data.find(self._start)
            size = self._measure(data, at) if at >= 0 else None
            if isinstance(size, int) and at + size == len(data):
                offset = self._offset
                self._offset = offset + len(data)
                if at:
                    return [Noise(data[:at], "dirt", offset), FrameFound(data[at:], offset + at)]
                return [FrameFound(bytes(data), offset)]
        if bad:
            end = self._offset + len(self._buffer)
            self._bad += sorted(end + index for index in set(bad) if 0 <= index < len(data))
        if len(self._buffer) + len(data) <= self._buffer_max:
            self._buffer += data
            return self._scan(final=False)
        events: list[Event] = []
        taken = 0
        while taken < len(data):
            room = self._buffer_max - len(self._buffer)
            self._buffer += data[taken : taken + room]
            taken += room
            events += self._scan(final=False)
            if len(self._buffer) >= self._buffer_max:
                events += self._give_up_first("overflow")
        return events

    def idle(self) -> list[Event]:
        """The line went quiet: give up the incomplete frame and search again inside it.

        Afterwards nothing is pending.
        """
        return self._scan(final=True)

    def _give_up_first(self, reason: str) -> list[Event]:
        """The head at the front of the full buffer is not one: go on behind its first byte."""
        return self._scan(final=False, first_rejected=reason)

    def _scan(self, *, final: bool, first_rejected: str | None = None) -> list[Event]:
        buffer = self._buffer
        start, measure = self._start, self._measure
        events: list[Event] = []
        noise_from, noise_reason = 0, "dirt"
        at = 0
        if first_rejected is not None:
            noise_reason, at = first_rejected, 1
        kept_from = len(buffer)
        while True:
            at = buffer.find(start, at)
            if at < 0:
                break
            size = measure(buffer, at)
            if isinstance(size, int):
                self._add_noise(events, noise_from, at, noise_reason)
                self._add_frame(events, at, at + size)
                at += size
                noise_from, noise_reason = at, "dirt"
                continue
            if size is None:
                if not final:
                    kept_from = at
                    break
                reason = self._unfinished(at)
            else:
                reason = size.reason
            if reason != "dirt":
                # A head of its own: what stood before it is told apart from it.
                self._add_noise(events, noise_from, at, noise_reason)
                noise_from, noise_reason = at, reason
            at += 1
        self._add_noise(events, noise_from, kept_from, noise_reason)
        self._drop(kept_from)
        return events

    def _add_noise(self, events: list[Event], begin: int, end: int, reason: str) -> None:
        if begin < end:
            events.append(Noise(bytes(self._buffer[begin:end]), reason, self._offset + begin))

    def _add_frame(self, events: list[Event], begin: int, end: int) -> None:
        raw = bytes(self._buffer[begin:end])
        if self._bad and self._damaged(begin, end):
            # Its boundaries are right, so nothing inside it is a frame of its own.
            events.append(Noise(raw, "parity", self._offset + begin))
        else:
            events.append(FrameFound(raw, self._offset + begin))

    def _damaged(self, begin: int, end: int) -> bool:
        index = bisect_left(self._bad, self._offset + begin)
        return index < len(self._bad) and self._bad[index] < self._offset + end

    def _unfinished(self, at: int) -> str:
        """Why the bytes from `at` on, which might have become a frame, are none."""
        if self._damaged(at, len(self._buffer)):
            return "parity"
        # Where any byte may begin a frame, a single one says nothing.
        alone = not self._start and at >= len(self._buffer) - 1
        return "dirt" if alone else "incomplete"

    def _drop(self, count: int) -> None:
        if not count:
            return
        if count == len(self._buffer):
            self._buffer.clear()
            self._bad.clear()
        else:
            del self._buffer[:count]
        self._offset += count
        if self._bad:
            self._bad = [offset for offset in self._bad if offset >= self._offset]
