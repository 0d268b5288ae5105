"""The Modbus session: blocks, values, refusals; what has no value never gets one."""

from decimal import Decimal

import pytest

from headend.bus import Late
from headend.domain.errors import BadReply, Busy, NoAnswer, PortGone, Refused
from headend.domain.reading import Side
from headend.drivers import ModbusSession, error_code, modbus_ask, reading_json, transaction_ids
from headend.drivers.modbus_values import place_of
from protocols.errors import LocalProtocolError
from protocols.framing import Match
from protocols.modbus.device import build_exception, parse_request
from protocols.modbus.profile import profile_from, raw_register
from tests.support.modbus_device import ACREL, SDM, Device, HandClock

IMPORT, EXPORT = "active_import_total", "active_export_total"
ONE = Decimal(1)


def session(device, **more):
    more = {"tcp": device.tcp, "clock": HandClock(), **more}
    return ModbusSession(device, 1, device.profile, **more)


def silent():
    return NoAnswer("silent", bus="b", waited_ms=1.0, attempts=3, diagnosis="silence")


async def test_points_of_one_request_share_its_exchange_and_its_instant():
    device = Device(**{IMPORT: Decimal("12345.67"), EXPORT: Decimal("0.25")})
    one, two = await session(device).read([IMPORT, EXPORT])
    assert device.asked == [(4, 0x48, 4)]
    assert (one.value, two.value) == (Decimal("12345.67"), Decimal("0.25"))
    assert one.exchange is two.exchange
    assert one.time_ms == two.time_ms == one.exchange.midpoint_ms == 1050
    assert (one.unit, one.attempts, one.error) == ("kWh", 1, None)


async def test_results_come_in_the_order_asked_with_doubles_and_unknown_names():
    device = Device(voltage_a=Decimal("230.5"), frequency=Decimal("49.98"))
    points = ["frequency", "volts_a", "voltage_a", "frequency"]
    results = await session(device).read(points)
    assert [r.point for r in results] == points
    assert [r.value for r in results] == [
        Decimal("49.98"),
        None,
        Decimal("230.5"),
        Decimal("49.98"),
    ]
    assert isinstance(results[1].error, LocalProtocolError)
    assert "'voltage_a'" in str(results[1].error)
    assert len(device.requests) == 2


async def test_power_comes_in_the_unit_of_its_point():
    device = Device(active_power_total=Decimal("-1.5"))
    (power,) = await session(device).read(["active_power_total"])
    assert (power.value, power.unit) == (Decimal("-1.5"), "kW")


async def test_a_request_says_what_its_device_needs_of_the_line():
    device = Device(voltage_a=ONE)
    await session(device, timeout_s=0.7).read(["voltage_a"], deadline=110.0, attempts=2)
    (request,) = device.requests
    assert request.device == "unit 1"
    assert (request.quiet_s, request.quiet_chars) == (SDM.turnaround_ms / 1000, 3.5)
    assert request.late is Late.ANONYMOUS
    assert (request.timeout_s, request.deadline, request.attempts) == (0.7, 110.0, 2)
    assert request.reply_bytes == 9
    assert request.after_open_s == 0


async def test_a_device_that_needs_a_pause_after_connecting_gets_it():
    profile = profile_from({**TEXT_MAP, "connect_pause_ms": 1500}, name="t")
    device = Device(profile, serial_number="A12345")
    await session(device).read(["serial_number"])
    assert device.requests[0].after_open_s == 1.5


async def test_every_tcp_request_of_a_connection_has_a_number_of_its_own():
    device = Device(tcp=True, voltage_a=ONE, frequency=ONE)
    ids = transaction_ids(65_534)
    for unit in (1, 2):
        made = ModbusSession(device, unit, SDM, tcp=True, clock=HandClock(), transactions=ids)
        await made.read(["voltage_a", "frequency"])
    assert [r.payload[:2].hex() for r in device.requests] == ["fffe", "ffff", "0000", "0001"]
    assert {r.late for r in device.requests} == {Late.NUMBERED}


async def test_raw_registers_need_no_profile():
    device = Device(voltage_a=Decimal("230.5"))
    made = ModbusSession(device, 1, None, tcp=False, clock=HandClock())
    number, hexed, named = await made.read(["reg:4:0:float32", "reg:4:0:2", "voltage_a"])
    assert number.value == Decimal("230.5")
    assert hexed.value == Decimal(0x43668000)
    assert named.error is not None
    assert number.footing is None


async def test_there_is_no_freeze():
    device = Device()
    (frozen,) = await session(device).read_frozen([IMPORT])
    assert error_code(frozen.error) == "no_freeze"
    assert device.requests == []


# -- no value


async def test_a_pattern_that_means_no_value_is_no_value_and_not_zero():
    device = Device(**{IMPORT: None})
    (result,) = await session(device).read([IMPORT])
    assert (result.value, result.error, result.texts) == (None, None, ())
    shown = reading_json("1", result)
    assert (shown["value"], shown["status"]) == (None, "null")


TEXT_MAP = {
    "id": "t", "device": "d", "kind": "meter", "function": 3,
    "registers": [
        {"point": "serial_number", "address": 0, "type": "string", "words": 4, "unit": "1"},
    ],
}  # fmt: skip


async def test_a_text_is_told_as_text_and_what_is_none_as_damage():
    profile = profile_from(TEXT_MAP, name="t")
    device = Device(profile, serial_number="A12345")
    (result,) = await session(device).read(["serial_number"])
    assert (result.value, result.texts) == (None, ("A12345",))
    device.words[0] = 0xFFFF
    (result,) = await session(device).read(["serial_number"])
    assert isinstance(result.error, BadReply)
    assert error_code(result.error) == "not_ascii"


# -- sides and steps


async def test_counters_of_the_secondary_side_stay_as_the_device_shows_them():
    device = Device(ACREL, **{IMPORT: Decimal("10.25"), "voltage_a": Decimal("57.7")})
    made = session(device, ct=Decimal(40), pt=Decimal(100))
    energy, voltage = await made.read([IMPORT, "voltage_a"])
    assert energy.value == Decimal("10.25")
    assert energy.footing.side is Side.SECONDARY
    assert energy.footing.multiplier == 4000
    assert energy.footing.limit == Decimal("42949672.96")
    assert energy.footing.count == Decimal("0.01")
    assert voltage.value == Decimal(5770)
    assert (voltage.footing.side, voltage.footing.multiplier) == (Side.PRIMARY, 1)
    assert voltage.footing.applied == 100
    shown = reading_json("1", energy)
    assert (shown["side"], shown["multiplier"]) == ("secondary", "4000")


@pytest.mark.parametrize(
    ("shown", "count"), [("100.00", "0.01"), ("70000.00", "0.01"), ("1000000.00", "0.0625")]
)
async def test_the_step_of_a_float_grows_with_its_value(shown, count):
    device = Device(**{IMPORT: Decimal(shown)})
    (result,) = await session(device).read([IMPORT])
    assert result.footing.count == Decimal(count)
    assert result.footing.limit == Decimal("Infinity")
    assert (result.footing.side, result.footing.multiplier) == (Side.PRIMARY, 1)
    assert result.footing.applied is None


@pytest.mark.parametrize(
    ("kind", "unit", "scale", "limit"),
    [
        ("uint32", "Wh", "1", "4294967.296"),
        ("int32", "kWh", "0.1", "214748364.8"),
        ("uint64", "Wh", "1", "18446744073709551.616"),
        ("uint32", "MWh", "0.001", "4294967296"),
        ("float64", "kWh", "1", "Infinity"),
    ],
)
def test_a_counter_wraps_at_its_width_times_its_scale(kind, unit, scale, limit):
    row = {"point": IMPORT, "address": 0, "type": kind, "unit": unit, "scale": scale}
    profile = profile_from({**TEXT_MAP, "registers": [row]}, name="t")
    place = place_of(profile.register(IMPORT), profile, ct=ONE, pt=ONE)
    assert place.footing.limit == Decimal(limit)


def test_a_raw_register_stands_on_nothing():
    assert place_of(raw_register("reg:3:0:2"), SDM, ct=ONE, pt=ONE).footing is None


async def test_a_zero_that_may_be_filler_is_never_a_counter_that_began_anew():
    row = {"point": IMPORT, "address": 0, "type": "uint32", "unit": "Wh"}
    tree = {**TEXT_MAP, "gaps": "ok", "filler": 0, "registers": [row]}
    device = Device(profile_from(tree, name="t"), **{IMPORT: Decimal(0)})
    made = session(device)
    (zero,) = await made.read([IMPORT])
    device.set(IMPORT, Decimal(5))
    (five,) = await made.read([IMPORT])
    assert (zero.value, zero.footing.limit) == (0, Decimal("Infinity"))
    assert five.footing.limit == Decimal("4294967.296")


# -- exceptions


@pytest.mark.parametrize(
    ("code", "name"),
    [(1, "illegal_function"), (2, "illegal_data_address"), (3, "illegal_data_value"),
     (8, "memory_parity"), (0x55, "unknown_exception")],
)  # fmt: skip
async def test_what_is_refused_for_good_is_asked_once_and_named(code, name):
    device = Device(voltage_a=ONE)
    device.script = [code]
    (result,) = await session(device).read(["voltage_a"])
    assert isinstance(result.error, Refused)
    assert result.error.reasons[0].startswith(name[:7])
    assert (result.value, error_code(result.error)) == (None, "refused")
    assert len(device.requests) == 1
    (result,) = await session(device).read(["voltage_a"])
    assert result.value == 1


async def test_a_device_failure_is_tried_once_more():
    device = Device(voltage_a=ONE)
    device.script = [4]
    (result,) = await session(device).read(["voltage_a"])
    assert (result.value, len(result.exchanges)) == (ONE, 2)
    device.script = [4, 4, 4]
    (result,) = await session(device).read(["voltage_a"])
    assert result.error.reasons == ("device_failure",)
    assert len(device.requests) == 4


@pytest.fixture
def slept(monkeypatch):
    waits = []

    async def sleep(wait_s):
        waits.append(wait_s)

    monkeypatch.setattr(modbus_ask.asyncio, "sleep", sleep)
    return waits


@pytest.mark.parametrize("code", [5, 6])
async def test_a_busy_device_is_given_time_and_then_read(code, slept):
    device = Device(voltage_a=ONE)
    device.script = [code, code, code]
    (result,) = await session(device).read(["voltage_a"])
    assert result.value == 1
    assert slept == [0.5, 1.0, 2.0]
    assert result.time_ms == 4050  # of the exchange that gave the value


async def test_a_device_that_stays_busy_is_left_alone_and_gives_no_value(slept):
    device = Device(voltage_a=ONE, frequency=ONE)
    device.script = [6] * 4
    one, two = await session(device).read(["voltage_a", "frequency"])
    assert [error_code(r.error) for r in (one, two)] == ["busy", "busy"]
    assert isinstance(one.error, Busy)
    assert len(device.requests) == 4  # the second block is not asked at all
    assert sum(slept) == 3.5
    assert (one.value, two.value) == (None, None)
    good, _ = await session(device).read(["voltage_a", "frequency"])
    assert good.value == 1


async def test_nobody_waits_for_a_busy_device_beyond_the_deadline(slept):
    device = Device(voltage_a=ONE)
    device.script = [6] * 4
    (result,) = await session(device).read(["voltage_a"], deadline=100.3)
    assert error_code(result.error) == "busy"
    assert slept == []


@pytest.mark.parametrize("code", [0x0A, 0x0B])
@pytest.mark.parametrize("tcp", [False, True])
async def test_a_gateway_that_does_not_reach_the_device_is_told_to_the_bus(code, tcp):
    device = Device(tcp=tcp, voltage_a=ONE)
    await session(device).read(["voltage_a"])
    (request,) = device.requests
    asked = parse_request(request.payload, tcp=tcp)
    assert request.match(build_exception(asked, code)) is Match.UNREACHED
    assert request.match(build_exception(asked, 4)) is Match.REFUSAL


async def test_a_register_the_device_lacks_costs_the_others_of_its_block_nothing():
    points = ["voltage_a", "voltage_b", "voltage_c", "current_a", "current_b"]
    device = Device(**dict.fromkeys(points, ONE))
    for at in (4, 5):
        del device.words[at]  # no third phase
    made = session(device)
    results = await made.read(points)
    assert [r.point for r in results if r.error is None] == [p for p in points if p != "voltage_c"]
    assert results[2].error.reasons == ("illegal_data_address",)
    first = len(device.requests)
    assert device.asked[0] == (4, 0, 10)
    # what was found out is kept: the culprit is asked alone, the others together
    results = await made.read(points)
    assert [r.error is None for r in results] == [True, True, False, True, True]
    assert len(device.requests) - first == 3
    # and when it comes after all, it is read
    device.set("voltage_c", Decimal(231))
    assert (await made.read(points))[2].value == 231


async def test_silence_ends_the_talk_and_the_line_is_spared():
    device = Device(voltage_a=ONE, frequency=ONE)
    device.script = [silent()]
    one, two = await session(device).read(["voltage_a", "frequency"])
    assert (one.error.attempts, two.error.attempts) == (3, 0)
    assert str(two.error).startswith("not asked: ")
    assert len(device.requests) == 1
    device.script = [PortGone("gone", bus="b")]
    one, two = await session(device).read(["voltage_a", "frequency"])
    assert isinstance(two.error, PortGone)


async def test_damage_of_one_block_does_not_cost_the_next():
    device = Device(voltage_a=ONE, frequency=ONE)
    device.script = [NoAnswer("x", bus="b", waited_ms=1.0, attempts=3, diagnosis="damaged")]
    one, two = await session(device).read(["voltage_a", "frequency"])
    assert one.error is not None
    assert two.value == 1
