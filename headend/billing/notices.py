"""What billing notices of its own connection: rows among its alarms, until it is over.

Kinds: `broker_refused` (no connection until a person changes something; the subject is the
broker) and `receipt_refused` (the broker does not take our receipts; the subject is the topic).
"""

import asyncio
from collections import deque
from collections.abc import Callable

from headend.billing.store import Store
from headend.billing.store_thread import StoreThread
from headend.messages.connect_words import needs_a_person
from headend.messages.connection import ConnectionState

BROKER_REFUSED = "broker_refused"
RECEIPT_REFUSED = "receipt_refused"
EVERY_HEADEND = ""  # the connection carries all of them
UNWRITTEN_MAX = 64

_Subject = tuple[str, str, str]  # head-end, kind, subject


class Notices:
    """Written by `run`, in the order they came; each state once, however often it is met."""

    def __init__(self, store: Store, thread: StoreThread, broker: str) -> None:
        self._store = store
        self._thread = thread
        self._broker = broker
        self._states: dict[_Subject, bool] = {}  # whether it is bad; not met yet: neither
        self._unwritten: deque[Callable[[], None]] = deque(maxlen=UNWRITTEN_MAX)
        self._something = asyncio.Event()

    def bad(self, headend: str, kind: str, subject: str, detail: str) -> bool:
        """It does not work; whether that is news."""
        key = (headend, kind, subject)
        if self._states.get(key) is True:
            return False
        self._states[key] = True
        self._write(lambda: self._store.note_alarm(*key, detail))
        return True

    def good(self, headend: str, kind: str, subject: str) -> None:
        """It works. An alarm of an earlier life of the process is over then, too."""
        key = (headend, kind, subject)
        if self._states.get(key) is False:
            return
        self._states[key] = False
        self._write(lambda: self._store.alarm_is_over(*key))

    def connection_changed(self, state: ConnectionState) -> None:
        """For `ConnectionWatch`."""
        if state.is_connected:
            self.good(EVERY_HEADEND, BROKER_REFUSED, self._broker)
        elif state.code is not None and needs_a_person(state.code):
            self.bad(EVERY_HEADEND, BROKER_REFUSED, self._broker, f"{state.code}: {state.text}")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._unwritten:
                await self._thread.ask(self._unwritten.popleft())

    def _write(self, call: Callable[[], None]) -> None:
        self._unwritten.append(call)
        self._something.set()
