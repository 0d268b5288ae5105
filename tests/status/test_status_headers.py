"""Every answer closes the browser to everything else, whatever has gone wrong."""

import asyncio
import itertools
import re

import aiohttp
import pytest
from status_bench import running
from test_status_bounds import base, configured

from headend.domain.clock import SystemClock
from headend.status.access import SECURITY_HEADERS
from headend.status.gather import Gatherer
from tests.support.mosquitto import free_port
from tests.support.waiting import eventually

EXPECTED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@pytest.fixture
async def web():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def page(tmp_path):
    config = configured(tmp_path, status=f'bind: "127.0.0.1:{free_port()}"')
    async with running(config, SystemClock()):
        yield config


def check(headers):
    for name, value in {**SECURITY_HEADERS, **EXPECTED}.items():
        assert headers.getall(name) == [value], name
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


async def said(config, data):
    """The headers that some bytes are answered with, by their names in small letters."""
    reader, writer = await asyncio.open_connection(*config.status.address)
    writer.write(data)
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.strip().split("\r\n")
    headers = [line.partition(":")[::2] for line in lines]
    return int(status.split()[1]), [(name.lower(), value.strip()) for name, value in headers]


ANSWERS = (
    ("GET", "/", 200),
    ("HEAD", "/", 200),
    ("GET", "/?refresh=30", 200),
    ("GET", "/style.css", 200),
    ("GET", "/healthz", 200),
    ("GET", "/metrics", 200),
    ("GET", "/nothing", 404),
    ("HEAD", "/nothing", 404),
    ("GET", "/nothing?refresh=30", 404),
    ("GET", "/meters/nobody", 404),
    ("POST", "/", 405),
    ("OPTIONS", "/nothing", 405),
)


async def test_good_pages_and_refusals_carry_the_same(page, web):
    for (method, path, status), language in itertools.product(ANSWERS, ("en", "zh")):
        more = "&" if "?" in path else "?"
        async with web.request(method, f"{base(page)}{path}{more}lang={language}") as answer:
            assert answer.status == status
            check(answer.headers)
            # A header that only good pages have, so no error keeps a browser asking.
            assert ("Refresh" in answer.headers) == (status == 200 and "refresh" in path)
            assert not re.search(r"http-equiv", await answer.text(), re.IGNORECASE)
    async with web.get(base(page), headers={"Host": "attacker.example"}) as answer:
        assert answer.status == 421
        check(answer.headers)


async def test_a_fault_of_ours_tells_nothing_and_carries_the_same(page, web, monkeypatch):
    async def broken(_gatherer):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(Gatherer, "facts", broken)
    for path in ("/", "/meters", "/meters/M-00001", "/metrics"):
        for accept in ("text/html", "*/*"):
            async with web.get(base(page) + path, headers={"Accept": accept}) as answer:
                assert answer.status == 500
                check(answer.headers)
                assert "secret" not in await answer.text()


async def test_a_page_that_takes_too_long_carries_the_same(page, web, monkeypatch):
    async def hang(_gatherer):
        await asyncio.Event().wait()

    monkeypatch.setattr(Gatherer, "facts", hang)
    monkeypatch.setattr("headend.status.server.REQUEST_S_MAX", 0.05)
    for path in ("/?refresh=30", "/metrics"):
        async with web.get(base(page) + path) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "5"
            assert "Refresh" not in answer.headers
            check(answer.headers)


async def test_who_is_sent_away_for_want_of_room_gets_the_same(page, web, monkeypatch):
    gate, waiting = asyncio.Event(), []
    facts = Gatherer.facts

    async def slow(gatherer):
        waiting.append(gatherer)
        await gate.wait()
        return await facts(gatherer)

    monkeypatch.setattr(Gatherer, "facts", slow)
    monkeypatch.setattr("headend.status.server.REQUESTS_MAX", 1)
    first = asyncio.ensure_future(web.get(base(page)))
    await eventually(lambda: waiting)
    async with web.get(base(page)) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "2"
        check(answer.headers)
    gate.set()
    async with await first as answer:
        assert answer.status == 200
        check(answer.headers)


BYTES = (
    (b"nonsense\r\n\r\n", 400),
    (b"GET / HTTP/9\r\n\r\n", 400),
    (b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\n\r\n", 417),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\n\r\n", 421),
)


async def test_bytes_that_are_no_proper_question_get_the_same(page):
    for data, status in BYTES:
        got, headers = await said(page, data)
        assert got == status, data
        for name, value in SECURITY_HEADERS.items():
            assert [v for n, v in headers if n == name.lower()] == [value], (name, data)
