"""Real InfluxDB 1.6.7 is the oracle: whatever happens to it, afterwards it holds every journalled
value exactly, nothing is lost, nothing waits behind one bad line, and meanwhile it shows."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from headend.domain.meter import Event
from headend.domain.reading import Status, Verdict
from tests.journal.journal_kit import NOON_MS, reading
from tests.support.influxdb import InfluxDB
from tests.support.small_disk import SmallDisk
from tests.support.waiting import eventually
from tests.timeseries.series_kit import (
    QUICK,
    STEP_MS,
    World,
    assert_holds,
    everything,
    target_of,
)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def world(tmp_path: Path, influx: InfluxDB) -> World:
    return World(tmp_path, target_of(influx))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", mebibytes=8) as disk:
        yield disk


# -- exactness


async def test_every_kind_of_value_is_read_back_exactly(world: World, influx: InfluxDB) -> None:
    def at(n: int) -> int:
        return NOON_MS + n * STEP_MS

    async with world.running():
        await world.append(
            reading("0", time_ms=at(0)),
            reading("0.00", time_ms=at(1)),
            reading("-0.00", point="active_power_total", unit="kW", time_ms=at(1)),
            reading("99999999.99", time_ms=at(2)),
            reading("12345678.9", point="active_export_total", time_ms=at(2)),
            reading("-12.3456", point="active_power_total", unit="kW", time_ms=at(2)),
            reading("0.000123456789012", point="active_power_total", unit="kW", time_ms=at(3)),
            reading("123456789012345", time_ms=at(3)),
            reading("1E+3", time_ms=at(4)),
            reading("1.5E-7", point="voltage_a", unit="V", time_ms=at(4)),
            reading("0.25", point="active_import_interval", interval_s=900, time_ms=at(5)),
            reading("0.5", point="active_import_interval", interval_s=1800, time_ms=at(5)),
            reading("3.21", point="demand_import_total", unit="kW", time_ms=at(5)),
            reading("1", point="relay_state", unit="", time_ms=at(6)),
            reading("5.5", time_ms=at(7), status=Status.ESTIMATED),
            reading("6.5", time_ms=at(8), status=Status.SUBSTITUTED),
            reading("7.5", time_ms=at(9), status=Status.MANUAL),
            reading("8.5", time_ms=at(10), verdict=Verdict.SUSPECT, flags=("jump",)),
            reading("9.5", time_ms=at(11), verdict=Verdict.FAIL, flags=("contradicted",)),
            reading(None, time_ms=at(12), status=Status.NULL),
            reading("10.5", time_ms=at(13) + 1),
            reading("1234.56", time_ms=at(14), multiplier=Decimal(60)),
        )
        await world.written()
        assert world.dead_letters() == []
        assert_holds(influx, world.expected())
    numbers = {key[0] for key in everything(influx)}
    assert {"register", "instantaneous", "register_estimated", "register_rejected"} <= numbers


async def test_names_that_need_escaping_stay_apart(world: World, influx: InfluxDB) -> None:
    names = ["M 1", "M,1", "M=1", 'M"1', "M'1", "表计1号", "M.1(a)"]
    async with world.running():
        await world.append(*(reading(f"{n}.25", meter=name) for n, name in enumerate(names)))
        await world.append(reading("77.5", meter="M\\1"), reading("78.5", meter="M%5C1"))
        await world.written()
        assert world.dead_letters() == []
        found = everything(influx)
        kept = {key[1]: value for key, value in found.items() if key[4] == "active_import_total"}
    assert kept == {name: Decimal(n) + Decimal("0.25") for n, name in enumerate(names)} | {
        "M%5C1": Decimal("77.5"),  # a backslash cannot be written as it is
        "M%255C1": Decimal("78.5"),  # and what looks like it is another name
    }


async def test_a_later_revision_replaces_and_what_it_took_away_is_marked(
    world: World, influx: InfluxDB
) -> None:
    async with world.running():
        await world.fill(4)
        estimate = reading("100.5", meter="M-9", status=Status.ESTIMATED)
        await world.append(estimate)
        await world.written()
        assert_holds(influx, world.expected())
        await world.append(reading("101.25", meter="M-9"))  # the meter answers after all
        await world.append(reading("555.55", meter="M-1"))  # another value for what is written
        await world.written()
        found = everything(influx)
        place = ("M-9", "SP-M-9", "")
        assert found[("register", *place, "active_import_total", NOON_MS)] == Decimal("101.25")
        gone = ("register_estimated", *place, "active_import_total_quality", NOON_MS)
        assert found[gone] == 9
        rows = influx.rows(
            'SELECT active_import_total FROM "register_estimated"'
            " WHERE active_import_total_quality < 8"
        )
        assert rows == []
        expected = world.expected()
        assert expected.items() <= found.items()


async def test_values_withdrawn_by_a_meter_event_are_marked_and_their_successors_written(
    world: World, influx: InfluxDB
) -> None:
    async with world.running():
        await world.fill(3, meters=2)
        await world.written()
        event = Event("meter_exchange", NOON_MS + STEP_MS, {"old_meter": "M-2"})

        def moved(old):
            return [replace(old, meter="M-3")] if old.time_ms > NOON_MS + STEP_MS else []

        withdrawn = await world.journal.apply_meter_event(
            event, moved, meter="M-2", from_ms=NOON_MS + STEP_MS
        )
        assert withdrawn == 8
        await world.written()
        found, expected = everything(influx), world.expected()
        assert expected.items() <= found.items()
        visible = influx.rows(
            'SELECT active_import_total FROM "register"'
            " WHERE active_import_total_quality <= 1 AND meter = 'M-2'"
        )
        assert [row["time"] for row in visible] == [NOON_MS]
        assert influx.rows("SELECT active_import_total FROM register WHERE meter = 'M-3'") == [
            {
                "name": "register",
                "time": NOON_MS + 2 * STEP_MS,
                "active_import_total": Decimal("20000.5"),
            }
        ]


async def test_written_again_from_the_beginning_nothing_changes(
    world: World, influx: InfluxDB
) -> None:
    async with world.running():
        await world.fill(10)
        await world.written()
        before = everything(influx)
        assert await world.writer.replay(0) == 1
        assert world.cursor.backlog > 0
        await world.written()
        assert everything(influx) == before
        assert_holds(influx, world.expected())


async def test_a_writer_that_ends_goes_on_where_it_stopped(world: World, influx: InfluxDB) -> None:
    async with world.running():
        await world.fill(5)
        await world.written()
    influx.kill()
    async with world.running():
        await world.fill(5, first=5)
    influx.start()
    async with world.running():
        await world.written()
        assert_holds(influx, world.expected())


# -- the server goes away


async def test_killed_in_the_middle_nothing_is_lost(world: World, influx: InfluxDB) -> None:
    async with world.running():
        for round_ in range(3):
            await world.fill(40, first=round_ * 80)
            await eventually(lambda: world.writer.written_lines > 0)
            influx.kill()
            await world.fill(40, first=round_ * 80 + 40)
            report = await world.says("retrying")
            assert report["backlog"] > 0
            assert "no connection" in report["message"] or "lost" in report["message"]
            influx.start()
            await world.written()
        assert world.dead_letters() == []
        assert_holds(influx, world.expected())


async def test_a_server_that_hangs_is_left_and_tried_again(
    tmp_path: Path, influx: InfluxDB
) -> None:
    world = World(tmp_path, target_of(influx, timeout_s=0.3))
    async with world.running():
        await world.fill(5)
        await world.written()
        influx.pause()
        await world.fill(60, first=5)
        world.bench.clock.ms = NOON_MS + 5 * STEP_MS + 90_000
        report = await world.says("retrying")
        assert report["message"] == "no answer within 0.3 s"
        assert report["backlog"] == 60 * 3 * 4
        assert report["lag_s"] == pytest.approx(89.92)  # the first of them came 80 ms late
        await eventually(lambda: world.writer.report()["failures"] >= 4)
        influx.go_on()
        await world.written()
        assert world.writer.report()["lag_s"] == 0.0
        assert_holds(influx, world.expected())


async def test_absent_at_the_start_it_gets_everything_when_it_comes(tmp_path: Path) -> None:
    influx = InfluxDB(tmp_path / "influxdb")
    world = World(tmp_path, target_of(influx))
    async with world.running():
        await world.fill(20)
        report = await world.says("retrying")
        assert "no connection" in report["message"]
        assert report["backlog"] == world.cursor.last_seq
        with influx:
            await world.written()
            assert_holds(influx, world.expected())


async def test_with_its_disk_full_it_says_so_and_everything_is_kept_for_it(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    """With room again it goes on refusing until it is restarted; and what InfluxDB 1.6.7
    acknowledges from then on is gone at its next restart (test_support_servers.py shows it without
    us). A replay writes it again, and a backup behind it makes the server begin a new log.
    """
    with InfluxDB(tmp_path / "influxdb", data=small_disk.path) as influx:
        world = World(tmp_path, target_of(influx))
        async with world.running():
            await world.fill(10)
            await world.written()
            small_disk.fill()
            await world.fill(60, first=10)
            report = await world.says("retrying")
            assert "answer 500" in report["message"]
            assert "no space left on device" in report["message"]
            assert report["backlog"] > 0
            await eventually(lambda: world.writer.report()["failures"] >= 5)
            small_disk.free()
            restart(influx)
            await world.written()
            assert_holds(influx, world.expected())
            restart(influx)
            lost = world.expected().keys() - everything(influx).keys()
            assert len(lost) > 400  # the database's own loss
            assert await world.writer.replay(0) == 1
            await world.written()
            influx.backup(tmp_path / "backup")  # behind the replay: a log with nothing new stays
            restart(influx)
            assert world.dead_letters() == []
            assert_holds(influx, world.expected())


# -- faults of the configuration


async def test_no_such_database_is_alarmed_and_written_once_it_is_created(tmp_path: Path) -> None:
    with InfluxDB(tmp_path / "influxdb", create=False) as influx:
        world = World(tmp_path, target_of(influx))
        async with world.running():
            await world.fill(20)
            report = await world.says("stopped")
            assert 'database not found: "meters"' in report["message"]
            (alarm,) = await world.alarms(1)
            assert alarm.fields["database"] == "influx"
            assert "database not found" in alarm.fields["reason"]
            await world.fill(20, first=20)  # the journal grows
            assert world.writer.report()["backlog"] > 240
            influx.create_database()
            await world.written()
            assert [e.kind for e in await world.alarms(2)] == ["alarm", "alarm_cleared"]
            assert_holds(influx, world.expected())


async def test_a_wrong_password_is_alarmed_and_a_right_one_is_taken_up(tmp_path: Path) -> None:
    password = tmp_path / "password"
    write_secret(password, "wrong")
    with InfluxDB(tmp_path / "influxdb", users={"writer": "right"}) as influx:
        target = target_of(influx, username="writer", password_file=password)
        world = World(tmp_path, target)
        async with world.running():
            await world.fill(20)
            report = await world.says("stopped")
            assert "access refused (answer 401): authorization failed" in report["message"]
            assert "wrong" not in str(report)
            await world.alarms(1)
            write_secret(password, "right")
            await world.written()
            await world.alarms(2)
            assert_holds(influx, world.expected())


async def test_a_secret_that_is_away_is_alarmed_and_taken_up_when_it_comes(tmp_path: Path) -> None:
    password = tmp_path / "password"
    with InfluxDB(tmp_path / "influxdb", users={"writer": "right"}) as influx:
        world = World(tmp_path, target_of(influx, username="writer", password_file=password))
        async with world.running():
            await world.fill(5)
            report = await world.says("stopped")
            assert "is not there" in report["message"]
            world.bench.clock.ms += 60_000
            await eventually(lambda: world.writer.lag_s() > 0)
            write_secret(password, "right")
            await world.written()
            assert_holds(influx, world.expected())


async def test_a_user_without_rights_is_alarmed_and_goes_on_with_them(tmp_path: Path) -> None:
    password = tmp_path / "password"
    write_secret(password, "right")
    with InfluxDB(tmp_path / "influxdb", users={"writer": "right"}) as influx:
        influx.query('REVOKE ALL ON "meters" FROM "writer"')
        world = World(tmp_path, target_of(influx, username="writer", password_file=password))
        async with world.running():
            await world.fill(5)
            report = await world.says("stopped")
            assert "answer 403" in report["message"]
            influx.query('GRANT WRITE ON "meters" TO "writer"')
            await world.written()
            assert_holds(influx, world.expected())


async def test_the_dialect_of_the_other_edition_says_which_one_is_right(
    tmp_path: Path, influx: InfluxDB
) -> None:
    from headend.timeseries.target import Target

    token = tmp_path / "token"
    write_secret(token, "t")
    target = Target(kind="influxdb2", url=influx.url, org="o", bucket="meters", token_file=token)
    world = World(tmp_path, target)
    async with world.running():
        await world.fill(2)
        report = await world.says("stopped")
        assert report["message"].endswith("which has no /api/v2/write: use kind influxdb1")


# -- lines and requests the server does not take


async def test_requests_that_are_too_large_are_halved_until_they_fit(tmp_path: Path) -> None:
    with InfluxDB(tmp_path / "influxdb", body_bytes_max=1500) as influx:
        world = World(tmp_path, target_of(influx), replace(QUICK, lines_max=500))
        async with world.running():
            await world.fill(40)
            await world.written()
            assert world.dead_letters() == []
            assert_holds(influx, world.expected())


async def test_nothing_waits_behind_a_field_that_conflicts(world: World, influx: InfluxDB) -> None:
    """Somebody else wrote `voltage_a` as a whole number: this one field is refused, each time."""
    time_ms = NOON_MS + 3 * STEP_MS
    assert influx.write(f"instantaneous voltage_a=230i {time_ms}\n".encode()).status == 204
    async with world.running():
        await world.fill(8)
        await world.written()
        expected = world.expected()
        refused = {k for k in expected if k[4].startswith("voltage_a")}
        assert len(refused) == 8 * 3 * 2
        found = everything_of_meters(influx)
        assert found == {k: v for k, v in expected.items() if k not in refused}
        letters = world.dead_letters()
        assert len(letters) == 8 * 3
        for letter in letters:
            assert letter["status"] == 400
            assert "field type conflict" in letter["text"]
            assert "voltage_a" in letter["text"]
            assert letter["line"].startswith("instantaneous,headend=he1,meter=M-")
            assert "voltage_a=" in letter["line"]
            assert "active_power_total" not in letter["line"]
        assert world.writer.report()["dead_letters"] == 24
        assert world.writer.report()["state"] == "writing"
        await world.fill(2, first=8)  # and life goes on
        await world.written()
        assert len(world.dead_letters()) == 30


async def test_one_line_outside_the_servers_time_is_named_and_all_others_are_there(
    world: World, influx: InfluxDB
) -> None:
    far_ms = 9_300_000_000_000  # the year 2264: beyond what InfluxDB can tell
    async with world.running():
        await world.fill(5)
        await world.append(reading("5.5", meter="M-7", time_ms=far_ms))
        await world.fill(5, first=5)
        await world.written()
        (letter,) = world.dead_letters()
        assert letter["line"].endswith(f" {far_ms}")
        assert "time outside range" in letter["text"]
        expected = {k: v for k, v in world.expected().items() if k[-1] != far_ms}
        assert_holds(influx, expected)


async def test_dead_letters_outlive_the_process_and_are_counted(
    world: World, influx: InfluxDB
) -> None:
    influx.write(f"register active_import_total=1i {NOON_MS}\n".encode())
    async with world.running():
        await world.append(reading("5.5"))
        await world.written()
    async with world.running():
        assert world.writer.report()["dead_letters"] == 1
        await world.append(reading("6.5", time_ms=NOON_MS + STEP_MS))
        await world.written()
    assert [letter["seq"] for letter in world.dead_letters()] == [1, 2]


# -- statistics beside it


async def test_statistics_are_written_beside_readings_and_hold_nothing_back(
    world: World, influx: InfluxDB
) -> None:
    async with world.running():
        world.writer.extra.put([b"bus,headend=he1,bus=a share=0.5,answered=3i 60000"])
        await eventually(lambda: influx.count("bus", "share") == 1)
        influx.kill()
        world.writer.extra.put([b"bus,headend=he1,bus=a share=0.75,answered=4i 120000"])
        await world.fill(3)
        await world.says("retrying")
        influx.start()
        await world.written()
        await eventually(lambda: influx.count("bus", "share") == 2)
        world.writer.extra.put([b"bus,headend=he1,bus=a share=1i,answered=4i 180000"])
        await world.fill(3, first=3)
        await world.written()
        await eventually(lambda: world.writer.extra.dropped == 1)
        assert world.dead_letters() == []
        assert_holds(influx, world.expected())


def restart(influx: InfluxDB) -> None:
    """As after a crash."""
    influx.kill()
    influx.start()


def write_secret(path: Path, text: str) -> None:
    """A file that only we can read."""
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def everything_of_meters(influx: InfluxDB) -> dict:
    """Without what somebody else wrote."""
    influx.query("DROP SERIES FROM instantaneous WHERE headend = ''")
    return everything(influx)
