"""Is everything well? The facts as a few sentences, each with a level. Pure.

`watch` is something that is not as it should be and may mend itself; `bad` needs a person.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headend.bus import BusState
from headend.domain.due import DueState
from headend.domain.own_clock import NOT_SET, NOT_SYNCHRONISED, WENT_BACK
from headend.status.facts import Facts, FeedFacts, MeterState, StreamFacts
from headend.status.words import Words

Level = Literal["ok", "watch", "bad", "unknown"]
NAMES_SHOWN_MAX = 3
_DISTRUSTED = {
    NOT_SYNCHRONISED: "g_clock_not_synchronised",
    WENT_BACK: "g_clock_went_back",
    NOT_SET: "g_clock_not_set",
}
LATE_S = 600.0  # a consumer that lacks something for longer than this is told as a trouble


@dataclass(frozen=True, slots=True)
class Item:
    """One sentence: its level, what it is about, and the page that says more."""

    level: Level
    label: str
    text: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Glance:
    """All sentences, and the one above them."""

    level: Level
    headline: str
    items: tuple[Item, ...]


def glance(facts: Facts, words: Words) -> Glance:
    """The state of everything in a few sentences."""
    items = [
        _alarms(facts, words),
        _meters(facts, words),
        _ports(facts, words),
        _due(facts, words),
        _feed(facts, words),
    ]
    if facts.databases:
        items.append(_series(facts, words))
    items.append(_journal(facts, words))
    if facts.clock_distrusted is not None:
        why = words.say(_DISTRUSTED[facts.clock_distrusted])
        text = words.say("g_clock_untrusted", why=why, count=words.count(facts.undated))
        items.append(Item("bad", words.say("l_clock"), text, "/alarms"))
    elif facts.clock_away_s:
        word = "g_clock_ahead" if facts.clock_away_s > 0 else "g_clock_behind"
        text = words.say(word, span=words.span(abs(facts.clock_away_s)))
        items.append(Item("watch", words.say("l_clock"), text, "/alarms"))
    bad = sum(item.level == "bad" for item in items)
    watch = sum(item.level == "watch" for item in items)
    say = words.say
    if bad:
        level, headline = "bad", say("one_act") if bad == 1 else say("some_act", count=bad)
    elif watch:
        level, headline = "watch", say("one_look") if watch == 1 else say("some_look", count=watch)
    else:
        level, headline = "ok", say("all_well")
    return Glance(level, headline, tuple(items))  # type: ignore[arg-type]


def _alarms(facts: Facts, words: Words) -> Item:
    label, href = words.say("l_alarms"), "/alarms"
    if facts.kept.trouble is not None and not facts.kept.alarms:
        return Item("unknown", label, words.say("trouble", text=facts.kept.trouble), href)
    causes = [alarm for alarm in facts.kept.alarms if alarm.under is None]
    if not causes:
        return Item("ok", label, words.say("g_alarms_none"), href)
    first = causes[0]
    named = first.kind.label(words.language)
    if first.subject:
        named = words.say("g_alarm_named", label=named, subject=first.subject)
    level: Level = "bad" if any(a.severity != "notice" for a in causes) else "watch"
    if len(causes) == 1:
        return Item(level, label, words.say("g_alarms_one", label=named), href)
    return Item(level, label, words.say("g_alarms_some", count=len(causes), label=named), href)


def _meters(facts: Facts, words: Words) -> Item:
    label, href = words.say("l_meters"), "/meters"
    total = len(facts.meters)
    states = Counter(meter.state for meter in facts.meters)
    answering = states[MeterState.ANSWERS]
    if not total:
        return Item("unknown", label, words.say("g_meters_none"), href)
    shown = {"answering": words.count(answering), "total": words.count(total)}
    if answering == total:
        return Item("ok", label, words.say("g_meters_all", total=words.count(total)), href)
    if answering + states[MeterState.NOT_ASKED] == total:
        asked = words.count(total - states[MeterState.NOT_ASKED])
        text = words.say("g_meters_not_yet", asked=asked, total=words.count(total))
        return Item("ok" if answering else "unknown", label, text, href)
    return Item("watch", label, words.say("g_meters_some", **shown), href, {"state": "trouble"})


def _ports(facts: Facts, words: Words) -> Item:
    label, href = words.say("l_buses"), "/buses"
    total = len(facts.buses)
    shut = [bus.name for bus in facts.buses if bus.statistics.state is not BusState.OPEN]
    if not shut:
        return Item("ok", label, words.say("g_buses_all", total=total), href)
    names = ", ".join(shut[:NAMES_SHOWN_MAX]) + (" …" if len(shut) > NAMES_SHOWN_MAX else "")
    text = words.say("g_buses_some", open=total - len(shut), total=total, names=names)
    return Item("bad", label, text, href)


def _due(facts: Facts, words: Words) -> Item:
    label, href = words.say("l_due"), "/due"
    today, yesterday = facts.kept.today, facts.kept.yesterday
    if today is None or yesterday is None:
        text = words.say("trouble", text=facts.kept.trouble or "")
        return Item("unknown", label, text, href)
    missing = today.counts[DueState.MISSING] + yesterday.counts[DueState.MISSING]
    overdue = today.overdue + yesterday.overdue
    if missing:
        text = words.say("g_due_missing", missing=words.count(missing))
        return Item("watch", label, text, href)
    if overdue:
        text = words.say("g_due_overdue", overdue=words.count(overdue))
        return Item("watch", label, text, href)
    if not today.due:
        return Item("ok", label, words.say("g_due_none"), href)
    due, valued = words.count(today.due), words.count(today.valued)
    if today.valued == today.due:
        return Item("ok", label, words.say("g_due_all", due=due), href)
    return Item("ok", label, words.say("g_due_some", due=due, valued=valued), href)


def _feed(facts: Facts, words: Words) -> Item:
    label, href, feed = words.say("l_feed"), "/delivery", facts.feed
    if feed is None:
        return Item("ok", label, words.say("g_feed_none"), href)
    behind = _most_behind(feed.streams)
    if not feed.connected:
        text = words.say("g_feed_away", when=words.when(feed.since_ms))
        return Item(_away_level(facts, feed, behind), label, text, href)
    if not feed.streams:
        return Item("ok", label, words.say("g_feed_no_consumers"), href)
    if behind is None:
        return Item("ok", label, words.say("g_feed_all"), href)
    backlog = words.count(behind.backlog)
    waited_s = _waited_s(facts, behind)
    if behind.oldest_ms is not None and waited_s <= LATE_S:
        when = words.when(behind.oldest_ms)
        text = words.say("g_feed_to", when=when, name=behind.name, backlog=backlog)
        return Item("ok", label, text, href)
    text = words.say("g_feed_behind", name=behind.name, backlog=backlog, age=words.span(waited_s))
    return Item("bad" if waited_s > LATE_S else "watch", label, text, href)


def _away_level(facts: Facts, feed: FeedFacts, behind: StreamFacts | None) -> Level:
    """A broker that is away is looked at; it needs a person when readings wait for long."""
    late = behind is not None and _waited_s(facts, behind) > LATE_S
    return "bad" if late and facts.at_ms - feed.since_ms > LATE_S * 1000 else "watch"


def _most_behind(streams: Sequence[StreamFacts]) -> StreamFacts | None:
    """The consumer whose oldest record waits longest."""
    waiting = [stream for stream in streams if stream.backlog]
    return min(waiting, key=lambda s: (s.oldest_ms is None, s.oldest_ms or 0), default=None)


def _waited_s(facts: Facts, stream: StreamFacts) -> float:
    return 0.0 if stream.oldest_ms is None else max(0.0, (facts.at_ms - stream.oldest_ms) / 1000)


def _series(facts: Facts, words: Words) -> Item:
    label, href = words.say("l_series"), "/delivery"
    stopped = next((d for d in facts.databases if d.state == "stopped"), None)
    if stopped is not None:
        return Item("bad", label, words.say("g_series_stopped", name=stopped.name), href)
    slow = max(facts.databases, key=lambda database: database.lag_s)
    away = next((d for d in facts.databases if d.state == "retrying"), None)
    if away is not None:
        backlog = words.count(away.backlog)
        text = words.say("g_series_away", name=away.name, backlog=backlog)
        return Item("watch", label, text, href)
    if slow.lag_s > LATE_S:
        text = words.say("g_series_behind", name=slow.name, age=words.span(slow.lag_s))
        return Item("watch", label, text, href)
    return Item("ok", label, words.say("g_series_all", total=len(facts.databases)), href)


def _journal(facts: Facts, words: Words) -> Item:
    label, href, journal = words.say("l_journal"), "/delivery", facts.journal
    free = words.bytes(journal.free_bytes)
    if journal.free_bytes < journal.reserve_telemetry_bytes:
        is_full = journal.free_bytes < journal.reserve_billing_bytes
        refused = words.say("g_low_all" if is_full else "g_low_telemetry")
        return Item("bad", label, words.say("g_journal_low", free=free, refused=refused), href)
    if journal.append_age_s is None:
        return Item("ok", label, words.say("g_journal_new", free=free), href)
    age = words.span(journal.append_age_s)
    return Item("ok", label, words.say("g_journal_ok", age=age, free=free), href)
