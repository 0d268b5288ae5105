"""The benchmark of the series' writers works. What it measures is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "series.py"
READINGS = 2400
SHORT = ("--readings", str(READINGS), "--lines", "100", "--runs", "1", "--no-influxdb")


def test_series_benchmark_compares_and_a_killed_writer_of_ours_loses_no_point() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *SHORT, "--writers", "encode", "merged", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["merged_over_encode"] > 0
    assert result["encode_points_per_line"] == result["merged_points_per_line"] == 4
    ours, theirs = result["killed_ours"], result["killed_points"]
    assert 0 < ours["arrived_at_kill"] < READINGS
    assert (ours["arrived"], ours["lost"]) == (READINGS, 0)
    assert theirs["handed_over"] == theirs["arrived"] + theirs["lost"] < READINGS
