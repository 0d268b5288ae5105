"""A read that somebody asks for on a line that is full: within three seconds at 9600 Bd."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "on_demand.py"
READS = 16
BOUNDS_S = {9600: 3.0, 2400: 6.0}


@pytest.mark.timeout(240)
def test_reads_on_demand_are_there_soon_however_full_the_line_is() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--reads", str(READS), "--json"],
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["baud"] for one in found] == list(BOUNDS_S)
    for one in found:
        assert (one["reads"], one["failed"]) == (READS, 0)
        assert one["busy_share"] > 0.6  # the rest is the quiet before each request
        assert one["p50_s"] <= one["p95_s"] <= BOUNDS_S[one["baud"]]
