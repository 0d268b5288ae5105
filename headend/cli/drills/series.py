"""A small time-series database for a drill: takes lines as InfluxDB 1 does and keeps them."""

import asyncio
import contextlib
import re
from types import TracebackType
from typing import Self

from headend.domain.clock import iso

_FIELD = re.compile(r"(?:^|,)([a-z0-9_]+)=([-0-9.]+)(?=,|$)")
_METER = re.compile(r",meter=([^, ]+)")

Held = tuple[str, str, str]  # meter, point, instant


class SmallSeries:
    """One server on a port of this machine; `start` and `stop` as often as wanted."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.held: dict[Held, str] = {}
        self._port = port
        self._server: asyncio.Server | None = None
        self._talking: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        """Gone, in the middle of whatever it was doing."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for writer in list(self._talking):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talking.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                    length = re.search(r"\r\ncontent-length: *(\d+)", head)
                    body = await reader.readexactly(int(length[1]) if length else 0)
                    self._take(body.decode())
                    writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
        finally:
            self._talking.discard(writer)
            writer.transport.abort()

    def _take(self, body: str) -> None:
        for line in body.splitlines():
            head, _, rest = line.partition(" ")
            fields, _, time = rest.rpartition(" ")
            meter = _METER.search(head)
            if meter is None or not time.isdecimal():
                continue  # what the head-end says of itself
            for point, value in _FIELD.findall(fields):
                self.held[meter[1], point, iso(int(time))] = value
