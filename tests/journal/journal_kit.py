"""Makers of readings and exchanges, and a clock that tests set by hand."""

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from headend.domain.clock import from_iso
from headend.domain.exchange import Exchange, Outcome
from headend.domain.reading import Reading
from headend.journal import ConsumerSpec, Journal, JournalSettings

NOON_MS = from_iso("2026-03-01T12:00:00Z")
DAY_MS = 86_400_000
BILLING = ConsumerSpec("billing", frozenset({"billing", "events"}))
BOARD = ConsumerSpec("board", frozenset({"telemetry", "billing", "events"}))
ROOM = 1 << 40


@dataclass
class HandClock:
    """Stands still until it is set."""

    ms: int = NOON_MS
    seconds: float = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Disk:
    """Free bytes as a test wants them."""

    free: int = ROOM

    def __call__(self) -> int:
        return self.free


@dataclass
class Bench:
    """A journal's surroundings, so that a test can open it again and again."""

    path: Path
    clock: HandClock = field(default_factory=HandClock)
    disk: Disk = field(default_factory=Disk)
    consumers: tuple[ConsumerSpec, ...] = (BILLING, BOARD)
    settings: dict = field(default_factory=dict)

    async def open(self) -> Journal:
        wanted = {"lazy_ms": 20, "unclaimed_ms": 0, "full_retry_s": 0.0} | self.settings
        settings = JournalSettings(free_bytes=self.disk, **wanted)
        return await Journal.open(
            self.path,
            clock=self.clock,
            software="0.1.0",
            consumers=self.consumers,
            settings=settings,
        )


def exchange(n: int = 0, *, at_ms: int = NOON_MS, outcome: Outcome = Outcome.REPLY) -> Exchange:
    return Exchange(
        bus="street-a",
        device="000000000001",
        request=bytes.fromhex("FEFEFEFE68") + n.to_bytes(4, "big"),
        reply=bytes.fromhex("6891") + n.to_bytes(4, "big") if outcome is Outcome.REPLY else None,
        sent_ms=at_ms - 150,
        received_ms=at_ms,
        took_ms=150.25,
        attempt=1,
        outcome=outcome,
        stray=b"\xfe\xfe",
    )


def reading(
    value: str | None = "12345.60",
    *,
    meter: str = "M-1",
    point: str = "active_import_total",
    time_ms: int = NOON_MS,
    unit: str = "kWh",
    **more,
) -> Reading:
    more.setdefault("exchange", exchange(at_ms=time_ms))
    return Reading(
        meter=meter,
        service_point=f"SP-{meter}",
        point=point,
        value=None if value is None else Decimal(value),
        unit=unit,
        time_ms=time_ms,
        received_ms=time_ms + 80,
        **more,
    )
