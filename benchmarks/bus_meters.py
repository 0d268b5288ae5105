"""A process of simulated DL/T 645 meters on pseudo terminals, true to the baud rate.

    python benchmarks/bus_meters.py FIRST COUNT BAUD DELAY_MS

One meter a pseudo terminal, with the addresses FIRST .. FIRST+COUNT-1. Prints one JSON line
[[address, path], ...] and serves until its standard input is closed. A request's time on the wire
passes first, then the meter's delay, then the reply's bytes leave one by one, each at its absolute
time, so that lateness of this process never adds up. The nth answer of a meter is
`register(address, n)`.
"""

import heapq
import json
import os
import pty
import select
import sys
import time
import tty
from decimal import Decimal

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import DELIMITER, WAKE_UP, parse
from protocols.dlt645.items import encode
from protocols.dlt645.meter import build_reply, parse_read
from protocols.framing import FrameFound, Framer

CHARACTER_BITS = 11  # 8E1
DI = "00010000"


def register(address: str, nth: int) -> Decimal:
    """The energy register of a meter at its nth answer, counted from 1."""
    return (Decimal(int(address) * 1000 + nth) / 100).quantize(Decimal("0.01"))


class Meter:
    """One meter behind one pseudo terminal."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.fd, theirs = pty.openpty()
        tty.setraw(self.fd)
        tty.setraw(theirs)  # kept open, so that the line outlives who reads it
        os.set_blocking(self.fd, False)
        self.path = os.ttyname(theirs)
        self._framer = Framer(DELIMITER)
        self._began = 0.0
        self._bytes = 0
        self._answers = 0

    def hear(self, now: float) -> tuple[float, bytes] | None:
        """Read what came; (end of the request on a wire, in characters from `began`; reply)."""
        data = os.read(self.fd, 4096)
        if not self._bytes:
            self._began = now
        self._bytes += len(data)
        for event in self._framer.feed(data):
            if not isinstance(event, FrameFound):
                continue
            frame = parse(event.raw)
            if frame.address != self.address or parse_read(frame) != DI:
                continue
            self._answers += 1
            item = lookup(DI)
            assert item is not None
            payload = encode(item, register(self.address, self._answers))
            asked, self._bytes = self._bytes, 0
            return asked, WAKE_UP * 4 + build_reply(self.address, DI, payload)
        return None

    @property
    def began(self) -> float:
        """When the first byte of the request came."""
        return self._began


def serve(meters: list[Meter], char_s: float, delay_s: float) -> None:
    """Answer until standard input is closed."""
    by_fd = {meter.fd: meter for meter in meters}
    stdin = sys.stdin.fileno()
    watched = [stdin, *by_fd]
    due: list[tuple[float, int, int, bytes]] = []  # when, descriptor, index, reply
    while True:
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, fd, index, reply = due[0]
            os.write(fd, reply[index : index + 1])
            if index + 1 < len(reply):
                # From the time it was due, not from now.
                heapq.heapreplace(due, (due[0][0] + char_s, fd, index + 1, reply))
            else:
                heapq.heappop(due)
            now = time.monotonic()
        timeout = max(0.0, due[0][0] - now) if due else None
        ready, _, _ = select.select(watched, [], [], timeout)
        for fd in ready:
            if fd == stdin:
                if not os.read(stdin, 100):
                    return
                continue
            heard = by_fd[fd].hear(time.monotonic())
            if heard is not None:
                asked, reply = heard
                first = by_fd[fd].began + (asked + 1) * char_s + delay_s
                heapq.heappush(due, (first, fd, 0, reply))


def main(arguments: list[str]) -> None:
    """The process."""
    first, count, baud = (int(text) for text in arguments[:3])
    delay_s = float(arguments[3]) / 1000
    meters = [Meter(f"{first + n:012d}") for n in range(count)]
    print(json.dumps([[meter.address, meter.path] for meter in meters]), flush=True)
    serve(meters, CHARACTER_BITS / baud, delay_s)


if __name__ == "__main__":
    main(sys.argv[1:])
