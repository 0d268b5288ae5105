"""The daemon at a start with a wrong clock, in compressed time: read, kept, dated, settled."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from headend.api import ApiError
from headend.commands import commands, read_now
from headend.daemon import run_daemon
from headend.domain.alarms import KINDS
from headend.domain.clock import from_iso
from headend.domain.due import DueState, local_day
from headend.domain.kept_clock import KeptClock
from headend.journal import JournalReader
from headend.machine_clock import OwnClock
from headend.undated import guarded, trust_command
from simulators.schedule import run_virtual
from tests.soak.world import IMPORT, START_SLACK_S, WRITER_SLACK_S, ZONE, Estate, local_ms
from tests.support.waiting import eventually

START_MS = local_ms("2026-03-02T10:00:00")
QUARTER_MS = 900_000
PLAN = f"  p: {{every: [{{minutes: 15, points: [{IMPORT}]}}], daily: {{points: [{IMPORT}]}}}}"


class WrongMachine:
    """A machine whose wall clock is wrong until somebody sets it."""

    def __init__(self, loop, wrong_ms):
        self.loop = loop
        self.wrong_ms = wrong_ms
        self.is_synchronised = False

    def now_ms(self):
        return self.loop.now_ms() + self.wrong_ms

    def monotonic(self):
        return self.loop.monotonic()

    def synchronise(self):
        self.wrong_ms = 0
        self.is_synchronised = True

    def own_clock(self, config, boot):
        return OwnClock(
            KeptClock(self),
            trust="synchronised",
            marker=config.data_path / "believed.json",
            boot=boot,
            synchronised=lambda: self.is_synchronised,
            has_service=lambda: True,
        )


@asynccontextmanager
async def daemon_with(config, estate, own):
    """The daemon with a clock that has to be believed."""
    loop = estate.loop
    stop, standing = asyncio.Event(), []

    def stood_up(parts):
        standing.append(parts)
        journal = parts.journal
        loop.hold(
            lambda: journal.statistics["commits"] if journal.is_awaited else None,
            slack_s=WRITER_SLACK_S,
        )

    loop.hold(lambda: None if standing else "standing up", slack_s=START_SLACK_S)
    task = asyncio.ensure_future(
        run_daemon(config, stop=stop, own_clock=own, links=estate.open_link, stood_up=stood_up)
    )
    await eventually(lambda: standing or task.done(), timeout_s=60)
    if task.done():
        task.result()
    try:
        yield standing[0]
    finally:
        stop.set()
        await task


def born(config):
    with JournalReader(config.journal_path) as reader:
        return [r for r in reader.readings() if r.value is not None]


def told(config):
    with JournalReader(config.journal_path) as reader:
        return [(e.kind, e.fields["alarm"]) for e in reader.events(kinds=KINDS)]


def test_what_is_read_before_the_clock_is_believed_is_dated_and_settles_what_was_due(tmp_path):
    async def story(loop):
        estate = Estate(loop, buses=2, each=3, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        right = WrongMachine(loop, 0)
        right.is_synchronised = True
        async with daemon_with(config, estate, right.own_clock(config, "boot-1")):
            await asyncio.sleep(32 * 60)
        before = len(born(config))
        await asyncio.sleep(8 * 60)
        # The power was away; the clock comes back twenty minutes behind.
        machine = WrongMachine(loop, -20 * 60_000)
        async with daemon_with(config, estate, machine.own_clock(config, "boot-2")) as parts:
            await asyncio.sleep(40 * 60)
            assert len(born(config)) == before
            assert told(config) == [("alarm", "clock_untrusted")]
            status = await commands(parts)["status"]({})
            assert status["clock"]["reason"] == "went_back"
            assert status["clock"]["waiting"] > 0
            machine.synchronise()
            await asyncio.sleep(5)
            assert told(config)[1:] == [("alarm_cleared", "clock_untrusted")]
            assert (await commands(parts)["status"]({}))["clock"] == {"trusted": True}
            assert await parts.journal.parked() == []
            await asyncio.sleep(12 * 60)
        return estate, config

    estate, config = run_virtual(story, start_ms=START_MS)
    for record in born(config):
        # Within the exchange: a meter says what it counts when it is asked.
        at_ms = from_iso(record.time)
        device = estate.meters[record.meter].device
        shown = {str(device.truth(at_ms + ms, [IMPORT])[IMPORT].shown) for ms in (-500, 0, 500)}
        assert record.value in shown, record
    with JournalReader(config.journal_path) as reader:
        lines = reader.due_lines(local_day(START_MS, ZONE), until_ms=local_ms("2026-03-02T11:31"))
    states = {(line.key.meter, line.key.due_ms): line.state for line in lines}
    for instant in ("10:45", "11:00", "11:15", "11:30"):
        due_ms = local_ms(f"2026-03-02T{instant}")
        for meter in estate.meters:
            assert states[meter, due_ms] is DueState.READ, (meter, instant)


def test_readings_of_another_boot_are_told_and_given_up(tmp_path):
    async def story(loop):
        estate = Estate(loop, buses=1, each=2, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        machine = WrongMachine(loop, -30 * 86_400_000)
        async with daemon_with(config, estate, machine.own_clock(config, "boot-1")) as parts:
            await eventually(lambda: parts.waiting.counts.kept >= 2, timeout_s=600, every_s=1)
        assert born(config) == []
        machine.synchronise()
        async with daemon_with(config, estate, machine.own_clock(config, "boot-2")) as parts:
            assert await parts.journal.parked() == []
        return config

    config = run_virtual(story, start_ms=START_MS)
    assert ("alarm", "readings_undated") in told(config)
    assert ("alarm_cleared", "clock_untrusted") in told(config)


def test_readings_that_waited_outlive_a_daemon_that_is_started_again_in_the_same_boot(tmp_path):
    async def story(loop):
        estate = Estate(loop, buses=1, each=1, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        machine = WrongMachine(loop, -86_400_000)
        async with daemon_with(config, estate, machine.own_clock(config, "boot-1")) as parts:
            await eventually(lambda: parts.waiting.counts.kept >= 1, timeout_s=600, every_s=1)
            read_ms = loop.now_ms()
        await asyncio.sleep(3600)
        machine.synchronise()
        async with daemon_with(config, estate, machine.own_clock(config, "boot-1")):
            pass
        return config, read_ms

    config, read_ms = run_virtual(story, start_ms=START_MS)
    (first, *_) = born(config)
    assert abs(from_iso(first.time) - read_ms) < 5_000


def test_nothing_that_needs_a_date_is_done_and_a_person_can_end_the_waiting(tmp_path):
    async def story(loop):
        estate = Estate(loop, buses=1, each=1, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        machine = WrongMachine(loop, 0)
        async with daemon_with(config, estate, machine.own_clock(config, "boot-1")) as parts:
            offered = guarded(parts, {**commands(parts), **trust_command(parts)})
            for name in ("meter_exchange", "reload"):
                with pytest.raises(ApiError, match="nothing can be dated"):
                    await offered[name]({})
            (shown,) = await read_now(parts, "M-00001", [IMPORT], 30)
            assert shown["value"] is not None
            assert shown["time"] is None
            assert (await parts.journal.last_frozen_day()) is None
            answer = await offered["clock_trust"]({"by": "li"})
            assert answer == {
                "schema": "clock_trust/1", "trusted": True, "was": "not_synchronised"
            }  # fmt: skip
            await eventually(lambda: parts.own_clock.distrusted is None, timeout_s=60, every_s=1)
            await eventually(lambda: born(config), timeout_s=60, every_s=1)
            assert (await offered["clock_trust"]({"by": "li"}))["was"] is None

    run_virtual(story, start_ms=START_MS)


def test_the_alarm_is_over_though_the_right_time_is_before_the_journals_newest_stamp(tmp_path):
    async def story(loop):
        estate = Estate(loop, buses=1, each=1, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        ahead = WrongMachine(loop, 86_400_000)
        ahead.is_synchronised = True  # whoever said so was wrong
        async with daemon_with(config, estate, ahead.own_clock(config, "boot-1")) as parts:
            await asyncio.sleep(1800)
        right = WrongMachine(loop, 0)
        async with daemon_with(config, estate, right.own_clock(config, "boot-2")) as parts:
            await asyncio.sleep(600)
            assert parts.own_clock.distrusted == "went_back"
            await trust_command(parts)["clock_trust"]({"by": "li"})
            await asyncio.sleep(600)
            status = await commands(parts)["status"]({})
            assert status["clock"] == {"trusted": True}
            assert [a["alarm"] for a in status["alarms"]] == []
            assert abs(from_iso(status["at"]) - loop.now_ms()) < 1000

    run_virtual(story, start_ms=START_MS)
