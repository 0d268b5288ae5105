"""What a reload cannot wait for, and what the journal does not take. The daemon in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from reload_world import IMPORT, WAIT_S, CountedTcp, bus_of

import headend.reload
from headend.commands import Parts
from headend.config import load_config
from headend.daemon import run_daemon
from headend.domain.errors import JournalFull, PortGone
from headend.journal import Journal
from tests.support.mosquitto import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)


class Text:
    """A configuration whose parts tests replace."""

    def __init__(self, folder: Path, link: str) -> None:
        self.file = folder / "headend.yaml"
        self.link = link
        self.consumers = "{name: billing, classes: [billing]}"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.broker = f"embedded://127.0.0.1:{free_port()}"

    def write(self) -> None:
        self.file.write_text(
            "headend: {name: he1, zone: Asia/Shanghai, data: data}\n"
            f'buses: {{a: {{link: "{self.link}", timeout_ms: 20000}}}}\n'
            "meters: [{id: M-1, service_point: SP-1, bus: a, protocol: dlt645-2007, "
            'address: "000000000001", plan: p}]\n'
            f"plans: {{p: {{every: [{{minutes: 15, points: [{IMPORT}]}}], "
            'from: "2099-01-01T00:00:00Z"}}\n'
            f'feed: {{broker: "{self.broker}", consumers: [{self.consumers}]}}\n'
            f'timeseries: [{{kind: influxdb1, url: "{self.url}", database: meters}}]\n'
        )


@asynccontextmanager
async def daemon(text: Text) -> AsyncIterator[Parts]:
    text.write()
    stop, up = asyncio.Event(), asyncio.Event()
    parts: list[Parts] = []
    running = asyncio.create_task(
        run_daemon(load_config(text.file), stop=stop, ready=up.set, stood_up=parts.append)
    )
    try:
        async with asyncio.timeout(WAIT_S):
            await up.wait()
        yield parts[0]
    finally:
        stop.set()
        await running


async def reload(parts: Parts) -> dict[str, object]:
    assert parts.reloads is not None
    async with asyncio.timeout(WAIT_S):
        return await parts.reloads.ask()


async def test_a_read_that_takes_too_long_is_cut_short_and_whoever_asked_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(headend.reload, "REST_S", 0.5)
    silent, other = CountedTcp(bus_of()), CountedTcp(bus_of(1))
    await silent.start()
    await other.start()
    text = Text(tmp_path, silent.where)
    try:
        async with daemon(text) as parts:
            reading = asyncio.create_task(parts.engine.read_now("M-1", [IMPORT], timeout_s=60))
            await eventually(lambda: parts.buses["a"].statistics().steps and silent.clients)
            text.link = other.where
            text.write()
            outcome = await reload(parts)
            assert outcome["outcome"] == "applied"
            (taken,) = await reading
            assert taken.result is not None
            assert isinstance(taken.result.error, PortGone)
            (again,) = await parts.engine.read_now("M-1", [IMPORT], timeout_s=60)
            assert again.reading is not None
            assert silent.clients == 0
    finally:
        await silent.close()
        await other.close()


@pytest.mark.parametrize("what", ["configure", "meter_events"])
async def test_a_journal_that_does_not_take_it_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    server = CountedTcp(bus_of(1))
    await server.start()
    text = Text(tmp_path, server.where)
    try:
        async with daemon(text) as parts:
            before = parts.config

            async def refuses(*_arguments: object) -> None:
                raise JournalFull("no room")

            text.consumers += ", {name: second, classes: [billing]}"
            text.url = f"http://127.0.0.1:{free_port()}"
            text.write()
            with monkeypatch.context() as patch:
                patch.setattr(Journal, what, refuses)
                outcome = await reload(parts)
            assert outcome["outcome"] == "refused"
            assert outcome["errors"][0]["message"] == "cannot be taken now: no room"
            assert parts.config is before
            assert parts.publisher is not None
            assert set(parts.publisher.streams) == {"billing"}
            assert parts.timeseries is not None
            (report,) = parts.timeseries.report()
            assert report["url"] == before.timeseries[0].url
            running = parts.supervisor.running()
            assert {"feed", "broker", "timeseries:influxdb1", "poll:a", "bus:a"} <= running
            # And then the good one.
            outcome = await reload(parts)
            assert outcome["outcome"] == "applied"
            assert set(parts.publisher.streams) == {"billing", "second"}
            (report,) = parts.timeseries.report()
            assert report["url"] == text.url
    finally:
        await server.close()
