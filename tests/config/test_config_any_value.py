"""Whatever stands in the place of a value: a configuration or errors of ours, no traceback."""

from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headend.config import ConfigErrors, load_config
from headend.domain.errors import ConfigError

EVERYTHING = """\
headend: {name: he1, zone: UTC, data: ., reserve_mb: {telemetry: 9, billing: 8}}
buses: {a: {link: /dev/x, gap_ms: 1, timeout_ms: 2, echo: false, wakeup: 4}}
meters:
  - {id: M, service_point: S, bus: a, protocol: dlt645-2007, address: "000000000001", plan: p,
     area: T, ct: "1", pt: 2, capacity_kw: 1.5}
plans:
  p: {daily: {at: "00:00", points: [active_import_total], from: live, tolerance_s: 5, window_s: 6},
      every: [{minutes: 15, points: [voltage_a]}, {seconds: 30, points: [voltage_a]}],
      tolerance_s: 1, window_s: 2, from: "2026-01-01T00:00:00Z", until: "2027-01-01T00:00:00Z"}
retention: {billing_days: 400, telemetry_days: 30}
timeseries: [{kind: influxdb1, url: "http://127.0.0.1:8086", database: d}]
feed: {broker: "mqtt://127.0.0.1", allow_plaintext: true, receipt_timeout_s: 3,
       consumers: [{name: billing, classes: [billing], max_backlog_days: 3}]}
billing: {database: "sqlite:///b.db", name: billing, headends: [he1]}
status: {bind: "127.0.0.1:8080"}
"""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "00:00", "x", "{x}", "a/b", "sqlite://", "mqtts://[", "tcp://[", "%s"]),
    st.text(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def _paths(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place of a tree, inner ones too."""
    if isinstance(node, dict):
        below = list(node.items())
    elif isinstance(node, list):
        below = list(enumerate(node))
    else:
        below = []
    found = [path] if path else []
    for key, value in below:
        found += _paths(value, (*path, key))
    return found


def _replaced(path: tuple[str | int, ...], value: object) -> str:
    tree = yaml.safe_load(EVERYTHING)
    node = tree
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return yaml.safe_dump(tree, allow_unicode=True)


PATHS = _paths(yaml.safe_load(EVERYTHING))


def test_what_is_varied_is_good_itself(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(EVERYTHING)
    assert load_config(path).meters


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PATHS), value=VALUES)
def test_any_value_in_any_place_is_a_configuration_or_errors_of_ours(
    place: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(_replaced(place, value), encoding="utf-8", errors="surrogatepass")
    for error in _errors(path):
        assert error.message
        assert error.file == str(path)


def _errors(path: Path) -> tuple[ConfigError, ...]:
    try:
        load_config(path)
    except ConfigErrors as found:
        return found.errors
    return ()
