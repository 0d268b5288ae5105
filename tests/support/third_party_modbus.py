"""A Modbus device that nobody here wrote: pymodbus's own servers, in a process of its own.

`python -m tests.support.third_party_modbus (tcp | rtu-tcp | pty)` prints `READY <link>`. Unit 1 is
an SDM630 as far as the points of `VALUES` go, unit 2 an ADL400, unit 3 is always busy, unit 4 has
failed, unit 5 answers for a device behind a gateway that is silent. Addresses that are not set are
refused.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

# point -> (address, value), all float32, as an SDM630 has them
VALUES = {
    "voltage_a": (0x00, 230.5),
    "voltage_b": (0x02, 231.25),
    "voltage_c": (0x04, 229.75),
    "active_power_total": (0x34, -1500.0),
    "frequency": (0x46, 49.98),
    "active_import_total": (0x48, 12345.67),
    "active_export_total": (0x4A, 0.25),
}
SECONDARY = {
    "active_import_total": (0x0A, 1025, DataType.UINT32),
    "active_export_total": (0x14, 7, DataType.UINT32),
    "voltage_a": (0x61, 577, DataType.UINT16),
}
BUSY, FAILED, UNREACHED = 3, 4, 5
BAUD = 9600


def devices() -> list[SimDevice]:
    """The units of the server."""
    meter = [SimData(at, values=value, datatype=DataType.FLOAT32) for at, value in VALUES.values()]
    second = [SimData(at, values=v, datatype=kind) for at, v, kind in SECONDARY.values()]
    return [
        SimDevice(1, simdata=meter),
        SimDevice(2, simdata=second),
        *(
            SimDevice(unit, simdata=meter, action=_always(code))
            for unit, code in (
                (BUSY, ExcCodes.DEVICE_BUSY),
                (FAILED, ExcCodes.DEVICE_FAILURE),
                (UNREACHED, ExcCodes.GATEWAY_NO_RESPONSE),
            )
        ),
    ]


def _always(code):
    async def action(*_asked):
        return code

    return action


async def main(kind: str) -> None:
    """Serve until the parent closes our standard input."""
    if kind == "pty":
        ours, theirs = os.openpty(), os.openpty()
        for fd in (*ours, *theirs):
            tty.setraw(fd)
        for source, sink in ((ours[0], theirs[0]), (theirs[0], ours[0])):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()
        server = ModbusSerialServer(devices(), port=os.ttyname(ours[1]), baudrate=BAUD)
        await server.serve_forever(background=True)
        link = f"serial://{os.ttyname(theirs[1])}?baud={BAUD}&parity=none"
    else:
        framer = FramerType.SOCKET if kind == "tcp" else FramerType.RTU
        server = ModbusTcpServer(devices(), framer=framer, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        port = server.transport.sockets[0].getsockname()[1]
        scheme = "modbus-tcp" if kind == "tcp" else "tcp"
        link = f"{scheme}://127.0.0.1:{port}"
    print(f"READY {link}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # its threads do not end by themselves


def _pump(source: int, sink: int) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(source, 1024):
            os.write(sink, data)


@contextlib.contextmanager
def third_party_modbus(kind: str) -> Iterator[str]:
    """The device in a process of its own; gives its link."""
    command = [sys.executable, "-m", "tests.support.third_party_modbus", kind]
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
    asyncio.run(main(*sys.argv[1:]))
