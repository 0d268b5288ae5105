"""Good configurations: examples load, every default is what the example's words say."""

import time
from datetime import time as local_time
from decimal import Decimal
from pathlib import Path

import pytest

from headend.config import Config, ConfigErrors, load_config
from headend.domain.clock import from_iso
from headend.domain.link import SerialSpec, TcpSpec

EXAMPLES = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))

SMALL = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses:
  a: {link: /dev/ttyUSB0}
meters:
  - {id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p}
plans:
  p: {every: [{minutes: 15, points: [active_import_total]}]}
"""


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "headend.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_loads(path: Path) -> None:
    config = load_config(path)
    assert config.meters
    assert config.path == path


def test_the_example_says_what_it_means() -> None:
    config = load_config(next(p for p in EXAMPLES if p.name == "example.yaml"))
    assert config.name == "he1"
    assert config.zone.key == "Asia/Shanghai"
    assert config.data_path == config.path.parent / "data"
    assert config.journal_path == config.data_path / "journal.db"
    street_a, street_b = config.buses["street-a"], config.buses["street-b"]
    assert isinstance(street_a.link_spec, SerialSpec)
    assert street_a.link_spec.baud == 2400
    assert street_b.link_spec == TcpSpec("127.0.0.1", 4001, baud=2400)
    assert (street_b.timeout_ms, street_b.attempts, street_b.wakeup) == (800, 3, 4)
    meter = config.meters[2]
    assert (meter.id, meter.address) == ("M-0003", "202401150003")
    assert (meter.ct, meter.multiplier, meter.capacity_kw) == (
        Decimal(40),
        Decimal(40),
        Decimal(200),
    )
    assert config.meters[0].area == "T-7"
    assert config.feed is not None
    assert config.feed.broker_spec.host == "127.0.0.1"
    assert [c.name for c in config.feed.consumers] == ["billing", "charts"]
    assert config.billing is not None
    url = config.billing_database_url
    assert url == f"sqlite:///{config.path.parent / 'data' / 'billing.db'}"


def test_plans_are_filled_in() -> None:
    config = load_config(next(p for p in EXAMPLES if p.name == "example.yaml"))
    daily, quarter = config.plans["household"].entries()
    assert (daily.at, daily.interval_s, daily.origin) == (local_time(0, 0), None, "freeze")
    assert (daily.tolerance_s, daily.window_s) == (900, 3600)
    assert (quarter.interval_s, quarter.tolerance_s, quarter.window_s) == (900, 300, 900)
    _, _, often = config.plans["workshop"].entries()
    assert often.tolerance_s == 60
    assert config.plans["workshop"].points() == (
        "active_import_total",
        "active_export_total",
        "active_power_total",
    )


def test_a_plans_tolerance_never_reaches_the_next_instant(tmp_path: Path) -> None:
    text = SMALL.replace("{minutes: 15, points", "{seconds: 30, points").replace(
        "]}]}", "]}], tolerance_s: 60}"
    )
    (entry,) = load(tmp_path, text).plans["p"].entries()
    assert entry.tolerance_s == 15


def test_a_plan_can_be_bounded() -> None:
    config = load_config(next(p for p in EXAMPLES if p.name == "fleet.yaml"))
    (entry,) = config.plans["survey"].entries()
    assert entry.from_ms == from_iso("2030-02-28T16:00:00+00:00")
    assert entry.until_ms == from_iso("2030-03-31T16:00:00+00:00")


def test_meters_of_a_csv_file_are_the_same_meters(tmp_path: Path) -> None:
    listed = load(tmp_path, SMALL)
    (tmp_path / "meters.csv").write_text(
        "\ufeffid,service_point,bus,protocol,address,plan\r\n"
        "M-1,SP-1,a,dlt645-2007,000000000001,p\r\n\r\n",
        encoding="utf-8",
    )
    head, _, rest = SMALL.partition("meters:\n")
    text = head + "meters: {file: meters.csv}\n" + rest.partition("\n")[2]
    from_file = load(tmp_path, text)
    assert from_file.meters == listed.meters
    assert from_file.hash == listed.hash


def test_the_hash_names_the_content_not_the_layout(tmp_path: Path) -> None:
    first = load(tmp_path, SMALL)
    same = load(tmp_path, "# another comment\n" + SMALL.replace('"000000000001"', "'000000000001'"))
    explicit = load(tmp_path, SMALL.replace("/dev/ttyUSB0}", "/dev/ttyUSB0, gap_ms: 30}"))
    other = load(tmp_path, SMALL.replace("/dev/ttyUSB0}", "/dev/ttyUSB0, gap_ms: 31}"))
    assert first.hash == same.hash == explicit.hash
    assert first.hash != other.hash


def test_the_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL)
    with pytest.raises(AttributeError):
        config.hash = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.buses["b"] = config.buses["a"]  # type: ignore[index]
    with pytest.raises(ValueError, match="frozen"):
        config.headend.name = "x"


def test_a_bus_can_say_that_it_echoes(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL.replace("/dev/ttyUSB0}", "/dev/ttyUSB0, echo: true}"))
    assert config.buses["a"].link_spec == SerialSpec("/dev/ttyUSB0", echo=True)


def test_a_socket_path_is_never_longer_than_a_socket_allows(tmp_path: Path) -> None:
    short = load(tmp_path, SMALL.replace("./data", "/d"))
    assert short.socket_path == Path("/d/headend.sock")
    long = load(tmp_path, SMALL.replace("./data", "/" + "d" * 200))
    assert len(str(long.socket_path)) <= 100
    other = load(tmp_path, SMALL.replace("./data", "/" + "e" * 200))
    assert long.socket_path != other.socket_path


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    (tmp_path / "pw").chmod(0o600)
    feed = 'feed: {broker: "mqtt://127.0.0.1", username: u, password_file: pw}\n'
    config = load(tmp_path, SMALL + feed)
    assert config.feed is not None
    assert config.secret(config.feed.password_file) == "s3cret"
    assert config.secret(None) is None


def test_a_configuration_without_meters_is_one(tmp_path: Path) -> None:
    text = (
        "headend: {name: he1, zone: UTC, data: .}\n"
        'feed: {broker: "embedded://127.0.0.1:1883"}\n'
        'billing: {database: "sqlite:///b.db", headends: [he1, he2]}\n'
    )
    assert load(tmp_path, text).meters == ()


def test_ten_thousand_meters_load_quickly(tmp_path: Path) -> None:
    rows = "".join(
        f"  - {{id: M-{i}, service_point: SP-{i}, bus: a, protocol: dlt645-2007, "
        f'address: "{i:012d}", plan: p, ct: "1", capacity_kw: "13.2"}}\n'
        for i in range(10_000)
    )
    head, _, rest = SMALL.partition("  - {id")
    begun = time.process_time()
    config = load(tmp_path, head + rows + rest.partition("\n")[2])
    assert len(config.meters) == 10_000
    # About 1 s on the slowest machine in use; ten times that would be another algorithm.
    assert time.process_time() - begun < 10


def test_a_broken_meter_among_ten_thousand_is_named(tmp_path: Path) -> None:
    rows = ["id,service_point,bus,protocol,address,plan\n"]
    rows += [f"M-{i},SP-{i},a,dlt645-2007,{i:012d},p\n" for i in range(10_000)]
    rows[7777] = "M-7776,SP-7776,a,dlt645-2007,7776,p\n"
    (tmp_path / "meters.csv").write_text("".join(rows))
    head, _, rest = SMALL.partition("meters:\n")
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, head + "meters: {file: meters.csv}\n" + rest.partition("\n")[2])
    (error,) = caught.value.errors
    assert error.file == str(tmp_path / "meters.csv")
    assert (error.line, error.key) == (7778, "meters[7776].address")
    assert "leading zeros" in str(error)
