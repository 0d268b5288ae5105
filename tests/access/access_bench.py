"""What the tests of TLS and access lists stand on: both real ends of the feed on one broker."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

from headend.billing.consumer import BillingConsumer
from headend.billing.store import Store
from headend.billing.views import BillingView
from headend.domain.clock import SystemClock
from headend.domain.exchange import Exchange, Outcome
from headend.domain.reading import Reading
from headend.feed.publisher import Publisher
from headend.feed.settings import FeedSettings
from headend.journal import ConsumerSpec, Journal, JournalSettings
from headend.journal.model import Birth
from headend.messages.connection import Backoff
from tests.support.waiting import eventually

CLOCK = SystemClock()
QUICK = Backoff(
    first_s=0.02, max_s=0.1, healthy_s=1.0, spread=0.0, login_first_s=0.2, login_max_s=0.4
)
FAST = FeedSettings(
    records_max=20,
    window_batches=5,
    window_records=100,
    receipt_timeout_s=0.4,
    receipts_missing_s=60.0,
    resume_gap_s=0.02,
    status_wait_s=0.05,
    status_gap_s=0.05,
    refused_first_s=0.05,
    refused_max_s=0.2,
)
EXCHANGE = Exchange(
    bus="street-a",
    device="000000000001",
    request=bytes.fromhex("FEFEFEFE68010000000000681104333334333316"),
    reply=bytes.fromhex("680100000000006891083333343300000000B716"),
    sent_ms=1_795_564_800_000,
    received_ms=1_795_564_800_300,
    took_ms=300.0,
    attempt=1,
    outcome=Outcome.REPLY,
)


class HeadEnd:
    """A journal and its publisher; `begin` and `end` as often as wanted."""

    def __init__(self, folder, spec, *, name="he1", settings=FAST, consumers=("billing",)):
        self.spec = spec
        self.name = name
        self.settings = settings
        self._path = folder / f"{name}.db"
        self._consumers = [ConsumerSpec(c, frozenset({"billing", "events"})) for c in consumers]
        self._written = 0
        self.journal = None
        self.publisher = None
        self._task = None

    async def begin(self):
        self.journal = await Journal.open(
            self._path,
            clock=CLOCK,
            software="0.1.0",
            consumers=self._consumers,
            settings=JournalSettings(free_bytes=lambda: 1 << 40),
        )
        self.publisher = Publisher(
            self.journal,
            self.spec,
            self.settings,
            headend=self.name,
            clock=CLOCK,
            version="0.1.0",
            configuration_hash="c0ffee",
            backoff=QUICK,
            told=await self.journal.meter_events(("alarm", "alarm_cleared")),
        )
        self._task = asyncio.create_task(self.publisher.run())

    async def end(self):
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.journal.close()
            self._task = None

    async def write(self, count):
        for number in range(self._written, self._written + count):
            at_ms = 1_795_564_800_000 + number * 900_000
            reading = Reading(
                meter="M-0001",
                service_point="SP-1",
                point="active_import_total",
                value=Decimal(number) / 100,
                unit="kWh",
                time_ms=at_ms,
                received_ms=at_ms + 300,
                exchange=EXCHANGE,
            )
            await self.journal.append(Birth((reading,)))
        self._written += count

    def cursor(self, consumer="billing"):
        return self.journal.cursors()[consumer]

    def is_receipted(self, consumer="billing"):
        at = self.cursor(consumer)
        return at.last_seq == at.receipted_seq

    @property
    def state(self):
        return self.publisher.connection.state

    async def events(self):
        """Every alarm and clearing the journal holds, in order."""
        found = await self.journal.meter_events(("alarm", "alarm_cleared"))
        return [(event.kind, event.fields) for event in found]

    async def has_events(self, *wanted):
        """Whether the journal's alarms and clearings are these, as (kind, name)."""
        return [(kind, fields["alarm"]) for kind, fields in await self.events()] == list(wanted)


class Billing:
    """Billing's database and its consumer."""

    def __init__(self, folder, spec, *, headends=("he1",)):
        self.url = f"sqlite:///{folder}/billing.db"
        self.store = Store(self.url, name="billing", clock=CLOCK, software="0.1.0")
        self.consumer = BillingConsumer(
            broker=spec,
            store=self.store,
            name="billing",
            headends=headends,
            clock=CLOCK,
            backoff=QUICK,
        )
        self._task = None

    def begin(self):
        self._task = asyncio.create_task(self.consumer.run())

    async def end(self):
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.consumer.close()
        self.store.close()

    @property
    def state(self):
        return self.consumer.connection.state

    def readings(self):
        with BillingView(self.url) as view:
            return len(list(view.readings()))

    def alarms(self):
        """Alarm rows: (head-end, kind, subject) -> (detail, times)."""
        with BillingView(self.url) as view:
            return {
                (row["headend"], row["kind"], row["subject"]): (row["detail"], row["times"])
                for row in view.status()["alarms"]
            }


@asynccontextmanager
async def head_end(folder, spec, **more):
    one = HeadEnd(folder, spec, **more)
    try:
        await one.begin()
        yield one
    finally:
        await one.end()


@asynccontextmanager
async def billing(folder, spec, **more):
    one = Billing(folder, spec, **more)
    try:
        one.begin()
        yield one
    finally:
        await one.end()


async def delivered(he, bill, count):
    """Wait until billing holds `count` readings and every record is receipted."""
    await eventually(lambda: bill.readings() == count and he.is_receipted(), what="delivered")
