"""What is kept of a reading while nobody knows the time is all of it, and it is bounded."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest

from headend.acquisition import waiting_room
from headend.acquisition.parked import payload_of, waiting_of
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.acquisition.waiting_room import WaitingRoom, pace_s
from headend.bus import Priority
from headend.domain.exchange import Exchange, Outcome
from headend.domain.kept_clock import KeptClock
from headend.domain.meter import Meter
from headend.domain.reading import Side
from headend.drivers import PointResult
from headend.drivers.result import Doubt, Footing
from headend.journal.model import Parked

EXCHANGE = Exchange("b", "1", b"\x68", b"\x68\x16", 0, 0, 120.0, 1, Outcome.REPLY)
AT_MS = 1_780_000_000_000
METER = Meter("M-1", "SP-1", "b", "dlt645-2007", "000000000001", "p")


def result(**more: Any) -> PointResult:
    known: dict[str, Any] = {
        "point": "active_import_total", "di": "00010000", "value": Decimal("12345.60"),
        "unit": "kWh", "time_ms": AT_MS, "exchange": EXCHANGE, "attempts": 2, "error": None,
    }  # fmt: skip
    return PointResult(**(known | more))


FOOTING = Footing(Side.PRIMARY, Decimal(1), Decimal(40), Decimal("Infinity"), Decimal("0.1"))


@pytest.mark.parametrize(
    "kept",
    [
        result(),
        result(value=None),
        result(value=None, texts=("1", None, "重庆")),
        result(value=Decimal("-0.00"), occurred_ms=AT_MS - 5),
        result(point="clock", value=None, meter_time_ms=AT_MS + 900, texts=("2026",)),
        result(footing=FOOTING),
        result(footing=replace(FOOTING, applied=None), doubt=Doubt("ratio", "差", holds=True)),
    ],
)
def test_a_result_comes_back_whole_with_the_time_it_was_taken_at(kept: PointResult) -> None:
    row = Parked(7, "boot", 12.5, EXCHANGE, payload_of("M-1", [kept, kept]))
    waiting = waiting_of(row, AT_MS)
    assert (waiting.number, waiting.meter, waiting.at_ms) == (7, "M-1", AT_MS)
    for back in waiting.results:
        assert back.exchange is not None
        assert (back.exchange.sent_ms, back.exchange.received_ms) == (AT_MS - 60, AT_MS + 60)
        assert back.exchange is waiting.results[0].exchange  # one attempt, however many points
        assert str(back.value) == str(kept.value)
        assert replace(back, exchange=EXCHANGE, exchanges=()) == kept


def test_a_point_is_read_so_often_that_one_reading_serves_whatever_was_due() -> None:
    points = ("active_import_total",)
    assert pace_s(PlanEntry(points, 300_000, 900_000, interval_s=900)) == 600
    assert pace_s(PlanEntry(points, 30_000, 60_000, interval_s=60)) == 60
    assert pace_s(PlanEntry(points, 900_000, 3_600_000)) == 1800
    assert pace_s(PlanEntry(points, 500, 1000, interval_s=1)) == 10


class Held:
    """A journal that counts what waits."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    async def parked(self) -> list[str]:
        return self.rows

    async def park(self, _boot: str, _elapsed_s: float, _exchange: Exchange, payload: str) -> int:
        self.rows.append(payload)
        return len(self.rows)


class Says:
    """A session that answers at once."""

    async def read(self, points: list[str], **_how: object) -> list[PointResult]:
        return [result(point=point) for point in points]


class Machine:
    """A clock."""

    def now_ms(self) -> int:
        return AT_MS

    def monotonic(self) -> float:
        return 5.0


async def test_what_waits_is_bounded_and_what_finds_no_room_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting_room, "PARKED_MAX", 3)
    journal = Held()
    clock = KeptClock(Machine())
    clock.hold()
    room = WaitingRoom(
        cast("Any", journal),
        cast("Any", None),
        {"p": ReadPlan("p", ())},
        lambda _meter: cast("Any", Says()),
        clock,
        "boot",
    )
    for _ in range(5):
        await room.read(METER, ["active_import_total", "voltage_a"], priority=Priority.DUE)
    assert len(journal.rows) == 3  # one row an exchange
    assert (room.counts.kept, room.counts.full) == (6, 4)
    await room.rest()
    assert await room.read(METER, ["voltage_a"], priority=Priority.ON_DEMAND) == []
    await asyncio.sleep(0)
    assert len(journal.rows) == 3
