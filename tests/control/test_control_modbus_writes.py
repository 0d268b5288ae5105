"""Nothing outside `control` can write to a Modbus device: no code for it exists.

Writing functions: 5 and 15 (coils), 6 and 16 (registers), 22 (mask), 23 (write and read).
"""

import ast
from pathlib import Path

import pytest

from headend.bus.request import BusRequest
from headend.config.profiles import PACKAGED, load_profile
from headend.drivers import ModbusSession
from headend.drivers.modbus_commission import Probe, diagnose_device, dump, stretches
from protocols.errors import LocalProtocolError
from protocols.modbus.adu import build_rtu, build_tcp
from protocols.modbus.master import read_request
from tests.support.modbus_device import Device, HandClock

ROOT = Path(__file__).parents[2]
WRITES = (5, 6, 15, 16, 22, 23)
BUILDERS = {"build_rtu", "build_tcp", "build_rtu_declared", "build_tcp_declared"}
# Where frames are made of a PDU: the codec's own two sides. Its asking side builds reads alone.
MAY_BUILD = {
    "protocols/modbus/adu.py",
    "protocols/modbus/master.py",
    "protocols/modbus/device.py",
}


@pytest.mark.parametrize("function", [*WRITES, 0, 1, 2, 7, 8, 43, 0x83])
@pytest.mark.parametrize("transaction", [None, 1])
def test_the_codec_builds_no_request_but_reads_of_registers(function, transaction):
    with pytest.raises(LocalProtocolError, match="does not read registers"):
        read_request(1, function, 0, 1, transaction=transaction)


def test_frames_of_a_pdu_are_made_in_the_codec_and_nowhere_else():
    found = set()
    for folder in ("headend", "protocols"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name in MAY_BUILD or name.startswith("headend/control/"):
                continue
            text = path.read_text(encoding="utf-8")
            if not any(builder in text for builder in BUILDERS):
                continue
            tree = ast.parse(text)
            names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
            names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
                      for a in n.names}  # fmt: skip
            names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
            if names & BUILDERS:
                found.add(name)
    assert found == set()


def test_the_asking_side_makes_frames_in_one_place():
    text = (ROOT / "protocols" / "modbus" / "master.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    makers = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in BUILDERS
    }
    assert makers == {"read_request"}


def functions_sent(requests: list[BusRequest], *, tcp: bool) -> set[int]:
    return {request.payload[7 if tcp else 1] for request in requests}


@pytest.mark.parametrize("tcp", [False, True])
async def test_whatever_driver_and_commissioning_send_is_a_read(tcp):
    sdm = load_profile("eastron_sdm630", PACKAGED.parent)
    device = Device(sdm, tcp=tcp)
    device.words = dict.fromkeys(range(400), 0)
    session = ModbusSession(device, 1, sdm, tcp=tcp, clock=HandClock(), notice=lambda _notice: None)
    await session.read([*sdm.registers, "reg:3:0:2", "reg:4:10:float32"])
    probe = Probe(1, tcp=tcp, network=True)
    probe.use(device)
    await diagnose_device(probe, sdm)
    assert [one async for one in dump(probe, 3, stretches(3, 0, 40, 16))]
    assert functions_sent(device.requests, tcp=tcp) == {3, 4}


def test_a_frame_that_writes_can_be_made_by_hand_so_the_walls_above_are_needed():
    pdu = bytes((6, 0, 0, 0, 1))
    assert build_rtu(1, pdu)[1] == build_tcp(1, 1, pdu)[7] == 6
