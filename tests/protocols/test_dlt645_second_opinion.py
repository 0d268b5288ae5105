"""The PyPI package `dlt645` 3.2.0 on the other side: a codec that nobody here wrote.

Where it is wrong is written down here, each as a test that says what it does. Besides: its numbers
are floats, and an address is kept as the wire has it.
"""

import datetime as dt
import logging
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any

import pytest
from dlt645.common.transform import bcd_to_float, float_to_bcd
from dlt645.model.data.define import DIMap
from dlt645.model.types.dlt645_type import Demand
from dlt645.protocol.protocol import DLT645Protocol
from dlt645.service.clientsvc.client_service import MeterClientService
from dlt645.service.serversvc.server_service import MeterServerService

from protocols.dlt645.catalogue import Item, lookup
from protocols.dlt645.clock import clock_to_all
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import DELIMITER, parse
from protocols.dlt645.items import decode, encode
from protocols.dlt645.master import match, read_request, reply_payload
from protocols.dlt645.meter import build_refusal, build_reply, parse_read
from protocols.errors import ErrorReply
from protocols.framing import FrameFound, Framer, Match

ADDRESS = "000012345678"
THEIRS = bytes.fromhex(ADDRESS)[::-1]  # it keeps its address as the wire has it
WHEN = dt.datetime(2026, 11, 24, 23, 55)  # noqa: DTZ001 - theirs has no zone


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.disable(logging.CRITICAL)


@pytest.fixture(autouse=True)
def _loud_again() -> Any:
    yield
    logging.disable(logging.NOTSET)


def item(di: str) -> Item:
    found = lookup(di)
    assert found is not None
    return found


def their_items(kind: int) -> list[int]:
    return [di for di in DIMap if di >> 24 == kind]


def their_width(data_format: str) -> int:
    return (len(data_format.replace(".", "")) + 1) // 2


def test_every_identifier_it_knows_is_in_the_catalogue_with_the_same_digits() -> None:
    for di, theirs in DIMap.items():
        ours = item(f"{di:08X}")
        if isinstance(theirs, list) or ours.layout is None:
            continue
        first = ours.layout.fields[0]
        assert first.width == their_width(theirs.data_format), ours.di
        if "." in theirs.data_format:
            assert first.scale == len(theirs.data_format.partition(".")[2]), ours.di
            if first.kind == "number" and theirs.unit.strip() in ("kWh", "kvarh", "kVAh", "Hz"):
                assert ours.unit == theirs.unit.strip()


@cache
def their_server() -> MeterServerService:
    """One for all tests: each copies its whole table, which takes seconds."""
    return MeterServerService(None, bytearray(THEIRS))


def ask_theirs(server: MeterServerService, di: str) -> bytes:
    """Our request through its parser and server, the reply through our framer and match."""
    request = read_request(ADDRESS, di)
    _, frame = DLT645Protocol.deserialize_with_remaining(b"\xfe\xfe" + request.raw)
    assert frame is not None
    framer = Framer(DELIMITER)
    events = framer.feed(bytes(server.handle_request(frame)))
    (raw,) = [event.raw for event in events if isinstance(event, FrameFound)]
    assert match(request, raw) in (Match.REPLY, Match.REFUSAL)
    return reply_payload(request, raw)


def sample(kind: int, count: int) -> list[int]:
    numbers = their_items(kind)
    return Random(kind).sample(numbers, min(count, len(numbers)))


def a_number(one: Item, random: Random) -> Decimal:
    assert one.layout is not None
    field = one.layout.fields[0]
    # Floats of seven digits hold these exactly enough; more would be its error, not ours.
    return Decimal(random.randrange(10 ** min(2 * field.width - 1, 7))).scaleb(-field.scale)


@pytest.mark.parametrize("kind", [0x00, 0x02])
def test_what_its_server_answers_is_what_we_read(kind: int) -> None:
    server, random = their_server(), Random(1)
    for number in sample(kind, 150):
        di = f"{number:08X}"
        value = a_number(item(di), random)
        assert (server.set_00 if kind == 0 else server.set_02)(number, float(value))
        assert decode(item(di), ask_theirs(server, di)) == (value,), di


def test_a_demand_of_its_server_comes_with_its_time() -> None:
    server, random = their_server(), Random(2)
    for number in sample(0x01, 60):
        di = f"{number:08X}"
        value = a_number(item(di), random)
        assert server.set_01(number, Demand(float(value), WHEN))
        assert decode(item(di), ask_theirs(server, di)) == (
            value, MeterTime(WHEN.date(), WHEN.time()),
        )  # fmt: skip


def test_its_refusal_is_read_as_one() -> None:
    with pytest.raises(ErrorReply) as caught:
        ask_theirs(their_server(), "00FE0101")
    assert caught.value.reasons


class _OurMeter:
    """What its client takes for a connection: our meter's side."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.values = values
        self.asked: list[str] = []

    def _ensure_connection(self) -> bool:
        return True

    def send_request(self, raw: bytes) -> bytes:
        frame = parse(bytes(raw).lstrip(b"\xfe"))
        di = parse_read(frame)
        assert di is not None
        assert frame.address == ADDRESS
        self.asked.append(di)
        if di not in self.values:
            return build_refusal(ADDRESS, 0x11, 2)
        return b"\xfe\xfe" + build_reply(ADDRESS, di, self.values[di])


@cache
def the_client() -> MeterClientService:
    client = MeterClientService(_OurMeter({}))  # type: ignore[arg-type]
    client.address = bytearray(THEIRS)
    return client


def their_client(values: dict[str, bytes]) -> MeterClientService:
    client = the_client()
    client.client = _OurMeter(values)  # type: ignore[assignment]
    return client


@pytest.mark.parametrize("kind", [0x00, 0x02])
def test_its_client_reads_what_our_meter_says(kind: int) -> None:
    random = Random(3)
    for number in sample(kind, 100):
        di = f"{number:08X}"
        value = a_number(item(di), random)
        client = their_client({di: encode(item(di), value)})
        read = (client.read_00 if kind == 0 else client.read_02)(number)
        assert read is not None
        assert Decimal(repr(read.value)) == value, di


def test_its_client_takes_our_meters_refusal() -> None:
    client = their_client({})
    assert client.read_01(0x01020000) is None
    assert client.client.asked == ["01020000"]  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["-12.34", "-0.01", "-799999.99"])
def test_signs_are_the_same_for_both(value: str) -> None:
    ours = encode(item("00000000"), Decimal(value))
    assert bytes(float_to_bcd(float(value), "XXXXXX.XX", "little")) == ours
    assert bcd_to_float(ours, "XXXXXX.XX", "little") == float(value)


# -- where it is wrong


def test_it_reads_the_time_of_a_demand_from_the_year_on_although_its_server_does_not() -> None:
    when = MeterTime(dt.date(2011, 11, 9), dt.time(7, 13))
    client = their_client({"01010000": encode(item("01010000"), Decimal("1.2345"), when)})
    read = client.read_01(0x01010000)
    assert read is not None
    assert read.value.value == 1.2345
    # 13 07 09 11 11 are minute, hour, day, month, year: so the captured meters, and its own server.
    assert read.value.time == dt.datetime(2013, 7, 9, 11, 11)  # noqa: DTZ001 - theirs


def test_it_masks_the_sign_out_of_what_has_none() -> None:
    """800,000.00 kWh of import is a negative number to it: it takes the top bit for a sign."""
    wire = encode(item("00010000"), Decimal("800000.01"))
    assert bcd_to_float(wire, "XXXXXX.XX", "little") < 1
    assert decode(item("00010000"), wire) == (Decimal("800000.01"),)


def test_it_reads_bytes_of_nothing_as_a_number() -> None:
    nothing = b"\xff" * 4
    assert decode(item("00010000"), nothing) == (None,)
    client = their_client({"00010000": nothing})
    read = client.read_00(0x00010000)
    assert read is None or read.value is not None


def test_it_sends_the_time_from_the_year_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard has the seconds first."""
    sent: list[bytes] = []
    client = their_client({})
    monkeypatch.setattr(client, "_send_broadcast", lambda raw: sent.append(bytes(raw)) is None)
    assert client.broadcast_time_sync(WHEN.replace(second=7))
    theirs = parse(sent[0].lstrip(b"\xfe"))
    ours = parse(clock_to_all(MeterTime(WHEN.date(), dt.time(23, 55, 7))))
    assert theirs.control == ours.control == 0x08
    assert theirs.data == ours.data[::-1]
