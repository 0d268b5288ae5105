"""`headend read` against a meter that nobody here wrote."""

import json

import pytest

from headend.cli.main import main
from tests.support.third_party_meter import third_party_meter

ADDRESS = "202401150007"


@pytest.mark.parametrize("kind", ["tcp", "pty"])
def test_a_foreign_implementation_is_read_exactly(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = {
        "active_import_total": ("12345.67", "kWh"),
        "active_export_total": ("0.26", "kWh"),
        "voltage_a": ("229.4", "V"),
        "current_a": ("1.234", "A"),
        "active_power_total": ("0.2831", "kW"),
        "frequency": ("49.98", "Hz"),
    }
    with third_party_meter(kind, ADDRESS) as link:
        code = main(["read", "--link", link, "--address", ADDRESS, "--json", *points])
    out, err = capsys.readouterr()
    readings = [json.loads(line) for line in out.splitlines()]
    assert {r["point"]: (r["value"], r["unit"]) for r in readings} == points, err
    assert code == 0


def test_what_it_does_not_have_is_refused_or_silent_and_never_a_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has no freezes: whatever it says to that, no value comes of it."""
    options = ["--address", ADDRESS, "--retries", "0", "--timeout", "0.5", "--json"]
    with third_party_meter("tcp", ADDRESS) as link:
        code = main(["read", "--link", link, *options, "--freeze", "1", "active_import_total"])
    (reading,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert reading["value"] is None
    assert reading["error"]["code"] in ("refused", "no_answer")
    assert code in (3, 5)
