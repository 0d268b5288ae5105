"""Sessions around sessions; and those opened once a meter and kept, with what they know."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from headend.acquisition.meter_reader import MeterSession
from headend.bus import Priority
from headend.domain.meter import Meter
from headend.drivers import PointResult

Read = Callable[[], Awaitable[list[PointResult]]]

SESSIONS_KEPT = 8192


class SessionAround:
    """A session around another one: what happens at each of its reads stands in `around`."""

    def __init__(self, inner: MeterSession) -> None:
        self._inner = inner

    @property
    def inner(self) -> MeterSession:
        """The session itself."""
        return self._inner

    async def around(
        self, points: Sequence[str], priority: Priority, read: Read, /
    ) -> list[PointResult]:
        """What comes of the read of these points that `read` makes."""
        raise NotImplementedError

    async def read(
        self,
        points: Sequence[str],
        *,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
    ) -> list[PointResult]:
        """Live values."""
        return await self.around(
            points,
            priority,
            lambda: self._inner.read(points, priority=priority, deadline=deadline),
        )

    async def read_frozen(
        self,
        points: Sequence[str],
        *,
        nth: int = 1,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
    ) -> list[PointResult]:
        """Values the meter froze by itself."""
        return await self.around(
            points,
            priority,
            lambda: self._inner.read_frozen(points, nth=nth, priority=priority, deadline=deadline),
        )


class KeptSessions:
    """`open_session`, asked again only when something about the meter has changed."""

    def __init__(self, open_session: Callable[[Meter], MeterSession]) -> None:
        self._open_session = open_session
        self._kept: dict[str, tuple[Meter, MeterSession]] = {}

    def __call__(self, meter: Meter) -> MeterSession:
        """The meter's session."""
        kept = self._kept
        known = kept.get(meter.id)
        if known is not None and (known[0] is meter or known[0] == meter):
            return known[1]
        if len(kept) >= SESSIONS_KEPT:
            kept.clear()
        session = self._open_session(meter)
        kept[meter.id] = (meter, session)
        return session

    def forget(self, meters: Iterable[str]) -> None:
        """Open these anew when they are needed next: what they stand on has changed."""
        for meter in meters:
            self._kept.pop(meter, None)
