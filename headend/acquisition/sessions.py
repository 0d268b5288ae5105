"""Sessions opened once a meter and kept: what they know is not worked out again."""

from collections.abc import Callable, Iterable

from headend.acquisition.meter_reader import MeterSession
from headend.domain.meter import Meter

SESSIONS_KEPT = 8192


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
