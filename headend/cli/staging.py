"""What a simulated installation stands on: a folder of its own, and processes of `headend` in it.

`demo` and `drill` share it.
"""

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from headend.domain.errors import ConfigError, HeadendError

STOP_WAIT_S = 10.0
HEADEND = ("-m", "headend.cli.main")


class StageFailed(HeadendError):
    """Something that the installation stands on ended by itself, or never came up."""


def empty_folder(directory: Path, mark: str, what: str) -> Path:
    """An empty directory for a run; what an earlier one left is removed, nothing else is.

    `mark`: the file that says so; `what`: what made it, for messages. ConfigError when something
    else is there.
    """
    directory = directory.absolute()
    if directory.exists() and any(directory.iterdir()):
        if not (directory / mark).exists():
            msg = f"{directory} holds something that is not a {what}"
            raise ConfigError(msg, hint="give another place: --dir D")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / mark).write_text(f"made by headend {what}, removed by the next one\n")
    return directory


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _open_log(file: Path) -> BinaryIO:
    return file.open("ab")


class Children:
    """Processes with a log each in `directory`, by name. End them all at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, asyncio.subprocess.Process] = {}

    def log_of(self, name: str) -> Path:
        """Where a process writes its log."""
        return self._directory / f"{name}.log"

    async def start(self, name: str, arguments: Sequence[str]) -> int:
        """Start Python with these arguments; the process id."""
        return await self.start_program(name, [sys.executable, *arguments])

    async def start_program(self, name: str, command: Sequence[str]) -> int:
        """Start a program in a session of its own: Ctrl-C reaches us, and we end it."""
        log = _open_log(self.log_of(name))
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        log.close()
        self._running[name] = process
        return process.pid

    def check(self) -> None:
        """StageFailed when one has ended by itself."""
        for name, process in self._running.items():
            if process.returncode is not None:
                msg = f"headend {name} ended by itself with code {process.returncode}"
                raise StageFailed(f"{msg}; see {self.log_of(name)}")

    async def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End one and wait for it; what does not end in time is killed."""
        process = self._running.pop(name, None)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def end_all(self) -> None:
        """End every one, the newest first."""
        for name in reversed(list(self._running)):
            await self.end(name)
