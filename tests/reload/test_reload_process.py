"""What the service manager is told, and what the other process does with the signal."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from reload_world import WAIT_S, World

from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


class Ear:
    """Hears what systemd would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self._heard: list[list[str]] = []

    def heard(self) -> list[str]:
        """The first line of every datagram that is not about feeding or status alone."""
        try:
            while data := self._socket.recv(4096):
                self._heard.append(data.decode().splitlines())
        except BlockingIOError:
            pass
        first = [lines[0] for lines in self._heard]
        return [line for line in first if not line.startswith(("STATUS=", "WATCHDOG="))]

    def close(self) -> None:
        self._socket.close()


async def test_the_service_manager_sees_a_reload_begin_and_end_good_or_not(world: World):
    ear = Ear(world.folder / "notify")
    try:
        await world.start({"NOTIFY_SOCKET": str(ear.path)})
        assert ear.heard() == ["READY=1"]
        world.text.plans["x"] = world.every(4)
        world.write()
        await world.reloads()
        assert ear.heard() == ["READY=1", "RELOADING=1", "READY=1"]
        world.write("headend: {}\n")
        await world.reloads()
        assert ear.heard()[3:] == ["RELOADING=1", "READY=1"]
    finally:
        ear.close()


async def test_a_signal_while_the_daemon_stands_up_neither_ends_it_nor_is_lost(world: World):
    """From before the configuration is read: a pipe in its place holds the daemon there."""
    text = world.file.read_text()
    world.file.unlink()
    os.mkfifo(world.file)
    starting = asyncio.create_task(world.start())
    try:
        await eventually(lambda: world.started, timeout_s=WAIT_S)
        await eventually(lambda: catches(world.pid, signal.SIGHUP), timeout_s=WAIT_S)
        world.hang_up()
        await asyncio.to_thread(world.file.write_text, text)
        world.write()
        await starting

        async def reloaded() -> bool:
            return (await world.status())["reload"] is not None

        await eventually(reloaded, timeout_s=WAIT_S, every_s=0.1)
    finally:
        starting.cancel()


def catches(pid: int, number: int) -> bool:
    """Whether a process handles a signal itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


async def test_billing_says_that_it_does_not_reload_and_goes_on(world: World):
    world.text.sections["billing"] = '{database: "sqlite:///./data/billing.db", headends: [he1]}'
    world.write()
    (world.folder / "data").mkdir()
    log = world.folder / "billing.log"
    with log.open("wb") as out:
        billing = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headend.cli.main", "billing", "run", "--config",
            str(world.file), stderr=out,
        )  # fmt: skip
    try:
        await eventually(lambda: catches(billing.pid, signal.SIGHUP), timeout_s=WAIT_S)
        os.kill(billing.pid, signal.SIGHUP)
        await eventually(
            lambda: "takes no other configuration while it runs" in log.read_text(),
            timeout_s=WAIT_S,
        )
        assert billing.returncode is None
    finally:
        billing.terminate()
        code = await billing.wait()
    assert code == 0, log.read_text()
