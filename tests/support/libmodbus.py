"""A Modbus device that nobody here wrote, in C: libmodbus behind `tests/modbus_c/server.c`."""

import contextlib
import os
import subprocess
import threading
import tty
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "modbus_c"


def build(name: str, folder: Path) -> Path:
    """Compile `tests/modbus_c/NAME.c` into a folder; gives the program."""
    program = folder / name
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCES / f"{name}.c"]
    built = subprocess.run(
        [*command, "-I/usr/include/modbus", "-lmodbus"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return program


@contextlib.contextmanager
def served(program: Path, *arguments: str, words: Mapping[int, int]) -> Iterator[str]:
    """The server with these registers until the end; gives what it said behind READY."""
    registers = (f"{at}={word}" for at, word in words.items())
    with subprocess.Popen(
        [program, *arguments, *registers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = process.stdout.readline().split()
            assert ready[:1] == ["READY"], ready
            yield ready[1]
        finally:
            process.stdin.close()
            process.wait(timeout=10)


@contextlib.contextmanager
def served_tcp(program: Path, words: Mapping[int, int]) -> Iterator[int]:
    """Over Modbus TCP, as every unit; gives the port."""
    with served(program, "tcp", "0", words=words) as port:
        yield int(port)


@contextlib.contextmanager
def served_rtu(program: Path, unit: int, words: Mapping[int, int]) -> Iterator[str]:
    """On a serial line without parity, at 19200 Bd; gives the path of its other end."""
    ours, theirs = os.openpty(), os.openpty()
    for fd in (*ours, *theirs):
        tty.setraw(fd)
    ends = ((ours[0], theirs[0]), (theirs[0], ours[0]))
    pumps = [threading.Thread(target=_pump, args=pair, daemon=True) for pair in ends]
    try:
        for pump in pumps:
            pump.start()
        with served(program, "rtu", os.ttyname(ours[1]), "19200", str(unit), words=words):
            yield os.ttyname(theirs[1])
    finally:
        for fd in (ours[1], theirs[1]):  # the masters' reads end, and the pumps with them
            os.close(fd)
        for pump in pumps:
            pump.join(timeout=10)
        for fd in (ours[0], theirs[0]):
            os.close(fd)


def _pump(source: int, sink: int) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(source, 1024):
            os.write(sink, data)
