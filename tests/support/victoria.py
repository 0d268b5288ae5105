"""A real VictoriaMetrics on a free port of this machine, in a folder of its own.

It shows that the 2.x client path works. It is no oracle: it keeps a point that is sent twice twice
(unless told to drop one), stores what it cannot parse as 0 with answer 204, and loses what it has
acknowledged when it is killed.
"""

import json
import shutil
import signal
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from tests.support.http import call
from tests.support.mosquitto import free_port
from tests.support.server import ServerProcess

BINARY = shutil.which("victoria-metrics") or "/usr/bin/victoria-metrics"


@dataclass
class Victoria:
    """One server. `user`/`password`: then it asks for them (HTTP Basic)."""

    folder: Path
    user: str | None = None
    password: str | None = None
    port: int = field(default_factory=free_port)
    _process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For configurations."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start on the same port and data every time; returns when it answers."""
        assert self._process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = ServerProcess("victoria-metrics", self.folder / "victoria.log")
        command = [
            BINARY,
            f"-storageDataPath={self.folder}/data",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-dedup.minScrapeInterval=1ms",
            "-memory.allowedBytes=64MB",
        ]
        if self.user is not None:
            command += [f"-httpAuth.username={self.user}", f"-httpAuth.password={self.password}"]
        self._process.start(
            command, lambda: call(self.port, "GET", "/health", timeout_s=1.0).status == 200
        )

    def stop(self) -> None:
        """SIGTERM, and wait. Does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It hangs: connections open, nothing is answered."""
        assert self._process is not None
        self._process.pause()

    def go_on(self) -> None:
        """It hangs no longer."""
        assert self._process is not None
        self._process.go_on()

    def points(self, match: str = '{__name__!=""}') -> dict[tuple[str, ...], dict[int, Decimal]]:
        """What is kept: (metric, tag=value, ... sorted) -> time in ms -> value by its digits.

        The metric's name is measurement_field.
        """
        call(self.port, "GET", "/internal/force_flush")
        answer = call(self.port, "GET", f"/api/v1/export?{urlencode({'match[]': match})}")
        assert answer.status == 200, answer
        found: dict[tuple[str, ...], dict[int, Decimal]] = {}
        for line in answer.body.splitlines():
            one = json.loads(line, parse_float=Decimal)
            tags = dict(one["metric"])
            key = (tags.pop("__name__"), *sorted(f"{k}={v}" for k, v in tags.items()))
            values = (Decimal(v) for v in one["values"])
            found.setdefault(key, {}).update(zip(one["timestamps"], values, strict=True))
        return found

    def _end(self, signum: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(signum)
