"""docs/install.md does what it says, as far as a machine without systemd can say."""

import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.mosquitto import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "install.md"
TWIN = ROOT / "docs" / "install.zh-CN.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONFIG = "/etc/headend/headend.yaml"
PORT = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0"
# What a test cannot do to this machine; that the units and files it names are ours is looked at.
NOT_RUN = {"apt-get", "git", "systemctl", "journalctl", "sudoedit", "ls", "ln", "install"}
# Run by the tests of installing itself.
RUN_ELSEWHERE = {"scripts/install-system.sh wheels wheels", "make uninstall-system"}

pytestmark = pytest.mark.timeout(600)


def page_commands(page=PAGE):
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line for kind, text in found if kind == "sh" for line in text.splitlines()]
    return [line.removeprefix("sudo ") for line in lines]


def wait_for(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def running(tree, tmp_path):
    """The installed daemon and billing at work on one simulated meter, as the page has it."""
    kept = tree.config.read_text()
    data = tree.root / "var" / "lib"
    port = tmp_path / "port"
    log = tmp_path / "log"
    tree.config.write_text(
        f"headend: {{name: he1, zone: Asia/Shanghai, data: {data}/headend}}\n"
        f"buses: {{street-a: {{link: {port}, allow_overload: true}}}}\n"
        "meters:\n"
        "  - {id: M-0001, service_point: SP-1, bus: street-a, protocol: dlt645-2007, "
        'address: "000000000001", plan: p}\n'
        "plans: {p: {every: [{seconds: 2, points: [active_import_total]}]}}\n"
        f'feed: {{broker: "embedded://127.0.0.1:{free_port()}", '
        "consumers: [{name: billing, classes: [billing, events]}]}\n"
        f'billing: {{database: "sqlite:///{data}/headend-billing/billing.db", headends: [he1]}}\n'
    )
    (data / "headend-billing").mkdir(parents=True, exist_ok=True)
    started = []

    def start(*command):
        with log.open("ab") as out:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        started.append(process)

    desk = tmp_path / "desk"  # the daemon holds its own port
    try:
        for where in (port, desk):
            start(tree.command, "simulate", "dlt645", "--pty", where, "--address", "000000000001")
            wait_for(where.exists, "the simulated meter")
        start(tree.command, "run", "--config", tree.config)
        start(tree.command, "billing", "run", "--config", tree.config)
        arrived = ("billing", "readings", "--json", "--config", str(tree.config))
        wait_for(lambda: tree.headend(*arrived).stdout, "a reading at billing")
        yield str(desk)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(15)
        shutil.rmtree(data)
        tree.config.write_text(kept)
    assert "Traceback" not in log.read_text()


def test_every_command_of_the_page_works_or_is_named_as_not_run(tree, running):
    ran = []
    for command in page_commands():
        words = shlex.split(command)
        if command in RUN_ELSEWHERE or words[0] in NOT_RUN:
            continue
        if words[0] == "make":
            variables = dict(word.split("=") for word in words[2:])
            assert set(variables) <= {"WHEELS"}
            tree.make(words[1], WHEELS=tree.wheels)
        else:
            assert words[0] == "headend", command
            here = {CONFIG: str(tree.config), PORT: running}
            done = tree.headend(*(here.get(word, word) for word in words[1:]))
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            assert done.stdout, command
        ran.append(words[0])
    assert ran.count("make") >= 2
    assert ran.count("headend") >= 7


def test_units_and_files_that_the_page_names_are_those_installed(tree):
    text = PAGE.read_text(encoding="utf-8")
    units = {path.stem for path in (ROOT / "systemd").glob("*.service")}
    for command in page_commands():
        words = shlex.split(command)
        if words[0] == "systemctl":
            assert {word for word in words[2:] if not word.startswith("-")} <= units, command
        if words[0] == "journalctl":
            assert words[2] in units
    for path in set(re.findall(r"/opt/headend/current[\w./-]*|/etc/headend[\w./-]*", text)):
        if path.rsplit("/", 1)[1] != "mqtt":
            there = path.rstrip("./")
            assert (tree.root / there[1:]).exists(), path
    assert "/opt/headend/current/app/config/example.yaml" in text


def test_the_bounds_on_the_page_are_those_of_the_program():
    from headend import liveness
    from headend.cli import billing

    for page in (PAGE, TWIN):
        text = page.read_text(encoding="utf-8")
        for seconds in (liveness.BUS_STEP_S_MAX, liveness.POLLER_STEP_S_MAX, billing.STEP_S_MAX):
            assert re.search(rf"\b{seconds:.0f} ?(s|秒)", text), (page, seconds)


def test_the_translation_has_the_same_commands():
    assert page_commands() == page_commands(TWIN)
    ours, theirs = (BLOCK.findall(page.read_text(encoding="utf-8")) for page in (PAGE, TWIN))
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
