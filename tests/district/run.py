"""A district through its days: the real daemon, the real feed, the real billing, on one loop."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock
from uuid import UUID

from headend.billing.consumer import BillingConsumer
from headend.billing.spec import configured_database
from headend.billing.store import Store
from headend.commands import Parts
from headend.config import Config
from headend.declaration_commands import DeclarationDesk
from headend.domain.clock import iso
from headend.messages.configured import configured_broker
from simulators.faults import seeded
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.district.broker import MemoryBroker
from tests.district.pace import unhurried
from tests.district.place import District, Hands
from tests.district.script import Script, Swap
from tests.district.truth import Place
from tests.soak.world import daemon


@dataclass(slots=True)
class Lived:
    """What is left of a run: the files, and what really was."""

    script: Script
    folder: Path
    config: Config
    places: dict[str, Place]
    restarts: dict[str, int] = field(default_factory=dict)


Say = Callable[[str], None]
_Happening = Callable[[Parts], Awaitable[None]]


def live(script: Script, folder: Path, say: Say = lambda _text: None) -> Lived:
    """Live through it all in a folder of its own. Nothing in it is left to chance."""
    rng = seeded(script.seed)

    def epoch() -> UUID:
        return UUID(int=rng.getrandbits(128))

    before = random.getstate()
    random.seed(script.seed)  # pauses before connecting again
    try:
        with (
            unhurried(),
            mock.patch("headend.journal.opening.uuid4", epoch),
        ):
            lived: Lived = run_virtual(
                lambda loop: _days(loop, script, folder, say), start_ms=script.begin_ms
            )
    finally:
        random.setstate(before)
    return lived


async def _days(loop: VirtualTimeLoop, script: Script, folder: Path, say: Say) -> Lived:
    district = District(loop, script)
    config = district.configure_all(folder)
    lived = Lived(script, folder, config, district.places)
    broker = MemoryBroker()
    story = _Story(district)
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
                    start_slack_s=0.0,
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
                district.plug_in()
                broker.is_up = True
    return lived


class _Story:
    """What happens besides: outages, swaps, declarations."""

    def __init__(self, district: District) -> None:
        self._district = district
        script = district.script
        self._hands: dict[str, Hands] = {}
        todo: list[tuple[int, str, _Happening]] = []
        if (outage := script.outage) is not None:
            link = district.links[outage.name]
            todo.append((outage.from_ms, f"{outage.name} is gone", _now(link.unplug)))
            todo.append((outage.until_ms, f"{outage.name} is back", _now(link.plug)))
        for swap in script.swaps:
            name = swap.meter
            todo.append((swap.at_ms, f"{name} is exchanged", partial(self._swap, swap)))
            todo.append((swap.declared_ms, f"{name} is declared", partial(self._declare, swap)))
        todo += [(at_ms, "midnight", _now(_nothing)) for at_ms in script.midnights()]
        self._todo = sorted(todo, key=lambda one: one[:2])

    async def go_on(self, until_ms: int, parts: Parts, say: Say) -> None:
        """Until an instant."""
        loop = self._district.loop
        while self._todo and self._todo[0][0] <= until_ms:
            at_ms, what, happen = self._todo.pop(0)
            await _sleep_until(loop, at_ms)
            say(f"{iso(loop.now_ms())} {what}; commits {parts.journal.statistics['commits']}")
            await happen(parts)
        await _sleep_until(loop, until_ms)

    async def _swap(self, swap: Swap, _parts: Parts) -> None:
        self._hands[swap.meter] = self._district.swap(swap)

    async def _declare(self, swap: Swap, parts: Parts) -> None:
        hands = self._hands[swap.meter]
        await DeclarationDesk(parts).commands()["meter_exchange"](
            {
                "at": iso(swap.at_ms),
                "old_meter": swap.meter,
                "new_meter": swap.new_meter,
                "new_address": hands.address,
                "old_final": hands.final,
                "new_initial": hands.initial,
                "by": "fitter",
                "reason": "worn out",
            }
        )


def _now(call: Callable[[], None]) -> _Happening:
    async def happen(_parts: Parts) -> None:
        call()

    return happen


def _nothing() -> None:
    pass


async def _crash(parts: Parts, district: District, broker: MemoryBroker, folder: Path) -> Path:
    """Everything that the process had is gone at this instant; its files stand as they stand."""
    district.pull_out()
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
