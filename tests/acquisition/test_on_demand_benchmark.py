"""A read that somebody asks for on a line that is full: within three seconds at 9600 Bd."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "on_demand.py"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("baud", "p95_s"), [(9600, 3.0), (2400, 6.0)])
def test_nineteen_of_twenty_reads_on_demand_are_there_soon_on_a_full_line(
    baud: int, p95_s: float
) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--reads", "25", "--baud", str(baud), "--json"],
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["baud"], found["reads"], found["failed"]) == (baud, 25, 0)
    assert found["busy_share"] > 0.6  # the rest is the quiet before each request
    assert found["p50_s"] <= found["p95_s"] <= p95_s
