"""The real processes under a service manager of the test's own: told, fed, ended."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headend.cli.daemon_client import ask_daemon
from tests.support.mosquitto import free_port

WATCHDOG_S = 0.9
WAIT_S = 60

START = """
import sys
from headend.cli.main import main
{inject}
sys.exit(main(sys.argv[1:]))
"""
# Injected faults: what cannot be brought about from outside in a test's time.
SHORT_BOUND = "import headend.liveness; headend.liveness.BUS_STEP_S_MAX = 1.0"
BUS_B_HANGS = """
import asyncio
from headend.bus.bus import Bus
opens = Bus._open
async def hangs(self, backoff_s):
    if self.name == "b":
        await asyncio.Event().wait()
    return await opens(self, backoff_s)
Bus._open = hangs
"""
LOOP_IS_BLOCKED = """
import time, headend.cli.run as run
def blocks():
    import asyncio
    print("READY", flush=True)
    asyncio.get_running_loop().call_later(1.0, blocks_the_loop)
def blocks_the_loop():
    time.sleep(100)
run._ready = blocks
"""
BILLING_BOUND = "import headend.cli.billing as b; b.STEP_S_MAX = 2.5"
BILLING_HANGS = """
import asyncio, headend.billing.consumer as c
async def hangs(*args, **more):
    await asyncio.Event().wait()
c.keep_connected = hangs
"""


@dataclass
class Manager:
    """Listens as systemd does; every datagram with the moment it came."""

    path: Path
    heard: list[tuple[float, list[str]]] = field(default_factory=list)

    def __post_init__(self):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()

    def _listen(self):
        while data := self._socket.recv(4096):
            with self._news:
                self.heard.append((time.monotonic(), data.decode().split("\n")))
                self._news.notify_all()

    def lines(self, *, since=0.0):
        with self._news:
            return [line for at, lines in self.heard for line in lines if at >= since]

    def fed(self, *, since=0.0):
        return self.lines(since=since).count("WATCHDOG=1")

    def wait_for(self, condition, what):
        with self._news:
            assert self._news.wait_for(condition, WAIT_S), f"{what}: {self.lines()}"


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@dataclass
class Started:
    process: subprocess.Popen
    log: Path

    def said(self):
        return self.log.read_text(encoding="utf-8")


@pytest.fixture
def start(tmp_path, manager):
    with contextlib.ExitStack() as stack:

        def start_(*arguments, inject=""):
            log = tmp_path / "log"
            environ = {
                **os.environ,
                "NOTIFY_SOCKET": str(manager.path),
                "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
            }
            with log.open("wb") as out:
                process = stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", START.format(inject=inject), *arguments],
                        env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    )
                )  # fmt: skip
            stack.callback(process.kill)
            return Started(process, log)

        yield start_


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "headend.yaml"
    port = free_port()
    path.write_text(
        "headend: {name: he1, zone: Asia/Shanghai, data: ./data}\n"
        "buses:\n"
        f"  a: {{link: {tmp_path}/no-such-port}}\n"
        f"  b: {{link: {tmp_path}/no-such-port-either}}\n"
        "meters:\n"
        "  - {id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, "
        'address: "000000000001", plan: p}\n'
        "plans: {p: {every: [{minutes: 15, points: [voltage_a]}]}}\n"
        f'feed: {{broker: "mqtt://127.0.0.1:{port}", '
        "consumers: [{name: billing, classes: [billing]}]}\n"
        'billing: {database: "sqlite:///./data/billing.db", name: billing, headends: [he1]}\n'
    )
    return path


def pass_feeds(manager, count):
    """So many more feeds come; how long they took."""
    begun, before = time.monotonic(), manager.fed()
    manager.wait_for(lambda: manager.fed() >= before + count, "fed")
    return time.monotonic() - begun


def end(started):
    started.process.send_signal(signal.SIGTERM)
    return started.process.wait(10)


def test_daemon_is_ready_when_it_can_be_spoken_to_and_says_that_it_stops(manager, start, config):
    daemon = start("run", "--config", str(config))
    manager.wait_for(lambda: "READY=1" in manager.lines(), "ready")
    assert ask_daemon(config.parent / "data" / "headend.sock", {"command": "status"})
    begun = time.monotonic()
    assert end(daemon) == 0
    assert time.monotonic() - begun < 10
    lines = manager.lines()
    assert lines[0] == "READY=1"
    assert lines.count("READY=1") == lines.count("STOPPING=1") == 1
    assert lines.index("STOPPING=1") > lines.index("WATCHDOG=1")


def test_ports_that_are_absent_and_a_broker_that_is_away_do_not_end_the_feeding(
    manager, start, config
):
    daemon = start("run", "--config", str(config), inject=SHORT_BOUND)
    manager.wait_for(lambda: "READY=1" in manager.lines(), "ready")
    assert pass_feeds(manager, 20) > 4 * 1.0
    status = "STATUS=he1: 1 meter on 2 buses; no port: a, b; broker away"
    manager.wait_for(lambda: status in manager.lines(), "status")
    assert end(daemon) == 0
    assert "has taken no step" not in daemon.said()


def test_a_bus_task_that_hangs_ends_the_feeding_and_is_named(manager, start, config):
    daemon = start("run", "--config", str(config), inject=SHORT_BOUND + BUS_B_HANGS)
    manager.wait_for(lambda: "STATUS=hangs: bus:b" in manager.lines(), "hangs")
    assert manager.fed() > 0  # until its bound had passed
    since = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.process.wait(3 * WATCHDOG_S)
    assert daemon.process.poll() is None
    assert manager.fed(since=since) == 0
    said = daemon.said()
    assert said.count("has taken no step") == 1
    assert "task=bus:b has taken no step for" in said
    assert "(bound 1 s)" in said
    assert end(daemon) == 0


def test_a_blocked_loop_ends_the_feeding_and_its_end_tells_where_it_was(manager, start, config):
    daemon = start("run", "--config", str(config), inject=LOOP_IS_BLOCKED)
    manager.wait_for(lambda: manager.fed() >= 2, "fed")
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.process.wait(2.0)
    since = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.process.wait(3 * WATCHDOG_S)
    assert manager.fed(since=since) == 0
    daemon.process.send_signal(signal.SIGABRT)  # what systemd does when the limit has passed
    assert daemon.process.wait(10) == -signal.SIGABRT
    assert "in blocks_the_loop" in daemon.said()


def test_billing_is_ready_without_its_broker_and_trying_is_a_step(manager, start, config):
    (config.parent / "data").mkdir()
    billing = start("billing", "run", "--config", str(config), inject=BILLING_BOUND)
    manager.wait_for(lambda: "READY=1" in manager.lines(), "ready")
    assert "STATUS=billing: broker away" in manager.lines()
    assert pass_feeds(manager, 12) > 2.5
    assert end(billing) == 0
    assert "STOPPING=1" in manager.lines()
    assert "has taken no step" not in billing.said()


def test_billing_that_hangs_ends_the_feeding_and_says_so(manager, start, config):
    (config.parent / "data").mkdir()
    inject = BILLING_BOUND + BILLING_HANGS
    billing = start("billing", "run", "--config", str(config), inject=inject)
    manager.wait_for(lambda: "STATUS=hangs: billing" in manager.lines(), "hangs")
    since = time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        billing.process.wait(3 * WATCHDOG_S)
    assert manager.fed(since=since) == 0
    assert "task=billing has taken no step" in billing.said()
    assert end(billing) == 0
