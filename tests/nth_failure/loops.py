"""Every loop by its name, each run in a folder of its own."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.nth_failure import broker_loop, serial_loop
from tests.nth_failure.nth import Loop, Run, for_a_few, until_untouched

# In memory where there is any: hundreds of journals are made.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
KINDS: dict[str, Callable[[int, Path], Run]] = {
    **{kind: partial(serial_loop.run, way) for kind, way in serial_loop.WAYS.items()},
    **{kind: partial(broker_loop.run, way) for kind, way in broker_loop.WAYS.items()},
}


def loop_over(kind: str, *, every: bool) -> Loop:
    """The loop of a kind: every n until a run passes untouched, or a few of them."""

    def run(n: int) -> Run:
        folder = Path(tempfile.mkdtemp(prefix="headend-nth-", dir=MEMORY))
        try:
            return KINDS[kind](n, folder)
        finally:
            shutil.rmtree(folder)

    return (until_untouched if every else for_a_few)(kind, run)
