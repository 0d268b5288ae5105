"""A district in short: what a head-end has to hold over days with everything that goes wrong."""

import json
from pathlib import Path

import pytest

from tests.district.audit import audit
from tests.district.run import live
from tests.district.script import Size, calm
from tests.soak.world import local_ms

MIDNIGHT = "2026-11-25T00:00:00"


@pytest.mark.timeout(300)
def test_a_calm_district_is_read_and_billed_to_the_last_digit(tmp_path: Path) -> None:
    script = calm(1, Size(20, 2, 3), local_ms(MIDNIGHT))
    found = audit(live(script, tmp_path))
    assert found.faults == []
    report = json.loads(found.report)
    assert report["billing"] == {"equal": 120, "meter days": 120}
    assert set(report["due"]) == {"read", "not yet"}
