"""The bus benchmark in its short form: it completes, and every value is right. Never its speed."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bus.py"


def test_the_bus_benchmark_reads_every_value_right():
    command = [sys.executable, str(BENCHMARK), "--buses", "4", "--reads", "5", "--json"]
    done = subprocess.run(
        [*command, "--processes", "2"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["buses_right"] == facts["buses"] == 4
    assert facts["reads"] == 4 * 5
    assert done.stderr == ""
