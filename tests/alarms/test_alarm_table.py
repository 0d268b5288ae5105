"""One table of every alarm: what is raised is in it, and what is in it has its section."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from headend.acquisition.outages import OURS
from headend.domain import alarms
from headend.domain.alarms import alarm_kind, alarm_kinds, episodes, happened, standing, subject_of
from headend.domain.meter import Event

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "operations-guide.md"
CHAPTER = "## What to do at each alarm"
# Calls whose argument at this place is an alarm's name.
CALLS = {
    "raise_once": 0,
    "clear_others": 0,
    "is_raised": 0,
    "_raise": 0,
    "_clear": 0,
    "_alarm": 0,
    "alarm": 0,
    "note_alarm": 1,
    "alarm_is_over": 1,
    "bad": 1,
    "good": 1,
}
# What passes a name on that came from elsewhere.
PASSED_ON = {"name", "kind", "stands.name", "str(due)", "event.fields", "alarm.name"}


def raised_names():
    """Every name of an alarm in the code, with where it stands."""
    found = {}
    for path in sorted((ROOT / "headend").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(tree):
            for value in _names_in(node, path):
                for name in _resolved(value, module):
                    found.setdefault(name, f"{path.relative_to(ROOT)}:{value.lineno}")
    return found


def _names_in(node, path):
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "alarm":
                yield value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "Notice":
            yield node.args[0]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        place = CALLS.get(node.func.attr)
        if place is not None and len(node.args) > place:
            yield node.args[place]
        elif node.func.attr in ("append", "extend") and "billing" in path.parts:
            is_alarms = isinstance(node.func.value, ast.Attribute) and (
                node.func.value.attr == "alarms"
            )
            if is_alarms:
                for inner in ast.walk(node.args[0]):
                    if isinstance(inner, ast.Tuple) and len(inner.elts) == 4:
                        yield inner.elts[1]


def _resolved(value, module):
    if isinstance(value, ast.Constant):
        return [value.value] if isinstance(value.value, str) else []
    if isinstance(value, ast.Name) and value.id.isupper():
        return [getattr(importlib.import_module(module.removesuffix(".__init__")), value.id)]
    return []


def test_every_alarm_that_is_raised_is_in_the_table():
    known = {kind.name for kind in alarm_kinds()}
    unknown = {name: where for name, where in raised_names().items() if name not in known}
    assert unknown == {}
    assert known >= OURS


def test_every_alarm_of_the_table_is_raised_somewhere():
    raised = set(raised_names()) | OURS
    assert {kind.name for kind in alarm_kinds()} - raised == set()


def test_every_alarm_has_its_section_in_the_operations_guide():
    chapter = GUIDE.read_text(encoding="utf-8").split(CHAPTER + "\n")[1].split("\n## ")[0]
    sections = re.findall(r"^### (\w+)$", chapter, re.MULTILINE)
    assert sections == [kind.name for kind in alarm_kinds()]
    for name, text in zip(sections, re.split(r"^### \w+$", chapter, flags=re.MULTILINE)[1:],
                          strict=True):  # fmt: skip
        assert len(text.split()) >= 25, f"{name}: says hardly anything"
        assert alarm_kind(name).severity in text.split("\n\n")[1], f"{name}: names no severity"


def test_the_words_are_there_in_both_languages():
    for kind in alarm_kinds():
        for text in (kind.label_en, kind.do_en):
            assert text.isascii(), kind.name
            assert text
        for text in (kind.label_zh, kind.do_zh):
            assert re.search(r"[\u4e00-\u9fff]", text), kind.name
        assert kind.label("zh") == kind.label_zh
        assert kind.advice("en") == kind.do_en
    labels = [kind.label_en for kind in alarm_kinds()]
    assert len(set(labels)) == len(labels)


def raised(name, at_ms=1000, **fields):
    return Event("alarm", at_ms, {"alarm": name, **fields})


def cleared(name, at_ms=2000, **fields):
    return Event("alarm_cleared", at_ms, {"alarm": name, **fields})


def test_what_is_raised_stands_until_it_is_cleared():
    events = [raised("bus_down", bus="a"), raised("bus_down", bus="b")]
    assert [(a.name, a.subject) for a in standing(events)] == [("bus_down", "a"), ("bus_down", "b")]
    events.append(cleared("bus_down", bus="a", count=3))
    assert [a.subject for a in standing(events)] == ["b"]
    assert standing([*events, cleared("bus_down", bus="b")]) == []


def test_raised_again_it_keeps_its_beginning_and_takes_the_news():
    events = [
        raised("journal_space", 1000, level="low"),
        raised("journal_space", 5000, level="full"),
    ]
    (alarm,) = standing(events)
    assert alarm.since_ms == 1000
    assert alarm.fields["level"] == "full"


def test_what_only_tells_something_never_stands():
    events = [raised("new_epoch", 1000), raised("new_epoch", 9000), raised("bus_down", bus="a")]
    assert [a.name for a in standing(events)] == ["bus_down"]
    assert [e.at_ms for e in happened(events)] == [9000, 1000]
    assert [e.at_ms for e in happened(events, since_ms=2000)] == [9000]


def test_the_most_severe_comes_first_and_then_the_oldest():
    events = [
        raised("meter_silent", 1, meter="m1", bus="x"),
        raised("bus_down", 3, bus="b"),
        raised("bus_down", 2, bus="a"),
        raised("timeseries_stopped", 0, database="d"),
    ]
    assert [a.subject for a in standing(events)] == ["a", "b", "d", "m1"]


def test_an_alarm_of_another_release_is_shown_as_a_warning():
    (alarm,) = standing([raised("from_the_future", thing="x")])
    assert alarm.severity == "warning"
    assert alarm.kind.label("zh") == "from_the_future"
    assert standing([raised("from_the_future"), cleared("from_the_future")]) == []


def test_other_events_are_passed_over():
    assert standing([Event("meter_exchange", 1, {"alarm": "bus_down", "bus": "a"})]) == []


@pytest.mark.parametrize(
    ("fields", "subject"),
    [({"meter": "m", "point": "p"}, "m p"), ({"meter": "m"}, "m "), ({}, " ")],
)
def test_a_subject_is_made_of_what_the_table_says(fields, subject):
    assert subject_of(raised("register_held", **fields)) == subject


def test_a_meter_and_a_bus_stand_under_the_wider_cause():
    events = [
        raised("meter_silent", meter="m1", bus="a"),
        raised("bus_down", bus="a"),
        raised("bus_down", bus="b"),
        raised("meter_silent", meter="m2", bus="c"),
    ]
    under = {f"{a.name} {a.subject}": a.under for a in standing(events)}
    assert under == {
        "bus_down a": None, "bus_down b": None,
        "meter_silent m1": "bus_down a", "meter_silent m2": None,
    }  # fmt: skip
    events.append(raised("mass_silence", buses=["a", "b"]))
    under = {f"{a.name} {a.subject}": a.under for a in standing(events)}
    assert under["bus_down a"] == under["meter_silent m1"] == "mass_silence"
    assert under["mass_silence "] is None


def test_episodes_have_a_beginning_and_an_end():
    events = [
        raised("bus_down", 1000, bus="a"),
        raised("new_epoch", 1500),
        cleared("bus_down", 2000, bus="a", count=7),
        cleared("bus_down", 2500, bus="never-raised"),
        raised("bus_down", 3000, bus="a"),
    ]
    found = [(e.name, e.since_ms, e.until_ms) for e in episodes(events)]
    assert found == [
        ("bus_down", 1000, 2000), ("new_epoch", 1500, None), ("bus_down", 3000, None)
    ]  # fmt: skip
    assert episodes(events)[0].ended["count"] == 7


def test_counts_have_every_name_that_can_stand():
    found = alarms.counts(standing([raised("bus_down", bus="a"), raised("bus_down", bus="b")]))
    assert found["bus_down", "critical"] == 2
    assert found["meter_silent", "warning"] == 0
    assert ("new_epoch", "notice") not in found
