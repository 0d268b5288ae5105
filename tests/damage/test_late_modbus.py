"""A late reply never becomes another register's value: counted, not hoped."""

import asyncio
from pathlib import Path

import pytest

from headend.bus import Bus, BusSettings
from headend.config import parse_link
from headend.domain.exchange import Outcome
from headend.transport import make_link
from simulators.modbus_line import ModbusBus
from simulators.serve import PtyServer
from tests.damage.late_modbus import (
    BAUD,
    LINKS,
    LoopClock,
    Score,
    devices_of,
    read_line,
    run_proof,
    time_out_s,
)

PTY_SETTINGS = BusSettings(
    reply_timeout_ms=100, margin_ms=20, silence_after_timeout_ms=100, dead_after=1_000_000
)
LATENCY_S = 0.03  # what this machine may add to a reply on its way through a pty


@pytest.mark.timeout(120)
@pytest.mark.parametrize("link", LINKS)
def test_thousands_of_reads_on_many_lines_give_not_one_wrong_register(link: str) -> None:
    score = run_proof(reads=2000, lines=16, seed=138_077, link=link)
    print(score.line(link))
    assert score.reads >= 2000
    assert score.wrong == []
    assert score.values > 1600
    assert score.late_frames > 400  # and there were enough to be taken for something


@pytest.mark.parametrize("link", LINKS)
def test_without_the_rule_wrong_registers_do_come(link: str) -> None:
    score = run_proof(reads=600, lines=8, seed=138_077, ruled=False, link=link)
    assert len(score.wrong) > 1, "then the proof above would prove nothing"


@pytest.mark.timeout(120)
async def test_late_replies_on_real_ptys_give_not_one_wrong_register(tmp_path: Path) -> None:
    score = Score()

    async def one(number: int) -> None:
        devices = devices_of(number, 2 * time_out_s(PTY_SETTINGS) - LATENCY_S)
        server = PtyServer(ModbusBus(devices), tmp_path / f"line-{number}", baud=BAUD)
        await server.start()
        bus = Bus(
            f"pty-{number}",
            make_link(parse_link(server.where)),
            PTY_SETTINGS,
            clock=LoopClock(asyncio.get_running_loop()),
            observer=lambda exchange: score.outcomes.update((exchange.outcome,)),
        )
        task = asyncio.create_task(bus.run())
        try:
            await read_line(bus, devices, score, reads=30, seed=number, ruled=True)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await server.close()
        score.late_frames += bus.statistics().stray_bytes // 9

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(one(number))
    print(score.line("ptys"))
    assert score.reads == 240
    assert score.wrong == []
    assert score.values > 150
    assert score.outcomes[Outcome.SILENCE] > 20
