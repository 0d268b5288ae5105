"""What the page's door lets in, what every answer carries, metrics, health, and no secrets."""

import http.client
import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
from status_bench import SECRETS, Running
from test_status_in_a_browser import PAGES, path_of

from headend.domain.due import DueState
from headend.journal import JournalReader
from headend.status.server import REQUESTS_MAX

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"
PROMTOOL = "/usr/bin/promtool"


def ask(url: str, *, method: str = "GET", headers: dict | None = None, host: str | None = None):
    """Status, headers and body of one request."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.putrequest(method, path, skip_host=host is not None)
    if host:
        connection.putheader("Host", host)
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), body


def everything(bench: Running):
    """Every address of both daemons with its body, in both languages."""
    for who in ("well", "ill"):
        paths = [path_of(bench, who, page) for page in PAGES]
        base = getattr(bench, who).url
        paths += [f"{base}{p}" for p in ("/metrics", "/healthz", "/nothing", "/meters/none")]
        for url in paths:
            for language in ("en", "zh"):
                yield url, ask(f"{url}?lang={language}")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_looking_is_allowed(bench, method):
    for path in ("/", "/metrics", "/nothing"):
        status, headers, _body = ask(bench.well.url + path, method=method)
        assert status == 405
        assert headers["Allow"] == "GET, HEAD"


def test_head_gives_the_headers_alone(bench):
    status, headers, body = ask(bench.well.url + "/", method="HEAD")
    assert status == 200
    assert body == b""
    assert headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),
        ("localhost:9", 200),
        ("[::1]:8080", 200),
        ("attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
        ("192.0.2.7", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_ours_is_refused(bench, host, status):
    """A page of another site that had its name rebound to this address reads nothing."""
    for path in ("/", "/metrics", "/healthz"):
        assert ask(bench.well.url + path, host=host or " ")[0] == status


def test_every_answer_closes_the_browser_to_everything_else(bench):
    for url, (_status, headers, _body) in everything(bench):
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self';"), url
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers


def test_no_secret_is_told(bench):
    """Not what stands in files of secrets, nor what somebody put into a URL or an error."""
    seen = 0
    for url, (_status, headers, body) in everything(bench):
        text = body.decode() + str(headers)
        for secret in (*SECRETS, "pw4711"):
            assert secret not in text, url
        seen += len(body)
    assert seen > 100_000


def test_pages_have_no_scripts_and_no_styles_of_their_own(bench):
    for url, (_status, headers, body) in everything(bench):
        if headers["Content-Type"].startswith("text/html"):
            text = body.decode()
            assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=|javascript:", text), url
            assert not re.search(r"(src|href)=\"(?!/|#)", text), url


@pytest.mark.parametrize(
    "query",
    [
        "page=0", "page=-1", "page=99999999999", "page=%00", "state=x", "bus=%3Cscript%3E",
        "q=%22%3E%3Cb%3E", "q=" + "x" * 3000, "lang=xx", "refresh=0", "refresh=1;url=x", "day=x",
        "day=0001-01-01", "day=9999-12-31", "lang=zh&lang=en", "%ff=%fe",
    ],
)  # fmt: skip
def test_no_question_breaks_a_page(bench, query):
    for path in ("/meters", f"/meters/{bench.meters[0]}", "/"):
        status, headers, body = ask(f"{bench.well.url}{path}?{query}")
        assert status == 200
        assert "Refresh" not in headers
        assert b"<script>" not in body
        assert b'"><b>' not in body


def test_what_is_not_there_is_said_so_on_a_page(bench):
    for path in ("/nothing", "/meters/none", "/..%2f..%2fetc/passwd", "/style.css/x"):
        status, headers, body = ask(bench.well.url + path)
        assert status == 404
        assert headers["Content-Type"].startswith("text/html")
        assert b"<h1>" in body


def test_health_is_told_as_its_schema_says(bench):
    schema = json.loads((SCHEMAS / "healthz.schema.json").read_text())
    for daemon, state in ((bench.well, "ok"), (bench.ill, "degraded")):
        status, headers, body = ask(f"{daemon.url}/healthz")
        assert status == 200
        assert headers["Content-Type"].startswith("application/json")
        told = json.loads(body)
        jsonschema.validate(told, schema, format_checker=jsonschema.FormatChecker())
        assert told["state"] == state
        assert told["tasks"]["running"] == told["tasks"]["total"] > 5
    assert told["buses"] == {"total": 2, "open": 1}
    assert told["feed_connected"] is False


def test_prometheus_has_nothing_to_say_against_the_metrics(bench):
    for daemon in (bench.well, bench.ill):
        status, headers, body = ask(f"{daemon.url}/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=body, capture_output=True, timeout=30, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def samples(bench_url: str) -> dict[str, float]:
    body = ask(f"{bench_url}/metrics")[2].decode()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in body.splitlines()
        if not line.startswith("#")
    }


def test_metrics_say_what_the_parts_say(bench):
    told = samples(bench.well.url)
    assert told["headend_up"] == 1
    assert told["headend_feed_connected"] == 1
    assert told["headend_journal_read_ok"] == 1
    for name, bus in bench.well.parts.buses.items():
        statistics = bus.statistics()
        label = f'bus="{name}"'
        assert told[f"headend_bus_port_open{{{label}}}"] == 1
        counted = told[f"headend_bus_latency_seconds_count{{{label}}}"]
        assert 0 < counted <= statistics.latency.total
        assert told[f'headend_bus_latency_seconds_bucket{{{label},le="+Inf"}}'] == counted
        answers = told[f'headend_bus_exchanges_total{{{label},outcome="reply"}}']
        assert answers >= counted
        assert told[f'headend_bus_bytes_total{{{label},direction="received"}}'] > 0
        assert told[f'headend_bus_meters{{{label},state="answers"}}'] > 0
    ill = samples(bench.ill.url)
    assert ill['headend_bus_meters{bus="unplugged",state="no_port"}'] == 120
    assert ill['headend_due_points{day="yesterday",state="open"}'] == 240
    assert ill['headend_due_points_overdue{day="yesterday"}'] == 240
    assert ill['headend_due_points_failed{day="yesterday",reason="port_gone"}'] == 200
    assert ill['headend_alarms_standing{alarm="bus_down",severity="critical"}'] == 1
    assert ill['headend_alarms_standing{alarm="journal_space",severity="critical"}'] == 0
    assert ill['headend_feed_backlog_records{consumer="billing"}'] >= 12
    assert ill['headend_feed_oldest_unreceipted_seconds{consumer="billing"}'] > 3600


def test_no_metric_has_a_meter_for_a_label(bench):
    body = ask(f"{bench.ill.url}/metrics")[2].decode()
    assert "M-0" not in body
    assert len(body.splitlines()) < 600


def test_the_page_counts_due_points_as_the_journal_does(bench):
    with JournalReader(bench.ill.config.journal_path) as journal:
        days = journal.due_days()
        counted = journal.due(days[0])
    assert counted["open"] == 240
    body = ask(f"{bench.ill.url}/due?lang=en")[2].decode()
    row = re.search(r"Yesterday.*?</tr>", body, re.DOTALL)
    assert row is not None
    cells = re.findall(r'<td class="num[^>]*>(.*?)</td>', row[0], re.DOTALL)
    shown = [re.sub(r"<svg.*?</svg>|<[^>]+>|\s", "", cell) for cell in cells]
    assert shown == ["240", *["0"] * 5, str(counted["open"]), "240", "0"]
    assert len(DueState) == 6


def test_the_list_of_meters_comes_in_pages_that_hold_each_once(bench):
    seen: list[str] = []
    for page in (1, 2, 3, 4):
        body = ask(f"{bench.ill.url}/meters?page={page}&state=no_port")[2].decode()
        names = re.findall(r'<th scope="row"><a href="/meters/[^"]*">(M-\d+)</a>', body)
        assert len(names) <= 50
        seen += names if page < 4 else []
    assert seen == sorted(set(seen))
    assert len(seen) == 120
    body = ask(f"{bench.ill.url}/meters?q=sp-77")[2].decode()
    assert re.findall(r">(M-\d+)</a>", body) == ["M-0077"]


def test_what_was_last_read_well_is_shown_import_and_export_apart(bench):
    meter = bench.sunny
    body = ask(f"{bench.well.url}/meters?q={meter}&lang=en")[2].decode()
    shown = re.findall(r'<td class="num">([0-9.]+)</td>', body)
    truth = bench.street.truth(meter)
    assert abs(float(shown[0]) - float(truth["active_import_total"].shown)) < 0.1
    assert abs(float(shown[1]) - float(truth["active_export_total"].shown)) < 0.1
    assert 0 < float(shown[1]) != float(shown[0])


def test_too_many_at_once_are_sent_away_and_served_again_afterwards(bench):
    """Requests that hang do not pile up: the ninth is told to come again."""
    server = bench.well.parts  # the daemon's own loop decides
    assert server.supervisor.states["status"].running
    connections = [
        http.client.HTTPConnection(urlsplit(bench.well.url).netloc, timeout=20)
        for _ in range(4 * REQUESTS_MAX)
    ]
    for connection in connections:
        connection.putrequest("GET", "/")
        connection.endheaders()
    statuses = []
    for connection in connections:
        response = connection.getresponse()
        statuses.append(response.status)
        if response.status == 503:
            assert response.getheader("Retry-After")
        response.read()
        connection.close()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= REQUESTS_MAX
    assert ask(bench.well.url + "/")[0] == 200


def test_every_metric_that_an_alert_asks_for_is_told(bench):
    """A rule on a name that is not there would never fire."""
    rules = (ROOT / "config" / "prometheus" / "headend.rules.yml").read_text()
    expressions = "\n".join(line for line in rules.splitlines() if "headend_" in line)
    asked = set(re.findall(r"\bheadend_[a-z_]+", expressions))
    told = {name.partition("{")[0] for name in samples(bench.ill.url)}
    assert asked
    assert asked <= told
