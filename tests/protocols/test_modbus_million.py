"""pymodbus on random frames: both read the same out of good ones; we refuse what it takes wrongly.

`make test` looks at some twenty thousand frames, `make fuzz` at a million; the seed is the same.
"""

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import settings
from modbus_samples import answers, with_crc
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU

from protocols.errors import BadContent, ErrorReply
from protocols.framing import Match
from protocols.modbus.decode import decode
from protocols.modbus.device import build_exception, build_reply, parse_request
from protocols.modbus.master import ReadRequest, match, read_request, reply_registers
from protocols.modbus.profile import raw_register

FRAMES_AN_EXAMPLE = 200
SEED = 20_261_125
TYPES = ("uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
REGISTERS = {
    (kind, order): raw_register(f"reg:3:0:{kind}:{order}")
    for kind in TYPES
    for order in ("big", "little")
}


class Theirs:
    """pymodbus's framers and decoders, both sides."""

    def __init__(self) -> None:
        self.replies = {
            False: FramerRTU(DecodePDU(is_server=False)),
            True: FramerSocket(DecodePDU(is_server=False)),
        }
        self.requests = {
            False: FramerRTU(DecodePDU(is_server=True)),
            True: FramerSocket(DecodePDU(is_server=True)),
        }

    def reply(self, raw: bytes, unit: int, transaction: int | None) -> ModbusPDU | None:
        """What a client makes of the bytes while it waits for this unit and transaction."""
        framer = self.replies[transaction is not None]
        _, pdu = framer.handleFrame(raw, unit, transaction or 0)
        return pdu


def framed(unit: int, transaction: int | None, pdu: bytes) -> bytes:
    """A frame made of its pieces, with the CRC of pymodbus."""
    if transaction is not None:
        return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu
    body = bytes((unit,)) + pdu
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


def check_request(theirs: Theirs, request: ReadRequest) -> None:
    tcp = request.transaction is not None
    pdu = struct.pack(">BHH", request.function, request.address, request.count)
    raw = framed(request.unit, request.transaction, pdu)
    assert raw == request.raw
    used, seen = theirs.requests[tcp].handleFrame(raw, 0, 0)
    assert used == len(raw)
    assert seen is not None
    assert (seen.dev_id, seen.function_code, seen.address, seen.count) == (
        request.unit, request.function, request.address, request.count,
    )  # fmt: skip
    assert parse_request(raw, tcp=tcp) == request


def check_reply(theirs: Theirs, request: ReadRequest, data: bytes) -> tuple[int, ...]:
    pdu = bytes((request.function, len(data))) + data
    raw = framed(request.unit, request.transaction, pdu)
    seen = theirs.reply(raw, request.unit, request.transaction)
    assert seen is not None
    assert match(request, raw) is Match.REPLY
    registers = reply_registers(request, raw)
    assert list(registers) == seen.registers
    assert build_reply(request, registers) == raw
    return registers


def check_refusal(theirs: Theirs, request: ReadRequest, code: int) -> None:
    raw = framed(request.unit, request.transaction, bytes((request.function | 0x80, code)))
    seen = theirs.reply(raw, request.unit, request.transaction)
    assert isinstance(seen, ExceptionResponse)
    assert match(request, raw) is Match.REFUSAL
    with pytest.raises(ErrorReply) as caught:
        reply_registers(request, raw)
    assert caught.value.error_byte == seen.exception_code == code
    assert build_exception(request, code) == raw


def check_value(rng: random.Random, registers: tuple[int, ...]) -> None:
    kind, order = rng.choice(tuple(REGISTERS))
    register = REGISTERS[kind, order]
    if len(registers) < register.words:
        return
    words = registers[: register.words]
    ours = decode(register, words, apply_ratio=False)
    theirs = ModbusClientMixin.convert_from_registers(
        list(words),
        ModbusClientMixin.DATATYPE[kind.upper()],
        word_order=order,  # type: ignore[arg-type]
    )
    if ours is None:
        assert theirs - theirs != 0  # type: ignore[operator]  # NaN or infinite
    elif kind == "float32":
        assert struct.pack(">f", float(str(ours))) == struct.pack(">f", theirs) or theirs == 0
    else:
        assert float(str(ours)) == float(theirs)  # type: ignore[arg-type]


@pytest.mark.timeout(0)
def test_both_read_the_same_out_of_random_good_frames() -> None:
    rng = random.Random(SEED)
    theirs = Theirs()
    for number in range(FRAMES_AN_EXAMPLE * settings().max_examples):
        transaction = rng.choice((None, rng.randrange(1, 0x10000)))
        count = rng.randint(1, 125)
        request = read_request(
            rng.randint(1, 247), rng.choice((3, 4)), rng.randrange(0x10000 - count), count,
            transaction=transaction,
        )  # fmt: skip
        what = number % 8
        if what == 0:
            check_request(theirs, request)
        elif what == 1:
            check_refusal(theirs, request, rng.randint(1, 11))
        else:
            registers = check_reply(theirs, request, rng.randbytes(2 * count))
            check_value(rng, registers)


# -- what pymodbus takes, and must not be taken


def refuses(request: ReadRequest, raw: bytes) -> bool:
    """Whether no registers come out of these bytes."""
    for kind, frame in answers(request, [raw]):
        if kind is not Match.REPLY:
            continue
        try:
            reply_registers(request, frame)
        except BadContent:
            continue
        return False
    return True


def taken(raw: bytes, unit: int, transaction: int | None) -> list[int] | None:
    """The registers that pymodbus's client would hand to its caller."""
    pdu = Theirs().reply(raw, unit, transaction)
    return None if pdu is None or pdu.isError() else pdu.registers


BOTH = pytest.mark.parametrize("transaction", [None, 7], ids=["rtu", "tcp"])
Other = Callable[[ReadRequest], ReadRequest]


@BOTH
def test_fewer_registers_than_asked_are_no_answer(transaction: int | None) -> None:
    request = read_request(1, 4, 10, 4, transaction=transaction)
    short = build_reply(read_request(1, 4, 10, 2, transaction=transaction), (1, 2))
    assert taken(short, 1, transaction) == [1, 2]
    assert refuses(request, short)


@BOTH
def test_more_registers_than_asked_are_no_answer(transaction: int | None) -> None:
    request = read_request(1, 4, 10, 2, transaction=transaction)
    long = build_reply(read_request(1, 4, 10, 4, transaction=transaction), (1, 2, 3, 4))
    assert taken(long, 1, transaction) == [1, 2, 3, 4]
    assert refuses(request, long)


@BOTH
def test_input_registers_do_not_answer_for_holding_registers(transaction: int | None) -> None:
    request = read_request(1, 3, 10, 2, transaction=transaction)
    other = build_reply(read_request(1, 4, 10, 2, transaction=transaction), (1, 2))
    assert taken(other, 1, transaction) == [1, 2]
    assert refuses(request, other)


def test_transaction_0_is_not_any_transaction() -> None:
    request = read_request(1, 4, 10, 2, transaction=7)
    zero = build_reply(read_request(1, 4, 10, 2, transaction=0), (1, 2))
    assert taken(zero, 1, 7) == [1, 2]
    assert refuses(request, zero)
    assert match(request, zero) is Match.STALE  # so the answer is waited for


def test_another_unit_does_not_answer_for_the_device_itself() -> None:
    request = read_request(0, 4, 10, 2, transaction=7)
    other = build_reply(read_request(9, 4, 10, 2, transaction=7), (1, 2))
    assert taken(other, 0, 7) == [1, 2]
    assert refuses(request, other)
    assert match(request, other) is Match.FOREIGN


# -- what pymodbus drops, and is a good answer

REQUEST = read_request(1, 4, 10, 2)
REPLY = build_reply(REQUEST, (0x4363, 0x8000))


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(build_reply(read_request(9, 4, 0, 2), (5, 6)), id="foreign frame"),
        pytest.param(with_crc(REPLY[:-2])[:-1] + b"\x00", id="bad CRC"),
    ],
)
def test_a_good_reply_behind_what_is_not_ours_is_found(before: bytes) -> None:
    assert taken(before + REPLY, 1, None) is None
    assert (Match.REPLY, REPLY) in answers(REQUEST, [before + REPLY])


def test_a_good_reply_behind_a_byte_of_noise_is_found_whatever_unit_sends_it() -> None:
    dropped = 0
    for unit in range(1, 248):
        request = read_request(unit, 4, 10, 2)
        reply = build_reply(request, (0x4363, 0x8000))
        dropped += taken(b"\xff" + reply, unit, None) is None
        assert answers(request, [b"\xff" + reply], idle=False) == [(Match.REPLY, reply)]
    assert dropped  # for some units it is lost there


def test_a_frame_of_an_unknown_function_raises_nothing() -> None:
    strange = b"\x65\x02\x00\x01"
    with pytest.raises(ModbusException):  # inside asyncio this costs the connection
        taken(framed(1, 7, strange), 1, 7)
    for transaction in (None, 7):
        request = read_request(1, 4, 10, 2, transaction=transaction)
        assert refuses(request, framed(1, transaction, strange))
