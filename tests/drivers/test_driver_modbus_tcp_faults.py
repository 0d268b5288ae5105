"""Modbus TCP over real sockets, with a server that does what servers have been seen doing.

Every one of these has given somebody a wrong value, a wait of minutes or a client that never came
back; here each gives a value only when everything agrees, and the next read works.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from headend.bus import Bus, BusSettings, BusState
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.clock import SystemClock
from headend.domain.errors import NoAnswer, PortGone
from headend.domain.exchange import Exchange
from headend.domain.link import ModbusTcpSpec
from headend.drivers import ModbusSession, PointResult, error_code
from headend.supervisor import Supervisor
from headend.transport import make_link
from tests.support.waiting import eventually

SDM = load_profile("eastron_sdm630", PACKAGED.parent)
POINT = "voltage_a"
GOOD = struct.pack(">f", 230.5)
OTHER = struct.pack(">f", 12345.6)
TIMEOUT_S = 0.3

# What the server does with its nth request: frames to send, or None to hang up.
Peer = Callable[[bytes, int], list[bytes] | None]


def frame(asked: bytes, data: bytes = GOOD, **other: int) -> bytes:
    """A reply to `asked`, with what `other` makes different."""
    transaction, _, _, unit, function = struct.unpack_from(">HHHBB", asked)
    function = other.get("function", function)
    pdu = bytes((function, other.get("byte_count", len(data)))) + data
    head = struct.pack(
        ">HHHB",
        other.get("transaction", transaction),
        other.get("protocol", 0),
        len(pdu) + 1,
        other.get("unit", unit),
    )
    return head + pdu


class Bench:
    def __init__(self, bus: Bus, session: ModbusSession, seen: list[Exchange]) -> None:
        self.bus = bus
        self.session = session
        self.seen = seen

    async def read(self, attempts: int = 1) -> PointResult:
        (result,) = await self.session.read([POINT], attempts=attempts)
        return result

    def outcomes(self) -> list[str]:
        return [str(exchange.outcome) for exchange in self.seen]


@asynccontextmanager
async def bench(peer: Peer, **settings: int) -> AsyncIterator[Bench]:
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        try:
            while True:
                asked = await reader.readexactly(12)
                requests += 1
                said = peer(asked, requests)
                if said is None:
                    return
                for piece in said:
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = make_link(ModbusTcpSpec("127.0.0.1", server.sockets[0].getsockname()[1]))
    clock = SystemClock()
    seen: list[Exchange] = []
    bus = Bus(
        "b",
        link,
        BusSettings(gap_ms=0, dead_after=1000, reopen_first_s=0.02, **settings),
        clock=clock,
        observer=seen.append,
    )
    session = ModbusSession(bus, 1, SDM, tcp=True, clock=clock, timeout_s=TIMEOUT_S)
    async with Supervisor() as supervisor:
        supervisor.start("bus", bus.run)
        yield Bench(bus, session, seen)
    server.close()
    await server.wait_closed()


async def test_the_good_reply_is_taken() -> None:
    async with bench(lambda asked, _n: [frame(asked)]) as made:
        assert (await made.read()).value == Decimal("230.5")


@pytest.mark.parametrize(
    ("different", "error"),
    [
        ({"data": GOOD[:2]}, "wrong_count"),
        ({"data": GOOD + OTHER}, "wrong_count"),
        ({"byte_count": 2}, "wrong_count"),
        ({"function": 3}, "no_answer"),
        ({"function": 0x44}, "no_answer"),
        ({"transaction": 0}, "no_answer"),
        ({"unit": 2}, "no_answer"),
        ({"unit": 0}, "no_answer"),
        ({"protocol": 1}, "no_answer"),
    ],
    ids=[
        "fewer registers than asked",
        "more registers than asked",
        "a byte count that does not fit",
        "another function",
        "a function nobody knows",
        "no transaction",
        "another unit",
        "no unit",
        "another protocol",
    ],
)
async def test_a_reply_that_does_not_agree_in_everything_gives_no_value(
    different: dict[str, int], error: str
) -> None:
    def peer(asked: bytes, nth: int) -> list[bytes]:
        return [frame(asked, **different) if nth == 1 else frame(asked)]  # type: ignore[arg-type]

    async with bench(peer) as made:
        bad = await made.read()
        assert bad.value is None
        assert error_code(bad.error) == error  # type: ignore[arg-type]
        # and the next read works, on the same connection
        assert (await made.read()).value == Decimal("230.5")
        assert made.bus.statistics().opens == 1


@pytest.mark.parametrize(
    "in_front",
    [
        lambda asked: frame(asked, OTHER, transaction=0),
        lambda asked: frame(asked, OTHER, unit=9),
        lambda asked: frame(asked, OTHER, function=3),
        lambda asked: asked,
        lambda _asked: b"\x00",
        lambda _asked: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=["no transaction", "another unit", "another function", "an echo", "a byte", "text"],
)
async def test_what_stands_in_front_of_the_good_reply_does_not_hide_it(
    in_front: Callable[[bytes], bytes],
) -> None:
    async with bench(lambda asked, _n: [in_front(asked) + frame(asked)]) as made:
        assert (await made.read()).value == Decimal("230.5")
        assert (await made.read()).value == Decimal("230.5")


async def test_a_reply_in_pieces_and_two_in_one_piece_are_read() -> None:
    def peer(asked: bytes, nth: int) -> list[bytes]:
        whole = frame(asked)
        return [bytes([byte]) for byte in whole] if nth == 1 else [whole + whole]

    async with bench(peer) as made:
        for _ in range(3):
            assert (await made.read()).value == Decimal("230.5")


async def test_queued_replies_that_come_in_a_burst_serve_only_their_own_questions() -> None:
    """A device that stalls and then answers all it was asked: nobody is one behind ever after."""
    waiting: list[bytes] = []

    def peer(asked: bytes, nth: int) -> list[bytes]:
        if nth <= 3:
            waiting.append(frame(asked, OTHER))
            return []
        return [*waiting, frame(asked)]

    async with bench(peer) as made:
        for _ in range(3):
            assert isinstance((await made.read()).error, NoAnswer)
        for _ in range(3):
            assert (await made.read()).value == Decimal("230.5")
        assert made.bus.statistics().opens == 1


async def test_a_peer_that_hangs_up_ends_the_read_at_once_and_the_next_one_works() -> None:
    async with bench(lambda asked, nth: None if nth == 1 else [frame(asked)]) as made:
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await made.read()
        assert isinstance(result.error, PortGone)
        assert loop.time() - began < TIMEOUT_S
        await eventually(lambda: made.bus.statistics().state is BusState.OPEN)
        assert (await made.read()).value == Decimal("230.5")


async def test_a_connection_that_only_swallows_is_made_anew() -> None:
    """The far end is gone without a word: writing works and nothing comes."""

    def peer(asked: bytes, nth: int) -> list[bytes]:
        return [] if nth <= 4 else [frame(asked)]

    async with bench(peer, drop_after_silent=2) as made:
        result = await made.read(attempts=5)
        assert result.value == Decimal("230.5")
        assert made.bus.statistics().opens == 3
        assert made.outcomes() == ["silence"] * 4 + ["reply"]
