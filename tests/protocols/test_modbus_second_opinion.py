"""pymodbus as second opinion: for good frames both say the same."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_samples import answers, raw_of, vectors
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    ReadInputRegistersResponse,
)

from protocols.framing import Match
from protocols.modbus.decode import decode, encode
from protocols.modbus.device import build_exception, build_reply, parse_request
from protocols.modbus.master import read_request, reply_registers
from protocols.modbus.profile import raw_register

REQUESTS = {3: ReadHoldingRegistersRequest, 4: ReadInputRegistersRequest}
RESPONSES = {3: ReadHoldingRegistersResponse, 4: ReadInputRegistersResponse}
words = st.integers(0, 0xFFFF)


def framer(tcp: bool, *, server: bool) -> FramerRTU | FramerSocket:
    decoder = DecodePDU(server)
    return FramerSocket(decoder) if tcp else FramerRTU(decoder)


@given(
    st.integers(1, 247),
    st.sampled_from([3, 4]),
    words,
    st.integers(1, 125),
    st.one_of(st.none(), words),
)
def test_requests_are_the_same_bytes(
    unit: int, function: int, address: int, count: int, transaction: int | None
) -> None:
    if address + count > 0x10000:
        return
    ours = read_request(unit, function, address, count, transaction=transaction)
    theirs = REQUESTS[function](
        address=address, count=count, dev_id=unit, transaction_id=transaction or 0
    )
    tcp = transaction is not None
    assert framer(tcp, server=False).buildFrame(theirs) == ours.raw
    used, pdu = framer(tcp, server=True).handleFrame(ours.raw, 0, 0)
    assert used == len(ours.raw)
    assert isinstance(pdu, REQUESTS[function])
    assert (pdu.dev_id, pdu.address, pdu.count) == (unit, address, count)
    assert parse_request(ours.raw, tcp=tcp) == ours


@given(
    st.integers(1, 247),
    st.sampled_from([3, 4]),
    st.lists(words, min_size=1, max_size=125),
    st.one_of(st.none(), words),
)
def test_replies_are_the_same_bytes_and_give_the_same_registers(
    unit: int, function: int, registers: list[int], transaction: int | None
) -> None:
    request = read_request(unit, function, 0, len(registers), transaction=transaction)
    tcp = transaction is not None
    theirs = RESPONSES[function](registers=registers, dev_id=unit, transaction_id=transaction or 0)
    raw = framer(tcp, server=True).buildFrame(theirs)
    assert raw == build_reply(request, registers)
    assert answers(request, [raw], idle=False) == [(Match.REPLY, raw)]
    assert list(reply_registers(request, raw)) == registers
    _, pdu = framer(tcp, server=False).handleFrame(raw, unit, transaction or 0)
    assert pdu is not None
    assert pdu.registers == registers


@given(st.integers(1, 247), st.sampled_from([3, 4]), st.integers(1, 11))
def test_refusals_are_the_same_bytes(unit: int, function: int, code: int) -> None:
    for transaction in (None, 7):
        request = read_request(unit, function, 0, 1, transaction=transaction)
        theirs = ExceptionResponse(
            function, exception_code=code, device_id=unit, transaction=transaction or 0
        )
        tcp = transaction is not None
        assert framer(tcp, server=True).buildFrame(theirs) == build_exception(request, code)


@pytest.mark.parametrize(
    "name", [one["id"] for one in vectors() if one["verdict"] == "ok" and one["kind"] == "response"]
)
def test_the_good_replies_of_the_collection_are_good_to_both(name: str) -> None:
    sample = next(one for one in vectors() if one["id"] == name)
    raw, tcp = raw_of(sample), sample["transport"] == "tcp"
    _, pdu = framer(tcp, server=False).handleFrame(raw, 0, 0)
    assert pdu is not None
    count = len(pdu.registers)
    request = read_request(
        sample["unit"], sample["fc"], 0, count, transaction=sample["tid"] if tcp else None
    )
    assert list(reply_registers(request, raw)) == pdu.registers


@settings(max_examples=50)
@given(
    st.sampled_from(
        ["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
    ),
    st.sampled_from(["big", "little"]),
    st.data(),
)
def test_values_are_the_same_numbers(kind: str, order: str, data: st.DataObject) -> None:
    register = raw_register(f"reg:3:0:{kind}:{order}")
    stored = data.draw(st.lists(words, min_size=register.words, max_size=register.words))
    ours = decode(register, stored, apply_ratio=False)
    datatype = ModbusClientMixin.DATATYPE[kind.upper()]
    theirs = ModbusClientMixin.convert_from_registers(stored, datatype, word_order=order)  # type: ignore[arg-type]
    if ours is None:
        assert isinstance(theirs, float)
        assert theirs - theirs != 0  # NaN or infinite
        return
    assert float(str(ours)) == theirs or struct.pack(">f", float(str(ours))) == struct.pack(
        ">f", theirs
    )
    back = ModbusClientMixin.convert_to_registers(theirs, datatype, word_order=order)  # type: ignore[arg-type]
    assert theirs == 0 or list(encode(register, ours)) == back
