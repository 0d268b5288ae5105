"""The demo shows what it says: every reading from the wire to billing, exact to the last digit."""

import json
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import jsonschema
import pytest
from docs_guide import BIN

from headend.config import load_config
from headend.domain.link import SerialSpec

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def conforms(value, name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())


def headend(demo, *arguments):
    """The JSON objects a command prints for the demo's configuration."""
    done = subprocess.run(
        [BIN / "headend", *arguments, "--config", demo.config, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_demo_ends_by_itself_with_every_reading_at_billing(demo):
    assert demo.code == 0, demo.err
    result = demo.lines[-1]
    conforms(result, "demo")
    assert result["meters"] >= 8
    assert result["due"] == result["read"] == result["published"] == result["receipted"] > 0


def test_billing_has_what_the_street_counted_to_the_last_digit(demo):
    result = demo.lines[-1]
    assert len(result["truth_import_kwh"]) == result["meters"]
    assert result["import_kwh"] == result["truth_import_kwh"]
    assert result["export_kwh"] == result["truth_export_kwh"]
    assert any(float(v) > 0 for v in result["import_kwh"].values())
    assert any(float(v) > 0 for v in result["export_kwh"].values())


def test_billing_has_what_the_inverter_yielded(demo):
    result = demo.lines[-1]
    assert len(result["truth_yield_kwh"]) == result["inverters"] >= 1
    assert result["yield_kwh"] == result["truth_yield_kwh"]
    assert not set(result["yield_kwh"]) & set(result["import_kwh"])
    assert all(float(v) > 0 for v in result["yield_kwh"].values())


def test_both_protocols_hang_on_one_pair_and_a_gateway_has_a_meter_and_an_inverter(demo):
    config = load_config(demo.config)
    speaks = defaultdict(set)
    for meter in config.meters:
        speaks[meter.bus].add((meter.protocol, meter.profile))
    protocols = {bus: {protocol for protocol, _ in found} for bus, found in speaks.items()}
    mixed = [bus for bus, found in protocols.items() if found == {"dlt645-2007", "modbus-rtu"}]
    assert mixed
    assert all(isinstance(config.buses[bus].link_spec, SerialSpec) for bus in mixed)
    (gateway,) = (bus for bus, found in protocols.items() if found == {"modbus-tcp"})
    kinds = {config.profiles[profile].kind for _, profile in speaks[gateway]}
    assert kinds == {"meter", "inverter"}


def test_modbus_meters_are_billed_on_their_own_side_of_the_transformers(demo):
    config, result = load_config(demo.config), demo.lines[-1]
    modbus = [m for m in config.meters if m.profile and m.id in result["import_kwh"]]
    sides = {config.profiles[meter.profile].side for meter in modbus}
    assert sides == {"primary", "secondary"}
    counted = [float(result[f"{d}_kwh"][m.id]) for m in modbus for d in ("import", "export")]
    assert sum(kwh > 0 for kwh in counted) >= len(modbus)
    readings = headend(demo, "readings", "--point", "active_import_total")
    told = {r["meter"]: (r["side"], r["multiplier"]) for r in readings}
    for meter in modbus:
        side = config.profiles[meter.profile].side
        assert told[meter.id] == (side, str(meter.multiplier))


def test_every_meter_has_its_due_points_and_each_was_read(demo):
    points = headend(demo, "due", "--list")
    assert {point["state"] for point in points} == {"read"}
    by_meter = Counter(point["meter"] for point in points)
    assert len(by_meter) == demo.lines[-1]["meters"] + demo.lines[-1]["inverters"]
    assert min(by_meter.values()) >= 3


@pytest.mark.parametrize(
    ("arguments", "schema"),
    [
        (["check"], "check"),
        (["readings"], "reading_record"),
        (["due"], "due"),
        (["due", "--list"], "due"),
        (["feed", "status"], "feed_status"),
        (["billing", "show", "--span"], "billing_difference"),
        (["billing", "readings"], "billing_reading"),
        (["billing", "status"], "billing_status"),
    ],
)
def test_the_directory_it_leaves_can_be_looked_at(demo, arguments, schema):
    found = headend(demo, *arguments)
    assert found
    for value in found:
        conforms(value, schema)


def test_a_register_billing_stands_on_leads_back_to_its_bytes(demo):
    difference = headend(demo, "billing", "show", "--span", "--service-point", "SP-0002")[1]
    assert difference["direction"] == "export"
    (start, end) = difference["sources"]
    for read_id in (start, end):
        (trace,) = headend(demo, "trace", read_id)
        conforms(trace, "trace")
        (at_billing,) = headend(demo, "billing", "bytes", read_id)
        conforms(at_billing, "billing_bytes")
        assert trace["exchange"]["reply"] == at_billing["reply"]
        explained = subprocess.run(
            [BIN / "headend", "frame", "--json", at_billing["reply"]],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        frame = json.loads(explained.stdout)
        conforms(frame, "frame")
        assert frame["values"][0]["value"] == trace["reading"]["value"] == at_billing["value"]


def test_a_modbus_counter_leads_back_to_the_bytes_of_its_registers(demo):
    config = load_config(demo.config)
    for meter in (m for m in config.meters if m.protocol == "modbus-rtu"):
        difference = headend(
            demo, "billing", "show", "--span", "--service-point", meter.service_point
        )[0]
        (trace,) = headend(demo, "trace", difference["sources"][1])
        conforms(trace, "trace")
        exchange = trace["exchange"]
        explained = subprocess.run(
            [
                BIN / "headend", "frame", "--json", "--profile", meter.profile,
                "--request", exchange["request"], exchange["reply"],
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )  # fmt: skip
        values = {v["point"]: v["value"] for v in json.loads(explained.stdout)["values"]}
        assert values["active_import_total"] == trace["reading"]["value"]


def test_every_consumer_has_receipted_everything(demo):
    (status,) = headend(demo, "feed", "status")
    assert status["backlog"] == 0
    assert status["last_seq"] == status["receipted_seq"] > 0
