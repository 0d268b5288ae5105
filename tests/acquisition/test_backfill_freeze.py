"""Daily due points that were missed are closed from the meter's own frozen registers."""

from decimal import Decimal
from pathlib import Path

import pytest

from headend.acquisition.backfill_freeze import MONTHLY_FREEZE, NO_FREEZES, FreezeFill
from headend.acquisition.between import CLOCK_SKEW
from headend.domain.clock import from_iso, iso
from headend.domain.due import DueState
from headend.domain.errors import NoAnswer
from headend.domain.reading import Reading
from headend.drivers.dlt645_load import BEFORE_MEMORY, NO_RECORD
from headend.journal import Birth
from simulators.meter645 import Gap
from tests.acquisition.fill_bench import (
    DAY_MS,
    EXPORT,
    IMPORT,
    POINTS,
    FillBench,
    daily,
    fill_bench,
    local,
    plan_of,
)

DAILY = plan_of(daily())
FIRST_MS = local("07T00:00:00")


async def owed(made: FillBench, from_ms: int = FIRST_MS) -> FreezeFill:
    await made.list_days(from_ms)
    found = await made.bench.owed(made.meter, from_ms, made.clock.now_ms())
    return FreezeFill(made.bench, made.meter, found)


async def whole(fill: FreezeFill) -> FreezeFill:
    while not fill.is_done:
        await fill.step()
    await fill._bench.journal.last_frozen_day()  # reasons ride along with others
    return fill


async def test_missed_days_are_closed_with_the_time_and_the_registers_of_their_freezes(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path, plan=DAILY) as made:
        fill = await whole(await owed(made))
        days = [local(f"{day:02d}T00:00:00") for day in (7, 8, 9, 10)]
        for point in (IMPORT, EXPORT):
            rows = made.readings(point)
            assert [from_iso(row.time) for row in rows] == days
            assert [row.value for row in rows] == [made.shown(at, point) for at in days]
            assert {(row.status, row.verdict, row.late) for row in rows} == {("actual", "ok", True)}
            assert [row.due_at for row in rows] == [iso(at) for at in days]
        served = {line.key.due_ms: line.state for line in made.lines(IMPORT)}
        assert {served[at] for at in days} == {DueState.BACKFILLED}
        assert fill.progress.steps == 4  # each number was right at once


async def test_a_day_the_meter_slept_through_is_a_hole_with_its_reason(tmp_path: Path) -> None:
    slept = Gap(local("08T20:00:00"), local("09T06:00:00"))
    async with fill_bench(tmp_path, slept, plan=DAILY) as made:
        await whole(await owed(made))
        lines = {line.key.due_ms: line for line in made.lines(IMPORT)}
        missed = lines[local("09T00:00:00")]
        assert (missed.state, missed.reason) == (DueState.OPEN, NO_RECORD)
        for day in ("07", "08", "10"):
            assert lines[local(f"{day}T00:00:00")].state is DueState.BACKFILLED
        (event,) = await made.gap_events()
        assert event.fields["store"] == "daily_freeze"
        assert event.fields["reason"] == NO_RECORD
        again = made.bench.gaps.reason("M-1", "daily_freeze", IMPORT, local("09T00:00:00"))
        assert again == NO_RECORD


async def test_what_the_meter_no_longer_holds_ends_with_that_reason(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=DAILY, days=2) as made:
        fill = await whole(await owed(made))
        lines = {line.key.due_ms: line for line in made.lines(IMPORT)}
        assert lines[local("07T00:00:00")].reason == BEFORE_MEMORY
        assert lines[local("08T00:00:00")].reason == BEFORE_MEMORY
        assert lines[local("09T00:00:00")].state is DueState.BACKFILLED
        assert lines[local("10T00:00:00")].state is DueState.BACKFILLED
        assert len(await made.gap_events()) == 1  # two days, told together
        assert fill.progress.steps <= 6


async def test_the_edge_of_a_short_memory_is_found_in_few_questions(tmp_path: Path) -> None:
    now_ms = from_iso("2026-04-09T09:07:00+08:00")
    async with fill_bench(tmp_path, plan=DAILY, days=5, now_ms=now_ms) as made:
        fill = await whole(await owed(made))  # 34 days
        assert len(made.readings()) == 5
        assert fill.progress.steps <= 16
        (event,) = await made.gap_events()
        assert event.fields["reason"] == BEFORE_MEMORY


async def test_a_meter_without_freezes_is_asked_once_and_named(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=DAILY) as made:
        made.device.kept.stores["daily_freeze"].replace([], made.clock.now_ms())
        fill = await whole(await owed(made))
        assert {line.reason for line in made.lines() if line.key.due_ms >= FIRST_MS} == {NO_FREEZES}
        assert fill.progress.born == 0


async def test_silence_changes_nothing_and_the_step_is_made_again(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=DAILY) as made:
        made.port.lost = {1, 3, 8}
        fill = await owed(made)
        failures = 0
        while not fill.is_done:
            try:
                await fill.step()
            except NoAnswer:
                failures += 1
        assert failures == 3
        assert len(made.readings()) == 4


async def test_a_new_freeze_while_they_are_read_moves_the_numbers_and_no_value(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path, plan=DAILY, now_ms=local("10T23:59:50")) as made:
        fill = await owed(made)
        await fill.step()
        made.clock.at_ms = local("11T00:00:10")
        await whole(fill)
        days = [local(f"{day:02d}T00:00:00") for day in (7, 8, 9, 10)]
        rows = [row for row in made.readings() if from_iso(row.time) in days]
        assert [row.value for row in rows] == [made.shown(at) for at in days]


@pytest.mark.parametrize("ahead_s", [-200, 200])
async def test_a_meter_whose_clock_is_wrong_says_when_its_freeze_was(
    tmp_path: Path, ahead_s: int
) -> None:
    async with fill_bench(tmp_path, plan=DAILY, error_ms=ahead_s * 1000) as made:
        await whole(await owed(made))
        rows = made.readings()
        # The freeze bears the meter's own midnight; what it holds is of another moment.
        at_ms = local("08T00:00:00")
        value = next(row.value for row in rows if from_iso(row.time) == at_ms)
        assert value == made.shown(at_ms - ahead_s * 1000)


@pytest.mark.parametrize(("ahead_s", "live"), [(-200, "00:01:00"), (200, "23:59:00")])
async def test_a_live_register_by_another_clock_rules_no_freeze_out(
    tmp_path: Path, ahead_s: int, live: str
) -> None:
    async with fill_bench(tmp_path, plan=DAILY, error_ms=ahead_s * 1000) as made:
        at_ms = local(f"09T{live}" if ahead_s < 0 else f"08T{live}")
        value = Decimal(made.shown(at_ms))
        near = Reading("M-1", "SP-1", IMPORT, value, "kWh", at_ms, at_ms)
        await made.journal.append(Birth((near,)))
        await whole(await owed(made))
        (row,) = [r for r in made.readings() if from_iso(r.time) == local("09T00:00:00")]
        assert (row.verdict, row.flags) == ("ok", [CLOCK_SKEW])
        others = [r for r in made.readings() if r.time != row.time]
        assert {(r.verdict, tuple(r.flags)) for r in others} == {("ok", ())}


async def test_the_first_of_a_month_is_closed_from_the_monthly_freeze(tmp_path: Path) -> None:
    now_ms = from_iso("2026-05-20T09:07:00+08:00")
    async with fill_bench(tmp_path, plan=DAILY, now_ms=now_ms, days=3) as made:
        first_ms = from_iso("2026-05-01T00:00:00+08:00")
        await made.list_days(first_ms)
        found = await made.bench.owed(made.meter, first_ms, first_ms + DAY_MS)
        fill = await whole(FreezeFill(made.bench, made.meter, found, kind=MONTHLY_FREEZE))
        assert [row.value for row in made.readings()] == [made.shown(first_ms)]
        assert fill.progress.steps == 1


async def test_freezes_are_read_twice_where_parity_is_unseen(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, plan=DAILY, parity_seen=False) as made:
        await whole(await owed(made, local("10T00:00:00")))
        blocks = [di for di in made.port.identifiers() if not di.startswith("050600")]
        assert len(blocks) == 2 * len(set(blocks))
        assert set(POINTS) == {line.key.point for line in made.lines() if line.read_id}
