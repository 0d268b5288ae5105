"""A fill that is killed goes on where it was: nothing is lost, nothing is asked for twice."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

from headend.acquisition.workbench import GAP_EVENT
from headend.domain.clock import from_iso
from headend.drivers.dlt645_load import NO_RECORD
from headend.journal import JournalReader
from protocols.dlt645.frame import parse
from protocols.dlt645.meter import parse_any_read
from simulators.meter645 import Gap
from simulators.meterbus import MeterBus
from simulators.serve import PtyServer
from tests.acquisition.fill_bench import IMPORT, NOW_MS, POINTS, QUARTER_MS, device_of, local

FROM_MS, TO_MS = local("03T00:00:00"), local("10T00:00:00")
HOLE = (local("05T10:07:00"), local("05T22:10:00"))
IN_HOLE = set(range(local("05T10:15:00"), local("05T22:10:00"), QUARTER_MS))
# At which requests from a time on the process is killed, and so many milliseconds later: before
# the reply, while it comes, while it is written.
KILLS = {11: 0.0, 45: 0.05, 90: 0.02}
RUN_S = 120.0


class Watched:
    """A meter whose requests are counted, and which has its reader killed."""

    def __init__(self, child: "Child") -> None:
        self.device = device_of(lambda: NOW_MS, Gap(*HOLE))
        self.moments: list[str] = []
        self._child = child
        self._answer = self.device.on_frame
        self.device.on_frame = self.on_frame  # type: ignore[method-assign]

    def on_frame(self, raw: bytes):
        read = parse_any_read(parse(raw))
        if read is not None and read.moment:
            self.moments.append(read.moment)
            after_s = KILLS.get(len(self.moments))
            if after_s is not None:
                asyncio.get_running_loop().call_later(after_s, self._child.kill)
        return self._answer(raw)


class Child:
    """The process that fills."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.kills = 0

    async def run(self, *arguments: object) -> bool:
        """Whether it came to its end."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.acquisition.fill_child", *map(str, arguments), stdout=PIPE
        )
        out, _ = await self.process.communicate()
        return out.strip() == b"DONE"

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.kills += 1


async def test_a_week_with_a_hole_killed_again_and_again_is_fetched_whole_and_read_once(
    tmp_path: Path,
) -> None:
    child = Child()
    watched = Watched(child)
    server = PtyServer(MeterBus([watched.device]), tmp_path / "line", baud=115_200)
    await server.start()
    link = f"serial://{tmp_path / 'line'}?baud=115200&parity=even&parity_seen=true"
    runs = 0
    try:
        async with asyncio.timeout(RUN_S):
            done = False
            while not done:
                runs += 1
                done = await child.run(tmp_path, link, FROM_MS, TO_MS, NOW_MS)
    finally:
        child.kill()
        await server.close()
    assert child.kills == len(KILLS)
    assert runs == len(KILLS) + 1
    due = [at for at in range(FROM_MS, TO_MS, QUARTER_MS) if at not in IN_HOLE]
    with JournalReader(tmp_path / "journal.db") as reader:
        for point in POINTS:
            rows = list(reader.readings(point=point, all_revisions=True))
            assert [from_iso(row.time) for row in rows] == due
            assert {row.revision for row in rows} == {1}
            truth = watched.device.truth
            assert [row.value for row in rows] == [
                str(truth(at, [point])[point].shown) for at in due
            ]
        assert len(list(reader.readings(point=IMPORT))) == 672 - len(IN_HOLE)
        (event,) = reader.events(kinds=(GAP_EVENT,))
    assert event.fields["reason"] == NO_RECORD
    # Only what was on its way when the process died is asked for once more.
    asked = Counter(watched.moments)
    assert sum(count - 1 for count in asked.values()) <= child.kills
    assert max(asked.values()) <= 2
    most = -(-(672 - len(IN_HOLE)) // 6) + 2
    assert len(asked) <= most + child.kills
