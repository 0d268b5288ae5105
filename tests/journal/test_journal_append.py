"""What an append promises: it is kept as it was, once, under the right revision."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_kit import BILLING, BOARD, DAY_MS, NOON_MS, Bench, exchange, reading

from headend.domain.identity import content_text, read_id
from headend.domain.meter import Event
from headend.domain.reading import Side, Source, Status, Verdict
from headend.journal import Birth, JournalBusy
from headend.messages.records import EventRecord, FreezeRecord, ReadRecord


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "journal.db")


async def stream(journal, consumer="billing", from_seq=1):
    return (await journal.read_stream(consumer, from_seq, records_max=10_000)).records


async def test_a_reading_becomes_one_read_record_with_its_evidence(bench):
    async with await bench.open() as journal:
        r = reading("12345.60", due_ms=NOON_MS)
        (appended,) = await journal.append(Birth((r,)))
        content = content_text(r.value, "kWh", "actual", "ok", Decimal(1), "secondary")
        assert appended == (read_id("M-1", r.point, NOON_MS, None, 1, content), 1, True)
        found = await journal.read_stream("billing", 1, records_max=10)
        (record,) = found.records
        assert isinstance(record, ReadRecord)
        assert record.seq == 1
        assert record.value == "12345.60"
        assert record.time == "2026-03-01T12:00:00Z"
        assert record.due_at == record.time
        assert record.received_at == "2026-03-01T12:00:00.080Z"
        assert record.obis == "1.8.0" or record.obis
        (evidence,) = found.exchanges
        assert evidence.ref == record.evidence
        assert evidence.request == r.exchange.request.hex().upper()
        assert evidence.reply == r.exchange.reply.hex().upper()
        assert evidence.software == "0.1.0"


async def test_restart_keeps_everything(bench):
    births = [Birth((reading(f"{n}.00", meter=f"M-{n}"),)) for n in range(50)]
    births.append(Birth((reading("230.1", point="voltage_a", unit="V"),)))
    async with await bench.open() as journal:
        await asyncio.gather(*(journal.append(birth) for birth in births))
        await journal.append_event(Event("alarm", NOON_MS, {"alarm": "test", "n": 1}))
        await journal.receipt("billing", 7)
        before = {name: await stream(journal, name) for name in ("billing", "board")}
        cursors, epoch, bases = journal.cursors(), journal.epoch, await journal.bases()
    async with await bench.open() as journal:
        assert journal.epoch == epoch
        assert journal.cursors() == cursors
        assert await journal.bases() == bases
        assert {name: await stream(journal, name) for name in ("billing", "board")} == before
        assert len(before["billing"]) == 51
        assert len(before["board"]) == 52


async def test_equal_content_is_no_new_revision(bench):
    async with await bench.open() as journal:
        (first,) = await journal.append(Birth((reading("5.00"),)))
        (again,) = await journal.append(Birth((reading("5.0", flags=("other",)),)))
        assert again == first._replace(new=False)
        assert len(await stream(journal)) == 1


async def test_other_content_is_the_next_revision(bench):
    async with await bench.open() as journal:
        ids = []
        for value, more in (
            ("5.00", {}),
            ("5.01", {}),
            ("5.01", {"verdict": Verdict.SUSPECT}),
            ("5.01", {"verdict": Verdict.SUSPECT, "multiplier": Decimal(40)}),
            ("5.01", {"verdict": Verdict.SUSPECT, "side": Side.PRIMARY}),
            (None, {"status": Status.NULL}),
            ("5.00", {}),
        ):
            (appended,) = await journal.append(Birth((reading(value, **more),)))
            ids.append(appended)
        assert [a.revision for a in ids] == [1, 2, 3, 4, 5, 6, 7]
        assert len({a.read_id for a in ids}) == 7
        assert [r.revision for r in await stream(journal)] == [1, 2, 3, 4, 5, 6, 7]


async def test_revisions_go_on_after_a_restart_whatever_order_times_came_in(bench):
    late, early = reading("9.00", time_ms=NOON_MS), reading("8.00", time_ms=NOON_MS - 60_000)
    async with await bench.open() as journal:
        await journal.append(Birth((late,)))
    async with await bench.open() as journal:
        await journal.append(Birth((early,)))
        (same,) = await journal.append(Birth((late,)))
        assert same.revision == 1
        assert not same.new
        (changed,) = await journal.append(Birth((replace(late, value=Decimal("9.01")),)))
        assert changed.revision == 2


async def test_the_same_key_twice_in_one_group_is_found(bench):
    async with await bench.open() as journal:
        births = [Birth((reading(f"{n}"),)) for n in (1, 2, 2, 3)]
        answers = await journal.append_many(births)
        assert [a[0].revision for a in answers] == [1, 2, 2, 3]
        twice = Birth((reading("7", meter="M-2"), reading("8", meter="M-2")))
        assert [a.revision for a in await journal.append(twice)] == [1, 2]


async def test_intervals_of_other_length_are_other_readings(bench):
    async with await bench.open() as journal:
        for interval_s in (None, 900, 3600):
            (appended,) = await journal.append(Birth((reading("1.00", interval_s=interval_s),)))
            assert appended.revision == 1


async def test_born_together_travels_as_one_freeze_record(bench):
    shared = exchange()
    a = reading("1.00", exchange=shared)
    b = reading("2.50", point="active_export_total", exchange=shared)
    c = reading("3.00", point="active_import_t1", exchange=shared, verdict=Verdict.SUSPECT)
    async with await bench.open() as journal:
        answers = await journal.append(Birth((a, c, b)))
        freeze, read = await stream(journal)
        assert isinstance(freeze, FreezeRecord)
        assert freeze.values == {"active_import_total": "1.00", "active_export_total": "2.50"}
        assert isinstance(read, ReadRecord)
        assert read.point == "active_import_t1"
        assert read.read_id == answers[1].read_id
        assert (freeze.seq, read.seq) == (1, 2)
        assert freeze.evidence == read.evidence


async def test_telemetry_does_not_ride_in_a_billing_freeze(bench):
    shared = exchange()
    together = Birth((
        reading("1.00", exchange=shared),
        reading("230.1", point="voltage_a", unit="V", exchange=shared),
        reading("2.00", point="active_export_total", exchange=shared),
    ))  # fmt: skip
    async with await bench.open() as journal:
        await journal.append(together)
        (only,) = await stream(journal, "billing")
        assert set(only.values) == {"active_import_total", "active_export_total"}
        both = await stream(journal, "board")
        assert len(both) == 2
        assert both[1].evidence is None


async def test_held_is_kept_but_not_published_and_never_a_base(bench):
    async with await bench.open() as journal:
        await journal.append(Birth((reading("100.00"),)))
        zero = reading("0.00", time_ms=NOON_MS + 900_000, verdict=Verdict.HELD)
        await journal.append(Birth((zero,)))
        assert len(await stream(journal)) == 1
        assert (await journal.bases())["M-1", "active_import_total"].value == Decimal("100.00")
        good = reading("100.50", time_ms=NOON_MS + 1_800_000)
        await journal.append(Birth((good,)))
        assert len(await stream(journal)) == 2
        assert (await journal.bases())["M-1", "active_import_total"].value == Decimal("100.50")


@pytest.mark.parametrize(
    "bad",
    [
        {"verdict": Verdict.SUSPECT},
        {"verdict": Verdict.FAIL},
        {"status": Status.ESTIMATED},
        {"point": "voltage_a", "unit": "V"},
    ],
)
async def test_only_a_good_register_becomes_a_base(bench, bad):
    async with await bench.open() as journal:
        await journal.append(Birth((reading("100.00", **bad),)))
        assert await journal.bases() == {}


async def test_an_older_reading_does_not_become_the_base(bench):
    async with await bench.open() as journal:
        await journal.append(Birth((reading("100.00"),)))
        older = reading("90.00", time_ms=NOON_MS - 3 * DAY_MS, source=Source.BACKFILL)
        await journal.append(Birth((older,)))
        assert (await journal.bases())["M-1", "active_import_total"].time_ms == NOON_MS


async def test_a_base_that_turns_out_bad_gives_way_to_the_one_before(bench):
    async with await bench.open() as journal:
        await journal.append(Birth((reading("90.00", time_ms=NOON_MS - DAY_MS),)))
        await journal.append(Birth((reading("100.00"),)))
        await journal.append(Birth((reading("100.00", verdict=Verdict.FAIL),)))
        bases = await journal.bases()
        assert bases["M-1", "active_import_total"] == (Decimal("90.00"), NOON_MS - DAY_MS)
    async with await bench.open() as journal:
        assert await journal.bases() == bases


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["M-1", "M-2", "M-3"]),
            st.sampled_from(["active_import_total", "active_export_total", "voltage_a"]),
            st.integers(0, 5),
            st.decimals(0, 9, places=2),
            st.sampled_from(list(Verdict)),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 12),
)
@settings(max_examples=15, deadline=None)
async def test_streams_have_no_holes_and_memory_equals_the_file(tmp_path_factory, made, size):
    bench = Bench(tmp_path_factory.mktemp("j") / "journal.db")
    readings = [
        reading(
            str(value), meter=m, point=p, time_ms=NOON_MS + step * DAY_MS // 2, verdict=verdict,
            unit="V" if p == "voltage_a" else "kWh",
        )
        for m, p, step, value, verdict in made
    ]  # fmt: skip
    births = [Birth(tuple(readings[i : i + size])) for i in range(0, len(readings), size)]
    async with await bench.open() as journal:
        await asyncio.gather(*(journal.append(birth) for birth in births))
        await journal.append_event(Event("alarm", NOON_MS, {"list": (1, 2), "text": "终端"}))
        live = {n: await journal.read_stream(n, 1, records_max=500) for n in ("billing", "board")}
        lows = {n: await journal.read_stream(n, 1, records_max=7) for n in ("billing", "board")}
    async with await bench.open() as journal:
        for name, found in live.items():
            again = await journal.read_stream(name, 1, records_max=500)
            assert again.records == found.records
            assert again.exchanges == found.exchanges
            assert [r.seq for r in found.records] == list(range(1, len(found.records) + 1))
            assert await journal.read_stream(name, 1, records_max=7) == lows[name]
            for first in range(1, len(found.records) + 1):
                part = await journal.read_stream(name, first, records_max=3)
                assert part.records == found.records[first - 1 : first + 2]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
@settings(max_examples=60, deadline=None)
async def test_every_number_comes_back_with_its_decimals(tmp_path_factory, value):
    bench = Bench(tmp_path_factory.mktemp("j") / "journal.db")
    async with await bench.open() as journal:
        await journal.append(Birth((replace(reading(), value=value),)))
        (live,) = await stream(journal)
    async with await bench.open() as journal:
        (again,) = await stream(journal)
    assert live == again
    assert Decimal(again.value) == value
    assert again.value == format(value, "f")


async def test_what_is_no_number_is_refused_and_harms_nobody(bench):
    async with await bench.open() as journal:
        with pytest.raises(ValueError, match="NaN"):
            await journal.append(Birth((replace(reading(), value=Decimal("NaN")),)))
        await journal.append(Birth((reading(),)))


async def test_a_group_is_one_commit_and_a_lone_reading_does_not_wait(bench):
    bench.settings = {"group_gap_ms": 5, "group_wait_ms": 50}
    async with await bench.open() as journal:
        await journal.append(Birth((reading(),)))
        before = journal.statistics["commits"]
        births = [Birth((reading(meter=f"M-{n}"),)) for n in range(100)]
        await asyncio.gather(*(journal.append(birth) for birth in births))
        assert journal.statistics["commits"] - before <= 2


async def test_two_writers_of_one_journal_are_refused(bench):
    async with await bench.open():
        with pytest.raises(JournalBusy, match="another process"):
            await bench.open()
    async with await bench.open():
        pass


async def test_callers_are_woken_and_streams_carry_events_in_order(bench):
    woken = []
    async with await bench.open() as journal:
        journal.on_append(lambda: woken.append(journal.cursors()["billing"].last_seq))
        await journal.append(Birth((reading("1.00"),)))
        await journal.append_event(Event("reset", NOON_MS, {"meter": "M-1"}))
        await journal.append(Birth((reading("2.00", time_ms=NOON_MS + 1),)))
        assert woken == [1, 2, 3]
        first, event, second = await stream(journal)
        assert isinstance(event, EventRecord)
        assert (first.value, event.event, second.value) == ("1.00", "reset", "2.00")


async def test_a_consumer_configured_later_starts_with_what_comes_then(bench):
    bench.consumers = (BILLING,)
    async with await bench.open() as journal:
        await journal.append(Birth((reading("1.00"),)))
    bench.consumers = (BILLING, BOARD)
    async with await bench.open() as journal:
        assert journal.cursors()["board"].next_seq == 1
        await journal.append(Birth((reading("2.00", time_ms=NOON_MS + 1),)))
        (record,) = await stream(journal, "board")
        assert (record.seq, record.value) == (1, "2.00")
    bench.consumers = (BILLING,)
    async with await bench.open() as journal:
        assert set(journal.cursors()) == {"billing"}
        await journal.append(Birth((reading("3.00", time_ms=NOON_MS + 2),)))
    bench.consumers = (BILLING, BOARD)
    async with await bench.open() as journal:
        assert [r.value for r in await stream(journal, "board")] == ["2.00"]
        assert journal.cursors()["board"].next_seq == 2


async def test_a_clash_of_ids_is_an_alarm_and_loses_nothing(bench, monkeypatch):
    def few_ids(meter, point, time_ms, interval_s, revision, content):
        return f"{revision:032x}"

    monkeypatch.setattr("headend.journal.group.read_id", few_ids)
    async with await bench.open() as journal:
        (one,) = await journal.append(Birth((reading("1.00", meter="M-1"),)))
        (two,) = await journal.append(Birth((reading("1.00", meter="M-2"),)))
        assert one.read_id != two.read_id
        first, alarm, second = await stream(journal)
        assert (first.meter, second.meter) == ("M-1", "M-2")
        assert alarm.fields["alarm"] == "read_id_clash"


async def test_the_queue_is_bounded_and_everything_in_it_is_written(bench):
    bench.settings = {"queue_rows_max": 10}
    async with await bench.open() as journal:
        births = [Birth((reading(meter=f"M-{n}"),)) for n in range(100)]
        await asyncio.gather(*(journal.append(birth) for birth in births))
        assert journal.cursors()["billing"].last_seq == 100


async def test_a_cancelled_caller_harms_nobody(bench):
    async with await bench.open() as journal:
        task = asyncio.create_task(journal.append(Birth((reading("1.00"),))))
        await asyncio.sleep(0)
        task.cancel()
        await journal.append(Birth((reading("2.00", time_ms=NOON_MS + 1),)))
        assert journal.cursors()["billing"].last_seq in (1, 2)
