"""Sessions are kept for as long as the meter is the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from headend.acquisition import sessions
from headend.acquisition.meter_reader import MeterSession
from headend.acquisition.sessions import KeptSessions
from headend.domain.meter import Meter

METER = Meter("M-1", "SP-1", "bus", "dlt645-2007", "000000000001", "plan")


def opener() -> tuple[list[Meter], Callable[[Meter], MeterSession]]:
    opened: list[Meter] = []

    def open_session(meter: Meter) -> MeterSession:
        opened.append(meter)
        return cast("MeterSession", object())

    return opened, KeptSessions(open_session)


def test_a_meter_that_is_the_same_keeps_its_session() -> None:
    opened, session_of = opener()
    assert session_of(METER) is session_of(METER) is session_of(replace(METER))
    assert opened == [METER]


def test_a_meter_with_another_address_gets_a_session_of_its_own() -> None:
    opened, session_of = opener()
    moved = replace(METER, address="000000000002")
    assert session_of(METER) is not session_of(moved)
    assert opened == [METER, moved]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_KEPT", 2)
    opened, session_of = opener()
    for number in range(5):
        session_of(replace(METER, id=f"M-{number}"))
    session_of(replace(METER, id="M-4"))
    assert len(opened) == 5
