"""The demo shows what it says: every reading from the wire to billing, exact to the last digit."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from docs_guide import BIN

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


def test_every_meter_has_its_due_points_and_each_was_read(demo):
    points = headend(demo, "due", "--list")
    assert {point["state"] for point in points} == {"read"}
    by_meter = Counter(point["meter"] for point in points)
    assert len(by_meter) == demo.lines[-1]["meters"]
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


def test_every_consumer_has_receipted_everything(demo):
    (status,) = headend(demo, "feed", "status")
    assert status["backlog"] == 0
    assert status["last_seq"] == status["receipted_seq"] > 0
