"""What meters have shown of themselves, kept in the journal and given to the next session.

A session that learns has a value `learned`; what it is made of is its protocol's business. It is
written when it changes, of one meter at most once a minute, and never waited for.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from headend.acquisition.meter_reader import MeterSession
from headend.acquisition.sessions import Read, SessionAround
from headend.bus import Priority
from headend.domain.clock import Clock
from headend.domain.errors import JournalError
from headend.domain.meter import Meter
from headend.drivers import PointResult
from headend.journal import STATE_CHARS_MAX, KeptState

log = logging.getLogger(__name__)

WRITE_EVERY_S = 60.0

SessionOf = Callable[[Meter], MeterSession]


class Shown(Protocol):
    """A plain value: what one meter has shown. It is equal, or the same, when nothing is new."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; the driver makes the value of it again."""
        ...


@runtime_checkable
class Learning(Protocol):
    """A session that learns."""

    @property
    def learned(self) -> Shown:
        """What the meter has shown so far."""
        ...


class Keeper(Protocol):
    """Where states are kept: the journal."""

    def learn(self, meter: str, kept: KeptState) -> None:
        """Keep this one instead of the one before; never blocks."""
        ...

    async def forget(self, *meters: str) -> int:
        """Drop those of these meters; of how many there was something."""
        ...


def device_of(meter: Meter) -> str:
    """What a state holds for: another address or profile is another device."""
    return " ".join(part for part in (meter.address, meter.profile) if part)


class MeterMemory:
    """One for a daemon. `recall` for whoever opens sessions, `sessions` around what opens them.

    `reopen` is told of meters whose sessions must be opened anew.
    """

    def __init__(self, keeper: Keeper, kept: Mapping[str, KeptState], *, clock: Clock) -> None:
        self._keeper = keeper
        self._kept = dict(kept)
        self._clock = clock
        self._open: dict[str, MeterSession] = {}
        self._written_s: dict[str, float] = {}
        self._waiting: set[str] = set()
        self.reopen: Callable[[Iterable[str]], None] = lambda _meters: None

    def recall(self, meter: Meter) -> dict[str, Any] | None:
        """What this very meter has shown; None: nothing, or it is another device now."""
        kept = self._kept.get(meter.id)
        if kept is None or (kept.protocol, kept.device) != (meter.protocol, device_of(meter)):
            return None
        try:
            tree = json.loads(kept.state)
        except ValueError:
            tree = None
        return tree if isinstance(tree, dict) else None

    def sessions(
        self, open_session: Callable[[Meter], MeterSession]
    ) -> Callable[[Meter], MeterSession]:
        """`open_session`, whose sessions' states are kept."""

        def opened(meter: Meter) -> MeterSession:
            inner = open_session(meter)
            if not isinstance(inner, Learning):
                return inner
            session = _Remembered(meter, inner, self._after)
            self._open[meter.id] = session
            return session

        return opened

    async def keep_only(self, meters: Iterable[str]) -> None:
        """Drop the states of all other meters."""
        wanted = set(meters)
        gone = [meter for meter in self._kept if meter not in wanted]
        for meter in gone:
            self._drop(meter)
        try:
            if gone:
                await self._keeper.forget(*gone)
        except JournalError as error:
            log.warning("states of meters that are gone stay in the journal: %s", error)

    async def forget(self, meter: str) -> bool:
        """What this meter has shown holds no more; whether there was something."""
        known = meter in self._kept
        self._drop(meter)
        self.reopen([meter])
        return bool(await self._keeper.forget(meter)) or known

    def flush(self) -> None:
        """Hand over what waits for its minute."""
        self._write(0.0)

    def _drop(self, meter: str) -> None:
        self._kept.pop(meter, None)
        self._open.pop(meter, None)
        self._written_s.pop(meter, None)
        self._waiting.discard(meter)

    def _after(self, session: "_Remembered") -> None:
        """A read has ended."""
        if self._open.get(session.meter.id) is not session:
            return  # forgotten meanwhile, or the meter is another one
        if session.is_new:
            self._take(session.meter, session.shown)
        if self._waiting:
            self._write()

    def _take(self, meter: Meter, shown: Shown) -> None:
        state = json.dumps(shown.to_json(), separators=(",", ":"), ensure_ascii=False)
        if len(state) > STATE_CHARS_MAX:
            log.warning("meter=%s has shown too much to be kept: chars=%d", meter.id, len(state))
            return
        known = self._kept.get(meter.id)
        kept = KeptState(meter.protocol, device_of(meter), state, self._clock.now_ms())
        if known is None or known[:3] != kept[:3]:
            self._kept[meter.id] = kept
            self._waiting.add(meter.id)

    def _write(self, every_s: float = WRITE_EVERY_S) -> None:
        now = self._clock.monotonic()
        for meter in sorted(self._waiting):
            if now - self._written_s.get(meter, float("-inf")) >= every_s:
                self._waiting.discard(meter)
                self._keeper.learn(meter, self._kept[meter])
                self._written_s[meter] = now


class _Remembered(SessionAround):
    """A session whose state is looked at after each read."""

    def __init__(
        self, meter: Meter, inner: MeterSession, after: Callable[["_Remembered"], None]
    ) -> None:
        assert isinstance(inner, Learning)
        super().__init__(inner)
        self.meter = meter
        self._learning: Learning = inner
        self._known = inner.learned
        self._after = after

    @property
    def shown(self) -> Shown:
        """What the meter has shown; it is known from now on."""
        self._known = self._learning.learned
        return self._known

    @property
    def is_new(self) -> bool:
        """Whether it has shown something since `shown` was looked at."""
        learned = self._learning.learned
        return learned is not self._known and learned != self._known

    async def around(
        self, _points: Sequence[str], _priority: Priority, read: Read, /
    ) -> list[PointResult]:
        """The read, and what it has shown."""
        results = await read()
        self._after(self)
        return results
