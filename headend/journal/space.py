"""Watches the room on the disk: telemetry is shed first, billing values last.

Three levels. `LOW`: births of telemetry alone are refused. `FULL`: everything is, but what makes
room (retention) and what costs next to nothing (cursors): that is what the reserve is for.
"""

import logging
import shutil
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from headend.domain.meter import Event
from headend.journal.model import JournalSettings

log = logging.getLogger(__name__)

HYSTERESIS = 1.1  # a level is left when a tenth more than its reserve is free


class Level(IntEnum):
    """How much may still be written."""

    OK = 0
    LOW = 1
    FULL = 2


def file_system_free(path: Path) -> Callable[[], int]:
    """Free bytes of the file system a file lies on, as a callable."""
    return lambda: shutil.disk_usage(path.parent).free


class SpaceGuard:
    """Decides the level before every group and tells, once each, that it was entered and left."""

    def __init__(
        self,
        settings: JournalSettings,
        free_bytes: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._telemetry = settings.reserve_bytes_telemetry
        self._billing = settings.reserve_bytes_billing
        self._retry_s = settings.full_retry_s
        self._free_bytes = free_bytes
        self._monotonic = monotonic
        self._level = Level.OK
        self._full_at: float | None = None
        self._untold: list[tuple[str, Level, int]] = []
        self.refused_telemetry = 0
        self.refused_billing = 0

    def look(self) -> Level:
        """What may be written now."""
        free = self._free_bytes()
        level = self._level_for(free)
        if self._full_at is not None:
            # SQLite itself ran out, whatever the figure says: telemetry waits a while, then one
            # group is tried; only its commit shows that there is room again.
            if self._monotonic() - self._full_at < self._retry_s:
                level = max(level, Level.LOW)
            elif level is Level.OK:
                return level
        self._enter(level, free)
        return level

    def committed(self) -> None:
        """A group has been written whole at the level that `look` gave."""
        if self._full_at is not None and self._monotonic() - self._full_at >= self._retry_s:
            free = self._free_bytes()
            if self._level_for(free) is Level.OK:
                self._full_at = None
                self._enter(Level.OK, free)

    @property
    def untold(self) -> bool:
        """There are alarms to be written."""
        return bool(self._untold)

    def ran_out(self) -> None:
        """SQLite found no room: shed telemetry for a while."""
        self._full_at = self._monotonic()
        self._enter(max(self._level, Level.LOW), self._free_bytes())

    def events(self, now_ms: int) -> list[Event]:
        """The alarms not told yet. They count as told when `told` is called after the commit."""
        events = []
        for kind, level, free in self._untold:
            shed = "nothing" if kind == "alarm_cleared" else _SHED[level]
            fields = {
                "alarm": "journal_space",
                "level": level.name.lower(),
                "free_bytes": free,
                "refused_telemetry": self.refused_telemetry,
                "refused_billing": self.refused_billing,
                "message": f"{free} bytes free for the journal; refused: {shed}",
            }
            events.append(Event(kind, now_ms, fields))
        return events

    def told(self) -> None:
        """The events are committed."""
        self._untold.clear()

    def _level_for(self, free: int) -> Level:
        ease = HYSTERESIS if self._level is Level.FULL else 1.0
        if free < self._billing * ease:
            return Level.FULL
        ease = HYSTERESIS if self._level is not Level.OK else 1.0
        return Level.LOW if free < self._telemetry * ease else Level.OK

    def _enter(self, level: Level, free: int) -> None:
        if level is self._level:
            return
        kind = "alarm_cleared" if level is Level.OK else "alarm"
        log.warning("journal space level=%s free_bytes=%d", level.name.lower(), free)
        self._untold.append((kind, level, free))
        del self._untold[:-8]
        self._level = level


_SHED = {
    Level.OK: "nothing",
    Level.LOW: "telemetry",
    Level.FULL: "everything",
}
