"""The rules for Prometheus and Alertmanager: sound, each tried, about metrics that really exist."""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from headend.domain.alarms import alarm_kind, alarm_kinds

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "prometheus"
RULES = yaml.safe_load((FOLDER / "headend.rules.yml").read_text("utf-8"))
TRIED = yaml.safe_load((FOLDER / "headend.rules.test.yml").read_text("utf-8"))["tests"]
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
NOT_OURS = {"up"}  # Prometheus's own, of every target
FUNCTIONS = {"sum", "by", "instance", "bus", "class", "increase", "changes", "predict_linear"}


def tool(*command, folder=FOLDER):
    """Run promtool or amtool; what it said."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "rules", "headend.rules.yml"),
        ("promtool", "check", "config", "prometheus.yml"),
        ("promtool", "test", "rules", "headend.rules.test.yml"),
        ("amtool", "check-config", "alertmanager.yml"),
    ],
)
def test_the_tools_find_nothing_wrong(command):
    code, said = tool(*command)
    assert code == 0, said


def test_every_rule_has_a_case_that_fires_and_one_that_does_not():
    fires, silent = set(), set()
    for test in TRIED:
        for tried in test["alert_rule_test"]:
            (fires if tried["exp_alerts"] else silent).add(tried["alertname"])
    assert fires == set(ALERTS)
    assert silent == set(ALERTS)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_a_rule_that_never_or_always_fires_is_found_by_its_cases(alert, tmp_path):
    for expr in ("vector(0) > 1", "vector(1)"):
        broken = yaml.safe_load((FOLDER / "headend.rules.yml").read_text("utf-8"))
        for group in broken["groups"]:
            for rule in group["rules"]:
                if rule["alert"] == alert:
                    rule["expr"] = expr
        (tmp_path / "headend.rules.yml").write_text(yaml.safe_dump(broken), "utf-8")
        own = [t for t in TRIED if t["alert_rule_test"][0]["alertname"] == alert]
        if expr == "vector(1)":
            own = [t for t in own if not t["alert_rule_test"][0]["exp_alerts"]]
            for group in broken["groups"]:
                for rule in group["rules"]:
                    rule.pop("for", None)
            (tmp_path / "headend.rules.yml").write_text(yaml.safe_dump(broken), "utf-8")
        tests = {"rule_files": ["headend.rules.yml"], "evaluation_interval": "1m", "tests": own}
        (tmp_path / "test.yml").write_text(yaml.safe_dump(tests), "utf-8")
        code, _said = tool("promtool", "test", "rules", "test.yml", folder=tmp_path)
        assert code != 0, f"{alert}: {expr} passes its cases"


def test_every_alarm_that_can_stand_has_its_rule_with_the_words_of_the_table():
    told = {}
    for rule in ALERTS.values():
        found = re.fullmatch(r'headend_alarms_standing\{alarm="(\w+)"\} > 0', rule["expr"])
        if found:
            told[found[1]] = rule
    wanted = {kind.name for kind in alarm_kinds() if kind.stands and kind.of != "billing"}
    assert set(told) == wanted
    for name, rule in told.items():
        kind, words = alarm_kind(name), rule["annotations"]
        assert rule["labels"]["severity"] == kind.severity, name
        assert words["summary"].startswith(kind.label_en + " ("), name
        assert words["summary_zh"].startswith(kind.label_zh + "（"), name
        assert (words["action"], words["action_zh"]) == (kind.do_en, kind.do_zh), name
        assert words["section"] == f"operations-guide.md#{name}"


def test_every_rule_leads_to_a_section_of_the_guide():
    guide = (ROOT / "docs" / "operations-guide.md").read_text("utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)
    }
    for alert, rule in ALERTS.items():
        document, anchor = rule["annotations"]["section"].split("#")
        assert document == "operations-guide.md"
        assert anchor in anchors, f"{alert}: there is no section {anchor}"


def test_inhibition_speaks_of_rules_that_exist():
    config = yaml.safe_load((FOLDER / "alertmanager.yml").read_text("utf-8"))
    named = set()
    for rule in config["inhibit_rules"]:
        assert "instance" in rule["equal"], "one head-end must not silence another"
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            name, value = re.fullmatch(r'(\w+)!?=~?"(.+)"', matcher).groups()
            assert name == "alertname"
            if value != "Headend.+":
                named.update(value.split("|"))
    assert named <= set(ALERTS)
    assert {"HeadendBusDown", "HeadendMassSilence", "HeadendBusMetersSilent"} <= named


def metrics_of(expr):
    """The metric names in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expr)
    return {name for name in re.findall(r"[a-z_]{2,}", bare) if name not in FUNCTIONS}


def test_the_metrics_of_an_expression_are_found():
    expr = 'sum by (instance, bus) (increase(headend_a_total{x="b_c"}[15m])) / headend_b > 0.5'
    assert metrics_of(expr) == {"headend_a_total", "headend_b"}


CONFIGURATION = """
headend: {{name: he1, zone: Asia/Shanghai, data: data}}
buses: {{a: {{link: "serial://{folder}/none"}}}}
meters:
  - {{id: M-1, service_point: S-1, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p}}
plans: {{p: {{every: [{{minutes: 1, points: [active_import_total]}}]}}}}
feed: {{broker: "embedded://127.0.0.1:{broker}", consumers: [{{name: b, classes: [billing]}}]}}
timeseries: [{{kind: influxdb1, url: "http://127.0.0.1:{series}", database: meters}}]
status: {{bind: "127.0.0.1:{page}"}}
"""


def free_ports(count):
    """So many ports that are free just now."""
    import socket

    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _page(url):
    """What is there; empty while nobody listens yet: the page is a task that starts by itself."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def scrape(tmp_path_factory):
    """What a real daemon answers to a scrape."""
    folder = tmp_path_factory.mktemp("scrape")
    broker, series, page = free_ports(3)
    file = folder / "headend.yaml"
    file.write_text(
        CONFIGURATION.format(folder=folder, broker=broker, series=series, page=page), "utf-8"
    )
    command = [sys.executable, "-m", "headend.cli.main", "run", "--config", str(file)]
    log = folder / "log"
    with log.open("w") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, cwd=ROOT, text=True)
    try:
        assert process.stdout.readline() == "READY\n", log.read_text()
        url = f"http://127.0.0.1:{page}/metrics"
        end = time.monotonic() + 30
        while True:
            text = _page(url)
            # What is looked up in the journal comes a moment later.
            if "headend_due_points_overdue{" in text or time.monotonic() > end:
                yield text
                return
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_every_metric_of_a_rule_is_in_a_real_scrape(scrape):
    there = set(re.findall(r"^([a-z_]+)(?:\{| )", scrape, re.MULTILINE))
    for alert, rule in ALERTS.items():
        wanted = metrics_of(rule["expr"]) - NOT_OURS
        assert wanted <= there, f"{alert}: no {wanted - there} in a scrape"


def test_every_label_value_of_a_rule_is_in_a_real_scrape(scrape):
    for alert, rule in ALERTS.items():
        for metric, labels in re.findall(r"(headend_\w+)\{([^}]*)\}", rule["expr"]):
            for label in labels.split(","):
                line = rf"^{metric}\{{[^}}]*{re.escape(label)}"
                assert re.search(line, scrape, re.MULTILINE), f"{alert}: {metric}{{{label}}}"
