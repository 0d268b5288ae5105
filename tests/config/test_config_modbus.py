"""Modbus meters in the configuration: what is taken, and what is told with file, line and key."""

import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from headend.bus.configured import DROP_AFTER_SILENT, bus_settings
from headend.config import ConfigErrors, load_config
from headend.config.profiles import PACKAGED, profile_names
from headend.domain.link import ModbusTcpSpec

_HEAD = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses:
  line: {link: "serial:///dev/ttyUSB0?baud=9600&parity=none"}
  gate: {link: "modbus-tcp://127.0.0.1:15020"}
"""
_METERS = (
    "meters:\n"
    "  - {id: M-1, service_point: SP-1, bus: line, protocol: dlt645-2007, "
    'address: "000000000007", plan: home}\n'
    "  - {id: M-2, service_point: SP-2, bus: line, protocol: modbus-rtu, "
    "unit: 7, profile: eastron_sdm630, plan: plant}\n"
    "  - {id: M-3, service_point: SP-3, bus: gate, protocol: modbus-tcp, "
    'unit: 255, profile: acrel_adl400, ct: "40", pt: "100", plan: plant}\n'
)
_PLANS = """\
plans:
  home: {daily: {points: [active_import_total], from: freeze}}
  plant:
    daily: {points: [active_import_total]}
    every: [{minutes: 15, points: [active_export_total, voltage_a]}]
"""
GOOD = _HEAD + _METERS + _PLANS
FOURTH = (
    "  - {id: M-4, service_point: SP-4, bus: line, protocol: modbus-rtu, "
    "unit: 7, profile: eastron_sdm630, plan: plant}\n"
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "headend.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_line_may_be_shared_and_the_profiles_come_with_the_configuration(tmp_path: Path):
    config = load_config(write(tmp_path, GOOD))
    line, shared, gate = config.meters
    assert (line.address, shared.address, gate.address) == ("000000000007", "7", "255")
    assert gate.multiplier == Decimal(4000)
    assert set(config.profiles) == {"eastron_sdm630", "acrel_adl400"}
    assert config.profiles["acrel_adl400"].side == "secondary"
    assert isinstance(config.buses["gate"].link_spec, ModbusTcpSpec)


def test_a_connection_has_no_gap_and_outlives_the_time_out_of_its_gateway(tmp_path: Path):
    buses = load_config(write(tmp_path, GOOD)).buses
    gate, line = bus_settings(buses["gate"]), bus_settings(buses["line"])
    assert (gate.gap_ms, gate.reply_timeout_ms, gate.drop_after_silent) == (
        0,
        3000,
        DROP_AFTER_SILENT,
    )
    assert (line.gap_ms, line.reply_timeout_ms, line.drop_after_silent) == (30, 500, 0)
    text = GOOD.replace('15020"}', '15020", gap_ms: 5, timeout_ms: 900}')
    given = bus_settings(load_config(write(tmp_path, text)).buses["gate"])
    assert (given.gap_ms, given.reply_timeout_ms) == (5, 900)


def test_a_profile_beside_the_configuration_goes_before_the_one_that_comes_along(tmp_path: Path):
    before = load_config(write(tmp_path, GOOD)).hash
    (tmp_path / "devices").mkdir()
    text = (PACKAGED / "eastron_sdm630.yaml").read_text(encoding="utf-8")
    (tmp_path / "devices" / "eastron_sdm630.yaml").write_text(
        text.replace("turnaround_ms: 100", "turnaround_ms: 150"), encoding="utf-8"
    )
    config = load_config(write(tmp_path, GOOD))
    assert config.profiles["eastron_sdm630"].turnaround_ms == 150
    assert config.hash != before


def test_a_profile_may_be_a_file(tmp_path: Path):
    shutil.copy(PACKAGED / "eastron_sdm630.yaml", tmp_path / "mine.yaml")
    text = GOOD.replace("profile: eastron_sdm630", "profile: ./mine.yaml")
    assert "./mine.yaml" in load_config(write(tmp_path, text)).profiles


def test_csv_lists_may_hold_both_kinds(tmp_path: Path):
    rows = (
        "id,service_point,bus,protocol,address,unit,profile,ct,pt,plan\n"
        "M-1,SP-1,line,dlt645-2007,000000000007,,,,,home\n"
        "M-2,SP-2,line,modbus-rtu,,7,eastron_sdm630,,,plant\n"
        "M-3,SP-3,gate,modbus-tcp,,0,acrel_adl400,40,100,plant\n"
    )
    (tmp_path / "meters.csv").write_text(rows, encoding="utf-8")
    text = f"{_HEAD}meters: {{file: meters.csv}}\n{_PLANS}"
    config = load_config(write(tmp_path, text))
    assert [m.address for m in config.meters] == ["000000000007", "7", "0"]
    (tmp_path / "meters.csv").write_text(rows.replace(",7,east", ",248,east"), encoding="utf-8")
    with pytest.raises(ConfigErrors) as caught:
        load_config(write(tmp_path, text))
    (error,) = caught.value.errors
    assert (error.file, error.line, error.key) == (
        str(tmp_path / "meters.csv"),
        3,
        "meters[1].unit",
    )


# what is replaced, by what, line, key, message, part of the hint
BAD = {
    "protocol_of_a_gateway_on_a_line": (
        "bus: line, protocol: modbus-rtu", "bus: line, protocol: modbus-tcp", 7,
        "meters[1].protocol", "modbus-tcp is not spoken over a serial link", "modbus-tcp://",
    ),
    "protocol_of_a_line_on_a_gateway": (
        "bus: gate, protocol: modbus-tcp, unit: 255", "bus: gate, protocol: modbus-rtu, unit: 5", 8,
        "meters[2].protocol", "modbus-rtu is not spoken over a modbus-tcp link",
        "needs the protocol modbus-tcp",
    ),
    "dlt645_on_a_gateway": (
        "bus: line, protocol: dlt645-2007", "bus: gate, protocol: dlt645-2007", 6,
        "meters[0].protocol", "dlt645-2007 is not spoken over a modbus-tcp link", "tcp://host:port",
    ),
    "no_unit": (
        "unit: 7, profile", "profile", 7, "meters[1].unit", "is missing", "from 1 to 247",
    ),
    "a_unit_no_line_has": (
        "unit: 7,", "unit: 248,", 7, "meters[1].unit", "248 is no device on a line",
        "1 to 247 for modbus-rtu",
    ),
    "the_broadcast_of_a_line": (
        "unit: 7,", "unit: 0,", 7, "meters[1].unit", "0 is no device on a line", "from 1 to 247",
    ),
    "a_unit_nothing_has": (
        "unit: 255,", "unit: 256,", 8, "meters[2].unit", "must be at most 255, not 256", None,
    ),
    "a_unit_as_text": (
        "unit: 7,", 'unit: "7",', 7, "meters[1].unit", "must be a whole number, and '7' is not",
        "a bare number",
    ),
    "a_unit_for_645": (
        'address: "000000000007"', 'address: "000000000007", unit: 7', 6, "meters[0].unit",
        "a DL/T 645 meter has no unit number", "give its address",
    ),
    "a_profile_for_645": (
        'address: "000000000007"', 'address: "000000000007", profile: eastron_sdm630', 6,
        "meters[0].profile", "there is no device profile eastron_sdm630",
        "known: frequency_1997, generic, generic_1997, iot_three_phase, sparse_load_records",
    ),
    "an_address_for_modbus": (
        "unit: 7,", 'address: "7",', 7, "meters[1].address",
        "a Modbus device has no address but a unit number", "give its unit",
    ),
    "no_profile": (
        ", profile: eastron_sdm630", "", 7, "meters[1].profile", "is missing", "eastron_sdm630",
    ),
    "a_profile_nobody_has": (
        "profile: eastron_sdm630", "profile: eastron_sdm603", 7, "meters[1].profile",
        "there is no device profile eastron_sdm603", "did you mean eastron_sdm630?",
    ),
    "a_profile_file_that_is_not_there": (
        "profile: eastron_sdm630", "profile: ./sdm.yaml", 7, "meters[1].profile",
        "there is no profile ", "paths are relative",
    ),
    "the_freeze_of_a_modbus_device": (
        "profile: eastron_sdm630, plan: plant", "profile: eastron_sdm630, plan: home", 7,
        "meters[1].plan", "plan home takes the daily freeze, and a Modbus device keeps none",
        "use every",
    ),
    "a_point_the_profile_lacks": (
        "active_export_total, voltage_a]", "active_export_total, clock, voltage_a]", 7,
        "meters[1].plan", "plan plant reads clock, which profile eastron_sdm630 lacks", "known:",
    ),
    "ct_for_primary_values": (
        "profile: eastron_sdm630", 'profile: eastron_sdm630, ct: "40"', 7, "meters[1].ct",
        "profile eastron_sdm630 gives primary values: ct is applied already", "leave it out",
    ),
    "pt_for_primary_values": (
        "profile: eastron_sdm630", 'profile: eastron_sdm630, pt: "100"', 7, "meters[1].pt",
        "profile eastron_sdm630 gives primary values: pt is applied already", "leave it out",
    ),
    "two_meters_with_one_unit": (
        "plans:\n", FOURTH + "plans:\n",
        9, "meters[3].unit", "the unit 7 on bus line is taken by meters[1]",
        "two meters with one unit would answer at once",
    ),
    "echo_of_a_connection": (
        '15020"}', '15020", echo: true}', 4, "buses.gate",
        "echo has no meaning on a modbus-tcp link", "leave it out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_told_where_it_stands(case: str, tmp_path: Path):
    old, new, line, key, message, hint = BAD[case]
    assert GOOD.count(old) == 1, old
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    error = next(e for e in caught.value.errors if e.key == key)
    assert (error.file, error.line) == (str(path), line)
    assert error.message.startswith(message)
    assert (hint is None and error.hint is None) or hint in (error.hint or "")


def test_what_is_wrong_in_a_profile_is_told_once_with_its_own_line(tmp_path: Path):
    (tmp_path / "devices").mkdir()
    place = tmp_path / "devices" / "eastron_sdm630.yaml"
    good = (PACKAGED / "eastron_sdm630.yaml").read_text(encoding="utf-8")
    lines = good.splitlines()
    at = next(i for i, text in enumerate(lines) if "voltage_a" in text)
    lines[at] = lines[at].replace("float32", "float23")
    place.write_text("\n".join(lines), encoding="utf-8")
    more = _HEAD + _METERS + FOURTH.replace("unit: 7", "unit: 8") + _PLANS
    with pytest.raises(ConfigErrors) as caught:
        load_config(write(tmp_path, more))
    (error,) = caught.value.errors
    assert (error.file, error.line) == (str(place), at + 1)
    assert error.key == "registers[0].type"


def test_broken_yaml_in_a_profile_is_told_as_that(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("id: [", encoding="utf-8")
    text = GOOD.replace("profile: eastron_sdm630", "profile: mine.yaml")
    with pytest.raises(ConfigErrors, match="is not valid YAML") as caught:
        load_config(write(tmp_path, text))
    assert caught.value.errors[0].file == str(tmp_path / "mine.yaml")


def test_the_profiles_that_come_along_are_found_by_name(tmp_path: Path):
    assert {"acrel_adl400", "eastron_sdm630", "sungrow_sg"} <= set(profile_names(tmp_path))
