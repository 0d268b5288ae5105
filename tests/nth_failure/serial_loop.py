"""The n-th read, write or open of a serial port fails, under the whole daemon.

Two ports, one of DL/T 645 meters and one of Modbus meters: real pseudo terminals, opened, read and
written by the real serial link. Its `os` and that of the simulated adapters stand between it and
the kernel: they make a call fail, and let virtual time wait for bytes the kernel still has. A run
goes over a midnight, with daily freezes and two instants of a line of five minutes. However a
port fails once, every point is read, once, with what the meter showed.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from headend.domain.link import LinkSpec, SerialSpec
from headend.transport.serial_link import SerialLink
from simulators.schedule import VirtualTimeLoop, run_virtual
from simulators.serve import PtyServer
from tests.nth_failure.nth import Nth, Patience, Run
from tests.nth_failure.truth import check_journal
from tests.soak.world import EXPORT, FIRST_TARIFF, IMPORT, Estate, daemon, local_ms

START, END = "2026-11-25T23:59:40", "2026-11-26T00:07:35"
BAUD = 9600
AWAY_S = 20.0
KERNEL_S = 0.2  # real: longer than this no byte is on its way from one end of a pty to the other
HANG_UP_EVERY = 23
PLANS = (
    f"  p: {{daily: {{at: '00:00', points: [{IMPORT}], from: freeze}}, "
    f"every: [{{minutes: 5, points: [{EXPORT}, {FIRST_TARIFF}]}}]}}\n"
    f"  m: {{every: [{{minutes: 5, points: [{IMPORT}, {EXPORT}]}}]}}"
)


@dataclass(frozen=True)
class Way:
    """What fails, and how: with an error, a hang-up, after half of the bytes, for a while."""

    step: str
    how: str
    times: int = 1


WAYS = {
    "serial read: EIO": Way("read", "error"),
    "serial read: hung up": Way("read", "hang up"),
    "serial read: adapter pulled": Way("read", "pulled"),
    "serial write: EIO": Way("write", "error"),
    "serial write: EIO after half": Way("write", "half"),
    "serial write: adapter pulled": Way("write", "pulled"),
    "serial open, three in a row": Way("open", "error", 3),
}


class Ports(Estate):
    """An estate whose lines are pseudo terminals."""

    def __init__(self, loop: VirtualTimeLoop, folder: Path) -> None:
        super().__init__(loop, buses=2, each=2, baud=BAUD, modbus_buses=1)
        self.servers = {
            name: PtyServer(link.line.station, folder / "dev" / name, baud=BAUD)
            for name, link in self.links.items()
        }

    def open_link(self, spec: LinkSpec) -> Any:
        """The real link, to where the pseudo terminal is."""
        assert isinstance(spec, SerialSpec)
        path = self.servers[Path(spec.path).name].path
        return SerialLink(replace(spec, path=str(path)))

    def pull(self, device: str) -> None:
        """The adapter behind a device is pulled out, and put back in a while later."""
        for server in self.servers.values():
            if server.device == device:
                self.loop.call_soon(server.unplug)
                self.loop.call_later(AWAY_S, server.plug)

    @contextlib.contextmanager
    def plugged(self) -> Iterator[None]:
        """All adapters are there."""
        for server in self.servers.values():
            server.plug()
        try:
            yield
        finally:
            for server in self.servers.values():
                server.unplug()


class Kernel:
    """Bytes that one end of a pseudo terminal has written and the other has not read yet."""

    def __init__(self) -> None:
        self.on_their_way: dict[str, int] = {}
        self.changes = 0

    def note(self, direction: str, count: int) -> None:
        """So many more, or fewer."""
        self.changes += 1
        self.on_their_way[direction] = max(0, self.on_their_way.get(direction, 0) + count)

    def waits_for(self) -> object:
        """Something that changes while bytes go through; None while there are none."""
        return self.changes if any(self.on_their_way.values()) else None

    def forget(self) -> None:
        """Nothing is on its way any more: a port was closed, or opened and so cleared."""
        self.on_their_way.clear()
        self.changes += 1


class SystemCalls:
    """Stands in for the module `os`: tells `kernel` of what is read and written."""

    def __init__(self, kernel: Kernel, writes: str, reads: str) -> None:
        self.kernel = kernel
        self._writes = writes
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def read(self, fd: int, size: int) -> bytes:
        """As `os.read`."""
        data = os.read(fd, size)
        self.kernel.note(self._reads, -len(data))
        return data

    def write(self, fd: int, data: bytes) -> int:
        """As `os.write`."""
        count = os.write(fd, data)
        self.kernel.note(self._writes, count)
        return count


class FailingCalls(SystemCalls):
    """The system calls of the link, the n-th of which fails."""

    def __init__(self, kernel: Kernel, way: Way, nth: Nth, ports: Ports) -> None:
        super().__init__(kernel, "down", "up")
        self._way = way
        self._nth = nth
        self._ports = ports
        self._broken: set[int] = set()  # descriptors that took half
        self._reads_made = 0

    def read(self, fd: int, size: int) -> bytes:
        """Fail, or read."""
        self._reads_made += 1
        if self._way.step == "open" and self._reads_made % HANG_UP_EVERY == 0:
            return self._hang_up()
        if self._way.step == "read" and self._nth.fails():
            if self._way.how == "hang up":
                return self._hang_up()
            self._fail(fd)
        return super().read(fd, size)

    def write(self, fd: int, data: bytes) -> int:
        """Fail, or write."""
        if fd in self._broken:
            self._broken.discard(fd)
            self._fail(fd)
        if self._way.step == "write" and self._nth.fails():
            if self._way.how == "half":
                self._broken.add(fd)
                return super().write(fd, data[: len(data) // 2])
            self._fail(fd)
        return super().write(fd, data)

    def may_open(self) -> None:
        """Fail, or let it be opened."""
        if self._way.step == "open" and self._nth.fails():
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def _hang_up(self) -> bytes:
        self.kernel.forget()
        return b""

    def _fail(self, fd: int) -> None:
        if self._way.how == "pulled":
            self._ports.pull(os.ttyname(fd))
        self.kernel.forget()
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def run(way: Way, n: int, folder: Path) -> Run:
    """One run, in an empty folder."""
    return run_virtual(lambda loop: _live(loop, way, n, folder), start_ms=local_ms(START))


async def _live(loop: VirtualTimeLoop, way: Way, n: int, folder: Path) -> Run:
    ports, kernel, nth = Ports(loop, folder), Kernel(), Nth(n, way.times)
    config = ports.configure(folder, PLANS, broker=None)
    loop.hold(Patience(kernel.waits_for, KERNEL_S, kernel.forget))
    calls = FailingCalls(kernel, way, nth, ports)
    open_configured = SerialLink._open_configured

    def opening(link: SerialLink) -> Any:
        calls.may_open()
        kernel.forget()
        return open_configured(link)

    restarts: dict[str, int] = {}
    with (
        mock.patch("headend.transport.serial_link.os", calls),
        mock.patch("simulators.serve.os", SystemCalls(kernel, "up", "down")),
        mock.patch.object(SerialLink, "_open_configured", opening),
        ports.plugged(),
    ):
        async with daemon(config, ports) as parts:
            until_ms = local_ms(END)
            await asyncio.sleep((until_ms - loop.now_ms()) / 1000)
            states = parts.supervisor.states
            restarts = {name: one.restarts for name, one in states.items() if one.restarts}
    due, findings = check_journal(config.journal_path, ports, until_ms)
    if restarts:
        findings.append(f"tasks died: {restarts}")
    return Run(n, nth.asked, nth.hits, due, findings)
