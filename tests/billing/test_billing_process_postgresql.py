"""`headend billing run` on PostgreSQL as a process: it and its server are killed in turn."""

import random
import signal

import pytest
from billing_builder import Inbox, reads
from billing_databases import PostgresDatabase
from billing_headend import scripted_headend
from billing_run import Process, configuration, holds_every_record_once

from headend.billing import postgresql as postgresql_module
from headend.cli.main import main
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually


@pytest.fixture
def server(durable_server):
    yield durable_server
    if durable_server.process is None:
        durable_server.start()


@pytest.fixture
def durable(server):
    return PostgresDatabase(server.place())


async def test_consumer_and_server_killed_in_turn_every_record_counts_once(
    durable, server, tmp_path
):
    """SIGKILL between any two steps of either: what was receipted is there, nothing is twice."""
    dice = random.Random(7)
    with Mosquitto(tmp_path / "broker") as broker:
        process = Process(configuration(tmp_path, durable)(broker.port))
        await process.start()
        async with scripted_headend(broker) as he1:
            for victim in ("server", "consumer", "server", "server", "consumer"):
                await he1.announce(online=False)
                he1.append(300)
                await he1.announce()
                target = he1.receipted + dice.randint(1, len(he1.records) - he1.receipted)
                await eventually(lambda n=target: he1.receipted >= n)
                if victim == "server":
                    server.kill()
                    server.start()
                else:
                    await process.end(signal.SIGKILL)
                    await process.start()
                ((through_seq,),) = durable.rows("SELECT through_seq FROM feed_cursor")
                assert through_seq >= he1.receipted
            await he1.announce(online=False)
            await he1.announce()
            await eventually(lambda: he1.receipted == 1500)
            assert await process.end(signal.SIGTERM) == 0, process.stderr
        assert "Traceback" not in process.stderr
        holds_every_record_once(durable, he1.records)


async def test_a_process_that_is_started_before_its_database_waits_for_it(
    durable, server, tmp_path
):
    server.stop()
    with Mosquitto(tmp_path / "broker") as broker:
        process = Process(configuration(tmp_path, durable)(broker.port))
        try:
            await process.launch()
            await process.says(b"database away")
            server.start()
            await process.says(b"READY billing")
            async with scripted_headend(broker) as he1:
                he1.append(20)
                await he1.announce()
                await eventually(lambda: he1.receipted == 20)
        finally:
            if server.process is None:
                server.start()
            code = await process.end(signal.SIGTERM)
        assert code == 0, process.stderr


async def test_a_process_that_waits_for_its_database_can_be_ended(durable, server, tmp_path):
    server.stop()
    try:
        process = Process(configuration(tmp_path, durable)())
        await process.launch()
        await process.says(b"database away")
        assert await process.end(signal.SIGTERM) == 0
        assert "Traceback" not in process.stderr
    finally:
        server.start()


def test_a_second_process_on_one_database_is_refused(durable, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(postgresql_module._SETTINGS, "lock_timeout", "200ms")
    first = Inbox(durable)
    path = configuration(tmp_path, durable)()
    assert main(["billing", "run", "--config", str(path)]) == 4
    assert "another `headend billing run` writes to it" in capsys.readouterr().err
    assert first.take(reads(1, 4)).counts.new == 4
    first.close()


async def test_a_wrong_database_ends_the_process_with_its_reason(server, tmp_path):
    durable = PostgresDatabase(server.place())
    durable.execute("CREATE TABLE recipes (name TEXT)")
    process = Process(configuration(tmp_path, durable)())
    await process.launch()
    assert await process.ended() == 1
    assert "is a database of something else (it holds recipes)" in process.stderr
    assert "Traceback" not in process.stderr
