"""`headend modbus`: what is wrong with a new device, and a profile begun from its registers."""

import json
import re
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
import yaml

from headend.cli.main import main
from headend.cli.modbus_diagnose import finding_codes
from headend.cli.modbus_skeleton import dump_text, read_dump
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.errors import ConfigError
from protocols.modbus.profile import profile_from
from protocols.modbus.skeleton import DumpRun
from tests.support.register_server import RegisterServer, sunspec_words, words_of

ROOT = Path(__file__).parents[2]
SDM = load_profile("eastron_sdm630", PACKAGED.parent)
CHINT = load_profile("chint_dtsu666", PACKAGED.parent)
GRID = {
    "voltage_a": Decimal("230.5"), "voltage_b": Decimal("231.0"), "voltage_c": Decimal("229.5"),
    "frequency": Decimal("50.01"), "current_a": Decimal(2), "current_b": Decimal(2),
    "current_c": Decimal(2), "active_power_total": Decimal("1.3"),
    "power_factor_total": Decimal("0.95"),
}  # fmt: skip
QUICK = ("--timeout", "0.3", "--retries", "0")


def schema(name):
    path = ROOT / "docs" / "schemas" / f"{name}.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def eastron(**more):
    return {**dict.fromkeys(range(400), 0), **words_of(SDM, **{**GRID, **more})}


@pytest.fixture(scope="module")
def server():
    units = {
        1: eastron(),
        2: {**dict.fromkeys(range(0x20), 0), **dict.fromkeys(range(0x2000, 0x2100), 0),
            **words_of(CHINT, ct_ratio=Decimal(40), pt_ratio=Decimal(1), **GRID)},
        3: sunspec_words(voltage_a=Decimal(230), frequency=Decimal(50)),
        4: {},
        5: eastron(active_power_total=Decimal(52)),
    }  # fmt: skip
    with RegisterServer(units) as running:
        yield running


@pytest.fixture(scope="module")
def converter():
    with RegisterServer({1: eastron()}, tcp=False) as running:
        yield running


def diagnose(link, *arguments, capsys):
    code = main(["modbus", "diagnose", "--link", link, "--json", *QUICK, *arguments])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    jsonschema.validate(told, schema("modbus_diagnose"))
    return code, told, [one["code"] for one in told["findings"]]


def test_a_device_that_is_read_rightly_has_nothing_wrong(server, capsys):
    code, told, found = diagnose(server.link, "--profile", "eastron_sdm630", capsys=capsys)
    assert (code, found) == (0, [])
    values = {one["point"]: one["value"] for one in told["values"]}
    assert (values["voltage_a"], values["frequency"]) == ("230.5", "50.01")
    assert all(one["bytes"] for one in told["reads"])


def wrong_profile(folder, old, new):
    text = (PACKAGED / "eastron_sdm630.yaml").read_text(encoding="utf-8")
    assert old in text
    path = folder / "wrong.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def test_words_the_other_way_round_are_named(server, tmp_path, capsys):
    profile = wrong_profile(tmp_path, "word_order: big", "word_order: little")
    code, _, found = diagnose(server.link, "--profile", profile, capsys=capsys)
    assert (code, found[0]) == (1, "word_order")


def test_addresses_that_are_one_off_are_named(tmp_path, capsys):
    one_off = {at + 1: word for at, word in eastron().items()} | {0: 0}
    with RegisterServer({1: one_off}) as shifted:
        text = (PACKAGED / "eastron_sdm630.yaml").read_text(encoding="utf-8")
        profile = tmp_path / "odd.yaml"
        profile.write_text(text.replace("even_only: true", "even_only: false"), encoding="utf-8")
        code, _, found = diagnose(shifted.link, "--profile", str(profile), capsys=capsys)
    assert (code, "offset" in found) == (1, True)


def test_a_ratio_that_the_device_does_not_have_is_named(server, capsys):
    arguments = ("--unit", "2", "--profile", "chint_dtsu666")
    code, _, found = diagnose(server.link, *arguments, "--ct", "40", capsys=capsys)
    assert (code, found) == (0, [])
    code, told, found = diagnose(server.link, *arguments, "--ct", "60", capsys=capsys)
    assert (code, found) == (1, ["ratio"])
    assert told["findings"][0]["evidence"] == [{"point": "ct_ratio", "read": "60", "found": "40"}]


def test_power_that_does_not_go_with_voltage_and_current_is_named(server, capsys):
    arguments = ("--unit", "5", "--profile", "eastron_sdm630")
    code, _, found = diagnose(server.link, *arguments, capsys=capsys)
    assert (code, found) == (1, ["ct_ratio"])


def test_a_transparent_converter_is_told_from_a_gateway(server, converter, capsys):
    profile = ("--profile", "eastron_sdm630")
    code, _, found = diagnose(converter.other_link, *profile, capsys=capsys)
    assert (code, found) == (1, ["rtu_over_tcp"])
    code, _, found = diagnose(server.other_link, *profile, capsys=capsys)
    assert (code, found) == (1, ["modbus_tcp"])
    code, _, found = diagnose(converter.link, *profile, capsys=capsys)
    assert (code, found) == (0, [])


def test_silence_and_refusal_have_their_exit_codes(server, capsys):
    profile = ("--profile", "eastron_sdm630")
    assert diagnose(server.link, "--unit", "9", *profile, capsys=capsys)[::2] == (3, ["silent"])
    assert diagnose(server.link, "--unit", "4", *profile, capsys=capsys)[::2] == (5, ["refused"])


def test_a_sunspec_device_is_found_by_its_models(server, capsys):
    arguments = ("--unit", "3", "--profile", "sunspec")
    code, told, found = diagnose(server.link, *arguments, capsys=capsys)
    assert (code, found) == (0, [])
    assert {"point": "voltage_a", "value": "230", "unit": "V"} in told["values"]
    arguments = ("--unit", "1", "--profile", "sunspec")
    assert diagnose(server.link, *arguments, capsys=capsys)[2] == ["no_sunspec"]


def test_without_a_profile_those_that_fit_are_named_and_only_reads_go_out(server, capsys):
    code, told, found = diagnose(server.link, "--unit", "3", capsys=capsys)
    assert (code, found) == (0, [])
    assert "sunspec" in told["fits"]
    assert {function for _, function, _, _ in server.asked} <= {3, 4}


def test_people_are_told_in_their_language(server, capsys):
    base = ["modbus", "diagnose", "--link", server.link, "--unit", "2", "--ct", "60", *QUICK]
    assert main([*base, "--profile", "chint_dtsu666", "--lang", "zh"]) == 1
    text = capsys.readouterr().out
    assert "设备内的变比与所给的不一致" in text
    assert "ct_ratio" in text
    assert main([*base[:-4], *QUICK, "--unit", "1", "--profile", "eastron_sdm630", "--ct", "1",
                 "--lang", "en"]) == 0  # fmt: skip
    assert "nothing is wrong" in capsys.readouterr().out


def test_every_finding_has_its_words_in_chinese():
    text = (ROOT / "protocols" / "modbus" / "commissioning.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'(?:Finding\(|return Finding\(|\(\s*)\s*"([a-z_]+)",\s', text))
    assert {"silent", "noise", "word_order", "offset", "scale"} <= codes | set(finding_codes())
    documented = re.findall(r"`(\w+)`", text.split("Codes of bytes:")[1].split('"""')[0])
    assert set(documented) - {"got"} <= set(finding_codes())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "eastron_sdm630", "--ct", "40"], "primary values"),
        (["--profile", "chint_dtsu666", "--ct", "x"], "no ratio"),
        (["--unit", "300"], "not a Modbus unit"),
        (["--protocol", "modbus-rtu"], "needs serial"),
    ],
)
def test_what_cannot_be_is_a_usage_error(arguments, said, server, capsys):
    assert main(["modbus", "diagnose", "--link", server.link, *arguments]) == 2
    assert said in capsys.readouterr().err


# -- skeletons


def test_a_profile_begun_from_a_device_is_a_profile(server, tmp_path, capsys):
    kept = tmp_path / "dump.txt"
    base = ["modbus", "skeleton", "--name", "my_meter", "--function", "4"]
    code = main([*base, "--link", server.link, "--unit", "1", "--from", "0", "--to", "99",
                 "--save-dump", str(kept), "--json", *QUICK])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    jsonschema.validate(told, schema("modbus_skeleton"))
    assert (code, told["registers"], told["refused"]) == (0, 100, 0)
    profile = profile_from(yaml.safe_load(told["profile"]), name="my_meter")
    assert profile.register("voltage_b").address == SDM.register("voltage_b").address
    assert profile.register("frequency").address == SDM.register("frequency").address
    assert main([*base, "--dump", str(kept)]) == 0
    assert capsys.readouterr().out == told["profile"]


def test_registers_the_device_lacks_are_left_out(capsys):
    words = eastron()
    for at in (7, 8, 40):
        del words[at]
    with RegisterServer({1: words}) as server:
        code = main(["modbus", "skeleton", "--link", server.link, "--from", "0", "--to", "0x63",
                     "--json", *QUICK])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert (code, told["registers"], told["refused"]) == (0, 97, 3)


def test_a_device_that_falls_silent_ends_it(server, capsys):
    arguments = ["--link", server.link, "--unit", "9", "--from", "0", "--to", "9", *QUICK]
    assert main(["modbus", "skeleton", *arguments]) == 3
    assert "does not answer" in capsys.readouterr().err


def test_a_dump_is_read_as_it_was_written(tmp_path):
    runs = [DumpRun(3, 10, tuple(range(20))), DumpRun(4, 0, (0xFFFF,)), DumpRun(4, 72, (1, 2))]
    path = tmp_path / "d"
    path.write_text(dump_text(runs), encoding="utf-8")
    assert read_dump(path, 3) == runs


def test_what_mbpoll_prints_is_a_dump_too(tmp_path):
    path = tmp_path / "d"
    path.write_text("mbpoll 1.4-11\n-- Polling slave 1...\n[72]: \t0x4640\n[73]: \t-1\n", "utf-8")
    assert read_dump(path, 4) == [DumpRun(4, 72, (0x4640, 0xFFFF))]


@pytest.mark.parametrize("line", ["4:72: 70000", "4:65535: 1 2", "72 1", "5:1: 1", "[1]: x"])
def test_a_bad_line_of_a_dump_is_told_with_its_number(line, tmp_path):
    path = tmp_path / "d"
    path.write_text(f"# mine\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as told:
        read_dump(path, 3)
    assert told.value.line == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which registers"),
        (["--name", "My meter", "--dump", "x"], "no profile's id"),
        (["--dump", "/nowhere/d"], "cannot be read"),
        (["--link", "tcp://h:1", "--from", "9", "--to", "1"], "ascending"),
    ],
)
def test_a_skeleton_of_nothing_is_a_usage_error(arguments, said, capsys):
    assert main(["modbus", "skeleton", *arguments]) == 2
    assert said in capsys.readouterr().err
