"""The real daemon with an odd clock or an odd disk: what a drill cannot do to the machine itself.

    python -m headend.cli.drills.odd_daemon --odd FILE --config FILE

`FILE` holds JSON, read again whenever it changes: `clock_s`, by how much the wall clock is wrong;
`free_bytes`, what the journal's disk has left (absent: the true figure).
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path

from headend.cli.run import settle_memory
from headend.config import load_config
from headend.daemon import run_daemon
from headend.domain.clock import SystemClock
from headend.domain.kept_clock import KeptClock
from headend.logs import logging_to

LOOK_S = 0.1


class Odd:
    """The file, looked at now and then."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._real = SystemClock()
        self._looked_s = float("-inf")
        self._text = ""
        self._said: dict[str, float] = {}

    def say(self, name: str) -> float | None:
        """What the file says under a name."""
        now_s = self._real.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            text = self._file.read_text()
            if text != self._text:
                self._text, self._said = text, json.loads(text)
        return self._said.get(name)


class OddClock:
    """The machine's clock as somebody else has set it. Durations are right."""

    def __init__(self, odd: Odd) -> None:
        self._odd = odd
        self._real = SystemClock()

    def now_ms(self) -> int:
        """The wrong time."""
        return self._real.now_ms() + int((self._odd.say("clock_s") or 0.0) * 1000)

    def monotonic(self) -> float:
        """As the machine's."""
        return self._real.monotonic()


def write_odd(file: Path, **values: float) -> None:
    """Say what is odd from now on; the file is whole at every moment."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(values))
    fresh.replace(file)


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--odd", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    args = parser.parse_args()
    odd = Odd(args.odd)
    config = load_config(args.config)

    def free_bytes() -> int:
        said = odd.say("free_bytes")
        return shutil.disk_usage(config.data_path).free if said is None else int(said)

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await run_daemon(
            config,
            stop=stop,
            ready=settle_memory,
            clock=KeptClock(OddClock(odd)),
            free_bytes=free_bytes,
            config_file=args.config,
        )

    with logging_to(level="info", style="text"):
        asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
