"""A port that is absent, breaks, is pulled out and comes back."""

import asyncio
import contextlib
import logging
import os
import pty
import tty

import pytest
from bus_bench_line import FakeLink, answer, answering, ask, line, run_virtual

from headend.bus import Bus, BusSettings, BusState
from headend.domain.clock import SystemClock
from headend.domain.errors import PortBusy, PortGone
from headend.domain.exchange import Outcome
from headend.domain.link import SerialSpec, TcpSpec
from headend.transport import make_link


def test_requests_made_before_the_port_is_open_wait_for_the_first_try():
    async def scenario():
        async with line() as bench:
            assert (await bench.bus.exchange(ask())).outcome is Outcome.REPLY
            assert bench.bus.statistics().state is BusState.OPEN

    run_virtual(scenario())


def test_an_absent_port_is_told_at_once_tried_again_and_found():
    async def scenario():
        link = FakeLink(answering, absent=True)
        async with line(link=link) as bench:
            with pytest.raises(PortGone, match="fake is not there; it is tried again"):
                await bench.bus.exchange(ask())
            start = bench.loop.time()
            with pytest.raises(PortGone):
                await bench.bus.exchange(ask())
            assert bench.loop.time() == start
            steps = bench.bus.statistics().steps
            await asyncio.sleep(60)
            assert bench.bus.statistics().steps > steps + 6
            assert bench.bus.statistics().state is BusState.GONE
            link.absent = False
            await asyncio.sleep(10.1)
            assert (await bench.bus.exchange(ask())).outcome is Outcome.REPLY
            assert bench.seen[-1].outcome is Outcome.REPLY

    run_virtual(scenario())


def test_a_device_path_that_reappears_is_opened_soon():
    async def scenario():
        link = FakeLink(answering, absent=True, path_there=False)
        async with line(link=link) as bench:
            await asyncio.sleep(100)
            link.absent, link.path_there = False, True
            await asyncio.sleep(0.5)
            assert bench.bus.statistics().state is BusState.OPEN

    run_virtual(scenario())


def test_a_port_held_by_another_program_is_told_as_busy():
    async def scenario():
        class Held(FakeLink):
            async def open(self, receiver):
                raise PortBusy("fake is in use by another program", bus="fake")

        async with line(link=Held(answering)) as bench:
            with pytest.raises(PortGone, match="in use by another program") as caught:
                await bench.bus.exchange(ask())
            assert isinstance(caught.value.__cause__, PortBusy)
            assert bench.bus.statistics().state is BusState.BUSY

    run_virtual(scenario())


def test_a_port_lost_during_an_exchange_is_raised_recorded_and_opened_again():
    async def scenario():
        link = FakeLink(lambda _r, _n: [])
        async with line(link=link) as bench:
            task = asyncio.create_task(bench.bus.exchange(ask()))
            waiting = asyncio.create_task(bench.bus.exchange(ask("b")))
            await asyncio.sleep(0.1)
            link.peer = answering
            link.lose(OSError(5, "Input/output error"))
            with pytest.raises(PortGone, match="Input/output error"):
                await task
            assert bench.outcomes() == ["port_gone"]
            # who had not been asked yet is asked on the new port, after Tb of silence
            assert (await waiting).outcome is Outcome.REPLY
            assert bench.bus.statistics().opens == 2
            assert bench.seen[1].sent_ms - bench.seen[0].received_ms >= 500

    run_virtual(scenario())


def test_a_port_that_breaks_while_sending_is_raised_and_opened_again():
    async def scenario():
        link = FakeLink(answering)
        async with line(link=link) as bench:
            await bench.bus.exchange(ask())
            link.receiver = None
            with pytest.raises(PortGone):
                await bench.bus.exchange(ask())
            assert bench.outcomes() == ["reply", "port_gone"]
            assert (await bench.bus.exchange(ask())).outcome is Outcome.REPLY

    run_virtual(scenario())


def test_a_port_that_opens_and_breaks_at_once_is_not_hammered():
    async def scenario():
        class Brittle(FakeLink):
            async def open(self, receiver):
                await super().open(receiver)
                asyncio.get_running_loop().call_later(0.01, self.lose)

        link = Brittle(answering)
        async with line(link=link):
            await asyncio.sleep(600)
            assert 30 < link.opens < 80

    run_virtual(scenario())


def test_state_changes_are_logged_once_at_warning(caplog):
    async def scenario():
        link = FakeLink(answering)
        async with line(link=link) as bench:
            await bench.bus.exchange(ask())
            link.absent = True
            link.lose()
            await asyncio.sleep(300)
            link.absent = False
            await asyncio.sleep(11)
            await bench.bus.exchange(ask())

    with caplog.at_level(logging.WARNING, logger="headend.bus"):
        run_virtual(scenario())
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 2
    assert "state=gone" in told[0]
    assert "state=open" in told[1]


class Meter:
    """Answers on a pseudo terminal whose symlink can be pulled and put back."""

    def __init__(self, path):
        self.path = path
        self.fds: tuple[int, int] | None = None

    def plug(self):
        ours, theirs = pty.openpty()
        tty.setraw(ours)
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        self.fds = (ours, theirs)
        self.path.symlink_to(os.ttyname(theirs))
        asyncio.get_running_loop().add_reader(ours, self._answer, ours)

    def pull(self):
        self.path.unlink()
        asyncio.get_running_loop().remove_reader(self.fds[0])
        for fd in self.fds:
            os.close(fd)

    def _answer(self, fd):
        with contextlib.suppress(OSError):
            os.write(fd, answer(os.read(fd, 100)))


async def until_answered(bus, request):
    """Ask until there is an answer; the port may be away for a while."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.exchange(request)
            except PortGone:
                await asyncio.sleep(0.02)


async def until_gone(bus):
    """Ask until the bus says that its port is gone."""
    async with asyncio.timeout(20):
        with contextlib.suppress(PortGone):
            while True:
                await bus.exchange(ask("a", 5))


@contextlib.asynccontextmanager
async def running(spec, **settings):
    seen = []
    bus = Bus(
        "real",
        make_link(spec),
        BusSettings(**settings),
        clock=SystemClock(),
        observer=seen.append,
    )
    task = asyncio.create_task(bus.run())
    try:
        yield bus, seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_pulled_adapter_that_comes_back_is_found_by_itself(tmp_path):
    meter = Meter(tmp_path / "ttyUSB0")
    meter.plug()
    spec = SerialSpec(str(meter.path), baud=9600, parity="even")
    async with running(spec, silence_after_timeout_ms=50) as (bus, seen):
        assert (await bus.exchange(ask())).outcome is Outcome.REPLY
        for _ in range(2):
            meter.pull()
            await until_gone(bus)
            meter.plug()
            got = await until_answered(bus, ask("a", 7))
            assert got.reply == answer(ask("a", 7).payload)
        meter.pull()
        assert seen[0].outcome is Outcome.REPLY


async def test_a_converter_that_restarts_is_found_by_itself():
    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(100):
                writer.write(answer(data))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(TcpSpec("127.0.0.1", port, baud=9600), silence_after_timeout_ms=50) as (
        bus,
        _,
    ):
        assert (await bus.exchange(ask())).outcome is Outcome.REPLY
        server.close()
        connection = bus._link._connection
        connection.transport.abort()
        await until_gone(bus)
        assert bus.statistics().state is BusState.GONE
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        got = await until_answered(bus, ask("a", 7))
        assert got.reply == answer(ask("a", 7).payload)
    server.close()
    await server.wait_closed()


async def test_sent_and_received_stamps_are_wall_time_of_the_bytes(tmp_path):
    meter = Meter(tmp_path / "port")
    meter.plug()
    clock = SystemClock()
    async with running(SerialSpec(str(meter.path), baud=9600, parity="none")) as (bus, _):
        before = clock.now_ms()
        got = await bus.exchange(ask())
        assert before <= got.sent_ms <= got.received_ms <= clock.now_ms()
        assert got.took_ms < 1000
    meter.pull()
