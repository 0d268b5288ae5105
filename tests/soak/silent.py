"""Most meters of a bus fall silent for hours, on a cycle of ten seconds, in compressed time.

    python -m tests.soak.silent --hours 6

One bus of 32 meters at 9600 Bd. A read takes 20 characters out (four of them FE), 40 ms of the
meter's time, 20 characters back and 30 ms of quiet: 116 ms, and its commit up to 20 ms, so a cycle
of all 32 needs 4.4 s of its 10 at most. Then 20 of them say nothing for the given hours, and speak
again.

What the twelve living keep, from the bus's rules. S is what an attempt without an answer takes:
request, time-out with the reply's time on the wire, and the silence behind it. Until it counts as
dead a silent meter costs at most `dead_after` requests of `attempts` tries; all dead together then
get at most `dead_share` of the line's time with the credit of CREDIT_MAX_S and one S on top. So of
the time T of the silence at least

    T - 20 * dead_after * attempts * S - dead_share * T - CREDIT_MAX_S - S

is left to the living, who need 12 * 136 ms of every 10 s. An instant is lost to a living meter when
it is not read within its tolerance (5 s); of the cycles that lie whole in the time left none is
lost. What is asked: at least half the rate of the time before.

Exit code 0 only when each living meter keeps at least half its rate, all 32 are read as before
afterwards, and neither tasks nor waiting requests ever become more.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headend.bus.devices import CREDIT_MAX_S
from headend.bus.settings import BusSettings
from headend.journal import JournalReader
from simulators.schedule import VirtualTimeLoop, run_virtual
from simulators.wire import char_seconds
from tests.soak.day import Sample, look
from tests.soak.world import IMPORT, Estate, daemon, local_ms

START = "2026-11-25T12:00:00"
BUS, METERS, SILENT = "bus-01", 32, 20
BAUD, CYCLE_S, TOLERANCE_S = 9600, 10, 5
ATTEMPTS = 3
WAITING = (
    3  # of the poller, of whoever looks at clocks, of whoever looks at meter numbers: one each
)
COMMIT_S = 0.02  # what a commit takes of virtual time at most: the next meter waits for it
PLAN = f"  p: {{every: [{{seconds: {CYCLE_S}, points: [{IMPORT}], tolerance_s: {TOLERANCE_S}}}]}}"


@dataclass
class Silence:
    """What a run showed. Rates are reads a cycle: 1.0 = every instant was served."""

    silent_s: float
    rates: dict[str, dict[str, float]] = field(default_factory=dict)  # phase -> meter -> rate
    living: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    dead_s: float = 0.0
    wall_s: float = 0.0

    @property
    def kept(self) -> float:
        """The smallest part of its own rate that a living meter kept."""
        before, during = self.rates["before"], self.rates["silent"]
        return min(during[meter] / before[meter] for meter in self.living)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        silent = [meter for meter in self.rates["silent"] if meter not in self.living]
        return {
            "silent_h": self.silent_s / 3600,
            "rate_before_min": round(min(self.rates["before"].values()), 4),
            "living_kept_min": round(self.kept, 4),
            "living_bound": round(bound(self.silent_s), 4),
            "silent_rate_max": max(self.rates["silent"][meter] for meter in silent),
            "rate_after_min": round(min(self.rates["after"].values()), 4),
            "dead_share": round(self.dead_s / self.silent_s, 4),
            "tasks": sorted({one.tasks for one in self.samples}),
            "queued_max": max(one.queued for one in self.samples),
            "wall_s": round(self.wall_s),
        }


def unanswered_s() -> float:
    """S."""
    settings = BusSettings()
    asked, reply = 16 + 4, 20 + 4
    waited_s = (settings.reply_timeout_ms + settings.margin_ms) / 1000
    silence_s = settings.silence_after_timeout_ms / 1000
    return (asked + reply) * char_seconds(BAUD) + waited_s + silence_s


def bound(silent_s: float) -> float:
    """The part of the cycles that lie whole in the time the dead leave to the living."""
    settings = BusSettings()
    lost_s = SILENT * settings.dead_after * ATTEMPTS * unanswered_s() + CYCLE_S
    lost_s += CREDIT_MAX_S + unanswered_s()
    return 1.0 - settings.dead_share - lost_s / silent_s


async def live(loop: VirtualTimeLoop, folder: Path, silence: Silence, calm_s: float) -> None:
    """All well, most silent, all well."""
    estate = Estate(loop, buses=1, each=METERS, baud=BAUD)
    config = estate.configure(folder, PLAN, broker=None)
    hung = estate.on_bus(BUS)
    silence.living = [one.id for one in hung[SILENT:]]
    phases = {"before": calm_s, "silent": silence.silent_s, "between": 900.0, "after": calm_s}
    ends: dict[str, tuple[int, int]] = {}
    async with daemon(config, estate, writer_slack_s=COMMIT_S) as parts:
        await asyncio.sleep(CYCLE_S)  # the cycle of the start is not whole
        bus = parts.buses[BUS]
        for phase, lasts_s in phases.items():
            begun_ms, dead_s = loop.now_ms(), bus.statistics().dead_s
            if phase == "silent":
                for one in hung[:SILENT]:
                    one.silence()
            elif phase == "between":  # the slowest probe finds the last one that speaks again
                for one in hung:
                    one.speak()
            for _minute in range(round(lasts_s / 60)):
                await asyncio.sleep(60)
                silence.samples.append(look(loop.time() / 3600, parts))
            ends[phase] = (begun_ms, loop.now_ms())
            if phase == "silent":
                silence.dead_s = bus.statistics().dead_s - dead_s
    with JournalReader(config.journal_path) as journal:
        for phase, (from_ms, to_ms) in ends.items():
            read = Counter(
                record.meter
                for record in journal.readings(from_ms=from_ms, to_ms=to_ms)
                if record.due_at is not None
            )
            cycles = (to_ms - from_ms) / 1000 / CYCLE_S
            silence.rates[phase] = {one.id: read[one.id] / cycles for one in hung}


def run(silent_s: float, calm_s: float, folder: Path) -> Silence:
    """One run in an empty folder."""
    silence = Silence(silent_s)
    started = time.monotonic()
    run_virtual(lambda loop: live(loop, folder, silence, calm_s), start_ms=local_ms(START))
    silence.wall_s = time.monotonic() - started
    return silence


def findings(silence: Silence) -> list[str]:
    """What is not as it has to be, in words."""
    found = []
    if silence.kept < max(0.5, bound(silence.silent_s)):
        found.append(f"a living meter kept only {silence.kept:.2f} of its rate")
    for phase in ("before", "after"):
        slowest = min(silence.rates[phase].values())
        if slowest < 0.98:
            found.append(f"{phase} the silence a meter was read at {slowest:.2f} of the cycles")
    tasks = {one.tasks for one in silence.samples}
    if len(tasks) > 1:
        found.append(f"the number of tasks is not steady: {sorted(tasks)}")
    queued = max(one.queued for one in silence.samples)
    if queued > WAITING:
        found.append(f"{queued} requests waited at a time")
    return found


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=6.0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="headend-silent-") as folder:
        silence = run(args.hours * 3600, 3600.0, Path(folder))
    print(json.dumps(silence.to_json()))
    found = findings(silence)
    for text in found:
        print(f"not good: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
