"""The pipeline's benchmark works: every reading arrives. What it measures is not judged here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "pipeline.py"
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


@pytest.mark.timeout(120)
def test_the_pipeline_benchmark_brings_every_reading_to_billing() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--readings", "800", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["readings"] == 800
    assert result["held_by_billing"] == 800
    assert set(result["threads_us_per_reading"]) >= {"MainThread", "journal-writer"}
