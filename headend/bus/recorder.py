"""Makes the record of every attempt, counts it, and tells it to the observer."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from headend.bus.attempt import Attempt
from headend.bus.latency import Latency
from headend.bus.queue import Pending
from headend.domain.exchange import Exchange, Outcome

if TYPE_CHECKING:
    from protocols.framing import Match


class Recorder:
    """Tells the observer by the event loop: what it raises is reported there and counted here.

    It has been told before the caller of the exchange goes on, whose future is set later.
    """

    def __init__(self, bus: str, observer: Callable[[Exchange], None]) -> None:
        self._bus = bus
        self._observer = observer
        self.outcomes: Counter[Outcome] = Counter()
        self.stray_bytes = 0
        self.frames: Counter[Match] = Counter()  # see BusStatistics
        self.bytes_sent = 0
        self.noise: Counter[str] = Counter()
        self.latency = Latency()
        self.observer_failures = 0

    def record(
        self,
        pending: Pending,
        attempt: Attempt,
        loop: asyncio.AbstractEventLoop,
        *,
        sent_ms: int,
        received_ms: int,
        took_s: float,
    ) -> Exchange:
        """The Exchange of an attempt that has ended."""
        assert attempt.outcome is not None
        request = pending.request
        exchange = Exchange(
            bus=self._bus,
            device=request.device,
            request=request.payload if request.recorded is None else request.recorded,
            reply=attempt.reply,
            sent_ms=sent_ms,
            received_ms=received_ms,
            took_ms=took_s * 1000,
            attempt=pending.attempts,
            outcome=attempt.outcome,
            stray=bytes(attempt.stray) if request.recorded is None else b"",
        )
        self.outcomes[attempt.outcome] += 1
        self.stray_bytes += attempt.stray_count
        self.bytes_sent += len(exchange.request)
        if attempt.reply is not None and attempt.outcome is not Outcome.UNREACHED:
            self.latency.add(took_s)
        if attempt.noise:
            self.noise.update(attempt.noise)
        if attempt.kinds:
            self.frames.update(attempt.kinds)
        loop.call_soon(self._tell, exchange)
        return exchange

    def _tell(self, exchange: Exchange) -> None:
        told = False
        try:
            self._observer(exchange)
            told = True
        finally:
            if not told:
                self.observer_failures += 1
