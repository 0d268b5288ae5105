"""`python -m tests.fuzz645 [--inputs 2000000] [--seed 645] [--jobs 1]`: the long form of the fuzz.

Ends with what was looked at, how long it took and what was found; exit 1 when anything was.
"""

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from protocols.dlt645.explain import explain
from protocols.errors import ProtocolError
from tests.fuzz645.inputs import Inputs
from tests.fuzz645.steps import (
    LINES_FREE,
    LINES_PER_BYTE,
    SUMMED_PER_BYTE,
    CountingDelimiter,
    lines_of,
)
from tests.fuzz645.targets import Targets, cut, framed_events

INPUTS_DEFAULT = 2_000_000
SEED_DEFAULT = 645
CHUNK = 5_000
STEPS_EVERY = 500
FINDINGS_MAX = 100
FRAMES_SHOWN = 3


@dataclass
class Told:
    """What came of some inputs. `findings`: by what went wrong, the number of the first input."""

    inputs: int = 0
    bytes_in: int = 0
    steps_counted: int = 0
    lines_most: float = 0.0  # per byte, what is free taken off
    summed_most: float = 0.0
    ways: Counter[str] = field(default_factory=Counter)
    findings: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, other: "Told") -> None:
        """These as well."""
        self.inputs += other.inputs
        self.bytes_in += other.bytes_in
        self.steps_counted += other.steps_counted
        self.lines_most = max(self.lines_most, other.lines_most)
        self.summed_most = max(self.summed_most, other.summed_most)
        self.ways += other.ways
        for what, where in other.findings.items():
            if len(self.findings) < FINDINGS_MAX:
                self.findings.setdefault(what, where)


def fuzz(seed: int, numbers: Iterable[int], *, steps_every: int = STEPS_EVERY) -> Told:
    """Give these inputs to everything."""
    inputs, targets, told = Inputs(seed), Targets(), Told()
    for number in numbers:
        rng = inputs.rng(number)
        data = inputs.make(rng)
        told.inputs += 1
        told.bytes_in += len(data)
        try:
            targets.take(data, rng, number)
            if number % steps_every == 0:
                count_steps(data, cut(data, rng), told)
        # This is what is looked for: any error that has no name of ours.
        except Exception as error:  # noqa: BLE001
            told.findings.setdefault(_what(error), (number, data.hex().upper()))
    told.ways = Counter(targets.counts)
    return told


def count_steps(data: bytes, pieces: list[bytes], told: Told) -> int:
    """All of it, lines and bytes summed; AssertionError when it is more than so much a byte."""
    delimiter = CountingDelimiter()
    framing = lines_of(lambda: framed_events(data, pieces, delimiter))
    shown = lines_of(lambda: _explained(data))
    size = max(1, len(data))
    told.steps_counted += 1
    told.summed_most = max(told.summed_most, delimiter.summed / size)
    told.lines_most = max(told.lines_most, (framing + shown - LINES_FREE) / size)
    assert delimiter.summed <= SUMMED_PER_BYTE * size, f"{delimiter.summed} bytes summed of {size}"
    allowed = LINES_PER_BYTE * size + LINES_FREE
    assert framing <= allowed, f"{framing} lines for {size} bytes, framing"
    assert shown <= allowed, f"{shown} lines for {size} bytes, explaining"
    return framing + shown + delimiter.summed


def _explained(data: bytes) -> None:
    with suppress(ProtocolError):
        explain(data)


def _what(error: Exception) -> str:
    """The kind of error and where it came from."""
    places = traceback.extract_tb(error.__traceback__)[-FRAMES_SHOWN:]
    where = " <- ".join(f"{Path(p.filename).name}:{p.lineno} {p.name}" for p in reversed(places))
    return f"{type(error).__name__}: {where}"


def _chunk(seed: int, begin: int, end: int) -> Told:
    return fuzz(seed, range(begin, end))


def run(seed: int, first: int, count: int, jobs: int) -> tuple[Told, float]:
    """All of it; what came of it, and the seconds it took."""
    began = time.monotonic()
    told = Told()
    begins = range(first, first + count, CHUNK)
    with ProcessPoolExecutor(jobs) as pool:
        ends = [min(begin + CHUNK, first + count) for begin in begins]
        for number, part in enumerate(pool.map(_chunk, [seed] * len(ends), begins, ends), 1):
            told.add(part)
            if number % 20 == 0:
                seconds = time.monotonic() - began
                found = len(told.findings)
                print(f"{told.inputs} inputs, {seconds:.0f} s, findings {found}", file=sys.stderr)
    return told, time.monotonic() - began


def main() -> int:
    """Exit 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz645", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS_DEFAULT)
    parser.add_argument("--seed", type=int, default=SEED_DEFAULT)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    told, seconds = run(options.seed, options.first, options.inputs, options.jobs)
    for what, (number, text) in told.findings.items():
        print(f"finding: {what}\n  input {number} of seed {options.seed}: {text}")
    shown = {
        "inputs": told.inputs,
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "bytes": told.bytes_in,
        "findings": len(told.findings),
        "steps_counted": told.steps_counted,
        "lines_a_byte_most": round(told.lines_most, 1),
        "summed_a_byte_most": round(told.summed_most, 1),
        "ways": dict(sorted(told.ways.items())),
    }
    print(json.dumps(shown))
    return 1 if told.findings else 0
