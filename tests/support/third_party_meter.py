"""A meter that nobody here wrote: the PyPI package `dlt645` as a server, in a process of its own.

`python -m tests.support.third_party_meter (tcp | pty) ADDRESS` prints `READY <link>`. What is known
to be wrong with it is worked around here, never in the product: it sends its address unreversed,
so it is given a reversed one; it answers foreign addresses and has neither blocks nor freezes.
"""

import contextlib
import os
import pty
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator

from dlt645 import MeterServerService

VALUES = {
    0x00010000: 12345.67,
    0x00020000: 0.26,
    0x02010100: 229.4,
    0x02020100: 1.234,
    0x02030000: 0.2831,
    0x02800002: 49.98,
}


def main(kind: str, address: str) -> None:
    """Serve until the parent closes our standard input."""
    server, link = _tcp() if kind == "tcp" else _pty()
    reversed_address = bytes.fromhex(address)[::-1].hex()
    server.set_address(reversed_address)
    for di, value in VALUES.items():
        assert (server.set_00 if di < 0x01000000 else server.set_02)(di, value), hex(di)
    assert server.start() is not False
    if kind == "tcp":
        _wait_for_port(int(link.rpartition(":")[2]))
    print(f"READY {link}", flush=True)
    sys.stdin.read()
    # Its threads do not end by themselves.
    os._exit(0)


def _tcp() -> tuple[MeterServerService, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return MeterServerService.new_tcp_server("127.0.0.1", port), f"tcp://127.0.0.1:{port}"


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise TimeoutError(port)


def _pty() -> tuple[MeterServerService, str]:
    """Two ptys back to back: the server opens one, the reader the other."""
    ours, theirs = pty.openpty(), pty.openpty()
    for fd in (*ours, *theirs):
        tty.setraw(fd)
    for source, sink in ((ours[0], theirs[0]), (theirs[0], ours[0])):
        threading.Thread(target=_pump, args=(source, sink), daemon=True).start()
    server = MeterServerService.new_rtu_server(os.ttyname(ours[1]), 8, 1, 9600, "E", 1.0)
    return server, f"serial://{os.ttyname(theirs[1])}?baud=9600&parity=even"


def _pump(source: int, sink: int) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(source, 1024):
            os.write(sink, data)


@contextlib.contextmanager
def third_party_meter(kind: str, address: str) -> Iterator[str]:
    """The meter in a process of its own; gives its link."""
    command = [sys.executable, "-m", "tests.support.third_party_meter", kind, address]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            words = iter(process.stdout.readline, "")
            ready = next(line for line in words if line.startswith("READY "))
            yield ready.split()[1]
        finally:
            process.stdin.close()
            process.wait(timeout=10)


if __name__ == "__main__":
    main(*sys.argv[1:])
