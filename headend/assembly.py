"""Starts and stops the daemon's parts one at a time, as a configuration wants them.

The daemon puts them together with it at the start; a reload takes some of them apart and puts
others in their place, while the rest runs on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import msgspec

from headend import __version__
from headend.acquisition.plans import Backfilling, PlanEntry, ReadPlan
from headend.acquisition.poller import Poller
from headend.acquisition.sessions import KeptSessions
from headend.bus import Bus
from headend.bus.configured import bus_settings
from headend.commands import Parts, read_now
from headend.config import Config
from headend.config.sections.buses import BusSection
from headend.domain.clock import Clock
from headend.domain.exchange import Exchange
from headend.domain.link import LinkSpec
from headend.domain.meter import Event, Meter
from headend.drivers import bus_device
from headend.drivers.configured import ConfiguredSessions
from headend.feed.embedded_broker import embedded_broker
from headend.feed.publisher import Publisher
from headend.feed.settings import FeedSettings
from headend.journal import ConsumerSpec
from headend.journal.retention import Retention
from headend.messages.broker import BrokerSpec
from headend.messages.requests import PointAnswer
from headend.status import StatusServer
from headend.timeseries.service import TimeSeries
from headend.timeseries.service import consumers as timeseries_consumers
from headend.transport import Link

MakeLink = Callable[[LinkSpec], Link]


def read_plans(config: Config) -> dict[str, ReadPlan]:
    """The configuration's plans as acquisition uses them."""
    plans = {}
    for name, section in config.plans.items():
        entries = tuple(
            PlanEntry(
                points=entry.points,
                tolerance_ms=int(entry.tolerance_s * 1000),
                window_ms=int(entry.window_s * 1000),
                interval_s=entry.interval_s,
                **({} if entry.at is None else {"at": entry.at}),
                source=entry.origin,
                from_ms=entry.from_ms,
                until_ms=entry.until_ms,
            )
            for entry in section.entries()
        )
        later = section.backfill
        backfill = Backfilling(later.daily, later.load_records, later.days)
        plans[name] = ReadPlan(name, entries, backfill)
    return plans


def consumer_specs(config: Config) -> list[ConsumerSpec]:
    """Everybody who is promised a stream or a cursor."""
    feed = () if config.feed is None else config.feed.consumers
    return [
        *(
            ConsumerSpec(c.name, frozenset(c.classes), max_backlog_days=c.max_backlog_days)
            for c in feed
        ),
        *timeseries_consumers(config),
    ]


def make_bus(
    name: str,
    section: BusSection,
    links: MakeLink,
    clock: Clock,
    observer: Callable[[Exchange], None],
) -> Bus:
    """A bus that tells every attempt to `observer`. Its port is not opened before it runs."""
    link = links(section.link_spec)
    return Bus(name, link, bus_settings(section), clock=clock, observer=observer)


def hurrying(buses: Mapping[str, Bus]) -> Callable[[Meter], AbstractContextManager[None]]:
    """`Engine.hurry` with these buses: what is in a meter's way there goes first as well."""

    def hurry(meter: Meter) -> AbstractContextManager[None]:
        bus = buses.get(meter.bus)
        return nullcontext() if bus is None else bus.hurry(bus_device(meter))

    return hurry


@dataclass(slots=True)
class Assembly:
    """The running daemon's parts, and what they are made with.

    `plans` is the one that acquisition looks into; `opener` opens what `sessions` keeps.
    """

    parts: Parts
    plans: dict[str, ReadPlan]
    opener: ConfiguredSessions
    sessions: KeptSessions
    links: MakeLink
    broker: BrokerSpec | None = None  # how the feed reaches its broker

    # -- buses and pollers

    def start_bus(self, name: str, section: BusSection) -> None:
        """Make a bus and let it open its port."""
        parts = self.parts
        bus = make_bus(name, section, self.links, parts.clock, parts.journal.record_exchange)
        parts.buses[name] = bus
        parts.supervisor.start(f"bus:{name}", bus.run)

    async def stop_bus(self, name: str) -> None:
        """Close a bus's port. Who still asks it is told at once."""
        self.parts.buses.pop(name).retire()
        await self.parts.supervisor.remove(f"bus:{name}")

    def start_poller(self, poller: Poller) -> None:
        """Let a poller read what is due."""
        self.parts.supervisor.start(f"poll:{poller.bus}", poller.run)

    async def stop_poller(self, bus: str) -> None:
        """Read nothing more of a bus by plan."""
        if self.parts.engine.pollers.pop(bus, None) is not None:
            await self.parts.supervisor.remove(f"poll:{bus}")

    # -- the feed

    async def start_feed(
        self, config: Config, broker: BrokerSpec | None, told: Sequence[Event]
    ) -> None:
        """Serve the configuration's consumers; nothing without a feed.

        `told`: alarms and clearings that the journal knows.
        """
        parts, feed = self.parts, config.feed
        self.broker = broker
        if feed is None or broker is None:
            return
        where = feed.broker_spec
        if where.embedded and "broker" not in parts.supervisor.running():

            async def serve_broker() -> None:
                async with embedded_broker(where.host, where.port):
                    await asyncio.Event().wait()

            parts.supervisor.start("broker", serve_broker)

        async def answer(meter: str, points: Sequence[str], timeout_s: float) -> list[PointAnswer]:
            shown = await read_now(parts, meter, points, timeout_s)
            return [msgspec.convert(answer, PointAnswer) for answer in shown]

        parts.publisher = Publisher(
            parts.journal,
            broker,
            FeedSettings(
                receipt_timeout_s=feed.receipt_timeout_s,
                receipts_missing_s=feed.receipts_missing_s,
            ),
            headend=config.headend.name,
            clock=parts.clock,
            version=__version__,
            configuration_hash=config.hash,
            read_now=answer,
            told=told,
        )
        parts.supervisor.start("feed", parts.publisher.run)

    async def stop_feed(self, *, with_broker: bool) -> None:
        """Say goodbye to the broker; what is not receipted goes out when there is a feed again."""
        parts = self.parts
        if parts.publisher is not None:
            await parts.supervisor.remove("feed")
            parts.journal.off_append(parts.publisher.wake)
            parts.publisher = None
        if with_broker:
            await parts.supervisor.remove("broker")

    # -- databases for charts, retention

    def start_timeseries(self, told: Sequence[Event]) -> None:
        """A writer for every configured database. `told`: as for `start_feed`."""
        parts = self.parts
        parts.timeseries = TimeSeries(
            parts.config,
            parts.journal,
            clock=parts.clock,
            buses=parts.buses,
            told=told,
        )
        parts.timeseries.start(parts.supervisor)

    # -- the status page

    async def start_status(self, config: Config) -> None:
        """The status page and the metrics where the configuration wants them; nothing without."""
        await self.parts.supervisor.remove("status")
        if config.status is not None:
            server = StatusServer(self.parts, config.status)
            self.parts.supervisor.start("status", server.run)

    async def start_retention(self, config: Config) -> None:
        """Keep what the configuration says, from now on."""
        parts = self.parts
        await parts.supervisor.remove("retention")
        retention = Retention(
            parts.journal,
            zone=config.zone,
            clock=parts.clock,
            billing_days=config.retention.billing_days,
            telemetry_days=config.retention.telemetry_days,
        )
        parts.supervisor.start("retention", retention.run)
