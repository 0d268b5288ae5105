"""JSON lines over a unix socket that only the daemon's user can open.

Request: `{"id": 1, "command": "read", ...}`; reply: `{"id": 1, "ok": true, ...}` or
`{"id": 1, "ok": false, "error": {"code": ..., "message": ...}}`. One reply for each request, in
order. Requests are bounded in size and number; a bad one is answered, never fatal.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from headend.domain.errors import (
    BusError,
    ConfigError,
    FeedError,
    HeadendError,
    JournalError,
    PolicyError,
    Refused,
)
from protocols.errors import ProtocolError

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 64 * 1024
CLIENTS_MAX = 16

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

CODES: tuple[tuple[type[Exception], str], ...] = (
    (ConfigError, "usage"),
    (Refused, "refused"),
    (PolicyError, "refused"),
    (BusError, "bus"),
    (JournalError, "journal"),
    (FeedError, "feed"),
    (ProtocolError, "protocol"),
)


class ApiError(HeadendError):
    """A request that cannot be carried out; `code` is for programs."""

    def __init__(self, message: str, *, code: str = "usage") -> None:
        self.code = code
        super().__init__(message)


def error_code(error: Exception) -> str:
    """The code a client sees for one of our errors."""
    if isinstance(error, ApiError):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), "error")


class ApiServer:
    """Serves `commands` on `path` while `run` is running; the socket file goes with it.

    `listening` is set once it can be spoken to.
    """

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._clients = 0
        self.listening = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        # The directory may be one below the system's temporary one: nobody else may look in.
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._serve, path=str(self._path), limit=LINE_BYTES_MAX
        )
        try:
            self._path.chmod(0o600)
            async with server:
                self.listening.set()
                await server.serve_forever()
        finally:
            self.listening.clear()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._clients >= CLIENTS_MAX:
            writer.close()
            return
        self._clients += 1
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):
            log.info("api: a client sent a line over %d bytes or went away", LINE_BYTES_MAX)
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        request_id: object = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                msg = "a request is a JSON object"
                raise ApiError(msg)
            request_id = request.get("id")
            name = request.get("command")
            command = self._commands.get(name) if isinstance(name, str) else None
            if command is None:
                msg = f"unknown command {name!r}: one of {', '.join(sorted(self._commands))}"
                raise ApiError(msg)
            return {"id": request_id, "ok": True, **await command(request)}
        except (HeadendError, ProtocolError) as error:
            return _failure(request_id, error_code(error), str(error))
        except (ValueError, KeyError, TypeError, RecursionError, ArithmeticError) as error:
            text = f"bad request: {type(error).__name__}: {error}"
            return _failure(request_id, "usage", text)


def _failure(request_id: object, code: str, message: str) -> dict[str, Any]:
    return {"id": request_id, "ok": False, "error": {"code": code, "message": message}}
