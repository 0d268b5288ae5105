"""A district in short: what a head-end has to hold over days with everything that goes wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIZE = ("--meters", "40", "--buses", "2", "--days", "5")


@pytest.mark.timeout(600)
def test_a_district_is_read_and_billed_as_it_was_and_the_same_seed_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    """Two at a time, whose sets and dictionaries are ordered each in its own way."""
    outs = [tmp_path / "one", tmp_path / "two"]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.district.soak", *SIZE, "--out", str(out)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed, out in enumerate(outs, start=1)
    ]
    try:
        for process in running:
            told, _ = process.communicate(timeout=560)
            assert process.returncode == 0, told
    finally:
        for process in running:
            process.kill()
            process.wait()
    for name in ("report.json", "rows.txt"):
        assert outs[0].joinpath(name).read_bytes() == outs[1].joinpath(name).read_bytes()
    _is_worth_something(json.loads(outs[0].joinpath("report.json").read_bytes()))


def _is_worth_something(report: dict[str, Any]) -> None:
    """What was to go wrong did: nothing is held by a district in which nothing happens."""
    assert report["faults"] == []
    due, billing = report["due"], report["billing"]
    assert due["backfilled"] > 100
    assert due["late"] > 10
    assert due["not kept"] > 0
    assert 0 < billing["marked"] < 20
    assert billing["equal"] + billing["marked"] == billing["meter days"] == 40 * 5 * 2
    first = [day["first_round"] for day in report["by_day"]]
    assert sum(one["read"] for one in first) >= 0.99 * sum(one["reachable"] for one in first)
