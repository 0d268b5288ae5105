"""The n-th step between the daemon, the broker and billing fails.

The whole daemon with meters on lines in memory, its feed over a real mosquitto, and the real
billing consumer with its database, on one loop in virtual time. What fails is a step of one end's
pipe: a connection that is not made, a subscription or a message that is not sent, an
acknowledgement lost behind a message that the broker has, a message lost on its way in, a refusal,
and a message that is acknowledged and delivered to nobody. Whatever it is, every point is read and
the billing holds in the end exactly what the journal holds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from headend.billing.consumer import BillingConsumer
from headend.billing.spec import configured_database
from headend.billing.store import Store
from headend.billing.views import BillingView
from headend.commands import Parts
from headend.config import Config
from headend.journal import JournalReader
from headend.messages.configured import configured_broker
from headend.messages.connect_words import Code, Why
from headend.messages.pipe import PipeLost, PublishRefused
from headend.supervisor import Supervisor
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.nth_failure.nth import Nth, Patience, Run
from tests.nth_failure.truth import check_journal
from tests.soak.world import (
    EXPORT,
    IMPORT,
    Estate,
    HeldPipe,
    Mosquitto,
    daemon,
    local_ms,
)

START, END = "2026-11-25T23:59:40", "2026-11-26T00:05:40"
BAUD = 9600
ANSWER_S = 0.3  # real: longer than this no broker of this machine and no database takes
DRAIN_S = 1800.0
QUIET_S = 30.0
CUT_EVERY_S = 100.0
FEED, BILLING = "feed", "billing"
PLANS = (
    f"  p: {{daily: {{at: '00:00', points: [{IMPORT}], from: freeze}}, "
    f"every: [{{minutes: 5, points: [{EXPORT}]}}]}}"
)


@dataclass(frozen=True)
class Way:
    """What fails at whose end. `cuts`: connections break now and then besides."""

    end: str
    step: str
    times: int = 1
    cuts: bool = False


WAYS = {
    f"{end}: {text}": Way(end, step, times, cuts)
    for end in (FEED, BILLING)
    for text, step, times, cuts in (
        ("connect, three in a row", "connect", 3, True),
        ("subscribe", "subscribe", 1, True),
        ("publish", "send", 1, False),
        ("publish, acknowledgement lost", "ack", 1, False),
        ("publish, refused", "refused", 1, False),
        ("publish, acknowledged and dropped", "dropped", 1, False),
        ("message on its way in", "message", 1, False),
    )
}


class Faults:
    """Counts the steps of the pipes and says which one fails."""

    def __init__(self, way: Way, nth: Nth) -> None:
        self.way = way
        self.nth = nth
        self.pipes: list[FailingPipe] = []

    def hits(self, end: str, step: str) -> bool:
        """One more step of an end's pipe: whether it is to fail."""
        return (end, step) == (self.way.end, self.way.step) and self.nth.fails()

    def cut(self) -> None:
        """Break the connections that stand."""
        for pipe in self.pipes:
            pipe.lose()
        self.pipes.clear()


class FailingPipe(HeldPipe):
    """The real pipe, one of whose steps fails."""

    faults: Faults

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._end = BILLING if self._client_id.startswith("headend-billing") else FEED

    async def _open(self) -> None:
        if self.faults.hits(self._end, "connect"):
            raise PipeLost(self._spec.name, Why(Code.UNREACHABLE, "no connection"))
        await super()._open()
        self.faults.pipes.append(self)

    async def subscribe(self, *topic_filters: str) -> None:
        """Fail, or subscribe."""
        if self.faults.hits(self._end, "subscribe"):
            self.lose()
        await super().subscribe(*topic_filters)

    async def send(
        self, topic: str, payload: bytes, *, retain: bool = False
    ) -> "asyncio.Future[None]":
        """Fail, do as if, or send."""
        done: asyncio.Future[None] = self._loop.create_future()
        if self.faults.hits(self._end, "send"):
            self.lose()
        if self.faults.hits(self._end, "refused"):
            self._alive()
            text = f"{topic} is refused"
            done.set_exception(PublishRefused(text, topic=topic, reason="Not authorized"))
            done.exception()
            return done
        # A retained status is not made up for before the next one.
        if not retain and self.faults.hits(self._end, "dropped"):
            self._alive()
            done.set_result(None)
            return done
        return await super().send(topic, payload, retain=retain)

    def lose(self) -> None:
        """The connection breaks."""
        self._lose("broken by the test")

    def _on_publish(self, client: Any, data: object, mid: int, reason: Any, props: object) -> None:
        if self.faults.hits(self._end, "ack"):
            self.lose()
            return
        super()._on_publish(client, data, mid, reason, props)

    def _on_message(self, client: Any, data: object, message: Any) -> None:
        if self.faults.hits(self._end, "message"):
            self.lose()
            return
        super()._on_message(client, data, message)


def run(way: Way, n: int, folder: Path) -> Run:
    """One run, in an empty folder, with a broker of its own."""
    with Mosquitto(folder / "broker") as broker:
        return run_virtual(
            lambda loop: _live(loop, way, n, folder, broker.url), start_ms=local_ms(START)
        )


async def _live(loop: VirtualTimeLoop, way: Way, n: int, folder: Path, broker: str) -> Run:
    estate, nth = Estate(loop, buses=1, each=2, baud=BAUD), Nth(n, way.times)
    config = estate.configure(folder, PLANS, broker=broker)
    faults = Faults(way, nth)
    pipe = type("FailingPipe", (FailingPipe,), {"faults": faults})
    until_ms = local_ms(END)
    async with (
        _billing(config, loop, pipe) as (consumer, supervisor),
        daemon(config, estate, pipe=pipe, awaited=_awaited(consumer)) as parts,
    ):
        while (left_s := (until_ms - loop.now_ms()) / 1000) > 0:
            await asyncio.sleep(min(left_s, CUT_EVERY_S))
            if way.cuts:
                faults.cut()
        is_drained = await _drained(parts)
        died = {
            name: one.restarts
            for states in (parts.supervisor.states, supervisor.states)
            for name, one in states.items()
            if one.restarts
        }
    due, findings = check_journal(config.journal_path, estate, until_ms)
    findings += _against_billing(config)
    if not is_drained:
        findings.append("records wait for a receipt and none comes")
    if died:
        findings.append(f"tasks died: {died}")
    return Run(n, nth.asked, nth.hits, due, findings)


@contextlib.asynccontextmanager
async def _billing(
    config: Config, loop: VirtualTimeLoop, pipe: type[FailingPipe]
) -> AsyncIterator[tuple[BillingConsumer, Supervisor]]:
    """`headend billing run`, on this loop."""
    section = config.billing
    assert section is not None
    store = Store(configured_database(config), name=section.name, clock=loop, software="test")
    consumer = BillingConsumer(
        broker=configured_broker(config, for_billing=True),
        store=store,
        name=section.name,
        headends=section.headends,
        clock=loop,
    )
    with mock.patch("headend.billing.consumer.Pipe", pipe):
        async with Supervisor() as supervisor:
            supervisor.start("billing", consumer.run)
            yield consumer, supervisor
    await consumer.close()
    store.close()


def _awaited(consumer: BillingConsumer) -> Any:
    """What virtual time waits for: whether billing goes on while there is something for it."""
    held: list[Patience] = []

    def mark(parts: Parts) -> object:
        cursor = parts.journal.cursors()["billing"]
        if not cursor.backlog or parts.publisher is None or not parts.publisher.connected:
            return None
        return cursor.receipted_seq, consumer.totals.batches, consumer.totals.receipts

    def patient(parts: Parts) -> object:
        if not held:
            held.append(Patience(lambda: mark(parts), ANSWER_S))
        return held[0]()

    return patient


async def _drained(parts: Parts) -> bool:
    """Whether everything is receipted in the end, and stays so."""
    loop = asyncio.get_running_loop()
    end, since = loop.time() + DRAIN_S, loop.time()
    while loop.time() < end:
        await asyncio.sleep(1)
        if parts.journal.cursors()["billing"].backlog:
            since = loop.time()
        elif loop.time() - since >= QUIET_S:
            return True
    return False


def _against_billing(config: Config) -> list[str]:
    """What billing holds must be what the journal holds: no more, no less, nothing odd."""
    found = []
    with (
        JournalReader(config.journal_path) as journal,
        BillingView(configured_database(config)) as billing,
    ):
        ours = {(r.read_id, r.meter, r.point, r.value) for r in journal.readings()}
        theirs = [(r.read_id, r.meter, r.point, r.value) for r in billing.readings()]
        events = len(journal.events())
        status = billing.status()
    if ours - set(theirs):
        found.append(f"billing does not have {len(ours - set(theirs))} readings")
    if set(theirs) - ours or len(theirs) != len(ours):
        found.append(f"billing holds {len(theirs)} readings, the journal {len(ours)}")
    counts = status["counts"]
    if counts["events"] != events:
        found.append(f"billing holds {counts['events']} events, the journal {events}")
    odd = {name: counts[name] for name in ("replaced", "conflicts", "dead_letters")}
    if any(odd.values()) or status["gaps"]:
        found.append(f"billing found something odd: {odd}, gaps {status['gaps']}")
    return found
