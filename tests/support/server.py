"""A server process that a test starts, breaks and starts again, always by its own pid."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

READY_S = 30.0


class ServerProcess:
    """One child at a time; its output goes to a file that is shown when it does not start."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The child, also when it has ended by itself."""
        return self._process

    @property
    def running(self) -> bool:
        """Started, and not ended by us or by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start it and return when `ready` says so (an OSError means not yet)."""
        assert self._process is None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + READY_S
        while not self._answers(ready):
            if self._process.poll() is not None or time.monotonic() > end:
                self.end(signal.SIGKILL)
                text = self._log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{self.name} did not start:\n{text}")
            time.sleep(0.01)

    def pause(self) -> None:
        """SIGSTOP: connections are accepted by the kernel and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def end(self, signum: int) -> None:
        """Send a signal and wait for the end. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            if self._paused:
                os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, signum)
        self._paused = False
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=15)

    def _answers(self, ready: Callable[[], bool]) -> bool:
        try:
            return ready()
        except OSError:
            return False
