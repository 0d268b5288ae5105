"""The status page and the metrics tell of clocks: the machine's own, and those of meters."""

from dataclasses import replace
from datetime import date

from status_facts import NOW_MS, ZONE, facts

from headend.status import pages
from headend.status.facts import ClockFacts, WatchFacts
from headend.status.glance import glance
from headend.status.metrics import exposition
from headend.status.pages import Asked
from headend.status.words import Words


def test_metrics_and_the_first_page_tell_of_clocks():
    sheet = facts()
    clock = ClockFacts(-42.0, 0.5, sheet.at_ms, "sync", -0.3, "")
    meters = [replace(sheet.meters[0], clock=clock), *sheet.meters[1:]]
    sheet = replace(sheet, meters=meters, clocks=WatchFacts(7, 1, 0), clock_away_s=0.0)
    text = exposition(sheet).decode()
    assert 'headend_meter_clocks{verdict="sync"} 1.0' in text
    assert f'headend_meter_clock_offset_max_seconds{{bus="{meters[0].bus}"}} 42.0' in text
    assert 'headend_meter_clock_measurements_total{outcome="measured"} 7.0' in text
    assert "headend_clock_trusted 1.0" in text
    sheet = replace(sheet, clock_distrusted="went_back", undated=12)
    text = exposition(sheet).decode()
    assert "headend_clock_trusted 0.0" in text
    assert "headend_undated_readings 12.0" in text
    for language, word in (("en", "behind the journal"), ("zh", "早于日志库")):
        words = Words(language, ZONE, NOW_MS)
        item = next(i for i in glance(sheet, words).items if word in i.text)
        assert item.level == "bad"
        assert "12" in item.text


def test_a_meters_page_shows_its_clock_in_both_languages():
    clock = ClockFacts(-42.04, 0.52, NOW_MS - 3_600_000, "sync", -0.31, "")
    sheet = facts()
    meter = replace(sheet.meters[0], clock=clock)
    for language, word in (("en", "s/day"), ("zh", "秒/天")):
        asked = Asked("/meter", {"id": meter.id}, language, language, None)
        words = Words(language, ZONE, NOW_MS)
        for one in (meter, replace(meter, clock=replace(clock, drift_s_per_day=None))):
            body = pages.meter(sheet, asked, words, one, None, None, date(2026, 7, 1)).decode()
            assert "-42.0 ± 0.5" in body
            assert (word in body) is (one.clock.drift_s_per_day is not None)
