"""The parts without a socket: curves, words, sentences, lists, the door's rules, metrics."""

import re
import subprocess
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from status_facts import NOW_MS, ZONE, a_bus, a_meter, facts

from headend import status
from headend.bus import BusState
from headend.domain.alarms import alarm_kinds
from headend.domain.due import DueState, day_bounds_ms
from headend.domain.exchange import Outcome
from headend.domain.meter import Event
from headend.status import pages
from headend.status.access import host_is_ours
from headend.status.alarms import Alarm, clean, shown_event
from headend.status.curves import STEPS_MAX, Sample, by_hour, day_curve, draw, scale_top
from headend.status.facts import FromJournal, MeterState, StreamFacts
from headend.status.glance import glance
from headend.status.listing import PAGE_BUSES, PAGE_ROWS, Query, listing
from headend.status.metrics import REASONS_MAX, exposition
from headend.status.pages import Asked
from headend.status.words import Words, preferred, table

PACKAGE = Path(status.__file__).parent
DAY = day_bounds_ms(date(2026, 7, 1), ZONE)
QUARTER_MS = 900_000
EN, ZH = (Words(language, ZONE, NOW_MS) for language in ("en", "zh"))


def samples(values, *, every_ms=QUARTER_MS, start_ms=DAY[0]):
    return [Sample(start_ms + n * every_ms, Decimal(v)) for n, v in enumerate(values)]


# -- curves


def test_a_step_is_the_energy_between_two_readings_and_its_mean_power():
    curve = day_curve(samples(["10.00", "10.25", "10.75"]), DAY)
    assert [step.energy for step in curve.steps] == [Decimal("0.25"), Decimal("0.50")]
    assert [step.kw for step in curve.steps] == [1.0, 2.0]
    assert curve.total == Decimal("0.75")
    assert curve.peak == curve.steps[1]


def test_a_gap_is_one_step_of_its_mean_and_not_a_zero():
    found = samples(["0", "1", "2", "3", "8"])
    curve = day_curve([found[0], found[1], found[4]], DAY)
    assert [step.energy for step in curve.steps] == [1, 7]
    assert curve.steps[1].to_ms - curve.steps[1].from_ms == 3 * QUARTER_MS


def test_a_register_that_goes_back_is_a_break_and_no_negative_energy():
    curve = day_curve(samples(["100", "101", "5", "6"]), DAY)
    assert [step.energy for step in curve.steps] == [1, 1]
    assert curve.breaks == 1


def test_an_hour_without_consumption_is_a_step_of_nought_and_no_break():
    curve = day_curve(samples(["5", "5", "6"]), DAY)
    assert [step.energy for step in curve.steps] == [0, 1]
    assert curve.breaks == 0


def test_fewer_than_two_readings_are_no_curve():
    assert day_curve([], DAY).steps == ()
    assert day_curve(samples(["1"]), DAY).steps == ()
    assert day_curve([], DAY).peak is None


@given(
    st.lists(
        st.tuples(st.integers(DAY[0] - 10**6, DAY[1] + 10**6), st.integers(0, 50)), max_size=900
    )
)
def test_a_curve_is_bounded_and_loses_no_energy(points):
    at = 0
    found = []
    for time_ms, energy in sorted(points):
        at += energy
        found.append(Sample(time_ms, Decimal(at)))
    found = [s for n, s in enumerate(found) if n == 0 or s.time_ms > found[n - 1].time_ms]
    curve = day_curve(found, DAY)
    inside = [s for s in found if DAY[0] <= s.time_ms <= DAY[1]]
    assert len(curve.steps) <= STEPS_MAX + 1
    if len(inside) > 1:
        assert curve.total == inside[-1].value - inside[0].value
    hours = by_hour(curve, DAY)
    assert sum((h.energy or 0 for h in hours), Decimal(0)) == curve.total


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_days_of_other_lengths_have_their_own_hours(day, hours):
    span = day_bounds_ms(day, ZoneInfo("Europe/Berlin"))
    curve = day_curve(samples(range(200), start_ms=span[0]), span)
    assert len(by_hour(curve, span)) == hours
    assert all(hour.energy == 4 for hour in by_hour(curve, span))


def test_a_drawing_lies_within_its_picture_and_breaks_where_nothing_is_known():
    curve = day_curve(samples(["1", "2", "0", "4", "5"]), DAY)
    drawing = draw(curve, DAY, [DAY[0], DAY[1]], scale_top(4.0))
    assert drawing.line.count("M") == 2
    numbers = [float(n) for n in re.findall(r"-?[0-9.]+", drawing.line + drawing.area)]
    assert all(0 <= number <= 360 for number in numbers)


@given(st.floats(0, 1e6))
def test_a_scale_is_round_and_not_much_higher_than_its_peak(kw):
    top = scale_top(kw)
    assert top >= kw
    assert float(f"{top:.0e}") == pytest.approx(top)  # one digit
    assert kw == 0 or top <= max(2.51 * kw, 0.01)


# -- words


def test_every_word_is_there_in_both_languages_with_the_same_places():
    for name, texts in table().items():
        assert set(texts) == {"en", "zh"}, name
        places = [sorted(re.findall(r"{(\w+)}", texts[language])) for language in ("en", "zh")]
        assert places[0] == places[1], name
        assert not re.search("[\u3000-\u9fff]", texts["en"]), name


def test_every_word_that_is_asked_for_is_in_the_table_and_none_is_idle():
    text = "".join(
        path.read_text() for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("templates/*.html"))
    )
    asked = set(re.findall(r"say\(\s*\"(\w+)\"[,)]", text))
    asked |= set(re.findall(r"say\(\"(\w+)\" if", text))
    assert asked <= set(table())
    built = {
        *(f"m_{s.value}" for s in MeterState),
        *(f"b_{s.value}" for s in BusState),
        *(f"o_{o.value}" for o in Outcome),
        *(f"s_{s.value}" for s in DueState),
        *(f"v_{v}" for v in ("ok", "suspect", "held", "fail")),
        *(f"t_{s}" for s in ("writing", "retrying", "stopped")),
        *(f"sev_{s}" for s in ("critical", "warning", "notice")),
        *(f"level_{s}" for s in ("ok", "watch", "bad", "unknown")),
        *(f"d_{d}" for d in ("checksum", "parity", "end", "incomplete", "dirt", "overflow")),
        *(f"f_{f}" for f in ("late", "foreign", "unasked", "echoed")),
    }
    assert built <= set(table())
    idle = {n for n in set(table()) - built if not re.search(rf"\"{n}\"", text)}
    assert idle == set()


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr, zh-TW;q=0.5, en;q=0.4", "zh"),
        ("fr-FR", "en"),
        ("zh;q=0", "en"),
        ("zh;q=., ;;;,\x00" * 50, "en"),
    ],
)
def test_the_language_is_what_the_browser_prefers(accept, language):
    assert preferred(accept) == language


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [
        (0, "0 s", "0 秒"),
        (59.9, "59 s", "59 秒"),
        (60, "1 min", "1 分钟"),
        (3600 * 3 + 60 * 20, "3 h 20 min", "3 小时 20 分"),
        (86_400 * 2 + 3600 * 4, "2 d 4 h", "2 天 4 小时"),
    ],
)
def test_durations_are_told_in_their_two_most_telling_units(seconds, en, zh):
    assert (EN.span(seconds), ZH.span(seconds)) == (en, zh)


def test_an_instant_of_another_day_has_its_date():
    assert re.fullmatch(r"\d\d:\d\d:\d\d", EN.when(NOW_MS))
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d:\d\d", EN.when(NOW_MS - 86_400_000))
    assert EN.stamp(NOW_MS).endswith("+08:00")
    assert EN.full(NOW_MS).endswith("+08:00")


# -- sentences


def test_all_is_well_only_when_everything_is():
    assert glance(facts(), EN).headline == "All is well"
    assert {item.level for item in glance(facts(), EN).items} == {"ok"}
    assert glance(facts(), ZH).headline == "一切正常"


ALARM = Alarm("bus_down", "critical", "b1", NOW_MS - 60_000)
TROUBLES = {
    "an alarm": (replace(facts(), kept=replace(facts().kept, alarms=[ALARM])), "bad"),
    "a port": (replace(facts(), buses=[a_bus(state=BusState.GONE)]), "bad"),
    "a meter": (replace(facts(), meters=[a_meter(state=MeterState.SILENT)]), "watch"),
    "a missing value": (facts(missing=1), "watch"),
    "an overdue value": (facts(overdue=3), "watch"),
    "the broker": (facts(connected=False), "watch"),
    "a consumer": (facts(waits_s=3600), "bad"),
    "a full disk": (facts(free_bytes=1), "bad"),
    "a clock ahead": (replace(facts(), clock_away_s=7200.0), "watch"),
    "a clock behind": (replace(facts(), clock_away_s=-7200.0), "watch"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("words", [EN, ZH], ids=["en", "zh"])
def test_each_trouble_alone_is_told_first(trouble, words):
    told, level = TROUBLES[trouble]
    found = glance(told, words)
    assert found.level == level
    assert [item.level for item in found.items if item.level != "ok"] == [level]


def test_what_another_alarm_stands_for_is_no_trouble_of_its_own():
    child = replace(ALARM, name="meter_silent", subject="m", under="bus_down b1")
    told = facts()
    told = replace(told, kept=replace(told.kept, alarms=[ALARM, child]))
    assert "2" not in next(i.text for i in glance(told, EN).items if i.path == "/alarms")


def test_a_journal_that_cannot_be_read_is_not_called_well():
    told = replace(facts(), kept=FromJournal(trouble="it is away"))
    levels = {item.path: item.level for item in glance(told, EN).items}
    assert levels["/due"] == levels["/alarms"] == "unknown"


# -- the list


METERS = [a_meter(f"M-{n:04d}", bus=f"b{n % 3}") for n in range(1234)]


def test_every_meter_is_on_exactly_one_page():
    pages = listing(METERS, Query()).pages
    assert pages == -(-len(METERS) // PAGE_ROWS)
    seen = [m.id for n in range(pages) for m in listing(METERS, Query(page=n + 1)).rows]
    assert seen == [meter.id for meter in METERS]
    assert listing(METERS, Query(page=10**6)).page == pages


@given(
    st.dictionaries(
        st.sampled_from(["q", "state", "bus", "page", "other"]), st.text(max_size=99), max_size=5
    )
)
def test_any_question_is_answered_with_a_page(asked):
    found = listing(METERS, Query.of(asked))
    assert len(found.rows) <= PAGE_ROWS
    assert 1 <= found.page <= found.pages
    assert Query.of(Query.of(asked).parameters()) == replace(Query.of(asked), page=1)


def test_many_buses_come_in_pages_and_the_overview_has_those_in_trouble_first():
    buses = [replace(a_bus(), name=f"b{n:03d}") for n in range(100)]
    buses[77] = replace(a_bus(state=BusState.GONE), name="b077")
    told = replace(facts(), buses=buses)
    asked = Asked("/", {}, "en", None, None)
    shown = re.findall(r'#bus-(\d+)">(b\d+)<', pages.overview(told, asked, EN).decode())
    assert len(shown) == PAGE_BUSES
    assert shown[0] == ("78", "b077")
    assert b"All 100 buses" in pages.overview(told, asked, EN)
    seen = []
    for page in ("1", "2", "3"):
        body = pages.buses(told, replace(asked, query={"page": page}), EN).decode()
        seen += re.findall(r'<h2 id="bus-(\d+)">(b\d+)</h2>', body)
    assert seen == [(str(n + 1), f"b{n:03d}") for n in range(100)]


def test_trouble_is_every_state_in_which_a_meter_does_not_answer():
    meters = [a_meter(state.value, state=state) for state in MeterState]
    found = listing(meters, Query(state="trouble"))
    assert {meter.id for meter in found.rows} == {"failing", "silent", "no_port"}


# -- the door


@pytest.mark.parametrize(
    ("header", "bound_to", "names", "is_ours"),
    [
        ("127.0.0.1:1", "127.0.0.1", (), True),
        ("localhost", "127.0.0.1", (), True),
        ("LOCALHOST.:80", "127.0.0.1", (), True),
        ("[::1]:80", "127.0.0.1", (), True),
        ("192.0.2.1", "127.0.0.1", (), False),
        ("192.0.2.1:8080", "0.0.0.0", (), True),
        ("[2001:db8::1]", "::", (), True),
        ("evil.example", "0.0.0.0", (), False),
        ("status.example:443", "127.0.0.1", ("status.example",), True),
        (None, "127.0.0.1", (), False),
        ("", "127.0.0.1", (), False),
        ("127.0.0.1" + "0" * 300, "127.0.0.1", (), False),
    ],
)
def test_only_names_of_our_own_are_answered(header, bound_to, names, is_ours):
    assert host_is_ours(header, bound_to=bound_to, names=names) is is_ours


@given(st.text(max_size=400))
def test_a_strange_host_is_never_an_error(header):
    host_is_ours(header, bound_to="127.0.0.1")


# -- alarms, metrics


@given(st.text(max_size=3000))
def test_text_of_others_is_short_and_printable(text):
    shown = clean(text)
    assert len(shown) <= 300
    assert shown.isprintable()


def test_credentials_in_a_url_are_not_shown():
    shown = clean("cannot reach mqtts://user:p%40ss@broker:8883 nor http://tok@h/x")
    assert shown == "cannot reach mqtts://broker:8883 nor http://h/x"


def test_an_event_of_any_shape_can_be_shown():
    fields = {"alarm": "bus_down", "bus": ["a"], "x": {"y": 1}, "n": None, "t": ["q"] * 99}
    shown = shown_event(Event("alarm", 0, fields | {f"k{n}": n for n in range(99)}))
    assert len(shown.fields) <= 16
    assert all(len(value) <= 300 for value in shown.fields.values())


def told(body: bytes) -> dict[str, float]:
    lines = (line for line in body.decode().splitlines() if not line.startswith("#"))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics_stay_few_whatever_a_fleet_or_its_reasons_are():
    few = exposition(facts())
    many = replace(facts(), meters=METERS)
    today = replace(many.kept.today, by_reason={f"refused:{n}": n for n in range(500)})
    many = replace(many, kept=replace(many.kept, today=today))
    counted = told(exposition(many))
    reasons = [name for name in counted if name.startswith("headend_due_points_failed")]
    assert len(reasons) == REASONS_MAX + 1
    assert sum(counted[name] for name in reasons) == sum(range(500))
    assert len(counted) == len(told(few)) + len(reasons)


def test_hostile_names_stay_within_their_labels():
    bus = replace(a_bus(), name='x"} 1\nheadend_up 0\\')
    body = exposition(replace(facts(), buses=[bus]))
    assert told(body)["headend_up"] == 1
    done = subprocess.run(
        ["/usr/bin/promtool", "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_latency_bucket_holds_all_that_were_quicker():
    counted = told(exposition(facts()))
    values = [v for n, v in counted.items() if n.startswith("headend_bus_latency_seconds_bucket")]
    assert values == sorted(values)
    assert values[-1] == counted['headend_bus_latency_seconds_count{bus="b1"}'] == 10


def test_every_alarm_that_can_stand_is_told_with_nought():
    counted = told(exposition(facts()))
    for kind in alarm_kinds():
        if kind.stands and kind.of != "billing":
            name = f'headend_alarms_standing{{alarm="{kind.name}",severity="{kind.severity}"}}'
            assert counted[name] == 0


def test_a_consumer_without_a_backlog_waits_for_nothing():
    stream = StreamFacts("billing", 7, 7, expired=False, oldest_ms=None)
    assert stream.backlog == 0
    counted = told(exposition(facts()))
    assert counted['headend_feed_oldest_unreceipted_seconds{consumer="billing"}'] == 0
