"""What was missed is closed from the meters' own memory, behind everything that is due."""

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path

from headend.acquisition.gap_closer import GapCloser
from headend.acquisition.plans import Backfilling, ReadPlan
from headend.domain.clock import from_iso
from headend.domain.due import DueState
from headend.drivers.dlt645_load import BEFORE_MEMORY, NO_RECORD
from protocols.dlt645.profile import MeterProfile
from simulators.meter645 import Gap
from simulators.meter645_load import LoadSettings
from tests.acquisition.fill_bench import (
    DAY_MS,
    EXPORT,
    IMPORT,
    QUARTER_MS,
    FillBench,
    daily,
    fill_bench,
    local,
    quarters,
)

FROM_MS = local("08T00:00:00")
NOW_MS = local("10T09:07:00")
BOTH = Backfilling(daily=True, load_records=True)


def plan(*lines: object, backfill: Backfilling = BOTH) -> ReadPlan:
    return ReadPlan("p", tuple(lines), backfill)  # type: ignore[arg-type]


def closer_of(made: FillBench, **more: object) -> GapCloser:
    return GapCloser(made.bench, **({"is_busy": lambda _bus: False} | more))  # type: ignore[arg-type]


async def closed(made: FillBench, **more: object) -> GapCloser:
    """As many rounds as it takes."""
    closer = closer_of(made, **more)
    while not await closer.round():
        pass
    await made.written()
    return closer


def states(made: FillBench, until_ms: int, point: str = IMPORT) -> Counter[DueState]:
    return Counter(line.state for line in made.lines(point) if line.key.due_ms < until_ms)


async def test_after_an_outage_days_and_quarters_are_closed_and_marked(tmp_path: Path) -> None:
    both = plan(daily(("reactive_q1",)), quarters())
    async with fill_bench(tmp_path, plan=both, now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        closer = await closed(made)
        until_ms = NOW_MS - 2 * QUARTER_MS
        assert states(made, until_ms) == {DueState.BACKFILLED: 227}
        assert states(made, until_ms, EXPORT) == {DueState.BACKFILLED: 227}
        assert states(made, until_ms, "reactive_q1") == {DueState.BACKFILLED: 3}
        newest = local("10T09:00:00")  # still within its window
        assert all(row.late == (from_iso(row.time) < newest) for row in made.readings())
        (report,) = closer.report()
        assert report["bus"] == "b"
        assert report["failures"] == 0
        assert report["born"] >= 2 * 227 + 3
        asked = len(made.port.reads)
        await closed(made)
        assert len(made.port.reads) == asked  # nothing is left to ask


async def test_what_the_poller_may_still_read_is_left_to_it(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=plan(quarters()), now_ms=local("10T09:03:00")) as made:
        await made.list_days(local("10T00:00:00"))
        await closed(made)
        newest = [ln for ln in made.lines(IMPORT) if ln.key.due_ms == local("10T09:00:00")]
        assert [line.state for line in newest] == [DueState.OPEN]
        assert states(made, local("10T09:00:00")) == {DueState.BACKFILLED: 36}


async def test_days_that_were_closed_meanwhile_are_filled_apart(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=plan(daily()), now_ms=NOW_MS) as made:
        await made.list_days(local("04T00:00:00"))
        await closed(made)
        early = [line for line in made.lines(IMPORT) if line.key.due_ms < local("07T00:00:00")]
        assert [(line.state, line.after_close) for line in early] == [(DueState.MISSING, True)] * 3
        assert states(made, NOW_MS)[DueState.BACKFILLED] == 4


async def test_a_hole_in_the_freezes_is_closed_from_the_load_records(tmp_path: Path) -> None:
    slept = Gap(local("08T20:00:00"), local("09T06:00:00"), stores=frozenset({"daily_freeze"}))
    async with fill_bench(tmp_path, slept, plan=plan(daily()), now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        await closed(made)
        assert states(made, NOW_MS) == {DueState.BACKFILLED: 3}
        assert len(made.readings()) == 3  # and nothing that nobody asked for


async def test_what_no_store_of_the_meter_has_ends_missing_with_its_reason(tmp_path: Path) -> None:
    slept = Gap(local("08T20:00:00"), local("09T06:00:00"))
    async with fill_bench(tmp_path, slept, plan=plan(daily(), quarters()), now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        await closed(made)
        asked = len(made.port.reads)
        made.clock.at_ms += 4 * DAY_MS
        await made.keeper.prepare()
        lines = {line.key.due_ms: line for line in made.lines(IMPORT)}
        missed = lines[local("09T00:00:00")]
        assert (missed.state, missed.reason) == (DueState.MISSING, NO_RECORD)
        assert missed.read_id is None
        assert asked == len(made.port.reads)


async def test_beyond_the_meters_memory_it_says_so(tmp_path: Path) -> None:
    short = LoadSettings(depth=96)
    async with fill_bench(tmp_path, plan=plan(quarters()), now_ms=NOW_MS, load=short) as made:
        await made.list_days(FROM_MS)
        await closed(made)
        reasons = {ln.reason for ln in made.lines(IMPORT) if ln.key.due_ms < local("09T06:00:00")}
        assert reasons == {BEFORE_MEMORY}


async def test_load_records_are_fetched_only_where_the_plan_wants_them(tmp_path: Path) -> None:
    async with fill_bench(
        tmp_path, plan=plan(daily(), quarters(), backfill=Backfilling()), now_ms=NOW_MS
    ) as made:
        await made.list_days(FROM_MS)
        await closed(made)
        assert states(made, NOW_MS)[DueState.BACKFILLED] == 3
        assert not made.port.moments()


async def test_a_plan_that_wants_nothing_asks_nothing(tmp_path: Path) -> None:
    off = plan(daily(), backfill=Backfilling(daily=False))
    async with fill_bench(tmp_path, plan=off, now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        await closed(made)
        assert not made.port.reads


async def test_a_meter_of_the_old_edition_keeps_nothing_that_can_be_fetched(
    tmp_path: Path,
) -> None:
    old = MeterProfile(id="o", edition="dlt645-1997")
    async with fill_bench(tmp_path, plan=plan(daily()), now_ms=NOW_MS, profile=old) as made:
        await made.list_days(FROM_MS)
        await closed(made)
        assert not made.port.reads


async def test_a_silent_meter_rests_longer_each_time(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=plan(daily()), now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        made.port.silent.add(made.meter.address)
        closer = closer_of(made)
        asked: list[int] = []
        for _ in range(10):
            before = len(made.port.reads)
            await closer.round()
            asked.append(len(made.port.reads) - before)
            made.clock.at_ms += 61_000
        assert asked == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0]
        made.port.silent.clear()
        made.clock.at_ms += 3_600_000
        while not await closer.round():
            pass
        assert states(made, NOW_MS) == {DueState.BACKFILLED: 3}


async def test_it_waits_while_something_is_due_and_not_for_ever(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=plan(daily()), now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        busy = True
        closer = closer_of(made, is_busy=lambda _bus: busy)
        task = asyncio.ensure_future(closer.round())
        async with asyncio.timeout(20):
            while closer.work.get("b") is None or closer.work["b"].meter is None:
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not made.port.reads
        made.clock.at_ms += 60_000  # its patience is over: one step, then it waits again
        async with asyncio.timeout(20):
            while closer.steps < 1:
                await asyncio.sleep(0.01)
        assert closer.steps == 1
        busy = False
        async with asyncio.timeout(20):
            await task
        assert states(made, NOW_MS) == {DueState.BACKFILLED: 3}


async def test_it_ends_cleanly_in_the_middle_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=plan(quarters()), now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        closer = closer_of(made)
        task = asyncio.ensure_future(closer.run())
        async with asyncio.timeout(20):
            while closer.steps < 10:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await closed(made)
        assert states(made, NOW_MS - 2 * QUARTER_MS) == {DueState.BACKFILLED: 227}
        asked = Counter(made.port.moments())
        assert sum(n - 1 for n in asked.values()) <= 1
        assert {row.revision for row in made.readings()} == {1}


async def test_a_value_that_is_held_is_not_asked_for_each_time(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=plan(daily()), now_ms=NOW_MS) as made:
        await made.list_days(FROM_MS)
        made.bench.reader._anchors["M-1", IMPORT] = Decimal(0)
        closer = await closed(made)
        assert {row.verdict for row in made.readings()} == {"held"}
        assert {ln.reason for ln in made.lines(IMPORT) if ln.key.due_ms < NOW_MS} == {"held"}
        asked = len(made.port.reads)
        made.clock.at_ms += 7_200_000
        await closer.round()
        assert len(made.port.reads) == asked
