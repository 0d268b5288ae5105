"""The place both writers of `series.py` write to: a process that takes lines and counts them.

    python benchmarks/series_sink.py

Prints its port. `POST /write` (InfluxDB 1.x) and `POST /api/v2/write` (2.x) are answered 204 at
once, whatever comes. `GET /lines` tells how many lines came, `GET /count` also how many different
values (series, field and time); `POST /reset` forgets them, and `POST /reset/slow` has every write
answered only after `SLOW_S`. Ends with its standard input.
"""

import asyncio
import gzip
import json
import sys
from dataclasses import dataclass, field

SLOW_S = 0.02
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.6.7\r\n\r\n"


@dataclass(slots=True)
class Kept:
    """What came over all connections."""

    bodies: list[bytes] = field(default_factory=list)
    lines: int = 0
    slow: bool = False


class Sink(asyncio.Protocol):
    """One connection; bodies go to a list and are looked at only when somebody asks."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in lines)
            }
            length = int(headers.get(b"content-length", b"0"))
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            if headers.get(b"content-encoding") == b"gzip":
                body = gzip.decompress(body)
            if b"/write" in first:
                self._kept.bodies.append(body)
                self._kept.lines += count_lines(body)
                if self._kept.slow:
                    asyncio.get_running_loop().call_later(SLOW_S, self._send, NO_CONTENT)
                    continue
            self._send(self._answer(first))

    def _send(self, answer: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(answer)

    def _answer(self, first: bytes) -> bytes:
        kept = self._kept
        if first.startswith(b"POST /reset"):
            kept.bodies.clear()
            kept.lines, kept.slow = 0, b"/slow" in first
            return NO_CONTENT
        if first.startswith(b"GET /lines"):
            found = {"lines": kept.lines}
        elif first.startswith(b"GET /count"):
            found = count(kept.bodies)
        else:
            return NO_CONTENT
        text = json.dumps(found).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % len(text) + text


def count_lines(body: bytes) -> int:
    """Lines of a body, the last one with or without its end."""
    return body.count(b"\n") + (not body.endswith(b"\n") and bool(body))


def count(bodies: list[bytes]) -> dict[str, int]:
    """Lines and different values; quality flags are no values."""
    lines = 0
    values = set()
    for body in bodies:
        for line in body.splitlines():
            lines += 1
            # No blank, comma or equals sign inside a name in what the benchmark writes.
            series, fields, time_ms = line.split(b" ")
            for one in fields.split(b","):
                name = one.partition(b"=")[0]
                if not name.endswith(b"_quality"):
                    values.add((series, name, time_ms))
    return {"lines": lines, "values": len(values), "requests": len(bodies)}


async def serve() -> None:
    """Until standard input ends."""
    kept = Kept()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(kept), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
