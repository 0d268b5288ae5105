"""The retained status: published when it changes, at a bounded rate, and on the way out."""

import asyncio
import logging
from collections.abc import Callable

from headend.domain.clock import Clock
from headend.feed.alarms import PUBLISH_REFUSED, FeedAlarms
from headend.feed.settings import FeedSettings
from headend.messages.pipe import Pipe, PipeLost, PublishRefused
from headend.messages.records import Status, encode

log = logging.getLogger(__name__)

GOODBYE_S = 2.0


class RetainedStatus:
    """Publishes what `make(online=...)` gives on `topic`."""

    def __init__(
        self,
        topic: str,
        make: Callable[..., Status],
        settings: FeedSettings,
        clock: Clock,
        alarms: FeedAlarms,
    ) -> None:
        self._topic = topic
        self._make = make
        self._settings = settings
        self._clock = clock
        self._alarms = alarms
        self._due = asyncio.Event()
        self._said = b""
        self._said_epoch = ""
        self._refusals = 0

    def wake(self) -> None:
        """It may have changed."""
        self._due.set()

    async def publish(self, pipe: Pipe) -> None:
        """Publish it as it is now. A refusal is an alarm, and it is tried again."""
        status = self._make(online=True)
        said = encode(status)
        try:
            await pipe.publish(self._topic, said, retain=True)
        except PublishRefused as error:
            self._refusals += 1
            self._alarms.raise_once(PUBLISH_REFUSED, self._topic, reason=error.reason)
            return
        self._refusals = 0
        self._said, self._said_epoch = said, status.epoch
        self._alarms.clear(PUBLISH_REFUSED, self._topic)

    async def keep(self, pipe: Pipe) -> None:
        """Publish it again when it changed; a new epoch at once. Until cancelled."""
        said_at = self._clock.monotonic()
        while True:
            await self._wait_due()
            left = said_at + self._settings.status_gap_s - self._clock.monotonic()
            if left > 0 and not self._is_new_epoch():
                try:
                    async with asyncio.timeout(left):
                        await self._epoch_changed()
                except TimeoutError:
                    self._due.clear()
            if self._refusals or encode(self._make(online=True)) != self._said:
                said_at = self._clock.monotonic()
                await self.publish(pipe)

    async def say_goodbye(self, pipe: Pipe) -> None:
        """On the way out of a living connection: offline, said by ourselves."""
        if not pipe.connected:
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                payload = encode(self._make(online=False))
                await pipe.publish(self._topic, payload, retain=True)
        except (TimeoutError, PipeLost, PublishRefused):
            log.debug("topic=%s left without a goodbye", self._topic)

    async def _wait_due(self) -> None:
        """Until it may have changed, or until a refused one is to be tried again."""
        pause_s = None
        if self._refusals:
            times = 2.0 ** min(self._refusals - 1, 32)
            pause_s = min(self._settings.refused_first_s * times, self._settings.refused_max_s)
        try:
            async with asyncio.timeout(pause_s):
                await self._due.wait()
        except TimeoutError:
            return
        self._due.clear()

    def _is_new_epoch(self) -> bool:
        return self._make(online=True).epoch != self._said_epoch

    async def _epoch_changed(self) -> None:
        while not self._is_new_epoch():
            self._due.clear()
            await self._due.wait()
