"""Due points: each ends in exactly one state, and the list of a day cannot shrink."""

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_kit import DAY_MS, NOON_MS, Bench, exchange, reading

from headend.domain.due import DueKey, DuePoint, DueState
from headend.domain.exchange import Outcome
from headend.domain.meter import Event
from headend.domain.reading import Side, Source, Status, Verdict
from headend.journal import Birth, JournalReader

DAY = date(2026, 3, 1)
POINT = "active_import_total"


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db")


def due_point(meter="M-1", due_ms=NOON_MS, bus="street-a"):
    return DuePoint(DueKey(meter, POINT, due_ms), bus, "T-7", due_ms + 60_000)


def states(bench, day=DAY):
    with JournalReader(bench.path) as reader:
        return {line.key.meter: line for line in reader.due_lines(day)}


@pytest.mark.parametrize(
    ("more", "state", "reason"),
    [
        ({}, "read", None),
        ({"source": Source.ON_DEMAND}, "read", None),
        ({"late": True}, "late", None),
        ({"source": Source.BACKFILL, "late": True}, "backfilled", None),
        ({"status": Status.ESTIMATED}, "estimated", None),
        ({"status": Status.SUBSTITUTED}, "estimated", None),
        ({"verdict": Verdict.SUSPECT}, "read", None),
        ({"verdict": Verdict.HELD}, "open", "held"),
        ({"value": None, "status": Status.NULL}, "open", "no_value"),
    ],
)
async def test_a_reading_settles_the_due_point_it_serves(bench, more, state, reason):
    async with await bench.open() as journal:
        assert await journal.freeze_due(DAY, [due_point()]) == 1
        more = dict(more)
        r = reading(more.pop("value", "1.00"), due_ms=NOON_MS, **more)
        (appended,) = await journal.append(Birth((r,)))
        line = states(bench)["M-1"]
        assert (line.state, line.reason) == (state, reason)
        assert line.read_id == (None if state == "open" else appended.read_id)
        assert (line.bus, line.area) == ("street-a", "T-7")


async def test_the_first_settlement_stands(bench):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due_point()])
        await journal.append(Birth((reading("1.00", due_ms=NOON_MS, late=True),)))
        await journal.append(
            Birth((reading("1.10", due_ms=NOON_MS, time_ms=NOON_MS + 5, source=Source.BACKFILL),))
        )
        await journal.due_failed(due_point().key, "no_answer:silence")
        await journal.bases()
        assert states(bench)["M-1"].state is DueState.LATE
        assert states(bench)["M-1"].reason is None


async def test_an_equal_reading_settles_with_the_existing_id(bench):
    async with await bench.open() as journal:
        (first,) = await journal.append(Birth((reading("1.00"),)))
        await journal.freeze_due(DAY, [due_point()])
        await journal.append(Birth((reading("1.00", due_ms=NOON_MS),)))
        assert states(bench)["M-1"].read_id == first.read_id


async def test_a_frozen_list_cannot_shrink_or_grow(bench):
    async with await bench.open() as journal:
        assert await journal.freeze_due(DAY, [due_point("M-1"), due_point("M-2")]) == 2
        assert await journal.freeze_due(DAY, [due_point("M-3")]) == 0
        assert await journal.freeze_due(DAY, []) == 0
    async with await bench.open() as journal:
        assert await journal.freeze_due(DAY, []) == 0
        assert set(states(bench)) == {"M-1", "M-2"}
        assert await journal.last_frozen_day() == DAY
        assert await journal.open_days() == [DAY]


async def test_points_belong_to_the_local_day_of_the_zone(bench):
    bench.settings = {"zone": ZoneInfo("Asia/Shanghai")}
    midnight = NOON_MS + 4 * 3_600_000  # 2026-03-02 00:00 in Shanghai
    async with await bench.open() as journal:
        with pytest.raises(ValueError, match="not due on 2026-03-01"):
            await journal.freeze_due(DAY, [due_point(due_ms=midnight)])
        assert await journal.last_frozen_day() is None
        assert await journal.freeze_due(date(2026, 3, 2), [due_point(due_ms=midnight)]) == 1
        await journal.append(Birth((reading(due_ms=midnight, time_ms=midnight),)))
        assert states(bench, date(2026, 3, 2))["M-1"].state is DueState.READ


async def test_what_is_open_at_closing_is_missing_with_its_latest_reason(bench):
    async with await bench.open() as journal:
        meters = ("M-1", "M-2", "M-3", "M-4")
        await journal.freeze_due(DAY, [due_point(m) for m in meters])
        await journal.append(Birth((reading(due_ms=NOON_MS),)))
        await journal.due_failed(due_point("M-2").key, "port_gone")
        await journal.due_failed(due_point("M-2").key, "no_answer:silence")
        held = reading("0.00", meter="M-3", due_ms=NOON_MS, verdict=Verdict.HELD)
        await journal.append(Birth((held,)))
        report = json.loads(await journal.close_due_day(DAY))
        assert report["by_reason"] == {"held": 1, "never_tried": 1, "no_answer:silence": 1}
        assert (report["frozen"], report["read"], report["missing"]) == (4, 1, 3)
        assert report["closed_at"] == "2026-03-01T12:00:00Z"
        assert report["open"] == 0
        assert {m: line.reason for m, line in states(bench).items()} == {
            "M-1": None, "M-2": "no_answer:silence", "M-3": "held", "M-4": "never_tried",
        }  # fmt: skip


async def test_a_closed_report_keeps_its_bytes_whatever_comes_later(bench):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due_point("M-1"), due_point("M-2")])
        report = await journal.close_due_day(DAY)
        bench.clock.ms += DAY_MS
        late = reading(due_ms=NOON_MS, source=Source.BACKFILL)
        (appended,) = await journal.append(Birth((late,)))
        assert await journal.close_due_day(DAY) == report
        line = states(bench)["M-1"]
        assert (line.state, line.after_close, line.read_id) == (
            DueState.MISSING, True, appended.read_id,
        )  # fmt: skip
        assert not states(bench)["M-2"].after_close
        # It is in the journal and on the feed all the same.
        assert len((await journal.read_stream("billing", 1, records_max=9)).records) == 1
    async with await bench.open() as journal:
        assert await journal.close_due_day(DAY) == report
        assert await journal.open_days() == []
    with JournalReader(bench.path) as reader:
        assert reader.due_report(DAY) == report
        assert reader.due(DAY)["after_close"] == 1


async def test_a_day_that_was_never_frozen_cannot_be_closed(bench):
    async with await bench.open() as journal:
        with pytest.raises(ValueError, match="nothing was frozen"):
            await journal.close_due_day(DAY)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4), st.sampled_from(list(Verdict)), st.booleans(),
            st.sampled_from([Source.PLANNED, Source.BACKFILL]), st.integers(0, 2),
        ),
        max_size=20,
    )
)  # fmt: skip
@settings(max_examples=15, deadline=None)
async def test_every_due_point_ends_in_exactly_one_state(tmp_path_factory, made):
    bench = Bench(tmp_path_factory.mktemp("j") / "journal.db")
    points = [due_point(f"M-{n}") for n in range(5)]
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, points)
        for n, verdict, late, source, step in made:
            r = reading(
                f"{step}.00", meter=f"M-{n}", due_ms=NOON_MS, verdict=verdict, late=late,
                source=source,
            )  # fmt: skip
            await journal.append(Birth((r,)))
            with JournalReader(bench.path) as reader:
                now = reader.due(DAY)
            assert sum(now[s.value] for s in DueState) == now["frozen"] == 5
        final = json.loads(await journal.close_due_day(DAY))
    assert final["open"] == 0
    assert sum(final[s.value] for s in DueState) == 5


async def test_every_attempt_is_kept_and_a_reading_leads_to_its_own(bench):
    before, after = exchange(1), exchange(2)
    failed = exchange(3, outcome=Outcome.SILENCE)
    async with await bench.open() as journal:
        journal.record_exchange(failed)
        journal.record_exchange(before)
        await journal.last_frozen_day()
        (one,) = await journal.append(Birth((reading("1.00", exchange=before),)))
        (two,) = await journal.append(Birth((reading("2.00", meter="M-2", exchange=after),)))
        journal.record_exchange(after)
    with JournalReader(bench.path) as reader:
        for appended, sent in ((one, before), (two, after)):
            trace = reader.trace(appended.read_id)
            assert trace.exchange.request == sent.request
            assert trace.exchange.reply == sent.reply
            assert trace.exchange.stray == sent.stray
            assert trace.exchange.outcome is Outcome.REPLY
        refs = {reader.trace(a.read_id).exchange_ref for a in (one, two)}
        assert len(refs) == 2
        rows = reader._connection.execute(
            "SELECT (SELECT count(*) FROM xb_20260301), (SELECT count(*) FROM xt_20260301)"
        ).fetchone()
    assert rows == (2, 1)


async def test_the_beginning_of_an_id_is_enough_when_one_reading_begins_so(bench):
    async with await bench.open() as journal:
        (one,) = await journal.append(Birth((reading("1.00"),)))
        (two,) = await journal.append(Birth((reading("2.00", meter="M-2"),)))
    assert one.read_id[:6] != two.read_id[:6]
    with JournalReader(bench.path) as reader:
        for appended in (one, two):
            assert reader.trace(appended.read_id[:7].upper()).stored.read_id == appended.read_id
        assert reader.trace(one.read_id[:5]) is None
        assert reader.trace("not hex") is None


# -- meter events


async def test_a_meter_event_withdraws_and_bears_again_in_one_transaction(bench):
    async with await bench.open() as journal:
        times = [NOON_MS + n * DAY_MS for n in range(4)]
        for n, time_ms in enumerate(times):
            await journal.append(Birth((reading(f"{100 + n}.00", meter="OLD", time_ms=time_ms),)))
        await journal.append(Birth((reading("7.00", meter="OTHER", time_ms=times[3]),)))
        event = Event("meter_exchange", times[2], {"old_meter": "OLD", "new_meter": "NEW"})
        moved = await journal.apply_meter_event(
            event, lambda r: (replace(r, meter="NEW"),), meter="OLD", from_ms=times[2]
        )
        assert moved == 2
        found = (await journal.read_stream("billing", 6, records_max=99)).records
        assert found[0].event == "meter_exchange"
        gone, born = found[1::2], found[2::2]  # a day at a time
        assert [(r.meter, r.value, r.status, r.revision) for r in gone] == [
            ("OLD", None, "null", 2), ("OLD", None, "null", 2),
        ]  # fmt: skip
        assert all(r.flags == ["withdrawn"] for r in gone)
        assert [(r.meter, r.value, r.revision) for r in born] == [
            ("NEW", "102.00", 1), ("NEW", "103.00", 1),
        ]  # fmt: skip
        evidence = {r.evidence for r in found[1:]}
        assert len(evidence) == 2
        bases = await journal.bases()
        assert bases["OLD", POINT] == (Decimal("101.00"), times[1])
        assert bases["NEW", POINT] == (Decimal("103.00"), times[3])
        assert [e.kind for e in await journal.meter_events()] == ["meter_exchange"]
    async with await bench.open() as journal:
        assert await journal.bases() == bases
        again = await journal.read_stream("billing", 6, records_max=99)
        assert again.records == found
        assert [e.fields["new_meter"] for e in await journal.meter_events()] == ["NEW"]


async def test_what_an_exchanged_meter_owed_its_successor_owes(bench):
    later = NOON_MS + 900_000
    async with await bench.open() as journal:
        await journal.freeze_due(
            DAY,
            [due_point("OLD", NOON_MS - 900_000), due_point("OLD"), due_point("OLD", later)],
        )
        for n, due_ms in enumerate((NOON_MS - 900_000, NOON_MS)):
            r = reading(f"{n}.00", meter="OLD", time_ms=due_ms, due_ms=due_ms)
            await journal.append(Birth((r,)))
        await journal.apply_meter_event(
            Event("meter_exchange", NOON_MS, {}),
            lambda r: (replace(r, meter="NEW"),),
            meter="OLD",
            from_ms=NOON_MS,
            successor="NEW",
        )
        assert await journal.settled_due(0) == {
            DueKey("OLD", POINT, NOON_MS - 900_000),
            DueKey("NEW", POINT, NOON_MS),
        }
    with JournalReader(bench.path) as reader:
        found = [(x.key.meter, x.state.value) for x in reader.due_lines(DAY)]
        assert found == [("OLD", "read"), ("NEW", "read"), ("NEW", "open")]
        assert reader.due(DAY)["frozen"] == 3


async def test_a_ratio_change_bears_the_same_key_again(bench):
    async with await bench.open() as journal:
        await journal.append(Birth((reading("5.00"),)))
        event = Event("ratio_change", NOON_MS, {"meter": "M-1", "ct": "40"})
        times = await journal.apply_meter_event(
            event,
            lambda r: (replace(r, multiplier=Decimal(40), side=Side.SECONDARY),),
            meter="M-1",
            from_ms=NOON_MS,
        )
        assert times == 1
        found = (await journal.read_stream("billing", 1, records_max=9)).records
        assert [getattr(r, "revision", None) for r in found] == [1, None, 2, 3]
        assert (found[-1].value, found[-1].multiplier) == ("5.00", "40")
        # Withdrawn readings are not withdrawn again.
        assert (
            await journal.apply_meter_event(event, lambda _r: (), meter="M-1", from_ms=NOON_MS) == 1
        )
        assert await journal.apply_meter_event(
            event, lambda _r: (), meter="M-1", from_ms=NOON_MS
        ) == 0  # fmt: skip


async def test_a_change_that_cannot_be_leaves_nothing_behind(bench):
    def refuse(r):
        if r.time_ms > NOON_MS:
            raise ValueError("no")
        return (replace(r, meter="NEW"),)

    async with await bench.open() as journal:
        for n in range(2):
            await journal.append(Birth((reading(f"{n}.00", time_ms=NOON_MS + n * DAY_MS),)))
        before = (await journal.read_stream("billing", 1, records_max=9)).records
        with pytest.raises(ValueError, match="no"):
            await journal.apply_meter_event(
                Event("reset", NOON_MS, {}), refuse, meter="M-1", from_ms=NOON_MS
            )
        await journal.append(Birth((reading("9.00", time_ms=NOON_MS + 9),)))
        after = (await journal.read_stream("billing", 1, records_max=9)).records
        assert after[:2] == before
        assert len(after) == 3
        assert await journal.meter_events() == []


# -- before the clock is trusted


async def test_what_waits_for_the_clock_is_born_when_it_can_be_dated(bench):
    waiting = exchange(at_ms=0)
    async with await bench.open() as journal:
        number = await journal.park("boot-1", 12.5, waiting, '{"point":"x"}')
    async with await bench.open() as journal:
        (parked,) = await journal.parked()
        assert (parked.id, parked.boot_id, parked.monotonic_s) == (number, "boot-1", 12.5)
        assert parked.payload == '{"point":"x"}'
        assert parked.exchange.request == waiting.request
        dated = replace(parked.exchange, sent_ms=NOON_MS - 150, received_ms=NOON_MS)
        await journal.adopt([parked.id], [Birth((reading(exchange=dated),))])
        assert await journal.parked() == []
        assert len((await journal.read_stream("billing", 1, records_max=9)).records) == 1
