"""`diff` finds what differs in meaning between two configurations, and nothing else."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headend.config import Config, ConfigErrors, load_config
from headend.config.changes import Changes, diff
from headend.config.loader import local_socket

BASE = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses:
  a: {link: "tcp://127.0.0.1:7001"}
  b: {link: "serial:///dev/ttyUSB0?baud=9600"}
meters:
  - {id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p}
  - {id: M-2, service_point: SP-2, bus: b, protocol: dlt645-2007, address: "000000000002", plan: p}
plans:
  p: {every: [{minutes: 15, points: [active_import_total]}]}
retention: {billing_days: 400, telemetry_days: 30}
feed:
  broker: "mqtt://127.0.0.1:1883"
  consumers:
    - {name: billing, classes: [billing, events]}
timeseries:
  - {kind: influxdb1, name: charts, url: "http://127.0.0.1:8086", database: meters}
billing: {database: "sqlite:///./data/billing.db", headends: [he1]}
status: {bind: "127.0.0.1:8080"}
"""


@dataclass
class Edit:
    """The base with texts replaced; `of` says what differs from it."""

    folder: Path

    def load(self, *replaced: tuple[str, str]) -> Config:
        text = BASE
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        path = self.folder / "headend.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path)

    def of(self, *replaced: tuple[str, str]) -> Changes:
        return diff(self.load(), self.load(*replaced))


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    return Edit(tmp_path)


def told(changes: Changes) -> list[str]:
    return [str(change) for change in changes.each()]


SECOND = (
    '  - {id: M-2, service_point: SP-2, bus: b, protocol: dlt645-2007, address: "000000000002", '
    "plan: p}\n"
)


def test_the_same_meaning_written_otherwise_is_no_change(edit):
    changes = edit.of(
        ('a: {link: "tcp://127.0.0.1:7001"}', 'a: {link: "tcp://127.0.0.1:7001", gap_ms: 30}'),
        ("retention: {billing_days: 400, telemetry_days: 30}\n", "# as ever\n"),
    )
    assert not changes
    assert told(changes) == []


def test_another_order_of_meters_is_no_change(edit):
    first = BASE.splitlines(keepends=True)[5]
    assert not edit.of((first + SECOND, SECOND + first))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('tcp://127.0.0.1:7001"', 'tcp://127.0.0.1:7009"', ["bus a changed: link"]),
        ("baud=9600", "baud=2400", ["bus b changed: link"]),
        ('7001"}', '7001", gap_ms: 40}', ["bus a changed: gap_ms"]),
        ('7001"}', '7001", echo: true}', ["bus a changed: link"]),
        ('7001"}', '7001", attempts: 1, timeout_ms: 700}', ["bus a changed: timeout_ms, attempts"]),
        ("buses:\n", 'buses:\n  c: {link: "tcp://127.0.0.1:7003"}\n', ["bus c added"]),
        (SECOND, "", ["meter M-2 removed"]),
        (
            SECOND,
            SECOND + SECOND.replace("M-2", "M-3").replace("000000000002", "000000000003"),
            ["meter M-3 added"],
        ),
        ("SP-2, bus: b", "SP-2, bus: a", ["meter M-2 changed: bus"]),
        ("000000000002", "000000000012", ["meter M-2 changed: address"]),
        ("minutes: 15", "minutes: 5", ["plan p changed: every"]),
        (
            "plans:\n",
            "plans:\n  q: {every: [{minutes: 15, points: [voltage_a]}]}\n",
            ["plan q added"],
        ),
        ("telemetry_days: 30", "telemetry_days: 31", ["retention changed: telemetry_days"]),
        ("127.0.0.1:1883", "127.0.0.1:1884", ["feed changed: broker"]),
        ("data: ./data}", "data: ./data, alarms: {port_s: 77}}", ["headend changed: alarms"]),
        (
            "events]}\n",
            "events]}\n    - {name: second, classes: [events]}\n",
            ["consumer second added"],
        ),
        ("[billing, events]", "[billing]", ["consumer billing changed: classes"]),
        ("8086", "8087", ["timeseries charts changed: url"]),
        ("name: charts, ", "", ["timeseries influxdb1 added", "timeseries charts removed"]),
        (
            "./data/billing.db",
            "./data/other.db",
            ["billing changed: database (restart headend-billing to have it there)"],
        ),
        ("127.0.0.1:8080", "127.0.0.1:8081", ["status changed: bind"]),
        ('status: {bind: "127.0.0.1:8080"}\n', "", ["status removed"]),
    ],
)
def test_every_kind_of_difference_is_told_by_name_and_key(edit, old, new, expected):
    changes = edit.of((old, new))
    assert told(changes) == expected
    assert changes.needs_restart == ()
    assert changes


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("name: he1", "name: he2", "headend.name"),
        ("Asia/Shanghai", "Europe/Berlin", "headend.zone"),
        ("data: ./data}", "data: ./other}", "headend.data"),
        ("./data}", "./data, reserve_mb: {telemetry: 600}}", "headend.reserve_mb"),
        ("retention:", "control: {refusals_max: 9}\nretention:", "control.refusals_max"),
    ],
)
def test_what_a_running_daemon_cannot_change_needs_a_restart(edit, old, new, key):
    edits = [(old, new)]
    if key == "headend.name":
        edits.append(("headends: [he1]", "headends: [he2]"))
    assert edit.of(*edits).needs_restart == (key,)


def test_a_feed_that_is_gone_needs_a_restart(edit):
    whole = BASE[BASE.index("feed:") : BASE.index("timeseries:")]
    assert edit.of((whole, "")).needs_restart == ("feed",)


def test_a_file_in_another_directory_needs_a_restart(edit, tmp_path):
    (tmp_path / "other").mkdir()
    there = Edit(tmp_path / "other").load()
    assert diff(edit.load(), there).needs_restart == ("the directory of the file",)


def test_another_map_of_registers_is_a_change_of_the_profile(edit):
    here = edit.load()
    one = replace(here, profiles={"map": "as it was"})
    other = replace(here, profiles={"map": "with another register"})
    assert told(diff(one, other)) == ["profile map changed: registers"]


def test_a_part_of_the_configuration_nobody_has_thought_of_needs_a_restart(edit, monkeypatch):
    """What the loader learns later is not silently taken for applied."""
    monkeypatch.setattr("headend.config.changes._SECTIONS", ("headend", "retention", "feed"))
    changes = edit.of(("127.0.0.1:8080", "127.0.0.1:8081"))
    assert changes.needs_restart == ("status",)


def test_the_socket_is_found_although_the_rest_of_the_file_is_wrong(edit, tmp_path):
    whole = edit.load()
    path = tmp_path / "headend.yaml"
    path.write_text(BASE.replace("meters:", "metres:"), encoding="utf-8")
    assert local_socket(path) == whole.socket_path
    path.write_text(BASE.replace("data: ./data", "date: ./data"), encoding="utf-8")
    with pytest.raises(ConfigErrors, match=r"headend\.data: is missing"):
        local_socket(path)


def test_the_files_a_configuration_was_read_from_are_known(edit, tmp_path):
    rows = BASE[BASE.index("  - {id: M-1") : BASE.index("plans:")]
    (tmp_path / "meters.csv").write_text(
        "id,service_point,bus,protocol,address,plan\nM-1,SP-1,a,dlt645-2007,000000000001,p\n"
    )
    assert edit.load().files == (tmp_path / "headend.yaml",)
    made = edit.load((f"meters:\n{rows}", "meters: {file: meters.csv}\n"))
    assert made.files == (tmp_path / "headend.yaml", tmp_path / "meters.csv")
