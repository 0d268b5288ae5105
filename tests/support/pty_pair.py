"""Two pseudo terminals joined by socat: what goes into one end comes out of the other."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

READY_S = 10.0


class PtyPair:
    """`near` and `far` are the two ends' paths while the block lasts."""

    def __init__(self, folder: Path) -> None:
        self.near = folder / "near"
        self.far = folder / "far"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        socat = shutil.which("socat")
        assert socat, "socat is needed (make test installs it)"
        ends = [f"pty,raw,echo=0,link={end}" for end in (self.near, self.far)]
        self._process = subprocess.Popen([socat, *ends])
        deadline = time.monotonic() + READY_S
        while not (self.near.exists() and self.far.exists()):
            assert time.monotonic() < deadline, "socat did not make its ptys"
            time.sleep(0.01)
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
