"""Consumers of the feed and databases come and go; nobody else's stream is torn."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import aiomqtt
import pytest
from aiohttp import web
from reload_world import CLOCK, WAIT_S, World

from headend import __version__
from headend.config import load_config
from headend.domain.due import local_day
from headend.domain.reading import Reading
from headend.journal import Birth, Journal, JournalSettings
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


class Listener:
    """A consumer that shares no code with ours: keeps the numbers of what it was sent."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.seqs: list[int] = []
        self._port = port

    async def run(self) -> None:
        async with aiomqtt.Client("127.0.0.1", self._port) as client:
            await client.subscribe(f"meter/v1/he1/feed/{self.name}", qos=1)
            async for message in client.messages:
                batch = json.loads(message.payload)
                assert batch["schema"] == "feed/1", batch
                self.seqs += [record["seq"] for record in batch["records"]]
                receipt = {"schema": "receipt/1", "epoch": batch["epoch"]}
                await client.publish(
                    f"meter/v1/he1/receipts/{self.name}",
                    json.dumps(receipt | {"through_seq": batch["last_seq"]}),
                    qos=1,
                )


@asynccontextmanager
async def listening(*listeners: Listener) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(listener.run()) for listener in listeners]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended


def without_holes(seqs: list[int]) -> bool:
    return sorted(set(seqs)) == list(range(min(seqs), max(seqs) + 1))


FEED = '{{broker: "{url}", consumers: [{consumers}]}}'
BILLING = "{name: billing, classes: [billing, events]}"
SECOND = "{name: second, classes: [billing]}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with Mosquitto(folder) as made:
        yield made


@pytest.fixture
async def fed(world: World, broker: Mosquitto) -> World:
    """The street with a broker of its own, and its daemon."""
    world.text.sections["feed"] = FEED.format(url=broker.url, consumers=BILLING)
    world.write()
    await world.start()
    return world


async def test_a_consumer_that_came_gets_what_comes_then_and_the_others_have_no_hole(
    fed: World, broker: Mosquitto
):
    street = fed
    billing, second = Listener("billing", broker.port), Listener("second", broker.port)
    async with street.untouched("M-1", "M-2"), listening(billing, second):
        await eventually(lambda: len(billing.seqs) > 3, timeout_s=WAIT_S)
        both = f"{BILLING}, {SECOND}"
        street.text.sections["feed"] = FEED.format(url=broker.url, consumers=both)
        street.write()
        outcome = await street.reloads()
        assert [(c["kind"], c["name"], c["what"]) for c in outcome["changes"]] == [
            ("consumer", "second", "added")
        ]
        seen = len(billing.seqs)
        await eventually(lambda: len(second.seqs) > 3, timeout_s=WAIT_S)
        await eventually(lambda: len(billing.seqs) > seen + 3, timeout_s=WAIT_S)
        assert min(second.seqs) == 1
        assert without_holes(billing.seqs)
        assert without_holes(second.seqs)

        street.text.sections["feed"] = FEED.format(url=broker.url, consumers=BILLING)
        street.write()
        await street.reloads()
        seen, stopped = len(billing.seqs), len(second.seqs)
        await eventually(lambda: len(billing.seqs) > seen + 3, timeout_s=WAIT_S)
        assert len(second.seqs) == stopped
        assert without_holes(billing.seqs)
        report = await street.journal(lambda reader: reader.feed_status())
        assert (report["second"].active, report["billing"].active) == (False, True)


async def test_the_retained_status_names_the_configuration_in_force(fed: World, broker: Mosquitto):
    street = fed

    async def retained() -> str:
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.subscribe("meter/v1/he1/status")
            async for message in client.messages:
                return str(json.loads(message.payload)["configuration"])
        raise AssertionError

    async with asyncio.timeout(WAIT_S):
        before = await retained()
    street.text.plans["x"] = street.every(4)
    street.write()
    outcome = await street.reloads()
    assert outcome["configuration"] == load_config(street.file).hash != before

    async def named() -> bool:
        return await retained() == outcome["configuration"]

    await eventually(named, timeout_s=WAIT_S)


@asynccontextmanager
async def database() -> AsyncIterator[tuple[str, dict[str, list[str]]]]:
    """A URL that takes InfluxDB lines, and the lines it took by database."""
    taken: dict[str, list[str]] = {}

    async def write(request: web.Request) -> web.Response:
        lines = (await request.text()).splitlines()
        taken.setdefault(request.query["db"], []).extend(lines)
        return web.Response(status=204)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/write", write)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", taken
    finally:
        await runner.cleanup()


async def test_databases_come_and_go_and_the_one_that_stays_goes_on(world: World):
    async with database() as (url, taken):

        def entries(*names: str) -> str:
            return "\n" + "\n".join(
                f'  - {{kind: influxdb1, name: {n}, url: "{url}", database: {n}}}' for n in names
            )

        def values(name: str) -> int:
            return sum("M-1" in line for line in taken.get(name, ()))

        world.text.sections["timeseries"] = entries("stays")
        world.write()
        await world.start()
        await eventually(lambda: values("stays"), timeout_s=WAIT_S)
        async with world.untouched("M-1"):
            world.text.sections["timeseries"] = entries("stays", "comes")
            world.write()
            outcome = await world.reloads()
            assert [(c["name"], c["what"]) for c in outcome["changes"]] == [("comes", "added")]
            await eventually(lambda: values("comes"), timeout_s=WAIT_S)
            world.text.sections["timeseries"] = entries("comes")
            world.write()
            outcome = await world.reloads()
            assert [(c["name"], c["what"]) for c in outcome["changes"]] == [("stays", "removed")]
            ended, seen = values("stays"), values("comes")
            await eventually(lambda: values("comes") > seen + 1, timeout_s=WAIT_S)
            assert values("stays") == ended
            assert "timeseries:stays" not in (await world.status())["tasks"]
        await world.stop()
        assert "Traceback" not in world.log()


async def test_a_shorter_retention_holds_at_once(world: World):
    world.text.sections["retention"] = "{telemetry_days: 60}"
    del world.text.sections["feed"]
    world.write()
    config = load_config(world.file)
    config.data_path.mkdir()
    old_ms = CLOCK.now_ms() - int(timedelta(days=40).total_seconds() * 1000)
    journal = await Journal.open(
        config.journal_path, clock=CLOCK, software=__version__, consumers=(),
        settings=JournalSettings(zone=config.zone),
    )  # fmt: skip
    async with journal:
        old = Reading(
            meter="M-1", service_point="SP-1", point="voltage_a", value=Decimal("230.1"),
            unit="V", time_ms=old_ms, received_ms=old_ms,
        )  # fmt: skip
        await journal.append(Birth((old,)))

    async def kept() -> bool:
        found = await world.readings("M-1")
        return any(reading.point == "voltage_a" for reading in found)

    await world.start()
    assert local_day(old_ms, config.zone) < local_day(CLOCK.now_ms(), config.zone)
    await world.read_after("M-1", CLOCK.now_ms())
    assert await kept()
    async with world.untouched("M-1"):
        world.text.sections["retention"] = "{telemetry_days: 30}"
        world.write()
        outcome = await world.reloads()
        assert outcome["changes"][0]["keys"] == ["telemetry_days"]

        async def dropped() -> bool:
            return not await kept()

        await eventually(dropped, timeout_s=WAIT_S, every_s=0.2)
