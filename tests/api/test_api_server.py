"""The local socket answers every request once, and survives bad ones."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from headend.api import ApiError, ApiServer
from headend.supervisor import Supervisor


async def _open(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_unix_connection(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.01)


async def _ask(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    reader, writer = await _open(path)
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        answers.append(json.loads(await reader.readline()))
    writer.close()
    await writer.wait_closed()
    return answers


async def _echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"said": request["say"]}


async def _refuse(_request: dict[str, Any]) -> dict[str, Any]:
    msg = "not today"
    raise ApiError(msg, code="refused")


@pytest.fixture
def commands() -> dict[str, Any]:
    return {"echo": _echo, "refuse": _refuse}


async def test_request_is_answered_with_its_id(tmp_path: Path, commands: dict[str, Any]) -> None:
    path = tmp_path / "api.sock"
    async with Supervisor() as supervisor:
        supervisor.start("api", ApiServer(path, commands).run)
        (answer,) = await _ask(path, b'{"id": 7, "command": "echo", "say": "hello"}')
        assert answer == {"id": 7, "ok": True, "said": "hello"}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_bad_requests_get_an_error_and_the_next_good_one_works(
    tmp_path: Path, commands: dict[str, Any]
) -> None:
    path = tmp_path / "api.sock"
    bad = [
        b"not json",
        b"[1]",
        b'{"id": 1}',
        b'{"id": 2, "command": "nothing"}',
        b'{"id": 3, "command": "echo"}',
        b'{"id": 4, "command": "refuse"}',
        b"[" * 20000,
    ]
    async with Supervisor() as supervisor:
        supervisor.start("api", ApiServer(path, commands).run)
        *failed, good = await _ask(path, *bad, b'{"id": 9, "command": "echo", "say": 1}')
        assert [answer["ok"] for answer in failed] == [False] * len(bad)
        assert failed[3]["error"]["message"].endswith("one of echo, refuse")
        assert failed[5]["error"] == {"code": "refused", "message": "not today"}
        assert good == {"id": 9, "ok": True, "said": 1}


async def test_line_over_the_bound_ends_only_its_own_connection(
    tmp_path: Path, commands: dict[str, Any]
) -> None:
    path = tmp_path / "api.sock"
    async with Supervisor() as supervisor:
        supervisor.start("api", ApiServer(path, commands).run)
        reader, writer = await _open(path)
        writer.write(b"x" * 200_000)
        assert await reader.read() == b""
        writer.close()
        (answer,) = await _ask(path, b'{"id": 1, "command": "echo", "say": 2}')
        assert answer["said"] == 2
