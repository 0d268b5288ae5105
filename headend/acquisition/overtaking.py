"""Somebody who asks for a meter that is just being read by plan does not wait for all of that read.

On the line of a bus a request of a person waits for one exchange. A meter is read by one reader at
a time, though, and a plan's read may be many exchanges long. So the plan's read is broken off at
its next exchange, gives way, and is done again at once behind the person's. That happens to a
meter's read at most `GIVES_WAY_MAX` times in a row: it is not put off for ever.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from headend.acquisition.meter_reader import MeterSession, Taken
from headend.acquisition.sessions import Read, SessionAround
from headend.bus import Priority
from headend.domain.errors import BusError
from headend.domain.meter import Meter
from headend.drivers import PointResult

GIVES_WAY_MAX = 2
POINTS_MIN = 2  # a single point is one exchange or two: not worth breaking off
REASON = "overtaken"


class Overtaken(BusError):
    """A read by plan gave way to one that somebody asked for; it is to be done again at once."""


def was_overtaken(taken: Sequence[Taken]) -> bool:
    """Whether this is what became of a read: it says nothing of the meter."""
    return any(
        outcome.result is not None and isinstance(outcome.result.error, Overtaken)
        for outcome in taken
    )


class Overtaking:
    """Who is waiting for which meter, and whose read gives way."""

    def __init__(self) -> None:
        self._ahead: Counter[str] = Counter()
        self._under_way: dict[str, asyncio.Timeout] = {}
        self._gave_way: Counter[str] = Counter()

    @contextmanager
    def ahead(self, meter: str) -> Iterator[None]:
        """Somebody waits for this meter, or is reading it: what is read by plan gives way."""
        self._ahead[meter] += 1
        reading = self._under_way.get(meter)
        if reading is not None and reading.when() is None:
            reading.reschedule(asyncio.get_running_loop().time())
        try:
            yield
        finally:
            self._ahead[meter] -= 1
            if not self._ahead[meter]:
                del self._ahead[meter]

    def sessions(
        self, open_session: Callable[[Meter], MeterSession]
    ) -> Callable[[Meter], MeterSession]:
        """`open_session`, whose sessions give way."""
        return lambda meter: _GivingWay(meter, open_session(meter), self)

    async def read(
        self,
        meter: Meter,
        points: Sequence[str],
        priority: Priority,
        read: Read,
    ) -> list[PointResult]:
        """What `read` gives, or `Overtaken` for every point when it had to give way."""
        if priority is Priority.ON_DEMAND or len(points) < POINTS_MIN:
            return await read()
        if self._gave_way[meter.id] >= GIVES_WAY_MAX or meter.id in self._under_way:
            del self._gave_way[meter.id]
            return await read()
        if meter.id in self._ahead:
            return self._give_way(meter, points)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._under_way[meter.id] = scope
                try:
                    results = await read()
                finally:
                    del self._under_way[meter.id]
        except TimeoutError:
            if not scope.expired():
                raise
            return self._give_way(meter, points)
        del self._gave_way[meter.id]
        return results

    def _give_way(self, meter: Meter, points: Sequence[str]) -> list[PointResult]:
        self._gave_way[meter.id] += 1
        error = Overtaken(f"meter {meter.id} is read for somebody else first", bus=meter.bus)
        return [PointResult(point, "", None, "", None, None, 0, error) for point in points]


class _GivingWay(SessionAround):
    """A session whose reads by plan can be broken off."""

    def __init__(self, meter: Meter, inner: MeterSession, overtaking: Overtaking) -> None:
        super().__init__(inner)
        self._meter = meter
        self._overtaking = overtaking

    async def around(
        self, points: Sequence[str], priority: Priority, read: Read, /
    ) -> list[PointResult]:
        """The read, or that it gave way."""
        return await self._overtaking.read(self._meter, points, priority, read)
