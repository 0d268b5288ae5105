"""The day and the silence in their short forms."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import silent
from tests.soak.day import Result, Sample, findings, slope

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_nothing_grows_over_hours_with_a_midnight_and_a_bus_that_goes_and_comes() -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.soak.day", "--meters", "160", "--hours", "2.5",
            "--start", "2026-11-25T22:30:00",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["meters"] == 160
    assert len(shown["tasks"]) == 1
    assert len(shown["files"]) == 1
    assert shown["rss_slope_mib_per_hour"] < 15  # caches fill; a day shows that they end
    assert shown["due"] >= 160 * 2 * 9
    assert set(shown["reasons"]) <= {"port_gone"}
    assert shown["journal_readings"] == shown["billing_readings"] > 0


@pytest.mark.timeout(300)
def test_the_living_keep_their_rate_while_twenty_of_thirty_two_are_silent(tmp_path: Path) -> None:
    silence = silent.run(900.0, 120.0, tmp_path)
    assert silent.findings(silence) == []
    assert silence.kept >= silent.bound(900.0) > 0.5
    assert len({one.tasks for one in silence.samples}) == 1


def test_a_day_that_grows_is_found() -> None:
    good = [Sample(quarter / 4, 100.0, 50, 16, 0) for quarter in range(1, 97)]
    assert findings(Result(1000, 24.0, samples=good)) == []
    for bad in (
        [Sample(s.hour, 100.0 + 0.6 * s.hour, s.tasks, s.files, 0) for s in good],
        [Sample(s.hour, s.rss_mib, 50 + int(s.hour), s.files, 0) for s in good],
        [Sample(s.hour, s.rss_mib, s.tasks, 16 + int(s.hour), 0) for s in good],
    ):
        assert len(findings(Result(1000, 24.0, samples=bad))) == 1
    assert findings(Result(1000, 24.0, samples=good, journal_readings=5, billing_readings=4))
    assert slope([0, 1, 2], [1, 3, 5]) == 2
