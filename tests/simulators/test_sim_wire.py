"""The line takes the time a line takes, and two that speak at once spoil each other."""

import asyncio
from random import Random

import pytest

from protocols.dlt645.master import match, read_request
from protocols.framing import Match
from simulators.damage import Damaged, OneDamage, flip_positions
from simulators.schedule import AtOnce, LoopSchedule, VirtualClock, VirtualTimeLoop, run_virtual
from simulators.wire import Transmission, WireLink, char_seconds
from tests.simulators.bench645 import ADDRESS, Bench, Ear

REQUEST = read_request(ADDRESS, "00010000")


class Parrot:
    """A station that answers with fixed transmissions."""

    def __init__(self, *sent: Transmission) -> None:
        self.sent = list(sent)
        self.heard: list[tuple[bytes, list[int]]] = []
        self.idles = 0

    def receive(self, data, bad):
        self.heard.append((data, list(bad)))
        return self.sent

    def idle(self) -> None:
        self.idles += 1


def virtual(station, **more) -> tuple[VirtualClock, WireLink, Ear]:
    clock, ear = VirtualClock(), Ear()
    link = WireLink(station, schedule=clock, **more)
    link.attach(ear)
    return clock, link, ear


def test_36_bytes_at_2400_8e1_take_165_ms():
    station = Parrot()
    clock, link, _ = virtual(station, baud=2400)
    link.write(bytes(36))
    clock.advance(0.1649)
    assert station.heard == []
    clock.advance(0.00011)
    assert station.heard == [(bytes(36), [])]


def test_a_reply_comes_after_request_delay_and_its_own_wire_time():
    station = Parrot(Transmission(0.1, bytes(24)))
    clock, link, ear = virtual(station, baud=2400)
    link.write(bytes(20))
    clock.run()
    assert clock.now() == pytest.approx(20 * 11 / 2400 + 0.1 + 24 * 11 / 2400)
    assert ear.heard == [(bytes(24), ())]


def test_pieces_come_each_when_its_last_character_is_over():
    station = Parrot(Transmission(0.0, bytes(20)))
    clock, link, ear = virtual(station, baud=1100, chunk=8)  # 10 ms a character
    link.write(b"?")
    seen = []
    for _ in range(30):
        clock.advance(0.01 if seen else 0.0101)
        seen.append(sum(len(data) for data, _ in ear.heard))
    assert [seen.index(n) for n in (8, 16, 20)] == [8, 16, 20]


def test_what_is_written_while_sending_waits_its_turn():
    station = Parrot()
    clock, link, _ = virtual(station, baud=1100)
    link.write(bytes(10))
    link.write(bytes(10))
    clock.advance(0.11)
    assert len(station.heard) == 1
    clock.advance(0.1)
    assert len(station.heard) == 2


def test_the_stations_are_told_of_a_pause_longer_than_inside_a_frame():
    station = Parrot()
    clock, link, _ = virtual(station, baud=9600)
    link.write(b"a")
    clock.advance(0.4)
    link.write(b"b")
    clock.advance(0.6)
    link.write(b"c")
    clock.run()
    assert station.idles == 2  # before the first byte ever, and before c


def test_echo_comes_when_the_request_is_over():
    clock, link, ear = virtual(Parrot(), baud=1100, echo=True)
    link.write(b"abc")
    clock.advance(0.0299)
    assert ear.heard == []
    clock.advance(0.0002)
    assert ear.heard == [(b"abc", ())]


def test_a_master_that_speaks_into_a_late_reply_spoils_both():
    station = Parrot(Transmission(0.5, b"\xff" * 20))
    clock, link, ear = virtual(station, baud=1100)
    link.write(b"\x01")
    clock.advance(0.6)  # the reply runs from 0.51 to 0.71
    station.sent = []
    link.write(b"\x55" * 5)
    clock.run()
    heard, bad = ear.heard[0]
    assert bad == (9, 10, 11, 12, 13)
    assert heard[9:14] == b"\x55" * 5
    assert heard[:9] == b"\xff" * 9
    assert link.line.collisions == 1


def test_replies_that_do_not_overlap_leave_each_other_whole():
    station = Parrot(Transmission(0.0, b"\xff" * 5), Transmission(0.06, b"\x00" * 5))
    clock, link, ear = virtual(station, baud=1100)
    link.write(b"?")
    clock.run()
    assert ear.heard == [(b"\xff" * 5, ()), (b"\x00" * 5, ())]
    assert link.line.collisions == 0


def test_marks_reach_the_master_where_parity_is_seen_and_only_there():
    for seen in (True, False):
        station = Parrot(Transmission(0.0, bytes(4)))
        link = WireLink(
            station, parity_seen=seen, to_master=lambda data: flip_positions(data, [9 * 2])
        )
        ear = Ear()
        link.attach(ear)
        link.write(b"?")
        assert ear.heard == [(b"\x00\x00\x01\x00", (2,) if seen else ())]


def test_damage_on_the_way_to_the_meter_is_marked_for_it():
    station = Parrot()
    link = WireLink(station, to_station=lambda data: flip_positions(data, [0]))
    link.attach(Ear())
    link.write(b"\x00")
    assert station.heard == [(b"\x01", [0])]


def test_bytes_lost_entirely_are_no_delivery():
    link = WireLink(Parrot(Transmission(0.0, b"x")), to_master=lambda _: Damaged(b""))
    ear = Ear()
    link.attach(ear)
    link.write(b"?")
    assert ear.heard == []


async def test_a_link_that_is_not_open_or_pulled_out_raises_what_the_host_wants():
    class GoneError(Exception):
        pass

    link = WireLink(Parrot(), name="w", gone=GoneError)
    with pytest.raises(GoneError, match="not open"):
        link.write(b"x")
    ear = Ear()
    await link.open(ear)
    link.unplug()
    assert [type(reason) for reason in ear.lost] == [GoneError]
    with pytest.raises(GoneError, match="not there"):
        await link.open(ear)
    link.plug()
    await link.open(ear)
    link.write(b"x")
    await link.close()
    with pytest.raises(GoneError):
        link.write(b"x")


async def test_a_reply_after_closing_is_not_delivered():
    station = Parrot(Transmission(0.1, b"late"))
    clock, link, ear = virtual(station)
    link.write(b"?")
    await link.close()
    clock.run()
    assert ear.heard == []


def test_a_character_takes_eleven_bits_and_none_without_a_baud():
    assert char_seconds(2400) == pytest.approx(0.00458333)
    assert char_seconds(None) == char_seconds(0) == 0.0


def test_at_once_keeps_the_order_and_survives_an_error():
    once, seen = AtOnce(), []

    def outer() -> None:
        once.at(0, lambda: seen.append("inner"))
        seen.append("outer")

    once.at(0, outer)
    assert seen == ["outer", "inner"]
    with pytest.raises(ZeroDivisionError):
        once.at(0, lambda: 1 / 0)
    once.at(0, lambda: seen.append("again"))
    assert seen[-1] == "again"


def test_virtual_time_runs_in_order_and_tells_when_it_would_never_end():
    clock, seen = VirtualClock(start_ms=5000), []
    clock.at(2.0, lambda: seen.append(clock.now_ms()))
    clock.at(1.0, lambda: seen.append(clock.now_ms()))
    clock.advance(3.0)
    assert seen == [6000, 7000]
    assert clock.monotonic() == 3.0

    def again() -> None:
        clock.at(clock.now(), again)

    again()
    with pytest.raises(RuntimeError, match="still waiting"):
        clock.run(steps_max=10)


def test_a_thousand_polls_in_virtual_time_take_no_real_time_and_keep_true_time():
    bench = Bench(reply_delay_ms=100)

    async def polls(loop: VirtualTimeLoop) -> tuple[float, list[int]]:
        bench.meter.clock = loop.now_ms
        link = WireLink(bench.bus, schedule=LoopSchedule(loop), baud=2400)
        ear, sizes = Ear(), []
        await link.open(ear)
        for _ in range(1000):
            link.write(b"\xfe" * 4 + REQUEST.raw)
            await asyncio.sleep(0.5)
            raw = ear.take()
            assert match(REQUEST, raw) is Match.REPLY
            sizes.append(len(raw))
        return loop.time(), sizes

    passed, sizes = run_virtual(polls)
    assert passed == pytest.approx(500.0)
    assert set(sizes) == {20}


def test_files_still_wake_a_virtual_loop_that_waits_for_nothing_timed():
    async def echo(loop: VirtualTimeLoop) -> bytes:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return line

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    assert run_virtual(echo) == b"hello\n"


def test_many_damaged_replies_pass_without_any_clock():
    bench = Bench()
    damage = OneDamage(Random(11))
    link = WireLink(bench.bus, to_master=damage)
    ear = Ear()
    link.attach(ear)
    for _ in range(2000):
        link.write(REQUEST.raw)
    assert len(ear.heard) == 2000
    assert any(bad for _, bad in ear.heard)
