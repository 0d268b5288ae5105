"""A good configuration changes what differs and nothing else, on real ptys and sockets."""

import asyncio
from collections import Counter

import pytest
from reload_world import (
    CLOCK,
    CYCLE_MS,
    IMPORT,
    WAIT_S,
    World,
    bus_of,
    due_ms,
)

from headend.domain.clock import from_iso
from headend.domain.due import DueState
from simulators.serve import PtyServer
from tests.support.http import call
from tests.support.mosquitto import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


def told(outcome) -> list[str]:
    return [
        f"{c['kind']} {c['name']} {c['what']} {','.join(c['keys'])}" for c in outcome["changes"]
    ]


async def test_another_interval_holds_from_the_next_instant_on_and_loses_none(street: World):
    async with street.untouched():
        street.text.plans["x"] = street.every(4)
        street.write()
        before_ms = CLOCK.now_ms()
        outcome = await street.reloads()
        after_ms = CLOCK.now_ms()
        assert told(outcome) == ["plan x changed every"]
        slow = await street.read_after("M-1", after_ms + 4000, 2)
        assert {due_ms(reading) % 4000 for reading in slow} == {0}
        # What both plans want was read all the time; nothing was taken off the list.
        lines = {line.key.due_ms: line for line in await street.due("M-1")}
        seen = [at for at in lines if before_ms - 6000 <= at < after_ms + 4000]
        assert all(lines[at].state is DueState.READ for at in seen if at % 4000 == 0)
        dropped = [line for at, line in lines.items() if at % 4000 and at > after_ms]
        assert dropped
        assert {(line.state, line.reason) for line in dropped} == {(DueState.OPEN, "plan_changed")}
        # And back again: what was given up is read after all.
        street.text.plans["x"] = street.every(2)
        street.write()
        await street.reloads()
        back_ms = CLOCK.now_ms()
        await street.read_after("M-1", back_ms + CYCLE_MS, 3)
        assert await street.lost("M-1", back_ms + CYCLE_MS, back_ms + 3 * CYCLE_MS) == []
    assert street.a.opened == 1


async def test_another_port_is_opened_and_the_old_one_let_go_without_a_lost_cycle(street: World):
    other = PtyServer(street.station_p, street.folder / "port-other", baud=9600)
    await other.start()
    try:
        old = street.p.device
        assert old in street.ports()
        async with street.untouched("M-1", "M-2"):
            street.text.buses["p"] = f'link: "{other.where}", gap_ms: 0'
            street.write()
            outcome = await street.reloads()
            assert told(outcome) == ["bus p changed link"]
            changed_ms = CLOCK.now_ms()
            assert old not in street.ports()
            await street.p.close()
            await street.read_after("M-2", changed_ms, 2)
            assert other.device in street.ports()
        assert street.a.opened == 1
    finally:
        await other.close()


async def test_two_buses_change_places(street: World):
    async with street.untouched("M-1", "M-2"):
        buses = street.text.buses
        buses["a"], buses["p"] = buses["p"], buses["a"]
        # The meters stay where they are in the street.
        street.text.meters |= {"M-1": ("p", 1, "x"), "M-2": ("a", 2, "x")}
        street.write()
        outcome = await street.reload_command()
        assert sorted(told(outcome)) == [
            "bus a changed link", "bus p changed link", "meter M-1 changed bus",
            "meter M-2 changed bus",
        ]  # fmt: skip
        changed_ms = CLOCK.now_ms()
        await street.read_after("M-1", changed_ms)
        await street.read_after("M-2", changed_ms)


async def test_another_gap_holds_and_no_port_is_opened_again(street: World):
    async with street.untouched("M-2"):
        # With such gaps the plan takes longer than its cycle: the bus is polled all the same.
        street.text.buses["a"] = (
            f'link: "{street.a.where}", gap_ms: 700, timeout_ms: 400, allow_overload: true'
        )
        street.write()
        outcome = await street.reloads()
        assert told(outcome) == ["bus a changed gap_ms,timeout_ms,allow_overload"]
        readings = await street.read_after("M-1", CLOCK.now_ms() + CYCLE_MS)
        # A live register is read twice where parity is not seen: a gap lies between.
        for reading in readings:
            assert from_iso(reading.received_at) - due_ms(reading) >= 600
    assert street.a.opened == 1
    assert street.log().count("bus=a link=") == 1


async def test_a_meter_that_came_is_read_from_now_on_and_counts_from_the_next_list(street: World):
    async with street.untouched("M-1", "M-2"):
        street.text.meters["M-5"] = ("a", 5, "x")
        street.write()
        outcome = await street.reloads()
        assert told(outcome) == ["meter M-5 added "]
        readings = await street.read_after("M-5", CLOCK.now_ms())
        assert {due_ms(reading) % CYCLE_MS for reading in readings} == {0}
        assert await street.due("M-5") == []
    assert street.a.opened == 1


async def test_what_a_meter_that_went_owed_stays_on_the_list_with_its_reason(street: World):
    async with street.untouched("M-1"):
        count = len(await street.due("M-2"))
        del street.text.meters["M-2"]
        street.write()
        outcome = await street.reloads()
        gone_ms = CLOCK.now_ms()
        assert told(outcome) == ["meter M-2 removed "]
        await street.read_after("M-1", gone_ms + 2 * CYCLE_MS)
        lines = await street.due("M-2")
        assert len(lines) == count
        later = Counter((x.state, x.reason) for x in lines if x.key.due_ms > gone_ms)
        assert set(later) == {(DueState.OPEN, "meter_removed")}
        assert await street.readings("M-2", since_ms=gone_ms + 1000) == []
        code, _, err = await street.command(
            "read", "--config", str(street.file), "--meter", "M-2", IMPORT
        )
        assert code == 2, err
        # The bus has no meter any more and stays; it can go too.
        del street.text.buses["p"]
        street.write()
        assert told(await street.reloads()) == ["bus p removed "]
        assert street.p.device not in street.ports()
        assert "poll:p" not in (await street.status())["tasks"]


async def test_a_bus_that_came_is_read(street: World):
    other = PtyServer(bus_of(7), street.folder / "port-new", baud=9600)
    await other.start()
    try:
        async with street.untouched("M-1", "M-2"):
            street.text.buses["n"] = f'link: "{other.where}"'
            street.text.meters["M-7"] = ("n", 7, "x")
            street.write()
            outcome = await street.reloads()
            assert told(outcome) == ["bus n added ", "meter M-7 added "]
            await street.read_after("M-7", CLOCK.now_ms())
    finally:
        await other.close()


async def test_a_meter_on_another_bus_is_read_there_without_a_lost_cycle(street: World):
    async with street.untouched("M-1", "M-2"):
        # M-5 is first found on the wrong bus.
        street.text.meters["M-5"] = ("p", 5, "x")
        street.write()
        await street.reloads()
        street.text.meters["M-5"] = ("a", 5, "x")
        street.write()
        assert told(await street.reloads()) == ["meter M-5 changed bus"]
        await street.read_after("M-5", CLOCK.now_ms())
        code, out, err = await street.command(
            "read", "--config", str(street.file), "--meter", "M-5", IMPORT
        )
        assert code == 0, out + err


async def test_the_status_page_moves_and_goes(street: World):
    one, other = free_port(), free_port()

    async def answers(port: int) -> bool:
        try:
            return (await asyncio.to_thread(call, port, "GET", "/metrics")).status == 200
        except OSError:
            return False

    async with street.untouched("M-1"):
        for port, gone in ((one, other), (other, one)):
            street.text.sections["status"] = f'{{bind: "127.0.0.1:{port}"}}'
            street.write()
            await street.reloads()
            await eventually(lambda port=port: answers(port), timeout_s=WAIT_S, every_s=0.1)
            assert not await answers(gone)
        del street.text.sections["status"]
        street.write()
        await street.reloads()
        assert not await answers(other)


async def test_signals_that_come_one_after_the_other_are_all_served(street: World):
    async with street.untouched("M-1"):
        for seconds in (4, 1, 2):
            street.text.plans["x"] = street.every(seconds)
            street.write()
            street.hang_up()

        async def in_force() -> bool:
            code, out, _ = await street.command("reload", "--config", str(street.file))
            return code == 0 and "nothing differs" in out

        await eventually(in_force, timeout_s=WAIT_S)
    await street.stop()
    assert "Traceback" not in street.log()


async def test_a_bus_is_taken_from_under_a_read_that_somebody_asked_for_only_when_it_is_done(
    street: World,
):
    street.text.buses["p"] += ", timeout_ms: 1500, attempts: 3"
    street.text.plans["z"] = (
        f'every: [{{minutes: 15, points: [{IMPORT}]}}], from: "2099-01-01T00:00:00Z"'
    )
    street.text.meters["M-8"] = ("p", 8, "z")  # nobody there: a read takes its time
    street.write()
    await street.reloads()
    reading = asyncio.create_task(
        street.command("read", "--config", str(street.file), "--meter", "M-8", IMPORT)
    )
    await eventually(lambda: street.station_p.was_asked(8), timeout_s=WAIT_S)
    other = PtyServer(street.station_p, street.folder / "port-other", baud=9600)
    await other.start()
    try:
        street.text.buses["p"] = f'link: "{other.where}", gap_ms: 0, timeout_ms: 1500'
        street.write()
        outcome = await street.reloads()
        assert told(outcome) == ["bus p changed link"]
        code, out, err = await reading
        # Silence was waited for to its end: the port was not gone.
        assert (code, "no answer" in out + err) == (3, True), out + err
        await street.read_after("M-2", CLOCK.now_ms())
    finally:
        await other.close()
