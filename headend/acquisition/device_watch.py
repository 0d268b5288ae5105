"""What devices say of themselves that is not as it should be, as alarms in the journal.

Sessions tell (`tell`), and never wait; `run` writes. An alarm that stands is raised once and
cleared once, over restarts too; one of a meter that is no longer in force is cleared.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from headend.domain.alarms import CLEARED, RAISED, standing
from headend.domain.clock import Clock
from headend.domain.errors import JournalError
from headend.domain.meter import Event, Meter
from headend.drivers.modbus_check import DEVICE_CHANGED, RATIO_MISMATCH, Notice

log = logging.getLogger(__name__)

STANDING = frozenset({RATIO_MISMATCH, DEVICE_CHANGED})
WAITING_MAX = 4096  # notices that are not written yet; a device says the rest again
RETRY_S = 5.0
LOOK_S = 60.0


class DeviceWatch:
    """One for a daemon. `append` writes an event; `meters` are those in force.

    `told`: alarms and clearings that the journal knows.
    """

    def __init__(
        self,
        append: Callable[[Event], Awaitable[Any]],
        clock: Clock,
        *,
        meters: Callable[[], Iterable[Meter]],
        told: Iterable[Event] = (),
        look_s: float = LOOK_S,
    ) -> None:
        self._append = append
        self._clock = clock
        self._meters = meters
        self._look_s = look_s
        self._waiting: deque[Event] = deque()
        self._stands = {
            (alarm.name, alarm.subject) for alarm in standing(told) if alarm.name in STANDING
        }
        self._wake = asyncio.Event()

    def tell(self, meter: Meter, notice: Notice) -> None:
        """A device of this meter was looked at. Never blocks."""
        key = (notice.name, meter.id)
        if notice.stands is False:
            if key in self._stands and self._push(CLEARED, notice.name, meter.id, {}):
                self._stands.discard(key)
            return
        fields = {"service_point": meter.service_point, **notice.fields}
        if not self._push(RAISED, notice.name, meter.id, fields):
            return
        about = {"about": key}
        log.warning(
            "alarm=%s meter=%s: %s", notice.name, meter.id, fields.get("reason"), extra=about
        )
        if notice.stands:
            self._stands.add(key)

    def _push(self, kind: str, name: str, meter: str, fields: dict[str, Any]) -> bool:
        if len(self._waiting) >= WAITING_MAX:
            return False
        event = Event(kind, self._clock.now_ms(), {"alarm": name, "meter": meter, **fields})
        self._waiting.append(event)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Write what was told, until cancelled."""
        while True:
            self._clear_gone()
            await self._write()
            self._wake.clear()
            if self._waiting:
                continue
            try:
                async with asyncio.timeout(self._look_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _clear_gone(self) -> None:
        """Nobody answers any more for a meter that is not in force."""
        here = {meter.id for meter in self._meters()}
        for name, meter in sorted(self._stands):
            if meter not in here and self._push(CLEARED, name, meter, {"reason": "meter is gone"}):
                self._stands.discard((name, meter))

    async def _write(self) -> None:
        """In order; one that cannot be written now is tried again, and the rest waits."""
        while self._waiting:
            try:
                await self._append(self._waiting[0])
            except JournalError as error:
                log.warning("an alarm of a device waits to be written: %s", error)
                await asyncio.sleep(RETRY_S)
            else:
                self._waiting.popleft()
