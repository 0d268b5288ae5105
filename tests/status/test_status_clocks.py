"""The status page and the metrics tell of clocks: the machine's own, and those of meters."""

from dataclasses import replace

from status_facts import NOW_MS, ZONE, facts

from headend.status.facts import ClockFacts, WatchFacts
from headend.status.glance import glance
from headend.status.metrics import exposition
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
