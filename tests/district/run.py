"""A district through its days: the real daemon, the real feed, the real billing, on one loop."""

import asyncio
import contextlib
import random
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from headend.billing.consumer import BillingConsumer
from headend.billing.spec import configured_database
from headend.billing.store import Store
from headend.commands import Parts
from headend.config import Config
from headend.declaration_commands import DeclarationDesk
from headend.domain.clock import iso
from headend.journal import JournalSettings
from headend.messages.configured import configured_broker
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.district.broker import MemoryBroker
from tests.district.place import District, Hands
from tests.district.script import DAY_MS, Script
from tests.district.truth import Place
from tests.soak.world import daemon
from dataclasses import dataclass, field




@dataclass(slots=True)
class Lived:
    """What is left of a run: the files, and what really was."""

    script: Script
    folder: Path
    config: Config
    places: dict[str, Place]
    restarts: dict[str, int] = field(default_factory=dict)


Say = Callable[[str], None]


def live(script: Script, folder: Path, say: Say = lambda _text: None) -> Lived:
    """Live through it all in a folder of its own. Nothing in it is left to chance."""
    rng = random.Random(script.seed)
    random.seed(script.seed)
    with (
        # Virtual time stands while a commit is awaited: waiting for others to share it is no use.
        mock.patch(
            "headend.daemon.JournalSettings",
            partial(JournalSettings, group_gap_ms=0, group_wait_ms=0),
        ),
        mock.patch("headend.journal.opening.uuid4", lambda: uuid.UUID(int=rng.getrandbits(128))),
        mock.patch("headend.messages.connection.random.random", lambda: 0.5),
    ):
        lived: Lived = run_virtual(
            lambda loop: _days(loop, script, folder, say), start_ms=script.begin_ms
        )
    return lived


async def _days(loop: VirtualTimeLoop, script: Script, folder: Path, say: Say) -> Lived:
    district = District(loop, script)
    config = district.configure_all(folder)
    lived = Lived(script, folder, config, district.places)
    broker = MemoryBroker()
    story = _Story(district, broker)
    with mock.patch("headend.billing.consumer.Pipe", broker.made_for()):
        async with _billing(config, loop):
            crash = script.crash
            while True:
                until_ms = script.end_ms
                if crash is not None and loop.now_ms() < crash.from_ms:
                    until_ms = crash.from_ms
                async with daemon(
                    config,
                    district,
                    writer_slack_s=0.0,
                    pipe=broker.made_for(),
                    awaited=lambda _parts: None,
                ) as parts:
                    await story.go_on(until_ms, parts, say)
                    for name, state in parts.supervisor.states.items():
                        if state.restarts:
                            lived.restarts[name] = state.restarts
                    if until_ms == script.end_ms:
                        await _drained(parts)
                        break
                    kept = await _crash(parts, district, broker, folder)
                _as_it_was(config.journal_path, kept)
                assert crash is not None
                await _sleep_until(loop, crash.until_ms)
                district.connect(True)
                broker.is_up = True
    return lived


class _Story:
    """What happens besides: outages, swaps, declarations."""

    def __init__(self, district: District, broker: MemoryBroker) -> None:
        self._district = district
        self._broker = broker
        script = district.script
        todo: list[tuple[int, str, object]] = []
        if script.outage is not None:
            todo.append((script.outage.from_ms, "away", script.outage.name))
            todo.append((script.outage.until_ms, "back", script.outage.name))
        for swap in script.swaps:
            todo.append((swap.at_ms, "swap", swap))
            todo.append((swap.declared_ms, "declare", swap))
        todo += [(midnight, "day", midnight) for midnight in script.midnights()]
        self._todo = sorted(todo, key=lambda one: (one[0], one[1]))
        self._hands: dict[str, Hands] = {}

    async def go_on(self, until_ms: int, parts: Parts, say: Say) -> None:
        """Until an instant."""
        loop = self._district.loop
        while self._todo and self._todo[0][0] <= until_ms:
            at_ms, what, about = self._todo.pop(0)
            await _sleep_until(loop, at_ms)
            await self._happen(what, about, parts, say)
        await _sleep_until(loop, until_ms)

    async def _happen(self, what: str, about: object, parts: Parts, say: Say) -> None:
        district = self._district
        say(f"{iso(district.loop.now_ms())} {what} {about} {parts.journal.statistics}")
        if what == "away":
            district.links[str(about)].unplug()
        elif what == "back":
            district.links[str(about)].plug()
        elif what == "swap":
            self._hands[about.meter] = district.swap(about)
        elif what == "declare":
            hands = self._hands[about.meter]
            declare = DeclarationDesk(parts).commands()["meter_exchange"]
            await declare(
                {
                    "at": iso(about.at_ms),
                    "old_meter": about.meter,
                    "new_meter": about.new_meter,
                    "new_address": hands.address,
                    "old_final": hands.final,
                    "new_initial": hands.initial,
                    "by": "fitter",
                    "reason": "worn out",
                }
            )


async def _crash(
    parts: Parts, district: District, broker: MemoryBroker, folder: Path
) -> Path:
    """Everything that the process had is gone at this instant; its files stand as they stand."""
    district.connect(False)
    broker.cut()
    kept = folder / "as_it_was.db"
    with (
        contextlib.closing(sqlite3.connect(parts.config.journal_path)) as source,
        contextlib.closing(sqlite3.connect(kept)) as target,
    ):
        source.backup(target)
    return kept


def _as_it_was(journal: Path, kept: Path) -> None:
    """What was done while the process ended in good order has not been done."""
    for ending in ("-wal", "-shm"):
        Path(f"{journal}{ending}").unlink(missing_ok=True)
    kept.replace(journal)


@asynccontextmanager
async def _billing(config: Config, loop: VirtualTimeLoop) -> AsyncIterator[None]:
    """Billing, all the time."""
    section = config.billing
    assert section is not None
    store = Store(configured_database(config), name=section.name, clock=loop, software="district")
    consumer = BillingConsumer(
        broker=configured_broker(config),
        store=store,
        name=section.name,
        headends=section.headends,
        clock=loop,
    )
    task = asyncio.ensure_future(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await consumer.close()
        store.close()


async def _drained(parts: Parts) -> None:
    async with asyncio.timeout(3600):
        while parts.journal.cursors()["billing"].backlog:
            await asyncio.sleep(1)


async def _sleep_until(loop: VirtualTimeLoop, at_ms: int) -> None:
    while (left_ms := at_ms - loop.now_ms()) > 0:
        await asyncio.sleep(left_ms / 1000)
