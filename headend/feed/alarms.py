"""The feed's own alarms: each raised once, and cleared once when its reason is gone.

An alarm is an event of the journal and travels on the same streams as everything else, so it must
never bring about another one: while it is raised, nothing more is said about its subject. What is
raised outlives a restart, because the journal knows it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from headend.domain.clock import Clock, iso
from headend.domain.errors import JournalError
from headend.domain.meter import Event

log = logging.getLogger(__name__)

PUBLISH_REFUSED = "publish_refused"  # the broker acknowledges a topic's messages with a refusal
RECEIPTS_MISSING = "receipts_missing"  # records wait and the consumer has not receipted for long
BROKER_REFUSED = "broker_refused"  # no connection until a person changes something
FEED_STOPPED = "feed_stopped"  # a record that cannot be sent

# The field that says what an alarm of this name is about.
SUBJECTS = {
    PUBLISH_REFUSED: "topic",
    RECEIPTS_MISSING: "consumer",
    BROKER_REFUSED: "broker",
    FEED_STOPPED: "consumer",
}
UNWRITTEN_MAX = 64
RETRY_S = 5.0

Fields = dict[str, str | int]
_Key = tuple[str, str]


class FeedAlarms:
    """What is raised now, and the events that still have to be written."""

    def __init__(
        self,
        append: Callable[[Event], Awaitable[int]],
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._append = append
        self._clock = clock
        self._on_change = on_change
        self._raised: dict[_Key, Event] = {}
        self._unwritten: deque[Event] = deque(maxlen=UNWRITTEN_MAX)
        self._something = asyncio.Event()

    def restore(self, events: Iterable[Event]) -> None:
        """Take up what an earlier life of the process raised: alarms and clearings, in order."""
        for event in events:
            name = str(event.fields.get("alarm"))
            subject = event.fields.get(SUBJECTS.get(name, ""))
            if subject is None:
                continue
            if event.kind == "alarm":
                self._raised[name, str(subject)] = event
            else:
                self._raised.pop((name, str(subject)), None)

    def is_raised(self, name: str, subject: str) -> bool:
        """Whether this alarm stands."""
        return (name, subject) in self._raised

    def standing_event(self, name: str, subject: str) -> Event | None:
        """The event that raised an alarm that stands."""
        return self._raised.get((name, subject))

    def raise_once(self, name: str, subject: str, **fields: str | int) -> bool:
        """Raise an alarm unless it stands already; whether it is new."""
        if self.is_raised(name, subject):
            return False
        event = self._say("alarm", name, subject, fields)
        self._raised[name, subject] = event
        self._on_change()
        return True

    def clear(self, name: str, subject: str, **fields: str | int) -> bool:
        """The reason is gone; whether the alarm stood."""
        if self._raised.pop((name, subject), None) is None:
            return False
        self._say("alarm_cleared", name, subject, fields)
        self._on_change()
        return True

    def clear_others(self, name: str, subjects: Iterable[str]) -> None:
        """Nobody will ever clear an alarm whose subject is not there any more."""
        wanted = set(subjects)
        for raised, subject in list(self._raised):
            if raised == name and subject not in wanted:
                self.clear(name, subject, reason="no longer configured")

    def standing(self) -> list[Fields]:
        """What is raised now, with `since`; for people and programs that ask."""
        return [
            {"since": iso(event.at_ms), **event.fields} for _, event in sorted(self._raised.items())
        ]

    async def run(self) -> None:
        """Write the events into the journal, in order, until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._unwritten:
                event = self._unwritten[0]
                try:
                    await self._append(event)
                except JournalError as error:
                    log.warning("alarm %s not kept: %s", event.fields, error)
                    await asyncio.sleep(RETRY_S)
                    continue
                if self._unwritten and self._unwritten[0] is event:
                    self._unwritten.popleft()

    def _say(self, kind: str, name: str, subject: str, fields: Fields) -> Event:
        fields = {"alarm": name, SUBJECTS[name]: subject, **fields}
        event = Event(kind, self._clock.now_ms(), fields)
        shown = " ".join(f"{key}={value}" for key, value in fields.items() if key != "alarm")
        what = name if kind == "alarm" else f"{name} cleared"
        log.warning("alarm=%s %s", what, shown, extra={"about": (what, subject)})
        self._unwritten.append(event)
        self._something.set()
        return event
