"""A meter session against a scripted bus: real frames both ways, no line."""

import datetime as dt
from collections import defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from headend.bus.request import BusRequest, Priority
from headend.domain.clock import from_iso
from headend.domain.errors import (
    BadReply,
    DeadlinePassed,
    HeadendError,
    NoAnswer,
    PortGone,
    Refused,
)
from headend.domain.exchange import Exchange, Outcome
from headend.drivers import Dlt645Session, error_code, reading_json
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.formats import MeterTime, Value
from protocols.dlt645.frame import WAKE_UP, parse
from protocols.dlt645.items import encode
from protocols.dlt645.meter import build_refusal, build_reply, parse_read
from protocols.errors import LocalProtocolError
from protocols.framing import Match

ADDRESS = "000000000001"
ZONE = ZoneInfo("Asia/Shanghai")
T0_MS = from_iso("2026-03-01T00:00:00+08:00")

IMPORT, EXPORT, VOLTAGE = "00010000", "00020000", "02010100"
Step = bytes | Exception | Callable[[], None]


class ScriptedPort:
    """Answers each identifier with its script's next step; the last step is repeated."""

    name = "bus-1"

    def __init__(self, *, parity_seen: bool = True) -> None:
        self.parity_seen = parity_seen
        self.scripts: dict[str, deque[Step]] = defaultdict(deque)
        self.asked: list[str] = []
        self.requests: list[BusRequest] = []
        self.now_ms = T0_MS
        self.took_ms = 300

    def answer(self, di: str, *steps: Value | tuple[Value, ...] | bytes | Exception) -> None:
        for step in steps:
            if isinstance(step, bytes | Exception):
                self.scripts[di].append(step)
                continue
            values = step if isinstance(step, tuple) else (step,)
            item = lookup(di)
            assert item is not None
            self.scripts[di].append(build_reply(ADDRESS, di, encode(item, *values)))

    async def exchange(self, request: BusRequest) -> Exchange:
        frame = parse(request.payload.lstrip(WAKE_UP))
        di = parse_read(frame)
        assert di is not None
        self.asked.append(di)
        self.requests.append(request)
        script = self.scripts[di]
        step: Step = b""
        if script:
            step = script.popleft() if len(script) > 1 else script[0]
        sent_ms = self.now_ms
        self.now_ms += self.took_ms
        if isinstance(step, Exception):
            raise step
        reply = step or build_refusal(ADDRESS, 0x11, 0x02)
        found = request.match(reply)
        assert found in (Match.REPLY, Match.REFUSAL)
        outcome = Outcome.REFUSED if found is Match.REFUSAL else Outcome.REPLY
        return Exchange(
            bus=self.name,
            device=request.device,
            request=request.payload,
            reply=reply,
            sent_ms=sent_ms,
            received_ms=self.now_ms,
            took_ms=self.took_ms,
            attempt=1,
            outcome=outcome,
        )


def session(port: ScriptedPort, **options: object) -> Dlt645Session:
    chosen: dict[str, object] = {"zone": ZONE, "capacity_kw": Decimal(10), **options}
    return Dlt645Session(port, ADDRESS, **chosen)  # type: ignore[arg-type]


def silence(diagnosis: str = "silence") -> NoAnswer:
    return NoAnswer("no answer", bus="bus-1", waited_ms=900, attempts=3, diagnosis=diagnosis)


async def test_results_are_in_the_order_of_asking_whatever_the_order_of_reading() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal("12345.67"))
    port.answer(VOLTAGE, Decimal("229.4"))
    one, two = await session(port).read(["voltage_a", "active_import_total"])
    assert port.asked == [IMPORT, VOLTAGE]
    assert (one.point, one.value, one.unit) == ("voltage_a", Decimal("229.4"), "V")
    assert (two.value, two.unit, two.error) == (Decimal("12345.67"), "kWh", None)
    assert str(two.value) == "12345.67"


async def test_a_live_value_holds_for_the_midpoint_of_its_exchange() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal(1))
    (result,) = await session(port).read(["active_import_total"])
    assert result.time_ms == T0_MS + 150
    assert result.exchange is not None
    assert result.exchange.midpoint_ms == result.time_ms


async def test_a_request_carries_wake_up_bytes_priority_deadline_and_attempts() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal(1))
    meter = session(port, wakeup=2, attempts=5, timeout_s=0.7)
    await meter.read(["active_import_total"], priority=Priority.ON_DEMAND, deadline=12.5)
    (request,) = port.requests
    assert request.payload.startswith(b"\xfe\xfe\x68")
    assert request.device == ADDRESS
    assert (request.priority, request.deadline) == (Priority.ON_DEMAND, 12.5)
    assert (request.attempts, request.timeout_s) == (5, 0.7)
    assert request.reply_bytes == 20  # 68 A*6 68 C L + identifier 4 + value 4 + CS 16


async def test_no_value_is_none_and_never_zero() -> None:
    port = ScriptedPort()
    port.answer(VOLTAGE, None)
    (result,) = await session(port).read(["voltage_a"])
    assert result.value is None
    assert result.error is None
    assert result.time_ms is not None
    shown = reading_json("M-1", result)
    assert (shown["value"], shown["status"]) == (None, "null")
    assert "error" not in shown


async def test_a_refusal_is_an_error_of_its_point_alone_and_is_not_repeated() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal(1))
    port.answer(EXPORT, build_refusal(ADDRESS, 0x11, 0x02))
    refused, good = await session(port).read(["active_export_total", "active_import_total"])
    assert isinstance(refused.error, Refused)
    assert refused.error.reasons == ("no_data",)
    assert refused.value is None
    assert refused.exchange is not None
    assert good.value == 1
    assert port.asked == [IMPORT, EXPORT]


async def test_impossible_content_is_an_error_with_its_name_and_no_value() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, build_reply(ADDRESS, IMPORT, b"\x0a\x00\x00\x00"))
    port.answer(VOLTAGE, build_reply(ADDRESS, VOLTAGE, b"\x01\x02\x03"))
    digits, length = await session(port).read(["active_import_total", "voltage_a"])
    assert isinstance(digits.error, BadReply)
    assert digits.error.code == "not_bcd"
    assert ADDRESS in str(digits.error)
    assert isinstance(length.error, BadReply)
    assert length.error.code == "long_data"
    assert digits.value is length.value is None


@pytest.mark.parametrize(
    "error",
    [
        silence(),
        silence("echo_only"),
        PortGone("gone", bus="bus-1"),
        DeadlinePassed("late", bus="bus-1"),
    ],
)
async def test_once_a_meter_is_out_of_reach_its_other_points_are_not_asked(
    error: HeadendError,
) -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal(1))
    port.answer(EXPORT, error)
    results = await session(port).read(
        ["active_import_total", "active_export_total", "voltage_a", "frequency"]
    )
    assert port.asked == [IMPORT, EXPORT]
    assert results[0].value == 1
    assert [type(r.error) for r in results[1:]] == [type(error)] * 3
    assert str(results[2].error).startswith("not asked: ")
    assert results[3].attempts == 0
    assert error_code(error) == error_code(results[3].error or error)


@pytest.mark.parametrize("diagnosis", ["damaged", "foreign"])
async def test_a_damaged_reply_does_not_end_the_talk(diagnosis: str) -> None:
    port = ScriptedPort()
    port.answer(EXPORT, silence(diagnosis))
    port.answer(IMPORT, Decimal(1))
    _, good = await session(port).read(["active_export_total", "active_import_total"])
    assert good.value == 1


async def test_a_name_nobody_knows_is_told_without_touching_the_line() -> None:
    port = ScriptedPort()
    wrong, raw = await session(port).read(["active_import_totl", "di:123"])
    assert isinstance(wrong.error, LocalProtocolError)
    assert "active_import_total" in str(wrong.error)
    assert error_code(wrong.error) == "no_such_point"
    assert raw.error is not None
    assert port.asked == []


# -- the second read


async def test_where_parity_is_seen_one_read_is_enough() -> None:
    port = ScriptedPort(parity_seen=True)
    port.answer(IMPORT, Decimal(1))
    await session(port).read(["active_import_total"])
    assert port.asked == [IMPORT]


async def test_registers_and_demands_are_read_twice_where_parity_is_unseen() -> None:
    port = ScriptedPort(parity_seen=False)
    demand = (Decimal("1.2500"), MeterTime(dt.date(2026, 2, 3), dt.time(18, 30)))
    port.answer(IMPORT, Decimal("10.00"), Decimal("10.01"))
    port.answer("01010000", demand)
    port.answer(VOLTAGE, Decimal("229.4"))
    points = ["active_import_total", "demand_import_total", "voltage_a"]
    register, maximum, voltage = await session(port).read(points)
    assert port.asked == [IMPORT, IMPORT, "01010000", "01010000", VOLTAGE]
    assert register.value == Decimal("10.01")
    assert register.time_ms == T0_MS + 450  # the second read's own midpoint
    assert len(register.exchanges) == 2
    assert register.exchange is register.exchanges[1]
    assert maximum.value == Decimal("1.2500")
    assert maximum.occurred_ms == from_iso("2026-02-03T18:30:00+08:00")
    assert voltage.value == Decimal("229.4")


async def test_a_second_read_that_disagrees_is_read_again_and_then_the_good_value_counts() -> None:
    port = ScriptedPort(parity_seen=False)
    port.answer(IMPORT, Decimal("810.00"), Decimal("10.00"), Decimal("10.00"))
    (result,) = await session(port).read(["active_import_total"])
    assert result.value == Decimal("10.00")
    assert len(result.exchanges) == 3


async def test_a_damaged_digit_counts_as_a_read_that_disagrees() -> None:
    port = ScriptedPort(parity_seen=False)
    damaged = build_reply(ADDRESS, IMPORT, b"\x0a\x00\x00\x00")
    port.answer(IMPORT, Decimal("10.00"), damaged, Decimal("10.00"), Decimal("10.00"))
    (result,) = await session(port).read(["active_import_total"])
    assert result.value == Decimal("10.00")
    assert len(result.exchanges) == 4


async def test_reads_that_go_on_disagreeing_give_no_value_and_all_their_bytes() -> None:
    port = ScriptedPort(parity_seen=False)
    port.answer(IMPORT, *(Decimal(n) for n in (10, 810, 10, 810)))
    (result,) = await session(port).read(["active_import_total"])
    assert isinstance(result.error, BadReply)
    assert result.error.code == "reads_disagree"
    assert result.value is None
    assert len(result.exchanges) == 4


async def test_a_meter_that_falls_silent_between_two_reads_gives_no_value() -> None:
    port = ScriptedPort(parity_seen=False)
    port.answer(IMPORT, Decimal(10), silence())
    (result,) = await session(port).read(["active_import_total"])
    assert isinstance(result.error, NoAnswer)
    assert result.value is None


async def test_without_a_capacity_a_hundred_kilowatt_bounds_the_step() -> None:
    port = ScriptedPort(parity_seen=False)
    port.took_ms = 720  # 100 kW x 0.72 s = 0.02 kWh
    port.answer(IMPORT, Decimal("10.00"), Decimal("10.02"))
    port.answer(EXPORT, Decimal("10.00"), Decimal("10.03"), Decimal("10.03"))
    points = ["active_import_total", "active_export_total"]
    one, two = await session(port, capacity_kw=None).read(points)
    assert len(one.exchanges) == 2
    assert len(two.exchanges) == 3


async def test_the_points_to_be_read_twice_can_be_named() -> None:
    port = ScriptedPort(parity_seen=False)
    port.answer(IMPORT, Decimal(1))
    port.answer(VOLTAGE, Decimal(229))
    points = ["active_import_total", "voltage_a"]
    await session(port).read(points, twice=frozenset({"voltage_a"}))
    assert port.asked == [IMPORT, VOLTAGE, VOLTAGE]


# -- raw identifiers


async def test_a_raw_identifier_gives_what_the_catalogue_says_of_it() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal("5.00"))
    port.answer("0001FF00", (Decimal("3.00"), Decimal("1.00"), None))
    single, block = await session(port).read(["di:00010000", "di:0001ff00"])
    assert (single.point, single.value, single.unit) == ("di:00010000", Decimal("5.00"), "kWh")
    assert block.value is None
    assert block.texts == ("3.00", "1.00", None)
    assert reading_json("M", block)["values"] == ["3.00", "1.00", None]


async def test_an_identifier_nobody_knows_gives_its_bytes() -> None:
    port = ScriptedPort()
    port.answer("04FFFFFF", build_reply(ADDRESS, "04FFFFFF", b"\x12\x34"))
    (result,) = await session(port).read(["di:04FFFFFF"])
    assert result.texts == ("1234",)


# -- the clock

DATE, TIME = "04000101", "04000102"


async def test_the_clock_is_date_and_time_of_the_meters_zone() -> None:
    port = ScriptedPort()
    port.answer(DATE, dt.date(2026, 3, 1))
    port.answer(TIME, dt.time(12, 0, 7))
    (result,) = await session(port).read(["clock"])
    assert port.asked == [DATE, TIME]
    assert result.meter_time_ms == from_iso("2026-03-01T12:00:07+08:00")
    assert result.texts == ("2026-03-01T12:00:07+08:00",)
    assert result.time_ms == T0_MS + 450  # the midpoint of the exchange that brought the time


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (dt.time(23, 59, 59), "2026-03-01T23:59:59+08:00"),  # the date turned after the time
        (dt.time(0, 0, 1), "2026-03-02T00:00:01+08:00"),  # the date turned before the time
    ],
)
async def test_the_clock_is_never_a_day_off_at_midnight(time: dt.time, expected: str) -> None:
    port = ScriptedPort()
    port.answer(DATE, dt.date(2026, 3, 1), dt.date(2026, 3, 2))
    port.answer(TIME, time)
    (result,) = await session(port).read(["clock"])
    assert port.asked == [DATE, TIME, DATE]
    assert result.meter_time_ms == from_iso(expected)


# -- the daily freeze

FREEZE_TIME, FROZEN_IMPORT, FROZEN_EXPORT = "05060001", "05060101", "05060201"
MIDNIGHT = MeterTime(dt.date(2026, 3, 1), dt.time(0, 0))
BLOCK = (Decimal("100.00"), Decimal("60.00"), Decimal("40.00"))
BOTH = ["active_import_total", "active_export_total"]


async def test_a_frozen_value_is_stamped_with_the_freezes_own_time() -> None:
    port = ScriptedPort()
    port.answer(FREEZE_TIME, MIDNIGHT)
    port.answer(FROZEN_IMPORT, BLOCK)
    port.answer(FROZEN_EXPORT, Decimal("7.00"))
    points = [*BOTH, "active_import_t2"]
    total, export, tariff = await session(port).read_frozen(points)
    assert port.asked == [FREEZE_TIME, FROZEN_IMPORT, FROZEN_EXPORT, FREEZE_TIME]
    assert (total.value, export.value, tariff.value) == (100, 7, 40)
    assert total.time_ms == export.time_ms == from_iso("2026-03-01T00:00:00+08:00")
    assert total.unit == "kWh"
    assert total.exchange is not None
    assert total.exchange.sent_ms == T0_MS + 300


async def test_frozen_values_are_read_until_two_are_equal_where_parity_is_unseen() -> None:
    port = ScriptedPort(parity_seen=False)
    port.answer(FREEZE_TIME, MIDNIGHT)
    port.answer(FROZEN_IMPORT, (Decimal("100.00"),), (Decimal("100.01"),), (Decimal("100.01"),))
    (result,) = await session(port).read_frozen(["active_import_total"])
    assert result.value == Decimal("100.01")
    assert port.asked.count(FROZEN_IMPORT) == 3


async def test_a_freeze_made_while_reading_is_noticed_and_read_again() -> None:
    port = ScriptedPort()
    next_day = MeterTime(dt.date(2026, 3, 2), dt.time(0, 0))
    port.answer(FREEZE_TIME, MIDNIGHT, next_day)
    port.answer(FROZEN_IMPORT, (Decimal("100.00"),), (Decimal("120.00"),))
    (result,) = await session(port).read_frozen(["active_import_total"])
    assert result.value == Decimal("120.00")
    assert result.time_ms == from_iso("2026-03-02T00:00:00+08:00")


async def test_a_freeze_that_moves_for_ever_gives_no_value() -> None:
    port = ScriptedPort()
    days = [MeterTime(dt.date(2026, 3, n), dt.time(0, 0)) for n in range(1, 9)]
    port.answer(FREEZE_TIME, *days)
    port.answer(FROZEN_IMPORT, (Decimal("100.00"),))
    (result,) = await session(port).read_frozen(["active_import_total"])
    assert isinstance(result.error, BadReply)
    assert result.error.code == "freeze_moved"


@pytest.mark.parametrize("nothing", [b"\xff" * 5, b"\x00" * 5])
async def test_an_empty_slot_is_no_freeze_and_no_zero(nothing: bytes) -> None:
    port = ScriptedPort()
    port.answer(FREEZE_TIME, build_reply(ADDRESS, FREEZE_TIME, nothing))
    results = await session(port).read_frozen(BOTH)
    assert [error_code(r.error) for r in results if r.error] == ["no_freeze", "no_freeze"]
    assert port.asked == [FREEZE_TIME]


async def test_a_freeze_without_export_gives_the_import_all_the_same() -> None:
    port = ScriptedPort()
    port.answer(FREEZE_TIME, MIDNIGHT)
    port.answer(FROZEN_IMPORT, BLOCK)
    good, refused = await session(port).read_frozen(BOTH)
    assert good.value == 100
    assert isinstance(refused.error, Refused)


async def test_a_tariff_the_meter_does_not_have_is_named() -> None:
    port = ScriptedPort()
    port.answer(FREEZE_TIME, MIDNIGHT)
    port.answer(FROZEN_IMPORT, BLOCK)
    (result,) = await session(port).read_frozen(["active_import_t4"])
    assert result.error is not None
    assert error_code(result.error) == "not_in_freeze"


async def test_a_silent_meter_costs_one_request_for_its_whole_freeze() -> None:
    port = ScriptedPort()
    port.answer(FREEZE_TIME, silence())
    results = await session(port).read_frozen([*BOTH, "voltage_a"])
    assert port.asked == [FREEZE_TIME]
    assert [error_code(r.error) for r in results if r.error] == [
        "no_answer",
        "no_answer",
        "no_such_point",  # voltages are not frozen
    ]


async def test_silence_in_the_middle_of_a_freeze_leaves_nothing_half_believed() -> None:
    """Without the time read afterwards nobody knows which freeze the values were of."""
    port = ScriptedPort()
    port.answer(FREEZE_TIME, MIDNIGHT, silence())
    port.answer(FROZEN_IMPORT, BLOCK)
    (result,) = await session(port).read_frozen(["active_import_total"])
    assert isinstance(result.error, NoAnswer)
    assert result.value is None


async def test_a_frozen_demand_has_the_time_it_occurred() -> None:
    port = ScriptedPort()
    port.answer(FREEZE_TIME, MIDNIGHT)
    when = MeterTime(dt.date(2026, 2, 27), dt.time(19, 45))
    port.answer("05060901", (Decimal("3.1250"), when, Decimal("2.0000"), when))
    (result,) = await session(port).read_frozen(["demand_import_total"])
    assert result.value == Decimal("3.1250")
    assert result.occurred_ms == from_iso("2026-02-27T19:45:00+08:00")
    assert result.time_ms == from_iso("2026-03-01T00:00:00+08:00")


# -- as JSON


async def test_a_reading_as_json_holds_the_bytes() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, Decimal("12345.67"))
    (result,) = await session(port, wakeup=0).read(["active_import_total"])
    assert result.exchange is not None
    assert result.exchange.reply is not None
    assert reading_json("M-1", result) == {
        "schema": "reading/1",
        "meter": "M-1",
        "point": "active_import_total",
        "value": "12345.67",
        "unit": "kWh",
        "time": "2026-02-28T16:00:00.150Z",
        "received_at": "2026-02-28T16:00:00.300Z",
        "took_ms": 300,
        "attempts": 1,
        "status": "actual",
        "request": result.exchange.request.hex().upper(),
        "reply": result.exchange.reply.hex().upper(),
    }


async def test_a_failed_reading_as_json_has_an_error_and_no_value() -> None:
    port = ScriptedPort()
    port.answer(IMPORT, silence("incomplete"))
    (result,) = await session(port).read(["active_import_total"])
    shown = reading_json("M-1", result)
    assert shown["value"] is None
    assert shown["error"] == {
        "code": "no_answer",
        "message": "no answer",
        "diagnosis": "incomplete",
    }
