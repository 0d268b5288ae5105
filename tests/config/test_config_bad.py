"""Bad configurations: what a field engineer is told, word for word, with file, line and key."""

from pathlib import Path

import pytest

from headend.config import ConfigErrors, load_config
from headend.domain.errors import ConfigError

GOOD = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses:
  street-a:
    link: "serial:///dev/ttyUSB0?baud=2400"
    gap_ms: 30
  street-b: {link: "tcp://127.0.0.1:4001"}
meters:
  - id: M-1
    service_point: SP-1
    bus: street-a
    protocol: dlt645-2007
    address: "000000000012"
    plan: household
  - {id: M-2, service_point: SP-2, bus: street-b, protocol: dlt645-2007, address: "000000000002",
     plan: household}
plans:
  household:
    daily: {at: "00:00", points: [active_import_total, active_export_total], from: freeze}
    every:
      - {minutes: 15, points: [active_power_total, voltage_a]}
feed:
  broker: "mqtt://127.0.0.1:1883"
  consumers:
    - {name: billing, classes: [billing, events]}
billing: {database: "sqlite:///./data/billing.db", name: billing, headends: [he1]}
"""

ADDRESS_LINE = 'address: "000000000012"'

# what is replaced, by what, line, key, message, hint
TEN = {
    "bare_address_in_octal_clothes": (
        ADDRESS_LINE, "address: 000000000012", 12, "meters[0].address",
        "the number 000000000012 begins with zeros, which a bare number cannot keep",
        'put it in quotes: "000000000012"',
    ),
    "bare_address": (
        ADDRESS_LINE, "address: 12", 12, "meters[0].address",
        "the address 12 is a bare number, and YAML keeps no leading zeros",
        'put the twelve digits in quotes: address: "000000000012"',
    ),
    "short_address": (
        ADDRESS_LINE, 'address: "12"', 12, "meters[0].address",
        "'12' is not a meter address",
        "twelve digits in quotes; a spreadsheet may have eaten leading zeros",
    ),
    "duplicate_key": (
        "    gap_ms: 30\n", "    gap_ms: 30\n    gap_ms: 50\n", 6, "buses.street-a.gap_ms",
        "stands here a second time, first in line 5", "keep one of the two",
    ),
    "misspelt_key": (
        "    gap_ms: 30\n", "    gap_m: 30\n", 5, "buses.street-a.gap_m",
        "gap_m is not known in buses.street-a", "did you mean gap_ms?",
    ),
    "unknown_bus": (
        "    bus: street-a\n", "    bus: street-c\n", 10, "meters[0].bus",
        "there is no bus street-c", "did you mean street-b?",
    ),
    "unknown_point": (
        "points: [active_power_total, voltage_a]", "points: [active_power_total, volts_a]", 20,
        "plans.household.every[0].points[1]", "there is no point volts_a",
        "did you mean voltage_a?",
    ),
    "two_meters_with_one_address": (
        'bus: street-b, protocol: dlt645-2007, address: "000000000002"',
        'bus: street-a, protocol: dlt645-2007, address: "000000000012"', 14, "meters[1].address",
        "the address 000000000012 on bus street-a is taken by meters[0]",
        "two meters with one address would answer at once",
    ),
    "two_meters_with_one_id": (
        "id: M-2", "id: M-1", 14, "meters[1].id",
        "the id M-1 is taken by meters[0]", "an asset id names one meter",
    ),
    "bad_link": (
        "serial:///dev/ttyUSB0?baud=2400", "serial:///dev/ttyUSB0?boud=2400", 4,
        "buses.street-a.link", "a serial link has no option boud", "did you mean baud?",
    ),
    "interval_that_drifts": (
        "minutes: 15", "minutes: 25", 20, "plans.household.every[0]",
        "1500 s does not divide a day, so it would drift against the clock",
        "such as 15, 30 or 60 minutes; 10, 30 or 60 seconds",
    ),
    "secret_in_the_file": (
        '"mqtt://127.0.0.1:1883"\n', '"mqtt://127.0.0.1:1883"\n  password: x\n', 23,
        "feed.password", "password is not known in feed",
        "secrets never stand in the configuration: use password_file",
    ),
    "readings_in_the_clear": (
        "mqtt://127.0.0.1:1883", "mqtt://broker.example:1883", 21, "feed",
        "readings would go to broker.example unencrypted",
        "use mqtts://, or say allow_plaintext: true",
    ),
    "one_port_for_two_buses": (
        "tcp://127.0.0.1:4001", "/dev/ttyUSB0", 6, "buses.street-b.link",
        "goes to the same port as bus street-a",
        "meters on one port belong to one bus: move them to street-a",
    ),
    "later_link": (
        "tcp://127.0.0.1:4001", "rfc2217://127.0.0.1:4001", 6, "buses.street-b.link",
        "rfc2217 links are not available in this version",
        "available: serial://, tcp://, modbus-tcp://",
    ),
    "yes_is_not_true": (
        "    gap_ms: 30\n", "    gap_ms: 30\n    echo: yes\n", 6, "buses.street-a.echo",
        "must be true or false, and 'yes' is not", None,
    ),
    "number_as_text": (
        "gap_ms: 30", 'gap_ms: "30"', 5, "buses.street-a.gap_ms",
        "must be a whole number, and '30' is not", "a bare number such as 30",
    ),
    "number_out_of_range": (
        "gap_ms: 30", "gap_ms: 300000", 5, "buses.street-a.gap_ms",
        "must be at most 10000, not 300000", None,
    ),
    "missing_key": (
        "    service_point: SP-1\n", "", 8, "meters[0].service_point", "is missing", None,
    ),
    "unknown_section": (
        "plans:\n", "planes:\n", 16, "planes", "planes is not known as a section",
        "did you mean plans?",
    ),
    "later_section": (
        "feed:\n", "listeners: {}\nfeed:\n", 21, "listeners",
        "listeners is not available in this version", "leave it out",
    ),
    "later_protocol": (
        "    protocol: dlt645-2007\n", "    protocol: dlt698.45\n", 11, "meters[0].protocol",
        "dlt698.45 is not available in this version",
        "available: dlt645-2007, dlt645-1997, modbus-rtu, modbus-tcp",
    ),
    "unknown_protocol": (
        "    protocol: dlt645-2007\n", "    protocol: dlt645\n", 11, "meters[0].protocol",
        "'dlt645' is not known here",
        "one of dlt645-2007, dlt645-1997, modbus-rtu, modbus-tcp, qgdw376.1, qgdw376.2, dlt698.45",
    ),
    "concentrator": (
        "    bus: street-a\n", "    concentrator: C-1\n", 10, "meters[0].concentrator",
        "concentrator is not available in this version", "give the meter a bus",
    ),
    "unknown_zone": (
        "zone: Asia/Shanghai", "zone: Asia/Peking", 1, "headend.zone",
        "'Asia/Peking' is not a time zone", "a name such as Asia/Shanghai or Europe/Berlin",
    ),
    "not_a_freeze": (
        "points: [active_import_total, active_export_total]", "points: [voltage_a]", 18,
        "plans.household.daily.points[0]", "voltage_a is not in the meter's daily freeze",
        "a freeze holds energy totals, tariffs and demands; use from: live",
    ),
    "billing_gets_nothing": (
        "{name: billing, classes", "{name: charts, classes", 25, "billing.name",
        "the feed has no consumer billing, so billing would get nothing", "known: charts",
    ),
    "missing_file": (
        "broker: ", "username: u\n  password_file: pw\n  broker: ", 23, "feed.password_file",
        "there is no file", "paths are relative to this file",
    ),
    "kept_too_briefly": (
        "feed:\n", "retention: {billing_days: 30}\nfeed:\n", 21, "retention.billing_days",
        "must be at least 396, not 30", None,
    ),
}  # fmt: skip


def errors_of(tmp_path: Path, text: str) -> tuple[ConfigError, ...]:
    path = tmp_path / "headend.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    return caught.value.errors


def test_the_good_one_is_good(tmp_path: Path) -> None:
    path = tmp_path / "headend.yaml"
    path.write_text(GOOD)
    assert len(load_config(path).meters) == 2


@pytest.mark.parametrize("name", TEN)
def test_a_bad_configuration_says_where_and_what_is_right(name: str, tmp_path: Path) -> None:
    old, new, line, key, message, hint = TEN[name]
    assert GOOD.count(old) == 1
    errors = errors_of(tmp_path, GOOD.replace(old, new))
    error = next(e for e in errors if e.key == key)
    assert error.file == str(tmp_path / "headend.yaml")
    assert (error.line, error.hint) == (line, hint)
    assert error.message.startswith(message)
    assert str(error).startswith(f"{tmp_path}/headend.yaml:{line}: {key}: {message}")


@pytest.mark.parametrize("name", sorted(TEN.keys() - {"unknown_section"}))
def test_one_mistake_gives_one_message(name: str, tmp_path: Path) -> None:
    old, new, *_ = TEN[name]
    assert len(errors_of(tmp_path, GOOD.replace(old, new))) == 1


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD
    chosen = ("misspelt_key", "unknown_bus", "bare_address", "unknown_point", "secret_in_the_file")
    for name in chosen:
        text = text.replace(TEN[name][0], TEN[name][1])
    errors = errors_of(tmp_path, text)
    assert [e.line for e in errors] == [5, 10, 12, 20, 23]


def test_a_bus_with_mistakes_is_still_a_known_bus(tmp_path: Path) -> None:
    errors = errors_of(tmp_path, GOOD.replace("gap_ms: 30", "gap_ms: x"))
    assert [e.key for e in errors] == ["buses.street-a.gap_ms"]


def test_a_file_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_config(tmp_path / "nothing.yaml")
    assert "No such file" in str(caught.value)
    assert str(tmp_path / "nothing.yaml") in str(caught.value)


def test_a_file_saved_as_gbk_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "headend.yaml"
    path.write_bytes(b"# one\n# \xb5\xe7\xb1\xed\n")
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    (error,) = caught.value.errors
    assert error.line == 2
    assert "UTF-8" in str(error)


def test_a_half_saved_file_is_an_error_and_nothing_else(tmp_path: Path) -> None:
    """Wherever the editor's write was cut: an error of ours, or a shorter good file."""
    path = tmp_path / "headend.yaml"
    refused = []
    for cut in range(0, len(GOOD), 7):
        path.write_text(GOOD[:cut])
        try:
            load_config(path)
        except ConfigErrors as error:
            refused.append(error)
    assert len(refused) > len(GOOD) // 14, "most cuts must be noticed"
    assert all(one.file == str(path) and one.message for error in refused for one in error.errors)


COLUMNS = "id,service_point,bus,protocol,address,plan"


@pytest.mark.parametrize(
    ("header", "row", "line", "said"),
    [
        ("id,bus;plan", "", 1, "separated by commas"),
        ("id,service_point,bus,protocol,adress,plan", "", 1, "did you mean address?"),
        ("id,id", "", 1, "stands there twice"),
        ("id,concentrator", "", 1, "not available in this version"),
        (COLUMNS, "M-1,SP-1", 2, "has 2 cells"),
        (COLUMNS, "M-1,,street-a,dlt645-2007,000000000001,household", 2, "is missing"),
        (COLUMNS, 'M-1,"SP', 2, "is not CSV"),
        ("", "", None, "is empty"),
    ],
)  # fmt: skip
def test_a_bad_csv_file_says_its_line(
    header: str, row: str, line: int | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text(f"{header}\n{row}\n" if header else "")
    start, rest = GOOD.split("meters:\n")
    text = start + "meters: {file: m.csv}\nplans:\n" + rest.split("plans:\n")[1]
    (error,) = errors_of(tmp_path, text)
    assert error.file == str(tmp_path / "m.csv")
    assert error.line == line
    assert said in str(error)


def test_a_thousand_mistakes_do_not_flood_the_terminal(tmp_path: Path) -> None:
    text = GOOD + "".join(f"k{i}: 1\n" for i in range(1000))
    path = tmp_path / "headend.yaml"
    path.write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load_config(path)
    assert len(caught.value.errors) == 1000
    assert len(str(caught.value).splitlines()) == 51
    assert str(caught.value).endswith("and 950 more errors")
