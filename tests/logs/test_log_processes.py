"""The log of the real processes: the daemon and billing, as an operator reads it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "log.schema.json").read_text(encoding="utf-8"))
SECRETS = {"broker": "br0ker-geheim", "series": "s3ries-geheim", "billing": "b1lling-geheim"}
CONFIGURATION = """
headend: {{name: he1, zone: Asia/Shanghai, data: data}}
buses: {{a: {{link: "serial://{folder}/none"}}}}
meters:
  - {{id: M-1, service_point: S-1, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p}}
plans: {{p: {{every: [{{minutes: 1, points: [active_import_total]}}]}}}}
feed:
  broker: "mqtt://127.0.0.1:9"
  username: he1
  password_file: broker
  consumers: [{{name: billing, classes: [billing]}}]
timeseries:
  - {{kind: influxdb1, url: "http://127.0.0.1:9", database: m, username: u, password_file: series}}
billing:
  database: "sqlite:///./billing.db"
  headends: [he1]
  broker: {{username: b, password_file: billing}}
"""


@pytest.fixture
def config(tmp_path):
    """A configuration whose every server is away, with secrets in files."""
    for name, secret in SECRETS.items():
        file = tmp_path / name
        file.write_text(secret)
        file.chmod(0o600)
    file = tmp_path / "headend.yaml"
    file.write_text(CONFIGURATION.format(folder=tmp_path))
    return file


def lines_of(config, *command, until, environment=None):
    """Run a process until its log holds something; its lines after a clean end."""
    log = config.parent / "log"
    arguments = [sys.executable, "-m", "headend.cli.main", *command, "--config", str(config)]
    with log.open("w") as stream:
        found = os.fstat(stream.fileno())
        values = {
            key: value.format(stream=f"{found.st_dev}:{found.st_ino}")
            for key, value in (environment or {}).items()
        }
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=stream, cwd=ROOT,
            env={**os.environ, **values},
        )  # fmt: skip
    try:
        end = time.monotonic() + 40
        while until not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    return log.read_text().splitlines()


@pytest.mark.parametrize(
    ("command", "until", "logger"),
    [
        (("run",), "(trying again)", "headend.daemon"),
        (("billing", "run"), "(trying again)", "headend.messages.connection"),
    ],
)
def test_every_json_line_has_its_shape_and_no_secret(config, command, until, logger):
    lines = lines_of(config, *command, "--log", "debug", "--log-format", "json", until=until)
    objects = [json.loads(line) for line in lines]
    for one in objects:
        jsonschema.validate(one, SCHEMA)
    assert logger in {one["logger"] for one in objects}
    broker = next(one for one in objects if until in one["message"])
    assert broker["fields"]["code"]
    assert broker["task"] in ("feed", "billing")
    for secret in SECRETS.values():
        assert secret not in "\n".join(lines)


def test_text_has_a_time_and_under_the_service_manager_a_priority_instead(config):
    plain = lines_of(config, "run", until="(trying again)")
    assert all(line[:4].isdigit() and line[23] == "Z" for line in plain)
    journal = lines_of(
        config, "run", until="(trying again)", environment={"JOURNAL_STREAM": "{stream}"}
    )
    assert all(line[0] == "<" and line[2:3] == ">" for line in journal)
    assert any(line.startswith("<4>WARNING headend.daemon headend=he1") for line in journal)
    for secret in SECRETS.values():
        assert secret not in "\n".join(plain + journal)


def test_a_wrong_format_is_a_usage_error():
    done = subprocess.run(
        [sys.executable, "-m", "headend.cli.main", "run", "--config", "x", "--log-format", "xml"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "'text', 'json'" in done.stderr
