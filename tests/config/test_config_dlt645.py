"""DL/T 645 meters of both editions, and models that do otherwise, in the configuration."""

from pathlib import Path

import pytest

from headend.config import load_config
from headend.config.errors import ConfigErrors
from protocols.dlt645.profile import MeterProfile

TEXT = """
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses:
  line: {link: "tcp://127.0.0.1:7000"}
meters:
  - id: M-1
    service_point: SP-1
    bus: line
    protocol: PROTOCOL
    address: "000000000001"
    plan: p
    profile: PROFILE
plans:
  p: {every: [{minutes: 15, points: [POINT]}]}
"""


def config(folder: Path, protocol: str, profile: str, point: str, extra: str = ""):
    path = folder / "headend.yaml"
    text = TEXT.replace("PROTOCOL", protocol).replace("PROFILE", profile).replace("POINT", point)
    path.write_text(text + extra)
    return load_config(path)


@pytest.mark.parametrize(
    ("protocol", "profile", "point"),
    [
        ("dlt645-2007", "iot_three_phase", "active_power_total"),
        ("dlt645-1997", "generic_1997", "active_export_total"),
        ("dlt645-1997", "frequency_1997", "frequency"),
    ],
)
def test_a_model_is_found_by_its_name(tmp_path, protocol, profile, point):
    found = config(tmp_path, protocol, profile, point)
    assert isinstance(found.profiles[profile], MeterProfile)


@pytest.mark.parametrize(
    ("protocol", "profile", "point", "message"),
    [
        ("dlt645-2007", "generic_1997", "voltage_a", "is of dlt645-1997"),
        ("dlt645-1997", "generic", "voltage_a", "is of dlt645-2007"),
        ("dlt645-1997", "generic_1997", "frequency", "profile generic_1997 lacks"),
        ("modbus-rtu", "generic", "voltage_a", "address"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, protocol, profile, point, message):
    with pytest.raises(ConfigErrors, match=message):
        config(tmp_path, protocol, profile, point)


def test_a_meter_of_the_old_edition_keeps_no_daily_freeze(tmp_path):
    daily = '{daily: {at: "00:00", from: freeze, points: [active_import_total]}}'
    text = TEXT.replace("PROTOCOL", "dlt645-1997").replace("    profile: PROFILE\n", "")
    path = tmp_path / "headend.yaml"
    path.write_text(text.replace("{every: [{minutes: 15, points: [POINT]}]}", daily))
    with pytest.raises(ConfigErrors, match="dlt645-1997 meter keeps none"):
        load_config(path)
