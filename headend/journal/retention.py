"""Drops the days that are old enough and that every consumer has receipted, class by class."""

import asyncio
import logging
from datetime import timedelta
from zoneinfo import ZoneInfo

from headend.domain.clock import Clock
from headend.domain.due import local_day
from headend.journal.journal import Journal
from headend.journal.model import RecordClass

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 3600.0


class Retention:
    """One supervised task: `run`. What a consumer has not receipted is kept, however old."""

    def __init__(
        self,
        journal: Journal,
        *,
        zone: ZoneInfo,
        clock: Clock,
        billing_days: int,
        telemetry_days: int,
    ) -> None:
        self._journal = journal
        self._zone = zone
        self._clock = clock
        self._days = {RecordClass.TELEMETRY: telemetry_days, RecordClass.BILLING: billing_days}

    async def run(self) -> None:
        """Look every hour, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_AGAIN_S)

    async def look(self) -> None:
        """Drop what may go now."""
        today = local_day(self._clock.now_ms(), self._zone)
        for record_class, days in self._days.items():
            before = today - timedelta(days=days)
            dropped = await self._journal.drop_days_before(before, record_class)
            if dropped:
                log.warning(
                    "retention class=%s days=%d before=%s dropped",
                    record_class.name.lower(), len(dropped), before,
                )  # fmt: skip
