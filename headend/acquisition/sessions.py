"""Sessions opened once a meter and kept: what they know is not worked out again."""

from collections.abc import Callable

from headend.acquisition.meter_reader import MeterSession
from headend.domain.meter import Meter

SESSIONS_KEPT = 8192


def kept_sessions(open_session: Callable[[Meter], MeterSession]) -> Callable[[Meter], MeterSession]:
    """`open_session`, asked again only when something about the meter has changed."""
    kept: dict[str, tuple[Meter, MeterSession]] = {}

    def session_of(meter: Meter) -> MeterSession:
        known = kept.get(meter.id)
        if known is not None and (known[0] is meter or known[0] == meter):
            return known[1]
        if len(kept) >= SESSIONS_KEPT:
            kept.clear()
        session = open_session(meter)
        kept[meter.id] = (meter, session)
        return session

    return session_of
