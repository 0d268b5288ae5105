"""The report of success: what it counts, what it does not judge, and that it never changes."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest

from headend.cli.main import main
from headend.domain.clock import from_iso
from headend.domain.due import DueKey, DuePoint, DueState
from headend.domain.errors import JournalDamaged, JournalError
from headend.domain.reading import Source, Status, Verdict
from headend.journal import Birth, JournalReader
from headend.journal.due_success import percent
from tests.backup.stored_databases import kept
from tests.journal.journal_kit import Bench, reading

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 3, 1)
MIDNIGHT_MS = from_iso("2026-03-01T00:00:00+08:00")
NOON_MS = from_iso("2026-03-01T12:00:00+08:00")
HOUR_MS = 3_600_000
POINT = "active_import_total"
MARKS = ("first_pass", "by_06", "by_24h", "by_72h")
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
CONFIG = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses: {street-a: {link: "tcp://127.0.0.1:4001"}}
meters:
  - {id: M-1, service_point: SP-M-1, bus: street-a, protocol: dlt645-2007,
     address: "000000000001", plan: household}
plans: {household: {daily: {at: "00:00", points: [active_import_total]}}}
"""


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "data" / "journal.db", settings={"zone": ZONE})
    made.clock.ms = NOON_MS
    return made


def due(meter="M-1", due_ms=MIDNIGHT_MS, *, bus="street-a", area="T-7", concentrator=None):
    return DuePoint(DueKey(meter, POINT, due_ms), bus, area, due_ms + HOUR_MS, concentrator)


def value(meter="M-1", due_ms=MIDNIGHT_MS, *, after_ms=60_000, number="1.00", **more):
    """A reading for an instant, received so long after it."""
    made = reading(number, meter=meter, time_ms=due_ms, due_ms=due_ms, **more)
    return Birth((replace(made, received_ms=due_ms + after_ms),))


def conforms(text, name):
    shown = json.loads(text)
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.validate(shown, schema, format_checker=jsonschema.FormatChecker())
    return shown


def report_of(bench, day=DAY, zone=ZONE):
    with JournalReader(bench.path) as reader:
        return conforms(reader.due_success(day, zone).report, "due_report")


# -- what counts


@pytest.mark.parametrize(
    ("due_ms", "after_h", "by"),
    [
        (MIDNIGHT_MS, 0.1, "by_06"),
        (MIDNIGHT_MS, 6, "by_06"),
        (MIDNIGHT_MS, 6.001, "by_24h"),
        (MIDNIGHT_MS, 24, "by_24h"),
        (MIDNIGHT_MS, 24.001, "by_72h"),
        (MIDNIGHT_MS, 72.001, None),
        (NOON_MS, 18, "by_06"),  # 06:00 of the next day
        (NOON_MS, 18.001, "by_24h"),
        (NOON_MS, 36.001, "by_72h"),
        (NOON_MS, 84.001, None),
    ],
)
async def test_a_value_counts_by_when_it_was_received(bench, due_ms, after_h, by):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due(due_ms=due_ms)])
        after_ms = int(after_h * HOUR_MS)
        await journal.append(value(due_ms=due_ms, after_ms=after_ms, late=True))
        total = report_of(bench)["total"]
    marks = MARKS[1:]
    since = len(marks) if by is None else marks.index(by)
    assert [total[mark] for mark in marks] == [int(n >= since) for n in range(len(marks))]
    assert total["late"] == 1


async def test_first_pass_is_what_the_first_try_brought_in_its_window(bench):
    async with await bench.open() as journal:
        meters = ["AT-ONCE", "AFTER-ONE", "LATE", "HELD-FIRST", "FILLED", "DEAD"]
        await journal.freeze_due(DAY, [due(m) for m in meters])
        await journal.due_failed(due("AFTER-ONE").key, "no_answer:silence")
        await journal.append(
            Birth((reading("9", meter="HELD-FIRST", due_ms=MIDNIGHT_MS, verdict=Verdict.HELD),))
        )
        for meter in ("AT-ONCE", "AFTER-ONE", "HELD-FIRST"):
            await journal.append(value(meter))
        await journal.append(value("LATE", late=True))
        await journal.append(value("FILLED", source=Source.BACKFILL))
        await journal.due_failed(due("DEAD").key, "no_answer:silence")
        await journal.due_failed(due("DEAD").key, "no_answer:dead_waiting")
        await journal.last_frozen_day()
        total = report_of(bench)["total"]
        assert (total["first_pass"], total["read"], total["late"]) == (1, 3, 1)
        assert (total["backfilled"], total["open"], total["by_06"]) == (1, 1, 5)
        with JournalReader(bench.path) as reader:
            failed = {x.key.meter: x.failed_rounds for x in reader.due_lines(DAY)}
        assert failed == dict.fromkeys(meters, 0) | {"AFTER-ONE": 1, "HELD-FIRST": 1, "DEAD": 2}


async def test_an_estimate_is_no_reading(bench):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due("M-1"), due("M-2")])
        await journal.append(value("M-1", status=Status.ESTIMATED))
        await journal.append(value("M-2"))
        total = report_of(bench)["total"]
    assert (total["estimated"], total["by_72h"], total["first_pass"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("day", "morning"),
    [
        (date(2026, 3, 28), "2026-03-29T06:00:00+02:00"),
        (date(2026, 3, 29), "2026-03-30T06:00:00+02:00"),
        (date(2026, 10, 24), "2026-10-25T06:00:00+01:00"),
        (date(2026, 10, 25), "2026-10-26T06:00:00+01:00"),
    ],
)
async def test_six_in_the_morning_is_by_the_clock_on_the_wall(bench, day, morning):
    berlin = ZoneInfo("Europe/Berlin")
    bench.settings = {"zone": berlin}
    six_ms = from_iso(morning)
    instant_ms = from_iso(f"{day}T12:00:00Z")
    async with await bench.open() as journal:
        await journal.freeze_due(day, [due("IN", instant_ms), due("OUT", instant_ms)])
        await journal.append(value("IN", instant_ms, after_ms=six_ms - instant_ms))
        await journal.append(value("OUT", instant_ms, after_ms=six_ms - instant_ms + 1))
        found = report_of(bench, day, berlin)
    assert found["total"]["by_06"] == 1
    assert from_iso(found["marks"]["due_later"]["by_06"]) == six_ms


# -- groups


async def test_small_groups_are_counted_and_not_judged(bench):
    points = [due(f"A-{n}", bus="big", area="T-1", concentrator="C-1") for n in range(20)]
    points += [due(f"B-{n}", bus="small", area=None) for n in range(19)]
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, points)
        await journal.append_many([value(f"A-{n}") for n in range(19)])
        await journal.append_many([value(f"B-{n}") for n in range(19)])
        found = report_of(bench)
    big, small = found["by_bus"]
    assert (big["bus"], big["meters"], big["frozen"], big["first_pass"]) == ("big", 20, 20, 19)
    assert big["percent"] == dict.fromkeys(MARKS, "95.00")
    assert (small["bus"], small["meters"], small["by_06"]) == ("small", 19, 19)
    assert small["percent"] is None
    assert [(g["area"], g["meters"]) for g in found["by_area"]] == [("T-1", 20), (None, 19)]
    assert [(g["concentrator"], g["meters"]) for g in found["by_concentrator"]] == [("C-1", 20)]
    assert found["total"]["percent"]["by_06"] == "97.43"


def test_a_share_that_is_not_whole_is_never_shown_as_whole():
    assert percent(99_999, 100_000) == "99.99"
    assert percent(100_000, 100_000) == "100.00"
    assert percent(0, 7) == "0.00"


async def test_dead_meters_count_and_stand_first_among_the_worst(bench):
    meters = [f"M-{n:02d}" for n in range(25)]
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due(m, at) for m in meters for at in (MIDNIGHT_MS, NOON_MS)])
        for meter in meters[2:]:
            await journal.append(value(meter))
        for meter in meters[1:24]:
            await journal.append(value(meter, NOON_MS))
        found = report_of(bench)
    assert found["total"]["frozen"] == 50
    assert found["total"]["open"] == 4
    worst = found["worst_tenth"]
    assert (worst["meters"], worst["frozen"], worst["by_72h"]) == (3, 6, 2)
    shown = [(line["meter"], line["read"], line["open"]) for line in worst["list"]]
    assert shown == [("M-00", 0, 2), ("M-01", 1, 1), ("M-24", 1, 1)]


async def test_meters_that_were_read_whole_are_not_listed_among_the_worst(bench):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due(f"M-{n}") for n in range(30)])
        await journal.append_many([value(f"M-{n}") for n in range(30)])
        worst = report_of(bench)["worst_tenth"]
    assert (worst["meters"], worst["list"], worst["not_listed"]) == (3, [], 0)


# -- for ever


async def test_a_closed_days_report_never_changes_and_what_comes_later_stands_apart(bench):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due(f"M-{n}") for n in range(3)])
        await journal.append(value("M-0"))
        await journal.close_due_day(DAY)
        with JournalReader(bench.path) as reader:
            first = reader.due_success(DAY, ZONE)
            assert reader.due_after_closing(DAY) == []
        bench.clock.ms += 24 * HOUR_MS
        (appended,) = await journal.append(
            value("M-1", after_ms=100 * HOUR_MS, source=Source.BACKFILL)
        )
        published = (await journal.read_stream("billing", 1, records_max=9)).records
        assert appended.read_id in {record.read_id for record in published}
        await journal.close_due_day(DAY)
    async with await bench.open():
        pass
    with JournalReader(bench.path) as reader:
        again = reader.due_success(DAY, ZoneInfo("UTC"))  # whatever is asked for
        (later,) = reader.due_after_closing(DAY)
    assert again == first
    assert again.is_closed
    assert again.sha256 == sha256(first.report).hexdigest()
    total = conforms(again.report, "due_report")["total"]
    assert (total["read"], total["missing"], total["open"]) == (1, 2, 0)
    assert (later.key.meter, later.state, later.read_id) == (
        "M-1", DueState.MISSING, appended.read_id,
    )  # fmt: skip
    assert later.settled_ms == MIDNIGHT_MS + 100 * HOUR_MS


async def test_the_same_list_gives_the_same_bytes(tmp_path):
    reports = []
    for order in (1, -1):
        bench = Bench(tmp_path / f"{order}.db", settings={"zone": ZONE})
        meters = [f"M-{n}" for n in range(30)][::order]
        async with await bench.open() as journal:
            await journal.freeze_due(
                DAY, [due(m, bus=f"b-{m[-1]}", area=f"T-{int(m[2:]) % 3}") for m in meters]
            )
            failed = [(due(f"M-{n}").key, "silence" if n % 2 else "port_gone") for n in range(20)]
            await journal.due_failed_many(failed[::order])
            for n in range(10, 25)[::order]:
                await journal.append(value(f"M-{n}"))
            await journal.close_due_day(DAY)
        with JournalReader(bench.path) as reader:
            reports.append(reader.due_success(DAY, ZONE).report)
    assert reports[0] == reports[1]
    found = json.loads(reports[0])
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert reports[0] == text.encode()


async def test_a_report_that_was_changed_in_the_file_is_not_shown_as_the_one_that_was_written(
    bench,
):
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due()])
        await journal.close_due_day(DAY)
    with JournalReader(bench.path) as reader:
        first = reader.due_success(DAY, ZONE)
    with closing(sqlite3.connect(bench.path)) as db, db:
        changed = first.report.replace(b'"missing":1', b'"missing":0')
        db.execute("UPDATE due_days SET success=?", (changed,))
    with JournalReader(bench.path) as reader, pytest.raises(JournalDamaged, match="2026-03-01"):
        reader.due_success(DAY, ZONE)


async def test_a_day_that_an_older_release_closed_is_told_apart(tmp_path):
    path = kept("journal")[0].lay_out(tmp_path / "journal.db")
    async with await Bench(path).open():
        pass
    with JournalReader(path) as reader:
        with pytest.raises(JournalError, match="older release"):
            reader.due_success(DAY, ZONE)
        assert reader.due_success(date(2020, 1, 1), ZONE) is None


async def test_what_an_older_release_read_does_not_count_as_the_first_pass(tmp_path):
    path = kept("journal")[0].lay_out(tmp_path / "journal.db")
    async with await Bench(path).open():
        pass
    with JournalReader(path) as reader:
        lines = {line.key.meter: line for line in reader.due_lines(DAY)}
    assert (lines["M-1"].settled_ms, lines["M-1"].failed_rounds) == (lines["M-1"].window_end_ms, 1)
    assert lines["M-2"].settled_ms is None  # late: nobody knows when


# -- the command


@pytest.fixture
async def place(bench):
    config = bench.path.parents[1] / "headend.yaml"
    config.write_text(CONFIG)
    async with await bench.open() as journal:
        await journal.freeze_due(DAY, [due(f"M-{n:02d}", bus=f"street-{n % 2}") for n in range(40)])
        await journal.append_many([value(f"M-{n:02d}") for n in range(38)])
        await journal.due_failed(due("M-39").key, "no_answer:silence")
        yield config, journal


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


async def test_the_command_shows_the_report_byte_for_byte_and_its_hash(place, bench, capsys):
    config, journal = place
    asked = ("due", "report", "--config", config, "--day", DAY)
    code, out, _ = run(capsys, *asked, "--json")
    assert code == 0
    (line,) = out.splitlines()
    assert conforms(line, "due_report")["closed_at"] is None
    await journal.close_due_day(DAY)
    await journal.append(value("M-38", after_ms=90 * HOUR_MS))
    code, out, _ = run(capsys, *asked, "--json")
    report, after = out.splitlines()
    found = conforms(after, "due_after_closing")
    assert found["sha256"] == sha256(report.encode()).hexdigest()
    assert [point["meter"] for point in found["points"]] == ["M-38"]
    assert conforms(report, "due_report")["total"]["missing"] == 2
    code, text, err = run(capsys, *asked)
    assert code == 0
    assert f"sha256 {found['sha256']}" in text
    assert "38  95.00 %" in text
    assert "1 x no_answer:silence" in text
    assert "bus street-0" in text
    assert "1 of its points were read afterwards" in err


async def test_the_command_has_nothing_to_say_of_a_day_without_a_list(place, capsys):
    config, _ = place
    code, out, err = run(capsys, "due", "report", "--config", config, "--day", "2020-01-01")
    assert (code, out) == (1, "")
    assert "2020-01-01" in err
    code, _, err = run(capsys, "due", "report", "--config", config, "--list")
    assert code == 2
    assert "two views" in err
