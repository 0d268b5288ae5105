"""`make install-system` into a tree of its own: what is there works, stays, and goes again."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)


def test_the_installed_command_checks_the_installed_configuration(tree):
    done = tree.headend("check", "--json", "--config", str(tree.config))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["valid"] is True


def test_it_runs_from_its_own_tree_with_its_own_packages(tree):
    code = "import headend, pydantic; print(headend.__file__, pydantic.__file__)"
    done = subprocess.run(
        [tree.home / "current" / "bin" / "python", "-I", "-c", code],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ours, theirs = done.stdout.split()
    assert Path(ours).is_relative_to(tree.home.resolve())
    assert Path(theirs).is_relative_to(tree.home.resolve())


def test_nothing_of_development_is_installed(tree):
    site = next((tree.home / "current" / "lib").glob("python*/site-packages"))
    names = {path.name.lower() for path in site.iterdir()}
    assert {"pydantic", "sqlalchemy", "paho"} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "_pytest"}


def test_profiles_and_examples_come_with_it(tree):
    app = tree.home / "current" / "app"
    shipped = sorted(p.name for p in (ROOT / "config" / "devices").glob("*.yaml"))
    assert sorted(p.name for p in (app / "config" / "devices").glob("*.yaml")) == shipped
    for example in ("example.yaml", "laptop.yaml"):
        done = tree.headend("check", "--config", str(app / "config" / example))
        assert done.returncode == 0, done.stderr
    assert (app / "docs" / "operations-guide.md").is_file()


def test_a_profile_that_comes_with_it_is_found_by_its_name(tree, tmp_path):
    config = tmp_path / "headend.yaml"
    config.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: ./data}\n"
        'buses: {g: {link: "modbus-tcp://127.0.0.1:15020"}}\n'
        "meters:\n"
        "  - {id: M-1, service_point: SP-1, bus: g, protocol: modbus-tcp, unit: 1, "
        "profile: eastron_sdm630, plan: p}\n"
        "plans: {p: {every: [{minutes: 15, points: [active_import_total]}]}}\n"
    )
    done = tree.headend("check", "--config", str(config))
    assert done.returncode == 0, done.stderr


def test_units_users_and_the_command_are_where_the_system_looks(tree):
    lib = tree.root / "usr" / "local" / "lib"
    for unit in ("headend.service", "headend-billing.service"):
        assert (lib / "systemd" / "system" / unit).read_bytes() == (
            ROOT / "systemd" / unit
        ).read_bytes()
    assert (lib / "sysusers.d" / "headend.conf").is_file()
    assert (lib / "tmpfiles.d" / "headend.conf").is_file()
    link = tree.root / "usr" / "local" / "bin" / "headend"
    assert os.readlink(link) == "/opt/headend/current/bin/headend"  # noqa: PTH115 - as written


def test_nobody_but_the_owner_may_write_it_and_nobody_else_read_secrets(tree):
    for path in (tree.home / "current" / "app").rglob("*"):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
    etc = tree.config.parent
    assert stat.S_IMODE(etc.stat().st_mode) == 0o750
    assert stat.S_IMODE(tree.config.stat().st_mode) == 0o640
    assert stat.S_IMODE((etc / "secrets" / "headend").stat().st_mode) == 0o700


def test_no_file_names_the_tree_it_was_made_in(tree):
    """What is installed into a tree works where the tree ends up."""
    made_in = str(tree.root).encode()
    moved = [tree.home / "current" / "bin" / "headend", tree.home / "current" / "pyvenv.cfg"]
    moved += (tree.home / "current" / "bin").iterdir()
    moved += next((tree.home / "current" / "lib").glob("python*/site-packages")).glob("*.pth")
    found = [p for p in moved if p.name != "pyvenv.cfg" and made_in in p.resolve().read_bytes()]
    assert found == []


def test_again_changes_nothing_and_keeps_the_configuration(tree):
    before = (tree.home / "current" / ".installed").stat().st_mtime_ns
    text = tree.config.read_text() + "\n# a line of the operator's\n"
    tree.config.write_text(text)
    said = tree.make("install-system", WHEELS=tree.wheels)
    assert "is there already" in said
    assert "kept" in said
    assert tree.config.read_text() == text
    assert (tree.home / "current" / ".installed").stat().st_mtime_ns == before


def test_an_upgrade_stands_beside_the_old_version_once_it_takes_the_configuration(tree):
    data = tree.root / "var" / "lib" / "headend"
    data.mkdir(parents=True, exist_ok=True)
    (data / "journal.db").write_bytes(b"what was read")
    file = tree.checkout / "headend" / "__init__.py"
    was, text = file.read_text(), tree.config.read_text()
    old = (tree.home / "current").resolve().name
    file.write_text(was.replace(f'__version__ = "{old}"', '__version__ = "99.0.0"'))
    try:
        tree.config.write_text(text + "nonsense: 1\n")
        said = tree.make_fails("install-system", WHEELS=tree.wheels)
        assert "nonsense" in said
        assert "what ran before goes on" in said
        assert (tree.home / "current").resolve().name == old
        tree.config.write_text(text)
        tree.make("install-system", WHEELS=tree.wheels)
        assert (tree.home / "current").resolve().name == "99.0.0"
        assert "99.0.0" in tree.headend("--version").stdout
        # The way back is the link.
        assert (tree.home / old / "bin" / "headend").is_file()
        assert (data / "journal.db").read_bytes() == b"what was read"
    finally:
        file.write_text(was)
        tree.config.write_text(text)
        tree.make("install-system", WHEELS=tree.wheels)
    assert (tree.home / "current").resolve().name == old


def test_a_version_that_does_not_run_is_never_switched_to(tree):
    file = tree.checkout / "headend" / "__init__.py"
    was = file.read_text()
    file.write_text(was.replace("0.1.0", "98.0.0") + "\nraise SystemExit(3)\n")
    try:
        said = tree.make_fails("install-system", WHEELS=tree.wheels)
    finally:
        file.write_text(was)
    assert "does not run; nothing was changed" in said
    assert tree.headend("--version").returncode == 0
    assert not (tree.home / "98.0.0").exists()


def test_uninstalling_keeps_configuration_and_data(tree):
    text = tree.config.read_text()
    data = tree.root / "var" / "lib" / "headend" / "journal.db"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_bytes(b"what was read")
    tree.make("uninstall-system")
    assert tree.config.read_text() == text
    assert data.read_bytes() == b"what was read"
    left = [p for p in tree.root.rglob("*") if p.is_file() or p.is_symlink()]
    assert sorted(left) == sorted([tree.config, data])
    # What is installed again finds both as they were.
    tree.make("install-system", WHEELS=tree.wheels)
    assert tree.config.read_text() == text
    assert data.read_bytes() == b"what was read"
    assert tree.headend("--version").returncode == 0


def test_the_packages_it_runs_with_are_those_that_headend_needs():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "run_packages.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == (ROOT / "requirements-run.txt").read_text(), (
        "dependencies changed: .venv/bin/python scripts/run_packages.py > requirements-run.txt"
    )
