"""Real databases of a test's own: they start in tens of milliseconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.influxdb import InfluxDB
from tests.support.victoria import Victoria


@pytest.fixture
def influx(tmp_path: Path) -> Iterator[InfluxDB]:
    """A running InfluxDB 1.6.7 with the database `meters`."""
    with InfluxDB(tmp_path / "influxdb") as server:
        yield server


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[Victoria]:
    """A running VictoriaMetrics; no oracle."""
    with Victoria(tmp_path / "victoria") as server:
        yield server
