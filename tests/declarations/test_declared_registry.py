"""The file and what was declared agree, or what was declared holds and the file is named."""

from dataclasses import replace
from decimal import Decimal

import pytest

from headend.acquisition.registry import Registry, undeclared
from headend.acquisition.rejudge import take_back
from headend.domain.lives import ADDRESS, AREA, EXCHANGE, RATIO
from headend.domain.meter import Event, Meter

HOUR = 3_600_000
OLD = Meter("M-1", "SP-1", "b", "dlt645-2007", "000000000001", "p", area="T-1", ct=Decimal(40))
WHO = {"by": "fitter", "reason": "test", "declared_at": "2026-03-01T00:00:00Z"}


def ratio(at_ms: int, before: str, after: str, meter: str = "M-1") -> Event:
    fields = {"ct_before": before, "pt_before": "1", "ct": after, "pt": "1"}
    return Event(RATIO, at_ms, {"service_point": "SP-1", "meter": meter, **fields, **WHO})


def address(at_ms: int, before: str, after: str) -> Event:
    fields = {"address_before": before, "address": after}
    return Event(ADDRESS, at_ms, {"service_point": "SP-1", "meter": "M-1", **fields, **WHO})


def exchange(at_ms: int, new_address: str = "000000000001") -> Event:
    fields = {
        "old_meter": "M-1", "new_meter": "M-2", "old_address": OLD.address,
        "new_address": new_address, "old_final": {}, "new_initial": {},
    }  # fmt: skip
    return Event(EXCHANGE, at_ms, {"service_point": "SP-1", **fields, **WHO})


@pytest.mark.parametrize("file", ["40", "60"])
def test_a_ratio_holds_whether_or_not_the_file_was_brought_up_to_date(file: str) -> None:
    registry = Registry([replace(OLD, ct=Decimal(file))], [ratio(HOUR, "40", "60")])
    assert registry.get("M-1").ct == 60
    assert registry.problems == ()


def test_a_ratio_that_was_never_declared_is_named_and_does_not_hold() -> None:
    registry = Registry([replace(OLD, ct=Decimal(75))], [ratio(HOUR, "40", "60")])
    assert registry.get("M-1").ct == 60
    (problem,) = registry.problems
    assert (problem.meter, problem.key) == ("M-1", "ct")
    assert "ct is 75 here, and 60 by what was declared" in problem.message
    assert "headend meter ratio" in problem.hint


def test_of_two_ratios_the_later_date_holds_whatever_was_declared_first() -> None:
    later, earlier = ratio(2 * HOUR, "40", "80"), ratio(HOUR, "40", "60")
    registry = Registry([OLD], [later, earlier])
    assert registry.get("M-1").ct == 80
    place = registry.lives.place("SP-1", "M-1")
    assert [place.ratio_at(t).ct for t in (0, HOUR, 2 * HOUR)] == [40, 60, 80]


def test_what_is_taken_back_leaves_the_state_before_it() -> None:
    event = ratio(HOUR, "40", "60")
    registry = Registry([OLD], [event, take_back(event, 2 * HOUR, "clerk", "wrong meter")])
    assert registry.get("M-1").ct == 40
    swapped = exchange(HOUR, "000000000002")
    registry = Registry([OLD], [swapped, take_back(swapped, 2 * HOUR, "clerk", "not yet")])
    assert [m.id for m in registry.all()] == ["M-1"]
    assert registry.get("M-1").address == OLD.address


@pytest.mark.parametrize(("file", "problems"), [("1", 0), ("2", 0), ("3", 1)])
def test_a_new_address_in_the_file_is_the_declared_one(file: str, problems: int) -> None:
    event = address(HOUR, "000000000001", "000000000002")
    registry = Registry([replace(OLD, address=file.zfill(12))], [event])
    assert registry.get("M-1").address == "000000000002"
    assert len(registry.problems) == problems


def test_the_successors_own_entry_holds_where_it_was_declared_so() -> None:
    new = replace(OLD, id="M-2", address="000000000002", plan="other")
    registry = Registry([OLD, new], [exchange(HOUR, "000000000002")])
    assert registry.all() == [new]
    wrong = replace(new, address="000000000009")
    registry = Registry([wrong], [exchange(HOUR, "000000000002")])
    assert registry.get("M-2").address == "000000000002"
    assert [p.key for p in registry.problems] == ["address"]


def test_transformers_stay_when_a_meter_is_exchanged() -> None:
    registry = Registry([OLD], [ratio(HOUR, "40", "60"), exchange(2 * HOUR)])
    assert registry.get("M-2").ct == 60
    registry = Registry([OLD], [exchange(HOUR), ratio(2 * HOUR, "40", "60", "M-2")])
    assert registry.get("M-2").ct == 60


def test_an_area_holds_from_its_date() -> None:
    fields = {"area_before": "T-1", "area": "T-9"}
    event = Event(AREA, HOUR, {"service_point": "SP-1", "meter": "M-1", **fields, **WHO})
    registry = Registry([OLD], [event])
    assert registry.get("M-1").area == "T-9"
    assert registry.lives.place("SP-1", "M-1").area_at(0) == "T-1"


def test_only_an_event_may_change_what_readings_stand_on() -> None:
    before = Registry([OLD], [])
    other = Registry([replace(OLD, ct=Decimal(60))], [])
    (problem,) = undeclared(before, other, lambda _meter: True)
    assert "ct was 40 and is 60 here, and no date says since when" in problem.message
    assert undeclared(before, other, lambda _meter: False) == []
    swapped = Registry([replace(OLD, id="M-2")], [])
    (problem,) = undeclared(before, swapped, lambda _meter: True)
    assert "headend meter exchange --old M-1 --new M-2" in problem.hint
    assert undeclared(before, Registry([OLD], []), lambda _meter: True) == []
