"""What a meter kept comes into the journal whole, once, and marked as what it is."""

import json
from decimal import Decimal
from pathlib import Path

import jsonschema
import msgspec
import pytest

from headend.acquisition.backfill import RECORD_CHECKSUM, TOLD_LATER
from headend.acquisition.between import BEYOND_NEXT
from headend.acquisition.workbench import GAP_EVENT
from headend.bus import Priority
from headend.domain.clock import from_iso, iso
from headend.domain.due import DueState
from headend.domain.errors import ConfigError, NoAnswer
from headend.domain.meter import Event
from headend.domain.reading import Reading, Source, Verdict
from headend.drivers.dlt645_load import BEFORE_MEMORY, NO_RECORD, NOT_RECORDED
from headend.journal import Birth
from protocols.dlt645.profile import MeterProfile
from simulators.meter645 import Gap
from simulators.meter645_load import LoadSettings
from simulators.meter645_store import Freeze
from tests.acquisition.fill_bench import (
    EXPORT,
    IMPORT,
    NOW_MS,
    QUARTER_MS,
    FillBench,
    fill_bench,
    local,
    plan_of,
    quarters,
)

ROOT = Path(__file__).parents[2]
FROM_MS, TO_MS = local("05T06:00:00"), local("05T18:00:00")
HOLE = (local("05T10:07:00"), local("05T12:10:00"))
IN_HOLE = range(local("05T10:15:00"), local("05T12:10:00"), QUARTER_MS)


def times(made: FillBench, point: str = IMPORT) -> list[int]:

    return [from_iso(row.time) for row in made.readings(point)]


async def test_a_day_with_a_hole_is_born_as_the_meter_showed_it_and_the_hole_is_told_once(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path, Gap(*HOLE)) as made:
        done = await made.filled(FROM_MS, TO_MS)
        for point in (IMPORT, EXPORT):
            rows = made.readings(point)
            due = [t for t in range(FROM_MS, TO_MS, QUARTER_MS) if t not in IN_HOLE]
            assert times(made, point) == due
            assert [row.value for row in rows] == [made.shown(t, point) for t in due]
            assert {(row.status, row.verdict, row.revision) for row in rows} == {
                ("actual", "ok", 1)
            }
            assert all(row.evidence for row in rows)
        assert (done.progress.records, done.progress.born) == (40, 80)
        (event,) = await made.gap_events()
        assert event.fields["reason"] == NO_RECORD
        assert event.fields["points"] == [IMPORT, EXPORT]
        assert set(made.port.priorities) == {Priority.BACKFILL}


async def test_a_hole_reaches_consumers_as_the_schema_says(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, Gap(*HOLE)) as made:
        await made.filled(FROM_MS, TO_MS)
        last = made.journal.cursors()["billing"].last_seq
        records = (await made.journal.read_stream("billing", 1, records_max=last)).records
        (told,) = [r for r in msgspec.to_builtins(records) if r.get("event") == GAP_EVENT]
        told |= told.pop("fields", {})
        schema = json.loads((ROOT / "docs" / "schemas" / "feed.schema.json").read_text())
        schema |= {"$ref": "#/$defs/event_record"}
        for key in ("type", "properties", "required", "additionalProperties", "oneOf", "anyOf"):
            schema.pop(key, None)
        jsonschema.validate(told, schema)
        assert (told["from"], told["reason"]) == (iso(IN_HOLE[0]), NO_RECORD)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(told | {"reason": "forgotten"}, schema)


async def test_what_is_there_is_not_asked_for_again_and_neither_is_a_hole(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, Gap(*HOLE)) as made:
        await made.filled(FROM_MS, TO_MS)
        asked = len(made.port.reads)
        again = await made.filled(FROM_MS, TO_MS)
        assert made.port.moments() == sorted(set(made.port.moments()))
        assert len(made.port.reads) == asked  # not even how far the records reach
        assert (again.progress.known, again.progress.born) == (40, 0)
        assert len(await made.gap_events()) == 1


async def test_a_hole_is_asked_for_when_somebody_wants_it_again(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, Gap(*HOLE)) as made:
        await made.filled(FROM_MS, TO_MS)
        asked = len(made.port.moments())
        await made.filled(FROM_MS, TO_MS, again=True)
        assert len(made.port.moments()) == asked + 1


async def test_only_the_instants_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    async with fill_bench(tmp_path) as made:
        await made.filled(local("05T09:00:00"), local("05T15:00:00"))
        before = set(made.port.moments())
        await made.filled(FROM_MS, TO_MS)
        more = [m for m in made.port.moments() if m not in before]
        assert len(more) == 4  # 12 + 12 records, six a reply
        assert times(made) == list(range(FROM_MS, TO_MS, QUARTER_MS))


async def test_every_value_closes_its_due_point_as_backfilled_and_is_marked_late(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path, Gap(*HOLE), now_ms=local("07T09:07:00")) as made:
        await made.list_days(FROM_MS)
        await made.filled(FROM_MS, TO_MS)
        lines = [line for line in made.lines() if FROM_MS <= line.key.due_ms < TO_MS]
        assert len(lines) == 96
        for line in lines:
            if line.key.due_ms in IN_HOLE:
                assert (line.state, line.reason) == (DueState.OPEN, NO_RECORD)
            else:
                assert (line.state, line.reason) == (DueState.BACKFILLED, None)
        assert all(row.late and row.due_at == row.time for row in made.readings())


async def test_a_record_within_its_window_is_backfilled_and_not_late(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, now_ms=local("05T09:07:00")) as made:
        await made.list_days(FROM_MS)
        await made.filled(local("05T08:00:00"), local("05T09:06:00"))
        rows = made.readings()
        assert [row.late for row in rows] == [True] * 4 + [False]  # 15 minutes each
        served = [line for line in made.lines(IMPORT) if line.state is DueState.BACKFILLED]
        assert len(served) == 5


async def test_what_comes_for_a_closed_day_is_listed_apart_and_told_all_the_same(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path) as made:
        await made.list_days(FROM_MS)  # five days ago: closed as soon as it was written
        await made.filled(FROM_MS, TO_MS)
        lines = [line for line in made.lines(IMPORT) if FROM_MS <= line.key.due_ms < TO_MS]
        assert {(line.state, line.after_close) for line in lines} == {(DueState.MISSING, True)}
        assert all(line.read_id for line in lines)
        assert len(made.readings()) == 48


async def test_what_is_older_than_the_meters_memory_ends_with_that_reason(tmp_path: Path) -> None:
    async with fill_bench(
        tmp_path, load=LoadSettings(depth=192), now_ms=local("07T09:07:00")
    ) as made:
        await made.list_days(FROM_MS)
        await made.filled(FROM_MS, local("07T09:00:00"))
        left = [line for line in made.lines(IMPORT) if line.reason == BEFORE_MEMORY]
        assert left
        assert max(line.key.due_ms for line in left) < times(made)[0]
        assert [e.fields["reason"] for e in await made.gap_events()] == [BEFORE_MEMORY]


async def test_what_the_meter_has_not_recorded_yet_is_asked_for_the_next_time(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path, now_ms=local("05T09:07:00")) as made:
        done = await made.filled(local("05T08:00:00"), local("05T12:00:00"))
        assert [gap.reason for gap in done.progress.gaps] == [NOT_RECORDED]
        assert not await made.gap_events()
        made.clock.at_ms = local("05T13:00:00")
        await made.filled(local("05T08:00:00"), local("05T12:00:00"))
        assert times(made) == list(range(local("05T08:00:00"), local("05T12:00:00"), QUARTER_MS))


async def test_silence_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    async with fill_bench(tmp_path) as made:
        made.port.lost = {3, 6, 9}
        fill = made.fill(FROM_MS, TO_MS)
        failures = 0
        while not fill.is_done:
            try:
                await fill.step()
            except NoAnswer:
                failures += 1
        assert failures == 3
        assert times(made) == list(range(FROM_MS, TO_MS, QUARTER_MS))


async def test_a_value_that_a_later_good_register_rules_out_is_held(tmp_path: Path) -> None:
    async with fill_bench(tmp_path) as made:
        later = Reading(
            "M-1", "SP-1", IMPORT, Decimal(made.shown(TO_MS)), "kWh", TO_MS, NOW_MS,
            source=Source.PLANNED,
        )  # fmt: skip
        await made.journal.append(Birth((later,)))
        store = made.device.kept.load.store
        store.take(made.device.meter_clock, made.clock.now_ms())
        wrong_ms = local("05T16:00:00")
        kept = [
            Freeze(one.time, one.at_ms, {IMPORT: Decimal("999.99")})
            if one.at_ms == wrong_ms
            else one
            for one in store
        ]
        store.replace(kept, made.clock.now_ms())
        done = await made.filled(FROM_MS, TO_MS)
        held = [row for row in made.readings() if row.verdict == "held"]
        assert ["too_fast" in row.flags for row in held] == [True]
        assert done.progress.held == 1
        good = [row for row in made.readings() if row.verdict == "ok"]
        assert len(good) == 48  # 47 and the one that was there


async def test_a_register_above_the_next_good_one_is_held_though_nothing_is_before_it(
    tmp_path: Path,
) -> None:
    async with fill_bench(tmp_path) as made:
        low = Reading("M-1", "SP-1", IMPORT, Decimal("0.10"), "kWh", TO_MS, NOW_MS)
        await made.journal.append(Birth((low,)))
        await made.filled(FROM_MS, TO_MS)
        rows = [row for row in made.readings() if row.value != "0.10"]
        assert {row.verdict for row in rows} == {"held"}
        assert all(BEYOND_NEXT in row.flags for row in rows)


async def test_a_register_that_wrapped_on_the_way_makes_no_energy_twice(tmp_path: Path) -> None:
    async with fill_bench(tmp_path) as made:
        wraps_ms = local("05T12:00:00")
        before = Reading("M-1", "SP-1", IMPORT, Decimal("999990.00"), "kWh", FROM_MS - 1, NOW_MS)
        after = Reading("M-1", "SP-1", IMPORT, Decimal("30.00"), "kWh", TO_MS, NOW_MS)
        await made.journal.append_many([Birth((before,)), Birth((after,))])
        store = made.device.kept.load.store
        store.take(made.device.meter_clock, made.clock.now_ms())

        def shown(at_ms: int) -> Decimal:
            quarters_on = Decimal((at_ms - wraps_ms) // QUARTER_MS)
            return quarters_on / 10 if at_ms >= wraps_ms else Decimal(999_999) + quarters_on / 10

        kept = [Freeze(one.time, one.at_ms, {IMPORT: shown(one.at_ms)}) for one in store]
        store.replace(kept, made.clock.now_ms())
        await made.filled(FROM_MS, TO_MS, points=[IMPORT])
        verdicts = {from_iso(row.time): (row.verdict, row.flags) for row in made.readings()}
        assert verdicts[wraps_ms - QUARTER_MS] == ("ok", [])
        # That it wrapped was told with the later register: another event would count it again.
        assert verdicts[wraps_ms + QUARTER_MS] == ("held", ["rollover", TOLD_LATER])
        assert not await made.journal.meter_events(("rollover",))


async def test_a_live_register_is_judged_by_what_was_fetched_before_it(tmp_path: Path) -> None:
    async with fill_bench(tmp_path) as made:
        await made.filled(FROM_MS, TO_MS)
        last = made.bench.reader.last_good("M-1", IMPORT)
        assert last is not None
        assert str(last.value) == made.shown(TO_MS - QUARTER_MS)


async def test_no_value_is_null_and_is_not_asked_for_again(tmp_path: Path) -> None:
    spell = (local("05T10:00:00"), local("05T11:00:00"))
    async with fill_bench(tmp_path, Gap(*spell, effect="ff")) as made:
        await made.filled(FROM_MS, TO_MS)
        none = [row for row in made.readings() if row.value is None]
        assert len(none) == 4
        assert {row.status for row in none} == {"null"}
        asked = len(made.port.reads)
        await made.filled(FROM_MS, TO_MS)
        assert len(made.port.reads) == asked


async def test_a_record_whose_sum_is_wrong_is_kept_and_suspect(tmp_path: Path) -> None:
    async with fill_bench(tmp_path, load=LoadSettings(wrong_sum=3)) as made:
        await made.filled(FROM_MS, local("05T08:00:00"))
        assert {(row.verdict, tuple(row.flags)) for row in made.readings()} == {
            (Verdict.SUSPECT, (RECORD_CHECKSUM,))
        }


async def test_what_hung_there_before_an_exchange_is_not_the_new_meters(tmp_path: Path) -> None:
    at_ms = local("05T12:00:00")
    exchange = Event(
        "meter_exchange",
        at_ms,
        {
            "service_point": "SP-1",
            "old_meter": "M-0",
            "new_meter": "M-1",
            "new_address": "202600000017",
            "old_final": {IMPORT: "5.00", EXPORT: "1.00"},
            "new_initial": {IMPORT: "0.00", EXPORT: "0.00"},
            "by": "t",
            "reason": "r",
        },
    )
    async with fill_bench(tmp_path, events=[exchange]) as made:
        await made.filled(FROM_MS, TO_MS)
        assert min(times(made)) == at_ms


async def test_a_multiplier_is_that_of_the_instant(tmp_path: Path) -> None:
    changed = Event(
        "ratio_change",
        local("05T12:00:00"),
        {
            "service_point": "SP-1",
            "meter": "M-1",
            "ct": "40",
            "pt": "1",
            "ct_before": "20",
            "pt_before": "1",
            "by": "t",
            "reason": "r",
        },
    )
    async with fill_bench(tmp_path, events=[changed]) as made:
        await made.filled(FROM_MS, TO_MS)
        rows = made.readings()
        assert [row.multiplier for row in rows] == ["20"] * 24 + ["40"] * 24


async def test_a_meter_that_is_no_longer_in_force_is_not_asked(tmp_path: Path) -> None:
    async with fill_bench(tmp_path) as made:
        fill = made.fill(FROM_MS, TO_MS)
        await fill.step()
        asked = len(made.port.reads)
        made.registry.become(type(made.registry)([], []))
        await fill.step()
        assert fill.is_done
        assert fill.progress.ended == "configuration_changed"
        assert len(made.port.reads) == asked


async def test_a_meter_without_load_records_is_a_configuration_error(tmp_path: Path) -> None:
    old = MeterProfile(id="o", edition="dlt645-1997")
    async with fill_bench(tmp_path, profile=old) as made:
        with pytest.raises(ConfigError, match="load records"):
            await made.filled(FROM_MS, TO_MS)


async def test_powers_without_a_sign_are_not_taken_for_import(tmp_path: Path) -> None:
    unsigned = MeterProfile(id="u", signs="status_words")
    async with fill_bench(
        tmp_path, profile=unsigned, plan=plan_of(quarters(("voltage_a",)))
    ) as made:
        fill = type(made.fill(0, 1))(
            made.bench, made.meter, 1, ["voltage_a", "current_a"], FROM_MS, FROM_MS + 4 * QUARTER_MS
        )
        while not fill.is_done:
            await fill.step()
        assert len(made.readings("voltage_a")) == 4
        assert not made.readings("current_a")


async def test_records_of_thirty_minutes_serve_the_due_instants_they_are_of(tmp_path: Path) -> None:
    load = LoadSettings(intervals_min=(15, 15, 15, 30, 15, 15))
    async with fill_bench(tmp_path, load=load, now_ms=local("06T09:07:00")) as made:
        await made.list_days(FROM_MS)
        await made.filled(FROM_MS, TO_MS)
        served = [ln.key.due_ms for ln in made.lines(IMPORT) if ln.state is DueState.BACKFILLED]
        assert served == list(range(FROM_MS, TO_MS, 2 * QUARTER_MS))
