"""A process that fills a stretch and may be killed: `python -m tests.acquisition.fill_child`.

Arguments: the journal's folder, the link, from, to and now in milliseconds. Prints DONE at its end.
"""

import asyncio
import sys
from pathlib import Path

from headend.bus import Bus, BusSettings
from headend.config.link_url import parse_link
from headend.supervisor import Supervisor
from headend.transport import make_link
from tests.acquisition.fill_bench import HandClock, LateBus, fill_bench


async def main(folder: Path, link: str, from_ms: int, to_ms: int, now_ms: int) -> None:
    """Fill, then say so."""
    port = LateBus()
    async with fill_bench(folder, port=port, now_ms=now_ms) as made, Supervisor() as supervisor:
        bus = Bus(
            "b",
            make_link(parse_link(link)),
            BusSettings(gap_ms=0, silence_after_timeout_ms=20, reply_timeout_ms=2000),
            clock=HandBusClock(now_ms),
            observer=made.journal.record_exchange,
        )
        port.bus = bus
        supervisor.start("bus", bus.run)
        await made.filled(from_ms, to_ms)
    print("DONE", flush=True)


class HandBusClock(HandClock):
    """The bus's times pass; the day does not."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


if __name__ == "__main__":
    where, url, *stamps = sys.argv[1:]
    first_ms, end_ms, at_ms = map(int, stamps)
    asyncio.run(main(Path(where), url, first_ms, end_ms, at_ms))
