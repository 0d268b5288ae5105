"""A database that does to a writer whatever a test wants: it takes lines as InfluxDB does, and
answers, hangs, refuses and hangs up by script."""

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.timeseries.line_parser import NotALine, Parsed, parse_body
from tests.timeseries.series_kit import HEADEND, Key

STATUSES = {
    "401": (401, "authorization failed"),
    "403": (403, "not allowed to write"),
    "404": (404, "database not found"),
    "408": (408, "request took too long"),
    "429": (429, "slow down"),
    "500": (500, "internal error"),
    "503": (503, "not now"),
}
# Nothing of these is for ever: what is done first, and what is answered.
PASSING = (
    "408", "429", "500", "503", "500 kept", "slow", "reset", "reset kept", "hang", "hang kept",
    "cut", "garbage",
)  # fmt: skip
CONFIGURATION = ("401", "403", "404", "400 of another", "307")
SHORT_BYTES = 400  # a request of so little is never answered 413


@dataclass
class Stub:
    """One server. `script`: what to do with the next requests; `odds`, `random`: then by lot.

    `bad`: fields refused for good; `keeps_good`: whether the others of such a request are kept.
    `body_bytes_max`: more is 413. `held`: what it has; `log`: every value it took, in order.
    `broken`: what a client must never do.
    """

    script: deque[str] = field(default_factory=deque)
    bad: Callable[[Key], bool] = lambda _key: False
    keeps_good: bool = True
    body_bytes_max: int = 1 << 30
    lot: random.Random | None = None
    odds: float = 0.0
    choices: tuple[str, ...] = PASSING
    authorization: str | None = None
    held: dict[Key, Any] = field(default_factory=dict)
    log: list[tuple[Key, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    requests: int = 0
    bodies: list[bytes] = field(default_factory=list)
    did: dict[str, int] = field(default_factory=dict)
    retry_after: str = "0"
    _server: asyncio.Server | None = None
    _handlers: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._server is not None
        self._server.close()
        while self._handlers:
            for writer in self._handlers.values():
                writer.transport.abort()
            await asyncio.wait(self._handlers.keys())

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def will(self, *steps: str) -> None:
        """Do these with the next requests."""
        self.script.extend(steps)

    # -- one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers[task] = writer
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            del self._handlers[task]

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in rest)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests += 1
        self.bodies.append(body)
        self._check(first, headers)
        step = self._next(body)
        self.did[step] = self.did.get(step, 0) + 1
        if step.endswith("kept") and len(body) <= self.body_bytes_max:
            self._take(body)
        match step.removesuffix(" kept"):
            case "reset":
                return False
            case "hang":
                await reader.read(1)  # until the client gives up
                return False
            case "cut":
                writer.write(b"HTTP/1.1 204 No Cont")
                await writer.drain()
                return False
            case "garbage":
                writer.write(b"\x00\x16\xff nothing like HTTP\r\n\r\n")
                await writer.drain()
                return False
            case "slow":
                await asyncio.sleep(0.03)
                answer = self._answer(body)
            case "400 of another":
                answer = _http(400, "<html>a proxy</html>", kind="text/html", of_influxdb=False)
            case "307":
                answer = _http(307, "", more={"Location": "http://127.0.0.1:1/elsewhere"})
            case "413":
                answer = _http(413, json.dumps({"error": "Request Entity Too Large"}))
            case "":
                answer = self._answer(body)
            case other:
                status, text = STATUSES[other]
                more = {"Retry-After": self.retry_after} if status in (429, 503) else {}
                answer = _http(status, json.dumps({"error": text}), more=more)
        writer.write(answer)
        await writer.drain()
        return True

    def _next(self, body: bytes) -> str:
        step = ""
        if self.script:
            step = self.script.popleft()
        elif self.lot is not None and self.lot.random() < self.odds:
            step = self.lot.choice(self.choices)
        if step == "413" and len(body) <= SHORT_BYTES:
            return ""
        return step

    def _answer(self, body: bytes) -> bytes:
        if len(body) > self.body_bytes_max:
            return _http(413, json.dumps({"error": "Request Entity Too Large"}))
        refused = self._take(body)
        if refused:
            told = {"error": f"partial write: {refused[0]} refused", "code": "invalid"}
            return _http(400, json.dumps(told))
        return _http(204, "")

    def _take(self, body: bytes) -> list[str]:
        """Names of what is refused for good."""
        try:
            lines = parse_body(body)
        except NotALine as error:
            self.broken.append(str(error))
            return [str(error)]
        refused = []
        good: list[tuple[Key, Any]] = []
        for line in lines:
            found = list(_keys(line))
            wrong = [key[4] for key, _value in found if self.bad(key)]
            refused += wrong
            if not wrong:
                good += found
        if not refused or self.keeps_good:
            for key, value in good:
                before = self.held.get(key)
                if before is not None and type(before) is not type(value):
                    self.broken.append(f"{key} was {before!r} and is {value!r}")
                self.held[key] = value
                self.log.append((key, value))
        return refused

    def _check(self, first: str, headers: dict[str, str]) -> None:
        method, target, _version = first.split(" ")
        url = urlsplit(target)
        asked = parse_qs(url.query)
        if method != "POST" or url.path not in ("/write", "/api/v2/write"):
            self.broken.append(first)
        if asked.get("precision") != ["ms"]:
            self.broken.append(first)
        if self.authorization is not None and headers.get("authorization") != self.authorization:
            self.broken.append("not the right Authorization")


def _keys(line: Parsed) -> Iterable[tuple[Key, Any]]:
    tags = dict(line.tags)
    assert tags.pop("headend") == HEADEND
    at = (tags.pop("meter"), tags.pop("service_point", ""), tags.pop("interval_s", ""))
    assert not tags
    for name, value in line.fields.items():
        yield (line.measurement, *at, name, line.time), value


def _http(
    status: int,
    text: str,
    *,
    kind: str = "application/json",
    of_influxdb: bool = True,
    more: dict[str, str] | None = None,
) -> bytes:
    headers = {"Content-Type": kind} | (more or {})
    if of_influxdb:
        headers["X-Influxdb-Version"] = "stub"
    if status != 204:
        headers["Content-Length"] = str(len(text.encode()))
    lines = [f"HTTP/1.1 {status} Said", *(f"{k}: {v}" for k, v in headers.items()), "", text]
    return "\r\n".join(lines).encode()
