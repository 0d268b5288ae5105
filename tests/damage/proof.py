"""Damaged replies by the hundred thousand, through the real bus, codec and driver.

A meter answers with random registers; every reply (or every second one) is damaged on its way
back; time is virtual. A value that comes out and is not what the meter sent is false.

    python -m tests.damage.proof --replies 100000
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

from headend.bus import Bus, BusSettings
from headend.drivers import Dlt645Session, PointResult
from headend.drivers.second_read import most_between
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import DELIMITER, parse
from protocols.dlt645.items import encode
from protocols.dlt645.meter import build_reply, parse_read
from protocols.framing import FrameFound, Framer
from simulators.damage import Damaged, OneDamage
from simulators.schedule import LoopSchedule, VirtualTimeLoop, run_virtual
from simulators.wire import Transmission, WireLink

ADDRESS = "201811060042"
ZONE = ZoneInfo("Asia/Shanghai")
CAPACITY_KW = Decimal("13.2")
COUNT = Decimal("0.01")
SIMPLE = ("flip1", "flip2", "lost", "doubled", "cut")
BURST_BITS = (3, 40)
POINT = "active_import_total"


class RandomMeter:
    """Answers a read of its import register with a new random value each time (or keeps it)."""

    def __init__(self, rng: Random, *, keeps: bool) -> None:
        self._rng = rng
        self._keeps = keeps
        self._framer = Framer(DELIMITER)
        self.value = Decimal(0)
        self.renew()

    def renew(self) -> None:
        """Another register content."""
        self.value = Decimal(self._rng.randrange(10**8)).scaleb(-2)

    def receive(self, data: bytes, bad: Sequence[int]) -> Sequence[Transmission]:
        """Requests arrive whole here: only replies are damaged."""
        sent = []
        for event in self._framer.feed(data, bad):
            di = parse_read(parse(event.raw)) if isinstance(event, FrameFound) else None
            if di is not None:
                if not self._keeps:
                    self.renew()
                item = lookup(di)
                assert item is not None
                sent.append(Transmission(0.02, build_reply(ADDRESS, di, encode(item, self.value))))
        return sent

    def idle(self) -> None:
        """Nothing is ever half received."""


@dataclass(slots=True)
class Score:
    """What came of a run. `false` holds the distance of each false value from the truth."""

    replies: int = 0
    damaged: int = 0
    values: int = 0
    right: int = 0
    false: list[Decimal] = field(default_factory=list)

    def line(self, name: str) -> str:
        """For people."""
        return (
            f"{name}: replies {self.replies}, damaged {self.damaged}, values {self.values}, "
            f"right {self.right}, false {len(self.false)}"
        )


async def _talk(
    loop: VirtualTimeLoop,
    damage: OneDamage,
    rng: Random,
    score: Score,
    *,
    replies: int,
    share: float,
    parity_seen: bool,
    read: Callable[[Dlt645Session], "asyncio.Future[list[PointResult]]"],
    keeps: bool,
) -> None:
    meter = RandomMeter(rng, keeps=keeps)

    def spoil(data: bytes) -> Damaged:
        score.replies += 1
        if rng.random() >= share:
            return Damaged(data)
        score.damaged += 1
        return damage(data)

    link = WireLink(
        meter,
        schedule=LoopSchedule(loop),
        baud=2400,
        parity_seen=parity_seen,
        to_master=spoil,
    )
    settings = BusSettings(dead_after=1_000_000)
    bus = Bus("proof", link, settings, clock=loop, observer=lambda _exchange: None)
    task = asyncio.ensure_future(bus.run())
    session = Dlt645Session(bus, ADDRESS, zone=ZONE, capacity_kw=CAPACITY_KW)
    try:
        while score.damaged < replies:
            if keeps:
                meter.renew()
            (result,) = await read(session)
            if result.error is None and result.value is not None:
                score.values += 1
                if result.value == meter.value:
                    score.right += 1
                else:
                    score.false.append(result.value - meter.value)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await link.close()


def run_proof(
    kinds: tuple[str, ...],
    *,
    replies: int,
    seed: int,
    parity_seen: bool,
    frozen: bool = False,
    share: float = 1.0,
    once: bool = False,
) -> Score:
    """Until `replies` damaged replies have come. One seed gives one run.

    `frozen`: the rule for frozen items (two reads must be equal) instead of the one for live
    registers. `share`: how many of the replies are damaged. `once`:
    without the second read, to show what it prevents.
    """
    rng = Random(seed)
    score = Score()
    damage = OneDamage(rng, kinds, burst_bits=BURST_BITS)
    # With marks one read is enough; without, the driver reads twice (frozen: a kind that must be
    # equal, so the same register is read by the identifier of a settlement day).
    point = "di:00010001" if frozen else POINT
    twice = frozenset() if parity_seen or once else frozenset({point})

    def main(loop: VirtualTimeLoop) -> object:
        return _talk(
            loop,
            damage,
            rng,
            score,
            replies=replies,
            share=share,
            parity_seen=parity_seen,
            read=lambda session: asyncio.ensure_future(session.read([point], twice=twice)),
            keeps=not parity_seen,
        )

    run_virtual(main)
    return score


def burst_bound() -> float:
    """An upper bound of the probability that a marked line lets a burst through.

    A burst is a spell of L bits (L even over BURST_BITS, any place in the nine bits of a
    character) with its first and last bit wrong. No character may be marked: each touched by two
    bits or more stays unmarked with probability 1/2, one touched by its end bit alone never does.
    Then the 8-bit sum must fit by chance: 1/256 when a character lies wholly inside the burst,
    otherwise for each pattern of one character at most one of the other fits. That the address,
    the identifier and the digits must survive as well only makes it smaller.
    """
    total = 0.0
    low, high = BURST_BITS
    for length in range(low, high + 1):
        for offset in range(9):
            spans = []
            left = length
            at = offset
            while left:
                span = min(9 - at, left)
                spans.append(span)
                left -= span
                at = 0
            if len(spans) < 2 or spans[0] == 1 or spans[-1] == 1:
                continue
            unmarked = 0.5 ** len(spans)
            fits = 1 / 256 if len(spans) > 2 else 0.5 ** max(0, max(spans) - 2)
            total += unmarked * fits
    return total / (9 * (high - low + 1))


def last_count() -> Decimal:
    """How far a false live value can be off: what the connection allows between two reads."""
    return most_between(CAPACITY_KW, 2000, COUNT)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description="damaged replies through the real stack")
    parser.add_argument("--replies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=645)
    args = parser.parse_args()
    n, seed = args.replies, args.seed
    marked = run_proof(SIMPLE, replies=n, seed=seed, parity_seen=True)
    print(marked.line("parity marks, " + "/".join(SIMPLE)), flush=True)
    bursts = run_proof(("burst",), replies=n, seed=seed + 1, parity_seen=True)
    print(bursts.line("parity marks, random bursts"))
    print(
        f"  residual {len(bursts.false) / bursts.damaged:.2e} a burst, "
        f"computed bound {burst_bound():.2e}",
        flush=True,
    )
    single = run_proof(SIMPLE, replies=n, seed=seed + 2, parity_seen=False, frozen=False, share=0.5)
    print(single.line("parity unseen, live registers read twice"))
    worst = max((abs(d) for d in single.false), default=Decimal(0))
    print(f"  worst false value is off by {worst} kWh, bound {last_count()} kWh", flush=True)
    frozen = run_proof(SIMPLE, replies=n, seed=seed + 3, parity_seen=False, frozen=True, share=0.5)
    print(frozen.line("parity unseen, frozen registers read twice"), flush=True)
    once = run_proof(SIMPLE, replies=n // 5, seed=seed + 4, parity_seen=False, share=0.5, once=True)
    print(once.line("parity unseen, read once (what the second read prevents)"))


if __name__ == "__main__":
    main()
