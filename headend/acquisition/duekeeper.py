"""Freezes each day's list of due points before the day begins, and closes days in the end.

The list of a local day is frozen whole, in the last hour of the day before (at the first start:
the rest of the running day). Days that passed while the daemon was away are frozen afterwards,
with every point: the denominator does not shrink because nobody was there to read. A meter that
is new counts from the next day's list on. 72 hours after its end a day is closed.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from headend.acquisition.plans import ReadPlan, instants
from headend.acquisition.registry import Registry
from headend.domain.clock import Clock
from headend.domain.due import DueKey, DuePoint, day_bounds_ms, local_day
from headend.domain.meter import Meter
from headend.journal import Journal

log = logging.getLogger(__name__)

FREEZE_AHEAD_MS = 3_600_000
CLOSE_AFTER_MS = 72 * 3_600_000
CATCH_UP_DAYS_MAX = 35
LOOK_AGAIN_S = 60.0


class DueKeeper:
    """One supervised task: `run`. `prepare` must have returned before polling starts."""

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        plans: Mapping[str, ReadPlan],
        *,
        zone: ZoneInfo,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._plans = plans
        self._zone = zone
        self._clock = clock
        self.begun_ms = 0  # when the very first list was frozen, by this daemon; 0: long ago

    async def prepare(self) -> None:
        """Freeze what has to be frozen by now; close what has to be closed by now."""
        now_ms = self._clock.now_ms()
        today = local_day(now_ms, self._zone)
        last = await self._journal.last_frozen_day()
        if last is None:
            self.begun_ms = now_ms
            await self._freeze(today, now_ms)
        else:
            first = max(last + timedelta(days=1), today - timedelta(days=CATCH_UP_DAYS_MAX))
            while first <= today:
                await self._freeze(first, day_bounds_ms(first, self._zone)[0])
                first += timedelta(days=1)
        tomorrow = today + timedelta(days=1)
        tomorrow_ms = day_bounds_ms(tomorrow, self._zone)[0]
        is_known = last is not None and last >= tomorrow
        if now_ms >= tomorrow_ms - FREEZE_AHEAD_MS and not is_known:
            await self._freeze(tomorrow, tomorrow_ms)
        for day in await self._journal.open_days():
            if day_bounds_ms(day, self._zone)[1] + CLOSE_AFTER_MS <= now_ms:
                await self._journal.close_due_day(day)
                log.info("day=%s closed", day)

    async def run(self) -> None:
        """Look again every minute, for ever."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            await self.prepare()

    async def _freeze(self, day: date, from_ms: int) -> None:
        end_ms = day_bounds_ms(day, self._zone)[1]
        points: list[DuePoint] = []
        meters = None
        while meters != self._registry.all():  # once, unless a meter is exchanged meanwhile
            meters, points = self._registry.all(), []
            for meter in meters:
                points += self._points(meter, from_ms, end_ms)
                await asyncio.sleep(0)  # a thousand take a second, and the buses must go on
        count = await self._journal.freeze_due(day, points)
        if count:
            log.info("day=%s due_points=%d frozen", day, count)

    def _points(self, meter: Meter, from_ms: int, end_ms: int) -> Iterator[DuePoint]:
        for entry in self._plans[meter.plan].entries:
            for due_ms in instants(entry, from_ms, end_ms, self._zone):
                for point in entry.points:
                    key = DueKey(meter.id, point, due_ms)
                    yield DuePoint(key, meter.bus, meter.area, due_ms + entry.window_ms)
