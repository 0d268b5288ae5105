"""Appends readings for ever and prints the id of each that is acknowledged. To be killed."""

import asyncio
import itertools
import sys
from pathlib import Path

from journal_kit import NOON_MS, Bench, exchange, reading

from headend.journal import Birth, Journal


async def append(journal: Journal, meter: str) -> None:
    for n in itertools.count():
        at_ms = NOON_MS + n * 1000
        r = reading(f"{n}.25", meter=meter, time_ms=at_ms, exchange=exchange(n, at_ms=at_ms))
        (appended,) = await journal.append(Birth((r,)))
        print(appended.read_id, flush=True)


async def main(path: Path, number: str) -> None:
    async with await Bench(path).open() as journal, asyncio.TaskGroup() as tasks:
        for n in range(8):
            tasks.create_task(append(journal, f"M-{number}-{n}"))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
