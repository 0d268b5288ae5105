"""Meters' clocks measured, judged, set and marked: against simulated meters, in compressed time."""

import json
from pathlib import Path

import jsonschema
import pytest
from clock_bench import BAUD, DAY_S, clock_story, local_ms

from headend.control.clock import Place
from headend.domain.clock import iso
from tests.support.waiting import eventually

WRONG = "meter_clock_wrong"
FEED = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "feed.schema.json").read_text("utf-8")
)


def as_the_feed_tells_it(event):
    """The event's record keeps to the feed's schema."""
    record = {"kind": "event", "seq": 1, "event": event.kind, "at": iso(event.at_ms)}
    schema = {"$defs": FEED["$defs"], "$ref": "#/$defs/event_record"}
    jsonschema.validate(record | event.fields, schema)


@pytest.mark.parametrize(
    ("start", "error_ms"),
    [
        ("2026-03-10T23:59:50", 0),  # looks fall on 23:59:58 and around
        ("2026-03-10T23:59:50", 3_000),
        ("2026-03-10T23:59:54", -3_000),
        ("2026-03-10T13:59:50", 2_000),  # at the hour
        ("2026-03-10T10:20:00", 86_400_000),  # the date is one day off
        ("2026-03-10T23:59:50", -86_400_000),
        ("2026-02-28T23:59:50", 0),
        ("2026-12-31T23:59:50", 3_000),
    ],
)
def test_an_offset_is_right_at_midnight_at_the_hour_and_with_another_date(
    tmp_path, start, error_ms
):
    async def story(bench):
        bench.put(error_ms)
        await bench.measured(6, now=True)
        return bench.kept

    kept = clock_story(tmp_path, story, start=start, policy="leave")
    (rows,) = kept.rows.values()
    for row in rows:
        assert abs(row.offset_ms - error_ms) <= row.uncertainty_ms + 2
        assert row.uncertainty_ms < 600
        assert not row.began
    assert not kept.told("clock_jump")


def test_a_meter_that_answers_after_900_ms_is_measured_right_and_left_alone(tmp_path):
    async def story(bench):
        bench.device().add_fault_text("late_reply:delay_ms=860", 1)
        bench.put(1_500)
        await bench.measured(6, now=True)
        return bench.kept

    kept = clock_story(tmp_path, story, timeout_ms=2000)
    for row in kept.rows["M-00001"]:
        assert abs(row.offset_ms - 1_500) <= row.uncertainty_ms
        assert row.uncertainty_ms < 1100
    assert kept.events == []


def test_drift_is_measured_over_days_and_over_restarts_and_nobody_is_called(tmp_path):
    async def story(bench):
        bench.put(0, drift_ppm=20)  # 1.728 s a day
        await bench.measured(4)
        bench.watch = again = bench.watching()
        (clock,) = again.clocks.values()
        assert len(clock.history) == 4
        assert clock.next_ms > bench.loop.now_ms()
        return bench.kept, clock.drift

    kept, drift = clock_story(tmp_path, story, leave_s=60)
    assert drift.ms_per_day == pytest.approx(1728, abs=250)
    assert kept.events == []


def test_a_wrong_clock_is_measured_twice_before_it_is_set_and_read_back(tmp_path):
    async def story(bench):
        bench.put(42_000)
        clock = await bench.measured()
        assert bench.off_ms() == 42_000
        assert 0 < clock.next_ms - bench.loop.now_ms() <= 900_000
        await eventually(lambda: bench.watch.set, timeout_s=DAY_S, every_s=60)
        assert abs(bench.off_ms()) < 1000
        return bench.kept, json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[0])

    kept, intent = clock_story(tmp_path, story)
    assert [row.began for row in kept.rows["M-00001"]] == [False, False, True]
    assert abs(kept.rows["M-00001"][-1].offset_ms) < 1500
    (jump,) = kept.told("clock_jump")
    as_the_feed_tells_it(jump)
    assert float(jump.fields["before_s"]) == pytest.approx(42, abs=1)
    assert float(jump.fields["after_s"]) == pytest.approx(0, abs=1)
    assert (jump.fields["by"], intent["by"]) == ("headend", "headend")
    assert "+42" in intent["reason"] or "+41" in intent["reason"]
    assert kept.told("alarm", WRONG) == []


@pytest.mark.parametrize("at", ["23:50:00", "13:56:30"])
def test_a_clock_is_not_set_near_midnight_or_the_hour_but_afterwards(tmp_path, at):
    async def story(bench):
        bench.put(42_000)
        await bench.measured(2, now=True)
        assert bench.off_ms() == 42_000
        assert "too close" in bench.known().message
        await eventually(lambda: bench.watch.set, timeout_s=DAY_S, every_s=60)
        return bench.loop.now_ms()

    set_ms = clock_story(tmp_path, story, start=f"2026-03-10T{at}")
    since_ms = set_ms - local_ms("2026-03-10T00:00:00")
    assert 300_000 < since_ms % 3_600_000 < 3_300_000


def test_with_control_off_a_clock_that_is_to_be_set_calls_a_person_once(tmp_path):
    async def story(bench):
        bench.put(42_000)
        await bench.measured(5, now=True)
        return bench.kept, bench.off_ms(), (tmp_path / "audit.jsonl").exists()

    kept, off_ms, audited = clock_story(tmp_path, story, enabled=False)
    (alarm,) = kept.told("alarm", WRONG)
    assert "control is off" in alarm.fields["message"]
    assert float(alarm.fields["offset_s"]) == pytest.approx(42, abs=1)
    assert off_ms == 42_000
    assert not audited


def test_a_clock_that_somebody_else_has_set_is_seen_and_clears_its_alarm(tmp_path):
    async def story(bench):
        bench.put(42_000)
        await bench.measured(3, now=True)
        bench.put(0)
        await bench.measured(4, now=True)
        return bench.kept

    kept = clock_story(tmp_path, story, policy="ticket")
    assert len(kept.told("alarm", WRONG)) == len(kept.told("alarm_cleared", WRONG)) == 1
    (jump,) = kept.told("clock_jump")
    as_the_feed_tells_it(jump)
    assert jump.fields["by"] is None
    assert jump.fields["since"] < "2026-03-12"
    assert float(jump.fields["before_s"]) == pytest.approx(42, abs=1)
    assert float(jump.fields["after_s"]) == pytest.approx(0, abs=1)


def test_the_policy_leave_calls_nobody_for_seconds_but_for_a_wrong_date(tmp_path):
    async def story(bench):
        bench.put(42_000)
        bench.put(-86_400_000, number=2)
        await bench.measured(3, now=True)
        await bench.measured(3, number=2, now=True)
        return bench.kept, bench.off_ms(2)

    kept, off_ms = clock_story(tmp_path, story, policy="leave", each=2)
    assert [alarm.fields["meter"] for alarm in kept.told("alarm", WRONG)] == ["M-00002"]
    assert off_ms == -86_400_000


def test_a_wrong_date_is_never_set_by_itself(tmp_path):
    async def story(bench):
        bench.put(86_400_000)
        await bench.measured(3, now=True)
        return bench.kept, bench.off_ms()

    kept, off_ms = clock_story(tmp_path, story)
    assert off_ms == 86_400_000
    assert len(kept.told("alarm", WRONG)) == 1


def test_most_meters_off_alike_are_not_set_by_a_clock_of_ours_that_is_wrong(tmp_path):
    async def story(bench):
        for number in range(1, 9):
            bench.put(60_000, number=number)
        for number in range(1, 9):
            await bench.measured(2, number=number)
        return bench.kept, [bench.off_ms(number) for number in range(1, 9)]

    kept, offsets = clock_story(tmp_path, story, each=8)
    assert set(offsets) == {60_000}
    reasons = [alarm.fields["message"] for alarm in kept.told("alarm", WRONG)]
    assert any("the head-end's own clock" in reason for reason in reasons)


def test_a_password_that_is_refused_is_told_and_not_tried_again(tmp_path):
    async def story(bench):
        bench.put(42_000)
        await bench.measured(5, now=True)
        return bench.kept, bench.off_ms()

    kept, off_ms = clock_story(tmp_path, story, password="04 123456")
    assert off_ms == 42_000
    assert len(kept.told("alarm", WRONG)) == 1
    lines = [json.loads(text) for text in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines if line["what"] == "outcome"] == ["password_refused"]


def test_a_broadcast_time_that_meters_pass_over_is_seen_by_reading_back(tmp_path):
    async def story(bench):
        bench.put(42_000)
        bench.put(400_000, number=2)
        places = [
            Place(meter, bench.sessions[meter.id], bench.bus, 4, 11 / BAUD)
            for meter in bench.meters
        ]
        return await bench.control.broadcast(places, by="li", reason="monthly")

    outcomes = clock_story(tmp_path, story, each=2, watching=False)
    assert [(o.meter, o.outcome) for o in outcomes] == [("M-00001", "set"), ("M-00002", "not_set")]


def test_a_silent_meter_is_asked_again_later_and_stops_no_other(tmp_path):
    async def story(bench):
        bench.device().add_fault_text("silent", 1)
        await bench.measured(2, number=2)
        assert bench.known().error
        assert bench.known().history == []
        bench.device().clear_faults()
        await bench.measured()
        assert bench.known().error is None

    clock_story(tmp_path, story, each=2)


def test_a_second_broadcast_on_one_day_is_passed_over_and_told(tmp_path):
    async def story(bench):
        place = Place(bench.meters[0], bench.sessions["M-00001"], bench.bus, 4, 11 / BAUD)
        outcomes = []
        for _ in range(2):
            bench.put(42_000)
            outcomes += await bench.control.broadcast([place], by="li", reason="monthly")
        return outcomes, bench.off_ms()

    (first, second), off_ms = clock_story(tmp_path, story, watching=False)
    assert (first.outcome, second.outcome) == ("set", "not_set")
    assert off_ms == 42_000
