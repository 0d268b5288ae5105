"""Running devices asked and steered from another process, over a Unix socket.

One JSON object a line each way: `{"do": "truth", "points": [...]}`, `{"do": "off"}`,
`{"do": "fault", "meter": "M-0001", "fault": "late_reply:every=5"}`; answers bear `"ok"`. What can
be asked: `steering`, and of a street its `plan`.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from simulators.measured import Register

_COMMAND_MAX = 65_536
_ANSWER_MAX = 2**24


class Commanded(Protocol):
    """What a control socket hands its commands to: a `Street`, or `Steering` of single devices."""

    def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do it; KeyError, ValueError, TypeError for what cannot be done."""
        ...


class ControlServer:
    """A control socket: one JSON object a line in, one out. For the owner only."""

    def __init__(self, street: Commanded, path: Path) -> None:
        self._street = street
        self.path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; a socket that a killed street left is replaced."""
        if self.path.is_socket():
            self.path.unlink()
        self._server = await asyncio.start_unix_server(
            self._serve, str(self.path), limit=_COMMAND_MAX
        )
        self.path.chmod(0o600)

    async def close(self) -> None:
        """Stop and take the socket away."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for writer in tuple(self._writers):
                writer.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # the other side is gone, or its line has no end: nobody is left to be told
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                return {"ok": False, "error": "a command is a JSON object"}
            return {"ok": True, **self._street.command(request)}
        except (KeyError, ValueError, TypeError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}


class StreetControl:
    """The other end of a `ControlServer`. One command at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def command(self, do: str, **fields: object) -> dict[str, Any]:
        """Send one command; its answer. ValueError when refused, OSError when nobody is there."""
        async with self._turn:
            if self._streams is None:
                self._streams = await asyncio.open_unix_connection(
                    str(self._path), limit=_ANSWER_MAX
                )
            reader, writer = self._streams
            writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        if not line:
            msg = f"the street at {self._path} is gone"
            raise ConnectionResetError(msg)
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise ValueError(answer["error"])
        return answer

    async def switch_off(self) -> int:
        """All loads and panels to zero; since when (wall ms)."""
        return int((await self.command("off"))["at_ms"])

    async def truth(
        self, *, at_ms: int | None = None, points: list[str] | None = None
    ) -> dict[str, dict[str, Register]]:
        """Asset id -> point -> register, at a wall time (now)."""
        answer = await self.command("truth", at_ms=at_ms, points=points)
        return {
            asset_id: {
                point: Register(Decimal(found["exact"]), Decimal(found["shown"]))
                for point, found in registers.items()
            }
            for asset_id, registers in answer["meters"].items()
        }

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
