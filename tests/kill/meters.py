"""The meters of the kill loop: a process of its own that is never killed and forgets nothing.

Every value it gives out stands in the truth log before the bytes leave. Registers move so fast
(`SPEED` times real time, import and export by turns) that hardly two reads say the same.

`python -m tests.kill.meters FOLDER` prints one JSON line {"ports": [...]} when all can be read.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulators.curves import MINUTES_A_DAY
from simulators.energy import NWH_A_KWH, Channel, EnergyModel, Supply, Timeline
from simulators.measured import Measured
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.serve import TcpServer
from simulators.truthlog import TruthFile

BUSES = 8
METERS_A_BUS = 2
SPEED = 3600  # an hour of energy a second: a minute of the curves is 17 ms
CAPACITY_KW = 40_000  # what the registers below can do at that speed, with a margin
POINTS = (
    "active_import_total", "active_import_t1", "active_export_total", "active_export_t1",
    "reactive_import_total", "voltage_a", "active_power_total", "frequency",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ByTurns:
    """A power in every second minute, nothing in the others."""

    power_w: int
    odd: bool

    def day_watts(self, day: int) -> Sequence[int]:
        """1440 powers."""
        return [self.power_w if minute % 2 == self.odd else 0 for minute in range(MINUTES_A_DAY)]


def address(number: int) -> str:
    """The address of meter `number`, from 0."""
    return f"{number + 1:012d}"


def make_meter(number: int, origin_ms: int, truth: TruthFile) -> Meter645:
    """Meter `number`; its registers begin at a few thousand kWh and never meet another's."""
    load, panel = 3500 + 50 * number, 2500 + 50 * number
    supply = Supply((ByTurns(load, odd=False),), (ByTurns(panel, odd=True),))
    initial = {
        Channel(direction, tariff): (1000 * (number + 1) + 100 * tariff) * NWH_A_KWH
        for direction in ("import", "export", "q1", "q2")
        for tariff in range(1, 5)
    }
    model = EnergyModel(supply, Timeline(origin_ms, speed=SPEED), initial=initial)
    return Meter645(
        MeterSettings(address(number), reply_delay_ms=0, seed=number),
        Measured(model, seed=number),
        clock=lambda: time.time_ns() // 1_000_000,
        truth_log=truth,
    )


async def serve(folder: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    origin_ms = time.time_ns() // 1_000_000
    with TruthFile(folder / "truth.jsonl") as truth:
        servers = []
        for bus in range(BUSES):
            numbers = range(bus * METERS_A_BUS, (bus + 1) * METERS_A_BUS)
            meters = [make_meter(number, origin_ms, truth) for number in numbers]
            servers.append(TcpServer(MeterBus(meters)))
        for server in servers:
            await server.start()
        print(json.dumps({"ports": [server.port for server in servers]}), flush=True)
        await stop.wait()
        for server in servers:
            await server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
