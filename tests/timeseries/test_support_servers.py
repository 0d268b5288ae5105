"""The servers that the time-series tests start are what the tests take them for."""

from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.http import call
from tests.support.influxdb import InfluxDB, Refused
from tests.support.small_disk import SmallDisk
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


def test_influxdb_whose_disk_was_full_loses_what_it_acknowledges_afterwards(
    tmp_path: Path,
) -> None:
    """Nothing of ours in it: why the operations guide says what to do after a full disk.

    The entry of its log that did not fit stays there, torn, and from then on everything is
    refused. Started again it cuts the log in front of that entry, but goes on writing where the
    log ended before: the next start reads up to the hole and throws away the rest. A backup after
    something was written makes it begin a new log.
    """

    def lines(first: int, count: int) -> bytes:
        return b"".join(b"reg v=%d.5 %d\n" % (n, n) for n in range(first, first + count))

    with (
        SmallDisk(tmp_path / "disk", mebibytes=8) as disk,
        InfluxDB(tmp_path / "influxdb", data=disk.path) as influx,
    ):

        def restarted() -> int:
            influx.kill()
            influx.start()
            return influx.count("reg", "v")

        assert influx.write(lines(0, 50)).status == 204
        disk.fill()
        assert influx.write(lines(50, 900)).status == 500
        disk.free()
        assert influx.write(lines(50, 900)).status == 500
        assert restarted() == 50
        assert influx.write(lines(50, 900)).status == 204
        assert influx.count("reg", "v") == 950
        assert restarted() == 50  # 900 acknowledged values are gone, once
        assert influx.write(lines(50, 900)).status == 204
        assert restarted() == 50  # and again
        assert influx.write(lines(50, 900)).status == 204
        influx.backup(tmp_path / "backup")
        assert restarted() == 950
        assert influx.write(lines(950, 50)).status == 204
        assert restarted() == 1000


def test_victoria_metrics_gives_back_the_digits(tmp_path: Path) -> None:
    with Victoria(tmp_path) as victoria:
        where = "/api/v2/write?org=o&bucket=m&precision=ms"
        now_ms = 1_780_000_000_000
        body = f"reg,meter=M-1 kwh=-345678.91 {now_ms}\n".encode()
        assert call(victoria.port, "POST", where, body).status == 204
        assert victoria.points() == {("reg_kwh", "meter=M-1"): {now_ms: Decimal("-345678.91")}}
