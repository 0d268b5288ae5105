"""What a page may cost: a slow journal, a taken port, many askers, many meters."""

import asyncio
import socket
import threading
import time
from dataclasses import replace

import aiohttp
import pytest
from status_bench import free_port, open_journal, running

from headend.config import load_config
from headend.config.errors import ConfigErrors
from headend.domain.clock import SystemClock
from headend.domain.errors import JournalError
from headend.status.desk import FLYING_MAX, KEPT_FOR_ITS_COST, STALE_S, Desk, Unavailable
from headend.status.gather import DUE_FRESH_S
from tests.support.waiting import eventually

FILE = """
headend: {{name: he1, zone: Asia/Shanghai, data: data}}
buses:
  b1: {{link: "serial:///dev/no-such-adapter?baud=2400"}}
meters: {{file: meters.csv}}
plans:
  p: {{every: [{{minutes: 15, points: [active_import_total, active_export_total]}}]}}
status: {{{status}}}
"""


def configured(folder, *, meters=3, status=None):
    status = status or f'bind: "127.0.0.1:{free_port()}"'
    (folder / "headend.yaml").write_text(FILE.format(status=status))
    rows = ["id,service_point,bus,protocol,address,plan"]
    rows += [f"M-{n:05d},SP-{n},b1,dlt645-2007,{n:012d},p" for n in range(1, meters + 1)]
    (folder / "meters.csv").write_text("\n".join(rows) + "\n")
    return load_config(folder / "headend.yaml")


def base(config) -> str:
    host, port = config.status.address
    return f"http://{host}:{port}"


@pytest.fixture
async def web():
    async with aiohttp.ClientSession() as session:
        yield session


# -- the desk


@pytest.fixture
async def journal_path(tmp_path):
    config = configured(tmp_path)
    config.data_path.mkdir(parents=True)
    async with await open_journal(config, SystemClock()):
        yield config.journal_path


@pytest.fixture
async def desk(journal_path):
    made = Desk(journal_path, SystemClock(), time_limit_s=0.2)
    yield made
    await made.close()


async def test_what_several_ask_at_once_is_read_once(desk):
    looks = []
    gate = threading.Event()

    def look(reader):
        looks.append(reader.epoch)
        gate.wait(5)
        return len(looks)

    asked = [asyncio.ensure_future(desk.ask("k", look)) for _ in range(20)]
    await eventually(lambda: looks)
    gate.set()
    assert await asyncio.gather(*asked) == [1] * 20
    assert await desk.ask("k", look) == 1
    assert await desk.ask("k", look, fresh_s=0) == 2


async def test_a_journal_that_hangs_is_given_up_and_known_again_when_it_answers(desk):
    gate = threading.Event()

    def look(_reader):
        gate.wait(10)
        return "found"

    with pytest.raises(Unavailable, match=r"0\.2 s"):
        await desk.ask("k", look)
    gate.set()

    async def known():
        try:
            return await desk.ask("k", look)
        except Unavailable:
            return None

    assert await eventually(known) == "found"


async def test_what_was_found_a_moment_ago_is_better_than_nothing(desk):
    gate = threading.Event()

    def look(_reader):
        gate.wait(5)
        return "new"

    assert await desk.ask("k", lambda _reader: "old") == "old"
    desk._kept["k"] = replace(desk._kept["k"], at=desk._clock.monotonic() - STALE_S + 20)
    assert await desk.ask("k", look, fresh_s=0.001) == "old"
    desk._kept["k"] = replace(desk._kept["k"], at=desk._clock.monotonic() - STALE_S - 1)
    with pytest.raises(Unavailable):
        await desk.ask("k", look, fresh_s=0.001)
    gate.set()
    await eventually(lambda: desk._kept["k"].found == "new")


async def test_what_took_long_is_kept_for_longer(desk):
    """However often it is asked for, a costly answer takes a bounded part of a thread."""
    looks = []
    await desk.ask("k", looks.append)
    for age_s, is_kept in ((19.0, True), (21.0, False)):
        at = desk._clock.monotonic() - age_s
        desk._kept["k"] = replace(desk._kept["k"], at=at, took_s=20 / KEPT_FOR_ITS_COST)
        before = len(looks)
        await desk.ask("k", looks.append, fresh_s=0.001)
        assert (len(looks) == before) is is_kept


async def test_reads_that_wait_are_bounded(desk):
    gate = threading.Event()
    asked = [
        asyncio.ensure_future(desk.ask(n, lambda _reader: gate.wait(10)))
        for n in range(FLYING_MAX + 5)
    ]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    refused = [task for task in asked if task.done()]
    assert len(refused) == 5
    for task in refused:
        with pytest.raises(Unavailable, match="too many"):
            task.result()
    gate.set()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_what_is_remembered_is_bounded_and_errors_are_not(desk):
    for n in range(200):
        await desk.ask(("meter", n), lambda _reader: "found")
    assert len(desk._kept) == 64

    def broken(_reader):
        raise JournalError("torn")

    for _ in range(2):
        with pytest.raises(JournalError, match="torn"):
            await desk.ask("broken", broken)


# -- the server


async def test_a_port_that_is_taken_stops_nothing_and_is_had_when_it_is_free(
    tmp_path, web, monkeypatch, caplog
):
    monkeypatch.setattr("headend.status.server.REBIND_S", 0.1)
    config = configured(tmp_path)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(config.status.address)
        taken.listen()
        async with running(config, SystemClock()) as parts:
            state = parts.supervisor.states["status"]
            await eventually(lambda: "cannot listen" in caplog.text)
            await asyncio.sleep(0.3)  # several tries
            assert caplog.text.count("cannot listen") == 1
            assert (state.running, state.restarts) == (True, 0)
            assert parts.supervisor.states["bus:b1"].running
            taken.close()

            async def served():
                try:
                    async with web.get(base(config) + "/healthz") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(served)


async def test_pages_come_without_the_journal_too(tmp_path, web, monkeypatch):
    """What cannot be read is named; what is at hand is shown."""
    config = configured(tmp_path)
    async with running(config, SystemClock()):

        def torn(*_arguments):
            raise JournalError("the disk is away")

        monkeypatch.setattr("headend.status.desk.JournalReader", torn)
        for path in ("/", "/meters", "/due", "/alarms", "/buses", "/delivery", "/meters/M-00001"):
            async with web.get(f"{base(config)}{path}?lang=en") as answer:
                assert answer.status == 200
                text = await answer.text()
            assert ("the disk is away" in text) == (path not in ("/meters", "/buses", "/delivery"))
        async with web.get(base(config) + "/metrics") as answer:
            text = await answer.text()
        assert "headend_journal_read_ok 0.0" in text
        assert 'headend_bus_port_open{bus="b1"} 0.0' in text


async def test_the_loop_turns_while_the_journal_hangs(tmp_path, web, monkeypatch):
    config = configured(tmp_path)
    gate = threading.Event()

    def slow(*_arguments):
        gate.wait(5)
        raise JournalError("slow")

    async with running(config, SystemClock()):
        monkeypatch.setattr("headend.status.desk.JournalReader", slow)
        page = asyncio.ensure_future(web.get(base(config) + "/"))
        loop = asyncio.get_running_loop()
        longest, last = 0.0, loop.time()
        for _ in range(20):
            async with web.get(base(config) + "/healthz") as answer:
                assert answer.status == 200
            longest, last = max(longest, loop.time() - last), loop.time()
        assert not page.done()
        assert longest < 1.0
        gate.set()
        async with await page as answer:
            assert answer.status == 200


async def test_beyond_the_bound_a_request_is_sent_away(tmp_path, web, monkeypatch):
    config = configured(tmp_path)
    gate = threading.Event()
    monkeypatch.setattr("headend.status.server.REQUESTS_MAX", 2)

    def slow(*_arguments):
        gate.wait(5)
        raise JournalError("slow")

    async with running(config, SystemClock()):
        monkeypatch.setattr("headend.status.desk.JournalReader", slow)
        asked = [asyncio.ensure_future(web.get(base(config) + "/")) for _ in range(6)]
        await eventually(lambda: sum(task.done() for task in asked) == 4)
        for task in asked:
            if task.done():
                async with task.result() as answer:
                    assert answer.status == 503
                    assert answer.headers["Retry-After"] == "2"
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        gate.set()
        statuses = []
        for task in asked:
            async with await task as answer:
                statuses.append(answer.status)
        assert sorted(statuses) == [200, 200, 503, 503, 503, 503]


async def test_connections_that_say_nothing_are_bounded(tmp_path, web, monkeypatch):
    config = configured(tmp_path)
    monkeypatch.setattr("headend.status.server.CONNECTIONS_MAX", 5)
    async with running(config, SystemClock()):
        pairs = [await asyncio.open_connection(*config.status.address) for _ in range(12)]
        closed = 0
        for reader, writer in pairs:
            try:
                async with asyncio.timeout(0.5):
                    closed += await reader.read(1) == b""
            except TimeoutError:
                continue
            writer.close()
        assert closed >= 7
        for _reader, writer in pairs:
            writer.close()

        async def served():
            try:
                async with web.get(base(config) + "/healthz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await eventually(served)


async def test_bytes_that_are_no_http_fill_no_log(tmp_path, caplog):
    config = configured(tmp_path)
    async with running(config, SystemClock()):
        caplog.clear()
        for junk in (b"\x16\x03\x01junk\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /\x00 x\r\n\r\n"):
            reader, writer = await asyncio.open_connection(*config.status.address)
            writer.write(junk)
            await reader.read(2000)
            writer.close()
        assert [r for r in caplog.records if "http" in r.name] == []


async def test_a_fleet_costs_the_loop_little(tmp_path, web):
    """1,500 meters: gathering what is at hand, with a bound far above what it takes."""
    config = configured(tmp_path, meters=1500)
    async with running(config, SystemClock()):
        took = []
        for path in ("/", "/meters?page=30", "/metrics", "/meters?q=M-01234", "/due"):
            began = time.perf_counter()
            async with web.get(base(config) + path) as answer:
                assert answer.status == 200
                body = await answer.read()
            took.append(time.perf_counter() - began)
            assert len(body) < 60_000
        assert max(took) < 5.0
        assert DUE_FRESH_S > 1


# -- the configuration


@pytest.mark.parametrize("bind", ["0.0.0.0:8080", "192.0.2.1:80", "[::]:8080", "host.example:1"])
def test_the_network_sees_nothing_unless_it_is_said(tmp_path, bind):
    with pytest.raises(ConfigErrors) as caught:
        configured(tmp_path, status=f'bind: "{bind}"')
    (error,) = caught.value.errors
    assert error.key == "status"
    assert "allow_plaintext" in str(error.hint)
    assert configured(tmp_path, status=f'bind: "{bind}", allow_plaintext: true').status is not None


@pytest.mark.parametrize("bind", ["127.0.0.1:8080", "localhost:80", "[::1]:8080", "127.9.9.9:1"])
def test_this_machine_may_always_look(tmp_path, bind):
    assert configured(tmp_path, status=f'bind: "{bind}"').status is not None


@pytest.mark.parametrize("name", ["a b", "http://x", "x:80", "", "-x", "x/y"])
def test_a_host_name_that_is_none_is_told(tmp_path, name):
    with pytest.raises(ConfigErrors):
        configured(tmp_path, status=f'bind: "127.0.0.1:1", hosts: ["{name}"]')
