"""The Modbus benchmark runs, and every master reads what the server holds."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "modbus.py"


def test_every_master_of_the_benchmark_reads_the_same_registers() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--requests", "64", "--runs", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["registers"], one["connections"]) for one in places] == [
        (80, 1), (80, 32), (2, 1), (2, 32)
    ]  # fmt: skip
    for one in places:
        assert all(rate > 0 for rate in one["requests_per_s"].values())
        assert set(one["cpu_us"]) == {"ours", "pymodbus", "libmodbus", "session"}
