"""A street from one seed: what stands where, its exact truth, and steering it from outside."""

import asyncio
import json
from decimal import Decimal

import pytest

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import WAKE_UP
from protocols.dlt645.items import decode
from protocols.dlt645.master import read_request, reply_payload
from simulators.control import ControlServer, StreetControl
from simulators.curves import Constant
from simulators.energy import DAY_MS, Channel
from simulators.models import FACTS, KINDS, make_initial, make_supply
from simulators.street import Street, StreetPlan, plan_street
from simulators.truthlog import TruthFile, read_truth
from tests.simulators.bench645 import NOW_MS, Bench


def make_plan(directory, **more) -> StreetPlan:
    return plan_street(seed=5, start_ms=NOW_MS, directory=directory, **more)


def test_a_street_has_every_kind_several_roofs_and_no_address_twice(tmp_path):
    plan = make_plan(tmp_path, meters=24, buses_pty=3, buses_tcp=2)
    assert {meter.kind for meter in plan.meters} == set(KINDS)
    assert sum(meter.has_pv for meter in plan.meters) >= 3
    assert len({meter.address for meter in plan.meters}) == 24
    assert len({meter.asset_id for meter in plan.meters}) == 24
    assert len({meter.service_point for meter in plan.meters}) == 24
    assert [len(bus.meters) for bus in plan.buses] == [5, 5, 5, 5, 4]
    assert all(meter.address.isdigit() and len(meter.address) == 12 for meter in plan.meters)


def test_the_same_seed_plans_the_same_street(tmp_path):
    assert make_plan(tmp_path) == make_plan(tmp_path)
    other = plan_street(seed=6, start_ms=NOW_MS, directory=tmp_path)
    assert other.meters != make_plan(tmp_path).meters


def test_a_plan_survives_json(tmp_path):
    plan = make_plan(tmp_path)
    assert StreetPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize("bad", [{"meters": 2}, {"speed": 0}, {"buses_pty": 0, "buses_tcp": 0}])
def test_numbers_that_make_no_street_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="make no street"):
        make_plan(tmp_path, **bad)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_ever_flows_beyond_the_connection(kind):
    capacity_w = FACTS[kind].capacity_kw * 1000
    for seed in range(20):
        supply = make_supply(kind, seed)
        load = sum(curve.peak_w for curve in supply.loads)
        panels = sum(panel.peak_w for panel in supply.panels if panel)
        assert max(load, panels) <= capacity_w
        assert bool(panels) is FACTS[kind].has_pv
        totals = make_initial(kind, seed)
        assert sum(totals.get(Channel("export", t), 0) for t in range(5)) > 0 or not panels


class Wall:
    """A wall clock that stands where it is put."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


async def read_over_tcp(link: str, address: str, di: str) -> Decimal:
    host, _, port = link.removeprefix("tcp://").partition("?")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = read_request(address, di)
    writer.write(request.raw)
    raw = b""
    async with asyncio.timeout(10):
        while not raw.endswith(b"\x16") or len(raw) < 20:
            raw += await reader.read(64)
    writer.close()
    await writer.wait_closed()
    (value,) = decode(lookup(di), reply_payload(request, raw.lstrip(WAKE_UP)))
    return value


async def test_what_a_reader_gets_from_a_street_is_its_truth(tmp_path):
    wall = Wall()
    plan = make_plan(tmp_path, buses_pty=1, buses_tcp=2, reply_delay_ms=0, baud=115_200)
    async with Street(plan, clock=wall) as street:
        bus = next(bus for bus in street.plan.buses if bus.name == "tcp-1")
        meter = bus.meters[0]
        wall.ms += 3_600_000
        off_ms = street.switch_off()
        wall.ms += 3_600_000
        got = await read_over_tcp(bus.link, meter.address, "00010000")
        assert got == street.truth(meter.asset_id)["active_import_total"].shown
        assert street.truth(meter.asset_id) == street.truth(meter.asset_id, off_ms)
        assert (tmp_path / "pty-1").exists()
    assert not (tmp_path / "pty-1").is_symlink()


async def test_speed_acts_from_the_start_on_and_leaves_past_days_honest(tmp_path):
    slow = Street(make_plan(tmp_path), clock=lambda: NOW_MS)
    fast = Street(make_plan(tmp_path, speed=60), clock=lambda: NOW_MS)
    assert slow.truth("M-0001", NOW_MS) == fast.truth("M-0001", NOW_MS)
    later = NOW_MS + 60_000
    point = "active_import_total"
    before, after = (fast.truth("M-0001", at)[point].exact for at in (NOW_MS, later))
    assert after - before > Decimal("0.1")  # an hour's energy in a minute
    assert fast.timeline.energy_ms(later) == NOW_MS + 3_600_000
    assert fast.plan.meters[0].capacity_kw == 60 * slow.plan.meters[0].capacity_kw
    assert len(fast.meters["M-0001"].freezes(later)) == 4


async def test_a_street_is_steered_and_its_truth_read_from_outside(tmp_path):
    wall = Wall()
    plan = make_plan(tmp_path, buses_pty=0, buses_tcp=1)
    async with Street(plan, clock=wall) as street:
        server = ControlServer(street, tmp_path / "street.sock")
        await server.start()
        control = StreetControl(tmp_path / "street.sock")
        off_ms = await control.switch_off()
        assert off_ms == wall.ms
        wall.ms += DAY_MS
        truth = await control.truth(points=["active_import_total", "active_export_total"])
        assert set(truth) == set(street.meters)
        for asset_id, registers in truth.items():
            own = street.truth(asset_id)
            assert registers == {point: own[point] for point in registers}
            assert len(registers) == 2
        plan_there = StreetPlan.from_json((await control.command("plan"))["plan"])
        assert plan_there == street.plan
        assert (await control.command("on"))["at_ms"] == wall.ms
        answer = await control.command("fault", meter="M-0003", fault="silent:every=2")
        assert answer == {"faults": ["silent"]}
        assert (await control.command("clear", meter="M-0003")) == {"faults": []}
        for bad in (
            {"do": "dance"},
            {"do": "fault", "meter": "M-9999", "fault": "silent"},
            {"do": "fault", "meter": "M-0001", "fault": "jmp"},
            {"do": "off", "at_ms": 5},
            {"do": "off", "at_ms": "x"},
        ):
            with pytest.raises(ValueError, match="Error"):
                await control.command(**bad)
        await control.close()
        await server.close()
        assert not (tmp_path / "street.sock").exists()
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on how far the hang-up came
            await control.command("plan")


async def test_a_control_socket_survives_rubbish(tmp_path):
    street = Street(make_plan(tmp_path, buses_pty=0), clock=Wall())
    server = ControlServer(street, tmp_path / "s")
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(b"{]\n[1]\n")
    for _ in range(2):
        assert json.loads(await reader.readline())["ok"] is False
    writer.write(b"x" * 200_000)
    assert await reader.read() == b""  # a line without an end: hung up
    writer.close()
    control = StreetControl(tmp_path / "s")
    assert "plan" in await control.command("plan")
    await server.close()
    await control.close()


async def test_a_street_that_cannot_open_a_bus_leaves_nothing_open(tmp_path):
    (tmp_path / "pty-2").write_text("in the way")
    street = Street(make_plan(tmp_path), clock=Wall())
    with pytest.raises(FileExistsError):
        await street.start()
    assert street.servers == {}
    assert not (tmp_path / "pty-1").is_symlink()


def test_the_truth_log_holds_what_was_served_and_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "truth" / "log.jsonl"
    bench = Bench()
    with TruthFile(path) as log:
        bench.meter.truth_log = lambda served: (log(served), bench.served.append(served))
        bench.ask("00010000")
        assert len(list(read_truth(path))) == 1  # flushed before the answer was given out
        bench.ask("0001FF00")
    with path.open("a") as file:
        file.write('{"meter":"0000')
    assert list(read_truth(path)) == bench.served


def test_constant_curves_serve_tests():
    assert set(Constant(7).day_watts(3)) == {7}
