"""The units say nothing wrong, give little away, and keep what they are there for."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ("headend", "headend-billing")
EXPOSURE_MAX = 2.0
# systemd-analyze's threshold is in tenths.
THRESHOLD = int(EXPOSURE_MAX * 10)


def unit_path(name):
    return ROOT / "systemd" / f"{name}.service"


def settings(name):
    """Every assignment of a unit: key -> values in order."""
    found = {}
    for line in unit_path(name).read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "SYSTEMD_PAGER": ""},
    )


def test_verify_has_nothing_to_say():
    done = analyze("verify", *map(str, map(unit_path, UNITS)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_would_say_it(tmp_path):
    """An unknown key is told, and only told: the exit code stays 0."""
    bad = tmp_path / "headend.service"
    bad.write_text(unit_path("headend").read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in analyze("verify", str(bad)).stderr


@pytest.mark.parametrize("name", UNITS)
def test_exposure_is_low(name):
    done = analyze(
        "security", "--offline=yes", f"--threshold={THRESHOLD}", "--no-pager", str(unit_path(name))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (level,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(level) <= EXPOSURE_MAX


def test_the_threshold_would_be_felt(tmp_path):
    loose = tmp_path / "headend.service"
    text = unit_path("headend").read_text()
    loose.write_text(
        text.replace("CapabilityBoundingSet=\n", "").replace("NoNewPrivileges=yes", "")
    )
    done = analyze("security", "--offline=yes", f"--threshold={THRESHOLD}", str(loose))
    assert done.returncode != 0


@pytest.mark.parametrize("name", UNITS)
def test_it_tells_feeds_restarts_and_never_gives_up(name):
    found = settings(name)
    assert found["Type"] == ["notify"]
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert found["WatchdogSec"] == ["60s"]
    # A clean end takes up to 10 s.
    assert int(found["TimeoutStopSec"][0].removesuffix("s")) >= 15
    assert int(found["LimitNOFILE"][0]) >= 20_000


def test_each_has_a_user_a_state_directory_and_secrets_of_its_own():
    for key in ("User", "StateDirectory", "LoadCredential"):
        assert settings("headend")[key] != settings("headend-billing")[key]
    for name in UNITS:
        assert settings(name)["User"] == settings(name)["StateDirectory"] == [name]
        assert settings(name)["StateDirectoryMode"] == ["0700"]


def test_only_the_daemon_may_touch_serial_ports():
    daemon, billing = settings("headend"), settings("headend-billing")
    assert daemon["DevicePolicy"] == billing["DevicePolicy"] == ["closed"]
    assert "DeviceAllow" not in billing
    assert billing["PrivateDevices"] == ["yes"]
    assert "dialout" in daemon["SupplementaryGroups"][0]
    for driver in ("ttyS", "ttyUSB", "ttyACM", "ttyAMA"):
        assert f"char-{driver} rw" in daemon["DeviceAllow"]
    assert all(value.startswith("char-tty") for value in daemon["DeviceAllow"])


def test_what_the_units_name_is_what_is_installed():
    for name in UNITS:
        (start,) = settings(name)["ExecStart"]
        assert start.startswith("/usr/bin/env /opt/headend/current/bin/headend ")
        assert start.endswith("run --config /etc/headend/headend.yaml")
    (reload,) = settings("headend")["ExecReload"]
    (start,) = settings("headend")["ExecStart"]
    assert reload == start.replace(" run ", " reload ")
    # Billing takes no other configuration while it runs: systemctl reload says so itself.
    assert "ExecReload" not in settings("headend-billing")


def test_users_and_directories_are_made_from_the_snippets(tmp_path):
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", ROOT / "systemd" / "headend.sysusers.conf"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    users = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    groups = [line.split(":") for line in (tmp_path / "etc/group").read_text().splitlines()]
    assert {user[0]: user[6] for user in users} == dict.fromkeys(UNITS, "/usr/sbin/nologin")
    members = {group[0]: group[3] for group in groups}
    assert members == {"dialout": "headend", "headend": "headend-billing", "headend-billing": ""}


def test_configuration_is_for_both_and_secrets_for_nobody(tmp_path):
    lines = (ROOT / "systemd" / "headend.tmpfiles.conf").read_text().splitlines()
    said = {tuple(line.split()[1:5]) for line in lines if not line.startswith("#")}
    assert said == {
        ("/etc/headend", "0750", "root", "headend"),
        ("/etc/headend/headend.yaml", "0640", "root", "headend"),
        ("/etc/headend/secrets", "0700", "root", "root"),
        ("/etc/headend/secrets/headend", "0700", "root", "root"),
        ("/etc/headend/secrets/billing", "0700", "root", "root"),
    }
    if os.geteuid() == 0:  # ownership is root's to give
        _made_as_said(tmp_path)


def _made_as_said(tmp_path):
    (tmp_path / "etc" / "headend").mkdir(parents=True)
    (tmp_path / "etc" / "headend" / "headend.yaml").write_text("")
    for command in ("sysusers", "tmpfiles"):
        create = ["--create"] if command == "tmpfiles" else []
        subprocess.run(
            [f"systemd-{command}", *create, f"--root={tmp_path}",
             ROOT / "systemd" / f"headend.{command}.conf"],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
    group = next(
        int(line.split(":")[2])
        for line in (tmp_path / "etc/group").read_text().splitlines()
        if line.startswith("headend:")
    )
    etc = tmp_path / "etc" / "headend"
    for path, mode, owner in (
        (etc, 0o750, group),
        (etc / "headend.yaml", 0o640, group),
        (etc / "secrets", 0o700, 0),
        (etc / "secrets" / "headend", 0o700, 0),
        (etc / "secrets" / "billing", 0o700, 0),
    ):
        found = path.stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (mode, 0, owner), path
