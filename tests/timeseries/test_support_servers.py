"""The servers that the time-series tests start are what the tests take them for."""

from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.http import call
from tests.support.influxdb import InfluxDB, Refused
from tests.support.victoria import Victoria


def test_influxdb_keeps_what_it_acknowledged_when_it_is_killed(tmp_path: Path) -> None:
    with InfluxDB(tmp_path) as influx:
        assert influx.write(b"reg,meter=M-1 kwh=345678.91 1000\n").status == 204
        influx.kill()
        influx.start()
        assert influx.rows("SELECT * FROM reg") == [
            {"name": "reg", "time": 1000, "meter": "M-1", "kwh": Decimal("345678.91")}
        ]


def test_influxdb_lets_nobody_in_without_a_password_when_users_are_set(tmp_path: Path) -> None:
    with InfluxDB(tmp_path, users={"writer": "right"}) as influx:
        assert influx.write(b"reg v=1.5 1\n", user="writer").status == 204
        assert call(influx.port, "POST", "/write?db=meters", b"reg v=1.5 1\n").status == 401
        influx.kill()
        influx.start()
        assert influx.count("reg", "v") == 1
        with pytest.raises(Refused):
            influx.query("SELECT nonsense")


def test_influxdb_refuses_a_body_above_its_limit(tmp_path: Path) -> None:
    with InfluxDB(tmp_path, body_bytes_max=1000) as influx:
        assert influx.write(b"reg v=1.5 1\n" * 200).status == 413
        assert influx.measurements() == set()


def test_victoria_metrics_gives_back_the_digits(tmp_path: Path) -> None:
    with Victoria(tmp_path) as victoria:
        where = "/api/v2/write?org=o&bucket=m&precision=ms"
        now_ms = 1_780_000_000_000
        body = f"reg,meter=M-1 kwh=-345678.91 {now_ms}\n".encode()
        assert call(victoria.port, "POST", where, body).status == 204
        assert victoria.points() == {("reg_kwh", "meter=M-1"): {now_ms: Decimal("-345678.91")}}
