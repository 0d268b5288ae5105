"""Whatever a database answers, in whatever order: afterwards it holds every journalled value, the
last revision stands, dead letters are the bad lines and no others, and nothing ever got stuck."""

import asyncio
import base64
import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Literal

import pytest

from headend.domain.reading import Status
from headend.journal import RecordClass
from headend.timeseries.target import Target
from tests.journal.journal_kit import DAY_MS, NOON_MS, reading
from tests.support.waiting import eventually
from tests.timeseries.line_parser import parse_line
from tests.timeseries.series_kit import CONSUMER, QUICK, STEP_MS, Key, World, assert_same
from tests.timeseries.stub_server import CONFIGURATION, PASSING, Stub

pytestmark = pytest.mark.timeout(60)

Kind = Literal["influxdb1", "influxdb2"]
KINDS: tuple[Kind, ...] = ("influxdb1", "influxdb2")
TIMEOUT_S = 0.15
SECRET = "geheim/wörter%20+="
HURRY = replace(QUICK, retry_first_s=0.002, retry_max_s=0.01, stopped_first_s=0.005,
                stopped_max_s=0.01)  # fmt: skip


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with Stub() as server:
        yield server
        assert server.broken == []


def target_of(stub: Stub, kind: Kind = "influxdb1", **more) -> Target:
    names = {"database": "m"} if kind == "influxdb1" else {"org": "o", "bucket": "m"}
    wanted = {"timeout_s": TIMEOUT_S, "connect_timeout_s": TIMEOUT_S} | names | more
    return Target(kind=kind, url=stub.url, **wanted)


def world_of(tmp_path: Path, stub: Stub, kind: Kind = "influxdb1", **more) -> World:
    return World(tmp_path, target_of(stub, kind, **more), HURRY)


def bad_voltage(key: Key) -> bool:
    """What the database refuses: voltages of one meter at every third instant."""
    _measurement, meter, _sp, _interval, field, time_ms = key
    return meter == "M-2" and field.startswith("voltage_a") and time_ms // STEP_MS % 3 == 0


def assert_as_journalled(world: World, stub: Stub) -> None:
    """Everything is there but what is refused for good, and that is what the dead letters say."""
    expected = world.expected()
    bad = {key for key in expected if stub.bad(key)}
    assert_same(stub.held, {key: v for key, v in expected.items() if key not in bad})
    letters = [parse_line(letter["line"]) for letter in world.dead_letters()]
    named = [(line.tags["meter"], name, line.time) for line in letters for name in line.fields]
    assert len(named) == len(set(named)), "a line was given up twice"
    assert set(named) == {(meter, field, ms) for _m, meter, _sp, _i, field, ms in bad}


def assert_in_order(stub: Stub) -> None:
    """What is said for the first time comes in the journal's order."""
    seen: set[Key] = set()
    times = []
    for key, _value in stub.log:
        if key not in seen and key[1].startswith("M-"):
            seen.add(key)
            times.append(key[-1])
    assert times == sorted(times)


async def cleared(world: World) -> bool:
    """Whether the newest word of the journal is that the writer does not stand still."""
    events = await world.journal.meter_events(("alarm", "alarm_cleared"))
    return bool(events) and events[-1].kind == "alarm_cleared"


# -- one answer after another


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [*PASSING, *CONFIGURATION])
async def test_after_any_answer_everything_is_there(
    tmp_path: Path, stub: Stub, kind: Kind, step: str
) -> None:
    world = world_of(tmp_path, stub, kind)
    stub.will(step, "", step, step)
    async with world.running():
        await world.fill(12)
        await world.written()
        if step in CONFIGURATION:
            await eventually(lambda: cleared(world))  # the journal says so before it ends
    assert stub.did[step] >= 2
    assert_as_journalled(world, stub)
    assert_in_order(stub)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keeps_good", [True, False])
async def test_bad_lines_are_found_and_named_and_nothing_waits_behind_them(
    tmp_path: Path, stub: Stub, kind: Kind, keeps_good: bool
) -> None:
    stub.bad, stub.keeps_good = bad_voltage, keeps_good
    world = world_of(tmp_path, stub, kind)
    async with world.running():
        await world.fill(30)
        await world.written()
        assert_as_journalled(world, stub)
        assert len(world.dead_letters()) == 10
        assert all(letter["status"] == 400 for letter in world.dead_letters())
        assert all("voltage_a" in letter["text"] for letter in world.dead_letters())
        if not keeps_good:
            assert_in_order(stub)
        assert world.writer.report()["dead_letters"] == 10
        requests = stub.requests
        await world.writer.replay(0)
        await world.written()
        assert stub.requests > requests
        assert len(world.dead_letters()) == 10  # refused again, kept once


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_too_long_is_halved_until_it_fits(
    tmp_path: Path, stub: Stub, kind: Kind
) -> None:
    stub.body_bytes_max = 700
    stub.bad = bad_voltage
    world = world_of(tmp_path, stub, kind)
    async with world.running():
        await world.fill(20)
        await world.written()
    assert_as_journalled(world, stub)
    assert max(map(len, stub.bodies)) > 700


async def test_a_line_too_long_by_itself_is_given_up_and_named(tmp_path: Path, stub: Stub) -> None:
    stub.body_bytes_max = 150
    world = world_of(tmp_path, stub)
    async with world.running():
        await world.fill(1)
        await world.append(reading("1.5", meter="M-" + "9" * 80))
        await world.fill(1, first=1)
        await world.written()
        (letter,) = world.dead_letters()
        assert letter["status"] == 413
        assert "9" * 80 in letter["line"]
        expected = {k: v for k, v in world.expected().items() if "999" not in k[1]}
        assert_same(stub.held, expected)


async def test_a_server_that_hangs_on_much_is_asked_for_less(tmp_path: Path, stub: Stub) -> None:
    settings = replace(HURRY, lines_max=500, records_read=500)
    world = World(tmp_path, target_of(stub), settings)
    async with world.running():
        stub.will(*["hang"] * 3)
        await world.fill(60, meters=3)
        await world.written()
    assert len({len(body) for body in stub.bodies}) > 1
    assert_as_journalled(world, stub)


async def test_retry_after_is_kept_to(tmp_path: Path, stub: Stub) -> None:
    stub.retry_after = "0.4"
    stub.will("429")
    world = world_of(tmp_path, stub)
    loop = asyncio.get_running_loop()
    async with world.running():
        start = loop.time()
        await world.fill(2)
        await world.says("retrying")
        assert "answer 429: slow down" in world.writer.report()["message"]
        await world.written()
        assert loop.time() - start >= 0.4
    assert_as_journalled(world, stub)


# -- orders nobody thought of


@pytest.mark.parametrize("seed", range(6))
async def test_in_any_order_of_faults_restarts_and_revisions_nothing_is_lost(
    tmp_path: Path, stub: Stub, seed: int
) -> None:
    lot = random.Random(seed)
    stub.lot = random.Random(seed + 1000)
    stub.odds = lot.choice((0.2, 0.4))
    quick = tuple(step for step in PASSING if not step.startswith("hang"))
    hangs = ("hang", "hang kept")
    stub.choices = (*quick * 3, *hangs, *CONFIGURATION, "413", "413", "413")
    stub.keeps_good = lot.random() < 0.5
    if lot.random() < 0.7:
        stub.bad = bad_voltage
    if lot.random() < 0.3:
        stub.body_bytes_max = 1200
    settings = replace(HURRY, lines_max=lot.choice((7, 50, 300)), records_read=lot.choice((3, 40)))
    world = World(tmp_path, target_of(stub, lot.choice(KINDS)), settings)
    n = 0
    for life in range(3):
        async with world.running():
            for _ in range(lot.randrange(1, 4)):
                count = lot.randrange(1, 7)
                await world.fill(count, first=n)
                n += count
                for _ in range(lot.randrange(3)):
                    again = NOON_MS + lot.randrange(n) * STEP_MS
                    value = f"{lot.randrange(10**6)}.{lot.randrange(100):02d}"
                    status = lot.choice((Status.ACTUAL, Status.ACTUAL, Status.ESTIMATED))
                    await world.append(reading(value, meter="M-1", time_ms=again, status=status))
                if lot.random() < 0.3:
                    await world.writer.replay(0)
                await asyncio.sleep(lot.random() * 0.05)
            if life == 2:
                await world.written(timeout_s=40)
    assert_as_journalled(world, stub)


async def test_each_revision_is_written_in_its_turn(tmp_path: Path, stub: Stub) -> None:
    stub.lot, stub.odds = random.Random(7), 0.5
    stub.choices = tuple(step for step in PASSING if not step.startswith("hang"))
    values = [f"{n}.25" for n in range(20)]
    world = world_of(tmp_path, stub)
    async with world.running():
        for value in values:
            await world.append(reading(value))
        await world.written()
    said = [str(value) for key, value in stub.log if key[4] == "active_import_total"]
    in_turn = [value for i, value in enumerate(said) if i == 0 or said[i - 1] != value]
    assert in_turn == values


# -- restarts, replays, cancellation


async def test_ended_between_answer_and_receipt_the_state_is_the_same(
    tmp_path: Path, stub: Stub
) -> None:
    stub.bad = bad_voltage
    world = world_of(tmp_path, stub)
    async with world.running():
        await world.fill(10)
        await world.written()
    held, letters = dict(stub.held), world.dead_letters()
    async with world.running():
        # As a crash leaves it that comes before the cursor is on the disk.
        await world.journal.set_cursor(CONSUMER, 5)
    async with world.running():
        await world.written()
    assert stub.held == held
    assert world.dead_letters() == letters
    assert_as_journalled(world, stub)


async def test_a_replay_is_not_undone_by_the_request_under_way(tmp_path: Path, stub: Stub) -> None:
    world = world_of(tmp_path, stub)
    async with world.running():
        await world.fill(10)
        await world.written()
        stub.held.clear()  # the database was lost
        stub.will(*["hang kept"] * 3)
        await world.fill(2, first=10)
        await eventually(lambda: stub.did.get("hang kept", 0) > 0)
        assert await world.writer.replay(0) == 1
        await world.written()
        assert_as_journalled(world, stub)


STATES = ("", "slow", "hang", "hang kept", "429", "500", "reset", "401", "404", "garbage")


@pytest.mark.parametrize(
    ("kind", "step"), [(KINDS[i % 2], step) for i, step in enumerate((*STATES, "hang"))]
)
async def test_cancelled_in_any_state_it_ends_at_once_and_goes_on_later(
    tmp_path: Path, stub: Stub, kind: Kind, step: str
) -> None:
    slow = replace(HURRY, retry_first_s=30.0, retry_max_s=30.0, stopped_first_s=30.0)
    world = World(tmp_path, target_of(stub, kind, timeout_s=30.0), slow)
    stub.retry_after = "30"
    stub.will(*[step] * 2)
    loop = asyncio.get_running_loop()
    async with world.running():
        await world.fill(8)
        await eventually(lambda: stub.requests > 0)
        await asyncio.sleep(0.02)  # into the middle of it, wherever that is
        start = loop.time()
        await world.supervisor.stop("writer")
        assert loop.time() - start < 0.5
    stub.script.clear()
    async with world.running():
        await world.written()
    assert_as_journalled(world, stub)


# -- what nobody may see


@pytest.mark.parametrize("kind", KINDS)
async def test_secrets_are_in_no_log_status_or_alarm(
    tmp_path: Path, stub: Stub, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET + "\n", encoding="utf-8")
    if kind == "influxdb1":
        pair = base64.b64encode(f"writer:{SECRET}".encode()).decode()
        stub.authorization = f"Basic {pair}"
        world = world_of(tmp_path, stub, kind, username="writer", password_file=secret)
        hidden = [SECRET, pair]
    else:
        secret.write_text("token-of-ours+/==", encoding="utf-8")
        stub.authorization = "Token token-of-ours+/=="
        world = world_of(tmp_path, stub, kind, token_file=secret)
        hidden = ["token-of-ours"]
    stub.script = deque([*CONFIGURATION, *PASSING])
    told = ""
    async with world.running():
        n = 0
        while stub.script:
            await world.fill(1, first=n)
            n += 1
            told += f"{world.writer.report()} {world.target!r}"
        await world.written()
        secret.chmod(0o644)  # and what can be wrong with the file itself
        stub.will("401")
        await world.fill(1, first=n)
        await eventually(lambda: "read by everybody" in str(world.writer.report()["message"]))
        told += str(world.writer.report())
        secret.chmod(0o600)
        await world.written()
        for event in await world.journal.meter_events(("alarm", "alarm_cleared")):
            told += str(event)
    told += caplog.text
    for one in hidden:
        assert one not in told
    assert_as_journalled(world, stub)


# -- the journal around it


async def test_over_its_days_it_is_expired_with_an_alarm_and_goes_on(
    tmp_path: Path, stub: Stub
) -> None:
    stub.lot, stub.odds, stub.choices = random.Random(1), 1.0, ("503",)  # away for a long time
    world = world_of(tmp_path, stub)
    async with world.running():
        await world.fill(4)
        world.bench.clock.ms += 40 * DAY_MS
        until = date(2026, 3, 20)
        for record_class in (RecordClass.TELEMETRY, RecordClass.BILLING):
            await world.journal.drop_days_before(until, record_class)
        alarms = await world.journal.meter_events(("alarm",))
        assert any(event.fields.get("consumer") == CONSUMER for event in alarms)
        later = NOON_MS + 40 * DAY_MS
        await world.append(reading("77.5", time_ms=later))
        stub.odds = 0.0
        await world.written()
        assert stub.held[("register", "M-1", "SP-M-1", "", "active_import_total", later)]
        assert world.writer.report()["state"] == "writing"
        assert world.cursor.backlog == 0


async def test_an_alarm_of_a_database_no_longer_configured_is_cleared(tmp_path: Path) -> None:
    from headend.timeseries.alarm import StoppedAlarm, alarmed

    world = World(tmp_path, Target(kind="influxdb1", url="http://127.0.0.1:1", database="m"))
    journal = await world.bench.open()
    async with journal:
        first = StoppedAlarm("gone", journal.append_event, world.bench.clock)
        first.stand("no such database")
        task = asyncio.create_task(first.run())

        async def told():
            return await journal.meter_events(("alarm", "alarm_cleared"))

        await eventually(told)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert alarmed(await told()) == {"gone"}
        again = StoppedAlarm("gone", journal.append_event, world.bench.clock, await told())
        assert again.stands
        again.clear()  # before it runs: a task that is started anew must see it
        task = asyncio.create_task(again.run())

        async def both():
            return len(await told()) == 2

        await eventually(both)
        assert alarmed(await told()) == set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
