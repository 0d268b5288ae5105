"""The one thread that works on a store, as the event loop sees it.

The loop never waits for the database. While the database is away what was asked is asked again,
with growing pauses, and one line is logged when it goes and one when it is back. The store lets
go of its session with each failure, so every try begins with what is durable.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headend.billing.errors import DatabaseAway
from headend.billing.store import Store
from headend.domain.clock import Clock

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 10.0
PATIENCE_S = 120.0  # no transaction of ours takes so long: the server or the line has stopped
CLOSE_PATIENCE_S = 3.0

_T = TypeVar("_T")


async def open_store(
    make: Callable[[], Store],
    *,
    stop: asyncio.Event,
    name: str,
    on_away: Callable[[], None] = lambda: None,
) -> Store | None:
    """What `make` gives, once the database is there; None when `stop` came first.

    Waits for a server that is not up yet. What a person has to change is raised: ConfigError,
    BillingDatabaseError, DatabaseAway.
    """
    pause_s = RETRY_FIRST_S
    is_told = False
    while not stop.is_set():
        try:
            return await asyncio.to_thread(make)
        except DatabaseAway as error:
            if error.is_lasting:
                raise
            if not is_told:
                is_told = True
                log.warning("billing=%s database away: %s (waiting for it)", name, error)
                on_away()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()
        pause_s = min(pause_s * 2, RETRY_MAX_S)
    return None


class StoreThread:
    """Asks `store`; it stays the caller's. `failures` counts those of the `tries` that failed."""

    def __init__(
        self, store: Store, *, name: str, clock: Clock, patience_s: float = PATIENCE_S
    ) -> None:
        self._store = store
        self._name = name
        self._clock = clock
        self._patience_s = patience_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="billing-store")
        self._away_since: float | None = None
        self.failures = 0
        self.tries = 0

    @property
    def is_away(self) -> bool:
        """The last try came to nothing."""
        return self._away_since is not None

    async def ask(self, call: Callable[..., _T], *args: object) -> _T:
        """What a call of the store gives, however long the database is away.

        BillingDatabaseError when asking again would not help.
        """
        pause_s = RETRY_FIRST_S
        while True:
            self.tries += 1
            try:
                result = await self._once(call, *args)
            except DatabaseAway as error:
                self._note_away(error)
            else:
                self._note_back()
                return result
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def close(self) -> None:
        """Wait until the thread has finished what it was at; not for a server that is silent."""
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(
                asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
            )
            while not (await asyncio.wait((ending,), timeout=CLOSE_PATIENCE_S))[0]:
                self._store.cut()

    async def _once(self, call: Callable[..., _T], *args: object) -> _T:
        future = asyncio.get_running_loop().run_in_executor(self._thread, call, *args)
        try:
            while not (await asyncio.wait((future,), timeout=self._patience_s))[0]:
                log.warning(
                    "billing=%s the database has not answered for %.0f s, breaking the line",
                    self._name,
                    self._patience_s,
                    extra={"about": self._name},
                )
                self._store.cut()
        except asyncio.CancelledError:
            if not future.cancel() and not future.cancelled():
                future.exception()  # whatever it was, nobody waits for it any more
            raise
        return future.result()

    def _note_away(self, error: DatabaseAway) -> None:
        self.failures += 1
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
        log.warning(
            "billing=%s database away: %s (trying again)",
            self._name,
            error,
            extra={"about": self._name},
        )

    def _note_back(self) -> None:
        if self._away_since is None:
            return
        away_s = self._clock.monotonic() - self._away_since
        self._away_since = None
        log.warning("billing=%s database back after %.1f s", self._name, away_s)
