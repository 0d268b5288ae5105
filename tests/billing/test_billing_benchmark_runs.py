"""Billing's benchmark works on both databases. What it measures is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "billing.py"


def test_billings_benchmark_takes_every_reading_on_both_databases() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--readings", "400", "--runs", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    cases = {key.rpartition("_")[0] for key in result if key.endswith("_ratio")}
    assert cases == {"bulk", "again", "trickle"}
    assert all(value > 0 for value in result.values())
