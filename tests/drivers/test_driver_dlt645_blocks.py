"""Blocks, what a meter refuses, follow-up frames, both editions, and models that do otherwise."""

from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml

from headend.bus import Priority
from headend.bus.request import BusRequest
from headend.domain.clock import from_iso
from headend.domain.errors import BadReply, NoAnswer, Refused
from headend.domain.exchange import Exchange, Outcome
from headend.drivers import Dlt645Session
from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import WAKE_UP, build, parse
from protocols.dlt645.items import encode
from protocols.dlt645.meter import build_parts, build_refusal, parse_any_read
from protocols.dlt645.profile import GENERIC, MeterProfile, profile_from
from protocols.framing import Match

ADDRESS = "000000000001"
ZONE = ZoneInfo("Asia/Shanghai")
DEVICES = Path(__file__).parents[2] / "config" / "devices" / "dlt645"
TARIFFS = ["active_import_total", *(f"active_import_t{k}" for k in range(1, 5))]
VOLTAGES = ["voltage_a", "voltage_b", "voltage_c"]


def profile(name: str) -> MeterProfile:
    return profile_from(yaml.safe_load((DEVICES / f"{name}.yaml").read_text()), name=name)


class Meter:
    """A port with one meter at its end that has just these items, and refuses all others."""

    name = "bus-1"

    def __init__(self, *, data_max: int = 200, parity_seen: bool = True) -> None:
        self.parity_seen = parity_seen
        self.payloads: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.exchanges: list[Exchange] = []
        self.silent: set[str] = set()
        self.lost: dict[int, int] = defaultdict(int)  # parts that are not answered, how often
        self._data_max = data_max
        self._now_ms = from_iso("2026-03-01T10:10:00+08:00")

    def has(self, di: str, *values: object, item: object = None) -> None:
        found = item or lookup(di)
        self.payloads[di] = encode(found, *values)

    async def exchange(self, request: BusRequest) -> Exchange:
        frame = parse(request.payload.lstrip(WAKE_UP))
        asked = parse_any_read(frame)
        assert asked is not None
        number = asked.sequence or 0
        self.asked.append(asked.di if not number else f"{asked.di}+{number}")
        if asked.di in self.silent or self.lost[number] > 0:
            self.lost[number] -= 1
            raise NoAnswer("no", bus=self.name, waited_ms=1, attempts=1, diagnosis="silence")
        if asked.di in self.payloads:
            payload = self.payloads[asked.di]
            reply = build_parts(ADDRESS, asked.di, payload, data_max=self._data_max)[number]
        else:
            reply = build_refusal(ADDRESS, frame.control, 0x02)
        assert request.match(reply) in (Match.REPLY, Match.REFUSAL)
        sent_ms, self._now_ms = self._now_ms, self._now_ms + 300
        made = Exchange(
            self.name, request.device, request.payload, reply, sent_ms, self._now_ms, 300.0, 1,
            Outcome.REPLY,
        )  # fmt: skip
        self.exchanges.append(made)
        return made


def session(meter: Meter, used: MeterProfile = GENERIC) -> Dlt645Session:
    return Dlt645Session(meter, ADDRESS, zone=ZONE, profile=used)


def kwh(*numbers: int) -> list[Decimal]:
    return [Decimal(n).scaleb(-2) for n in numbers]


async def test_points_of_one_block_are_read_in_one_request():
    meter = Meter()
    meter.has("0001FF00", *kwh(1500, 100, 200, 300, 900))
    meter.has("0201FF00", *(Decimal(v) for v in ("229.4", "230.1", "228.8")))
    results = await session(meter).read([*VOLTAGES, *TARIFFS])
    assert meter.asked == ["0001FF00", "0201FF00"]
    assert [str(r.value) for r in results] == [
        "229.4", "230.1", "228.8", "15.00", "1.00", "2.00", "3.00", "9.00",
    ]  # fmt: skip
    assert {r.exchange for r in results[3:]} == {meter.exchanges[0]}


async def test_a_refused_block_is_read_singly_at_once_and_never_asked_for_again():
    meter = Meter()
    for di, value in zip(("02010100", "02010200", "02010300"), (2294, 2301, 2288), strict=True):
        meter.has(di, Decimal(value).scaleb(-1))
    asking = session(meter)
    first = await asking.read(VOLTAGES)
    assert [str(r.value) for r in first] == ["229.4", "230.1", "228.8"]
    assert meter.asked == ["0201FF00", "02010100", "02010200", "02010300"]
    meter.asked.clear()
    await asking.read(VOLTAGES)
    await asking.read(VOLTAGES, priority=Priority.ON_DEMAND)
    assert meter.asked == ["02010100", "02010200", "02010300"] * 2


async def test_silence_teaches_nothing():
    meter = Meter()
    meter.has("0201FF00", *(Decimal(v) for v in ("229.4", "230.1", "228.8")))
    meter.silent.add("0201FF00")
    asking = session(meter)
    lost = await asking.read(VOLTAGES)
    assert all(isinstance(r.error, NoAnswer) for r in lost)
    assert meter.asked == ["0201FF00"]
    meter.silent.clear()
    again = await asking.read(VOLTAGES)
    assert all(r.error is None for r in again)
    assert meter.asked == ["0201FF00", "0201FF00"]


async def test_an_item_that_was_refused_twice_is_left_out_of_plans_and_asked_when_a_person_asks():
    meter = Meter()
    asking = session(meter)
    for _ in range(5):
        (result,) = await asking.read(["voltage_a"])
        assert isinstance(result.error, Refused)
    assert meter.asked == ["02010100", "02010100", "0201FF00"]  # a block may have it all the same
    meter.has("02010100", Decimal("229.4"))
    (found,) = await asking.read(["voltage_a"], priority=Priority.ON_DEMAND)
    assert str(found.value) == "229.4"
    (planned,) = await asking.read(["voltage_a"])
    assert planned.error is None


async def test_a_block_with_fewer_tariffs_than_supposed_gives_what_it_has_and_the_rest_singly():
    meter = Meter()
    meter.has("0001FF00", *kwh(300, 100, 200))
    asking = session(meter)
    results = await asking.read(TARIFFS)
    assert [str(r.value) for r in results[:3]] == ["3.00", "1.00", "2.00"]
    assert all(isinstance(r.error, Refused) for r in results[3:])
    assert meter.asked[0] == "0001FF00"
    assert asking.learned.tariffs == 2


async def test_a_member_that_is_impossible_does_not_take_the_others_with_it():
    meter = Meter()
    meter.payloads["0201FF00"] = bytes.fromhex("9422AB228822")
    meter.has("02010100", Decimal("229.4"))
    meter.payloads["02010200"] = bytes.fromhex("AB22")
    meter.has("02010300", Decimal("228.8"))
    a, b, c = await session(meter).read(VOLTAGES)
    assert (str(a.value), str(c.value)) == ("229.4", "228.8")
    assert isinstance(b.error, BadReply)


async def test_a_register_block_is_read_twice_where_parity_is_not_seen():
    meter = Meter(parity_seen=False)
    meter.has("0001FF00", *kwh(1500, 100, 200, 300, 900))
    await session(meter).read(TARIFFS)
    assert meter.asked == ["0001FF00", "0001FF00"]


async def test_an_item_in_several_frames_is_put_together_and_every_frame_is_evidence():
    meter = Meter(data_max=14)
    meter.has("0001FF00", *kwh(1500, 100, 200, 300, 900))
    results = await session(meter).read(TARIFFS)
    assert [str(r.value) for r in results] == ["15.00", "1.00", "2.00", "3.00", "9.00"]
    assert meter.asked == ["0001FF00", "0001FF00+1", "0001FF00+2"]
    exchange = results[0].exchange
    assert exchange.reply == b"".join(one.reply for one in meter.exchanges)
    assert exchange.received_ms == meter.exchanges[-1].received_ms


async def test_a_part_is_never_taken_for_the_whole():
    meter = Meter(data_max=14)
    meter.has("0001FF00", *kwh(1500, 100, 200, 300, 900))
    meter.lost[2] = 1
    results = await session(meter).read(TARIFFS)
    assert all(r.value is None and isinstance(r.error, NoAnswer) for r in results)


async def test_a_meter_of_the_1997_edition_is_read_by_its_own_identifiers():
    meter = Meter()
    meter.has("9010", Decimal("1234.56"))
    meter.has("9020", Decimal("0.07"))
    used = profile("generic_1997")
    results = await session(meter, used).read(["active_import_total", "active_export_total"])
    assert [str(r.value) for r in results] == ["1234.56", "0.07"]
    assert meter.asked == ["9010", "9020"]


async def test_a_meter_of_the_other_edition_says_so():
    meter = Meter()

    async def answers_1997(request: BusRequest) -> Exchange:
        raw = build(ADDRESS, 0xC1, bytes((0x02,)))
        assert request.match(raw) is Match.REPLY
        return Exchange("bus-1", ADDRESS, request.payload, raw, 0, 300, 300.0, 1, Outcome.REPLY)

    meter.exchange = answers_1997
    (result,) = await session(meter).read(["voltage_a"])
    assert result.error.code == "edition_1997"


@pytest.mark.parametrize(("word", "expected"), [(0x0000, "1.5000"), (0x0010, "-1.5000")])
async def test_a_power_without_a_sign_gets_its_direction_from_the_status_word(word, expected):
    used = profile("iot_three_phase")
    meter = Meter(data_max=158)
    meter.payloads["02030000"] = bytes.fromhex("00500100")
    meter.payloads["04000501"] = word.to_bytes(2, "little")
    (result,) = await session(meter, used).read(["active_power_total"])
    assert str(result.value) == expected


async def test_without_the_status_word_nobody_knows_the_direction():
    used = profile("iot_three_phase")
    meter = Meter(data_max=158)
    meter.payloads["02030000"] = bytes.fromhex("00500100")
    (result,) = await session(meter, used).read(["active_power_total"])
    assert result.value is None
    assert result.error.code == "no_direction"


async def test_what_a_plan_counts_is_what_goes_over_the_line():
    meter = Meter(parity_seen=False)
    meter.has("0001FF00", *kwh(1500, 100, 200, 300, 900))
    meter.has("0201FF00", *(Decimal(v) for v in ("229.4", "230.1", "228.8")))
    asking = session(meter)
    planned = asking.asks([*VOLTAGES, *TARIFFS])
    await asking.read([*VOLTAGES, *TARIFFS])
    asks = [ask for ask in planned for _ in range(ask.times)]
    assert [ask.what for ask in asks] == meter.asked
    for ask, made in zip(asks, meter.exchanges, strict=True):
        assert ask.request_bytes == len(made.request)
        assert ask.reply_bytes == len(made.reply)
