"""The alarm of a writer that stands still until a person changes something.

An event of the journal, `alarm` and `alarm_cleared` with `alarm: timeseries_stopped`: raised once,
cleared once. What is raised outlives a restart, because the journal knows it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from headend.domain.clock import Clock
from headend.domain.errors import JournalError
from headend.domain.meter import Event

log = logging.getLogger(__name__)

NAME = "timeseries_stopped"
RETRY_S = 5.0


class StoppedAlarm:
    """Of one database. Written by the supervised task `run`, so that nobody waits for it."""

    def __init__(
        self,
        database: str,
        append: Callable[[Event], Awaitable[int]],
        clock: Clock,
        told: Iterable[Event] = (),
    ) -> None:
        self._database = database
        self._append = append
        self._clock = clock
        self._written = database in alarmed(told)  # whether it stands in the journal
        # Until the first answer nobody knows better than the journal.
        self._wanted: str | None = "" if self._written else None
        self._something = asyncio.Event()

    @property
    def stands(self) -> bool:
        """Whether it is raised."""
        return self._wanted is not None

    def stand(self, reason: str) -> None:
        """Raise it unless it stands."""
        if self._wanted is None:
            log.error(
                "alarm=%s database=%s reason=%s",
                NAME,
                self._database,
                reason,
                extra={"about": self._database},
            )
            self._wanted = reason
            self._something.set()

    def clear(self) -> None:
        """Its reason is gone."""
        if self._wanted is not None:
            about = {"about": self._database}
            log.warning("alarm=%s cleared database=%s", NAME, self._database, extra=about)
            self._wanted = None
            self._something.set()

    async def run(self) -> None:
        """Bring the journal to what is so, until cancelled."""
        while True:
            self._something.clear()
            while self.stands != self._written:
                raised, reason = self.stands, self._wanted
                fields = {"alarm": NAME, "database": self._database}
                if reason:
                    fields["reason"] = reason
                kind = "alarm" if raised else "alarm_cleared"
                try:
                    await self._append(Event(kind, self._clock.now_ms(), fields))
                except JournalError as error:
                    log.warning("alarm %s not kept: %s", fields, error)
                    await asyncio.sleep(RETRY_S)
                else:
                    self._written = raised
            await self._something.wait()


def alarmed(told: Iterable[Event]) -> set[str]:
    """The databases whose alarm stands, by the events of the journal in their order."""
    standing: set[str] = set()
    for event in told:
        if event.fields.get("alarm") == NAME:
            move = standing.add if event.kind == "alarm" else standing.discard
            move(str(event.fields.get("database")))
    return standing
