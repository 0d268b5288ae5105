"""The dashboard asks what the head-end writes: each of its queries is run against a real InfluxDB
that the real writer and the statistics filled, and gives the numbers a person would work out."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from headend.bus.statistics import BusState, BusStatistics
from headend.config.loader import load_config
from headend.domain.due import DueKey, DuePoint
from headend.domain.reading import Status, Verdict
from headend.journal import Birth
from headend.timeseries.statistics import StatisticsSampler
from tests.journal.journal_kit import NOON_MS, reading
from tests.support.influxdb import InfluxDB
from tests.support.waiting import eventually
from tests.timeseries.series_kit import HEADEND, STEP_MS, World, freeze, target_of

CONFIG = Path(__file__).parents[2] / "config"
FOLDER = CONFIG / "grafana"
SHANGHAI = ZoneInfo("Asia/Shanghai")
HOUR_MS, MINUTE_MS = 3_600_000, 60_000
INSTANTS = 24  # a quarter of an hour each: 20:00 to 01:45 in Shanghai
MIDNIGHT_MS = NOON_MS + 4 * HOUR_MS  # in Shanghai
NEAR = Decimal("1e-6")  # the database subtracts doubles
BUS = BusStatistics(
    state=BusState.OPEN, exchanges=0, outcomes={}, answered=0, failed=0, refused_full=0,
    deadline_passed=0, dead_waiting=0, stray_bytes=0, observer_failures=0,
    opens=1, queue_len=0, steps=0, busy_s=0.0, elapsed_s=0.0, dead_s=0.0, devices={},
)  # fmt: skip

Row = dict[str, Any]


@dataclass
class FakeBus:
    """Counters as a test sets them."""

    now: BusStatistics = BUS

    def statistics(self) -> BusStatistics:
        return self.now


@dataclass
class Dashboard:
    """The committed file, its variables filled in as Grafana does it."""

    content: dict[str, Any] = field(
        default_factory=lambda: json.loads((FOLDER / "headend-dashboard.json").read_text())
    )

    @property
    def panels(self) -> dict[str, dict[str, Any]]:
        """The panels that ask something, by their titles."""
        return {one["title"]: one for one in self.content["panels"] if one.get("targets")}

    def queries(self, title: str) -> list[str]:
        return [target["query"] for target in self.panels[title]["targets"]]

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.content["templating"]["list"]}

    def filled(self, query: str, **chosen: str) -> str:
        """A query as it is sent: everything chosen unless told, six hours and a half."""
        wanted = {
            "timeFilter": f"time >= {NOON_MS}ms and time <= {NOON_MS + INSTANTS * STEP_MS}ms",
            "__interval": "1m",
            "step": "1h",
            "zone": "Asia/Shanghai",
        }
        for name, variable in self.variables.items():
            if variable.get("includeAll"):
                wanted.setdefault(name, variable["allValue"])
        wanted |= chosen
        text = re.sub(r"\$(\w+)", lambda found: wanted[found[1]], query)
        assert "$" not in text.replace("$/", "/")
        return text


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


@dataclass
class Street:
    """A database with two meters, one estimated, refused and replaced value, a bus and a day."""

    influx: InfluxDB
    dashboard: Dashboard

    def ask(self, title: str, n: int = 0, **chosen: str) -> list[Row]:
        """The rows of a panel's n-th query."""
        return self.influx.rows(self.dashboard.filled(self.dashboard.queries(title)[n], **chosen))


@pytest.fixture
async def street(tmp_path: Path, influx: InfluxDB, dashboard: Dashboard) -> Street:
    world = World(tmp_path, target_of(influx))
    world.bench.settings["zone"] = SHANGHAI
    async with world.running():
        await world.fill(INSTANTS, meters=2)
        await world.append(*odd_values())
        # An estimate that a reading replaces, and a reading that an estimate replaces.
        await world.append(quarter(30, "9000.00", status=Status.ESTIMATED))
        await world.append(quarter(30, "10007.50"))
        await world.append(quarter(31, "9999.00"))
        await world.append(quarter(31, "10007.75", status=Status.ESTIMATED))
        await freeze_day(world)
        await sample(world)
        await world.written()
        # The figures of the day are handed over last, and may travel by themselves.
        await eventually(
            lambda: influx.count("writer", "backlog") == 2 and influx.count("due", "frozen") == 1,
            what="statistics written",
        )
    return Street(influx, dashboard)


def quarter(n: int, value: str, **more: Any) -> Any:
    """An import register of the first meter, five minutes after a quarter of an hour of `fill`."""
    more.setdefault("meter", "M-1")
    return reading(value, time_ms=NOON_MS + (n % 8) * STEP_MS + 5 * MINUTE_MS, **more)


def odd_values() -> list[Any]:
    """What no chart of energy may show, each later in its hour than the good ones."""
    late_ms = NOON_MS + 2 * HOUR_MS + 59 * MINUTE_MS
    estimate = {"time_ms": late_ms, "status": Status.ESTIMATED}
    return [
        reading("77777.00", meter="M-1", **estimate),
        reading("66666.00", meter="M-2", point="active_export_total", **estimate),
        reading("88888.00", meter="M-2", time_ms=late_ms, verdict=Verdict.FAIL),
    ]


async def freeze_day(world: World) -> None:
    """Four points due until now: one read in time, one late, two open; one due later."""
    instants = [MIDNIGHT_MS + n * 10 * MINUTE_MS for n in (0, 1, 2, 3, 60)]
    due = [
        DuePoint(DueKey("M-9", "voltage_b", at_ms), "street-a", None, at_ms + HOUR_MS)
        for at_ms in instants
    ]
    await world.journal.freeze_due(date(2026, 3, 2), due)
    for at_ms, late in ((instants[0], False), (instants[1], True)):
        one = reading(
            "220.1",
            meter="M-9",
            point="voltage_b",
            unit="V",
            time_ms=at_ms,
            due_ms=at_ms,
            late=late,
        )
        await world.journal.append(Birth((one,)))


async def sample(world: World) -> None:
    """Two minutes of one bus, and the day so far, as the sampler's own task gives them."""
    bus = FakeBus()
    sampler = StatisticsSampler(
        headend=HEADEND,
        clock=world.bench.clock,
        zone=SHANGHAI,
        journal_path=world.bench.path,
        buses={"street-a": bus},
        writers=[world.writer],
    )
    sampler.sample_buses(0)
    at_ms = MIDNIGHT_MS + HOUR_MS
    for minute, busy_s in enumerate((15.0, 45.0)):
        bus.now = replace(
            bus.now,
            elapsed_s=bus.now.elapsed_s + 60.0,
            busy_s=bus.now.busy_s + busy_s,
            answered=bus.now.answered + 20,
            failed=bus.now.failed + 1 + minute,
        )
        now_ms = at_ms + minute * MINUTE_MS
        world.writer.extra.put(sampler.sample_buses(now_ms))
        world.writer.extra.put([sampler.sample_writer(world.writer, now_ms)])
    world.writer.extra.put(await sampler.sample_due(at_ms))


def energy(point: str, meter: int, step_ms: int, *, offset_ms: int = 0) -> dict[int, Decimal]:
    """What the registers of `fill` give: each step's last less the last before it."""
    last: dict[int, Decimal] = {}
    for n in range(INSTANTS):
        for one in freeze(meter, n):
            if one.point == point:
                assert one.value is not None
                last[(one.time_ms - offset_ms) // step_ms * step_ms + offset_ms] = one.value
    steps = sorted(last)
    return {b: last[b] - last[a] for a, b in pairwise(steps)}


def by_time(rows: list[Row], column: str) -> dict[int, Decimal]:
    found = {row["time"]: Decimal(row[column]) for row in rows}
    assert len(found) == len(rows)
    return found


def assert_near(found: dict[int, Decimal], expected: dict[int, Decimal]) -> None:
    assert found.keys() == expected.keys()
    assert all(abs(found[at_ms] - expected[at_ms]) < NEAR for at_ms in expected), (found, expected)


# -- energy


@pytest.mark.parametrize(
    ("title", "point", "column"),
    [
        ("Import", "active_import_total", "import kWh"),
        ("Export", "active_export_total", "export kWh"),
    ],
)
@pytest.mark.parametrize("meter", [1, 2])
async def test_energy_is_the_difference_of_good_registers_and_of_nothing_else(
    street: Street, title: str, point: str, column: str, meter: int
) -> None:
    rows = [row for row in street.ask(title) if row["meter"] == f"M-{meter}"]
    assert {row["service_point"] for row in rows} == {f"SP-M-{meter}"}
    expected = energy(point, meter, HOUR_MS)
    assert len(expected) == 5
    assert_near(by_time(rows, column), expected)


async def test_a_day_is_that_of_the_chosen_zone(street: Street) -> None:
    rows = street.ask("Import", step="1d", meter="M-1")
    expected = energy(
        "active_import_total", 1, 24 * HOUR_MS, offset_ms=MIDNIGHT_MS % (24 * HOUR_MS)
    )
    assert list(expected) == [MIDNIGHT_MS]
    assert_near(by_time(rows, "import kWh"), expected)


async def test_one_or_several_meters_and_service_points_can_be_chosen(street: Street) -> None:
    both = {row["meter"] for row in street.ask("Import", meter="(M-1|M-2)")}
    assert both == {"M-1", "M-2"}
    assert {row["meter"] for row in street.ask("Import", meter="M-2")} == {"M-2"}
    assert {row["meter"] for row in street.ask("Export", service_point="SP-M-1")} == {"M-1"}
    assert street.ask("Import", headend="other") == []


async def test_estimates_stand_alone_and_a_replaced_one_is_gone(street: Street) -> None:
    title = "Estimated registers (not readings)"
    imports = street.ask(title, 0, step="15m")
    assert [(row["meter"], row["estimated import register"]) for row in imports] == [
        ("M-1", Decimal("10007.75")),
        ("M-1", Decimal(77777)),
    ]
    exports = street.ask(title, 1, step="15m")
    assert [(row["meter"], row["estimated export register"]) for row in exports] == [
        ("M-2", Decimal(66666))
    ]


# -- reading, buses, this database


async def test_success_is_what_was_read_of_what_was_due_until_now(street: Street) -> None:
    (in_time,) = street.ask("Success rate of the day", 0)
    (read,) = street.ask("Success rate of the day", 1)
    assert (in_time["headend"], in_time["in time"], read["read"]) == (HEADEND, 25, 50)
    (over_time,) = street.ask("Success rate over time")
    assert (over_time["time"], over_time["read"]) == (MIDNIGHT_MS + HOUR_MS, 50)
    counts = {"open": 2, "missing": 0, "estimated": 0}
    for n, (column, count) in enumerate(counts.items()):
        (row,) = street.ask("Not read", n)
        assert row[column] == count


async def test_the_share_of_a_bus_is_in_per_cent_of_the_time(street: Street) -> None:
    at_ms = MIDNIGHT_MS + HOUR_MS
    rows = street.ask("Bus share")
    assert {(row["headend"], row["bus"]) for row in rows} == {(HEADEND, "street-a")}
    assert by_time(rows, "share") == {at_ms: 25, at_ms + MINUTE_MS: 75}
    (hour,) = street.ask("Bus share", __interval="1h")
    assert hour["share"] == 50
    assert by_time(street.ask("Failed requests"), "failed") == {at_ms: 1, at_ms + MINUTE_MS: 2}


async def test_the_writer_tells_when_it_last_wrote_and_how_far_it_is(street: Street) -> None:
    (newest,) = street.ask("Newest figures")
    assert newest["time"] == MIDNIGHT_MS + HOUR_MS + MINUTE_MS
    assert newest["writer"] == "influx"
    assert newest["backlog"] >= 0
    for title, column in (("Behind the journal", "lag"), ("Refused lines", "dead letters")):
        rows = street.ask(title)
        assert [row["writer"] for row in rows] == ["influx", "influx"]
        assert all(row[column] >= 0 for row in rows)


async def test_every_query_finds_something_and_every_choice_is_offered(street: Street) -> None:
    for title, panel in street.dashboard.panels.items():
        for n in range(len(panel["targets"])):
            assert street.ask(title, n), (title, n)
    offered = {
        name: {row["value"] for row in street.influx.rows(street.dashboard.filled(one["query"]))}
        for name, one in street.dashboard.variables.items()
        if one["type"] == "query"
    }
    assert offered == {
        "headend": {HEADEND},
        "service_point": {"SP-M-1", "SP-M-2"},
        "meter": {"M-1", "M-2"},
    }


# -- the files


def test_the_dashboard_shows_what_it_is_for(dashboard: Dashboard) -> None:
    assert dashboard.panels.keys() >= {
        "Import", "Export", "Estimated registers (not readings)", "Success rate of the day",
        "Bus share", "Newest figures", "Behind the journal",
    }  # fmt: skip
    assert all(one["datasource"]["uid"] == "${datasource}" for one in dashboard.panels.values())


def every_query(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for title in dashboard.panels:
        for query in dashboard.queries(title):
            yield title, query


def test_no_estimate_and_no_refused_value_stands_among_readings(dashboard: Dashboard) -> None:
    for title, query in every_query(dashboard):
        measurements = set(re.findall(r'FROM "(\w+)"', query))
        assert len(measurements) == 1  # and never a pattern, which would find the estimates too
        (measurement,) = measurements
        assert not measurement.endswith("_rejected")
        assert measurement.endswith("_estimated") == ("not readings" in title)
        if measurement.startswith("register"):
            (value,) = re.findall(r'last\("(\w+)"\)', query)
            assert f'"{value}_quality" <= 1' in query


def test_the_provisioning_fits_the_configuration_that_is_shown() -> None:
    (source,) = yaml.safe_load((FOLDER / "datasource.yaml").read_text())["datasources"]
    sections = load_config(CONFIG / "timeseries.yaml").timeseries
    section = next(one for one in sections if one.kind == "influxdb1")
    assert source["type"] == "influxdb"
    assert source["jsonData"]["dbName"] == section.database
    assert "password" not in source  # it is read from a file
    assert source["secureJsonData"]["password"].startswith("$__file{")
    (provider,) = yaml.safe_load((FOLDER / "dashboards.yaml").read_text())["providers"]
    assert provider["type"] == "file"
