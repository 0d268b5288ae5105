"""A simulated meter's own clock: local time at a fixed offset, wrong by an offset and a drift."""

import datetime as dt
from dataclasses import dataclass

from protocols.dlt645.formats import MeterTime
from simulators.energy import DAY_MS

_EPOCH = dt.date(1970, 1, 1)


@dataclass(slots=True)
class MeterClock:
    """A meter's own clock: local time at a fixed offset, wrong by an offset and a drift.

    Local time is counted in milliseconds since 1970-01-01 00:00 local. `drift_ppm` > 0 = fast.
    """

    utc_offset_min: int = 480
    error_ms: int = 0
    drift_ppm: int = 0
    set_at_ms: int = 0

    def local_ms(self, at_ms: int) -> int:
        """What the clock shows at a wall time."""
        drift = (at_ms - self.set_at_ms) * self.drift_ppm // 1_000_000
        return at_ms + self.utc_offset_min * 60_000 + self.error_ms + drift

    def wall_ms(self, local_ms: int) -> int:
        """The first millisecond of wall time at which the clock shows `local_ms` or later."""
        base = self.utc_offset_min * 60_000 + self.error_ms + self.set_at_ms
        guess = self.set_at_ms + (local_ms - base) * 1_000_000 // (1_000_000 + self.drift_ppm)
        while self.local_ms(guess) >= local_ms:
            guess -= 1
        while self.local_ms(guess) < local_ms:
            guess += 1
        return guess

    def set(self, at_ms: int, local_ms: int) -> None:
        """Show `local_ms` at `at_ms` and drift on from there."""
        self.set_at_ms = at_ms
        self.error_ms = local_ms - at_ms - self.utc_offset_min * 60_000


def meter_time(local_ms: int) -> MeterTime:
    """Date and time to the second, of a local millisecond count."""
    day, within = divmod(local_ms, DAY_MS)
    seconds = within // 1000
    time = dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60)
    return MeterTime(_EPOCH + dt.timedelta(days=day), time)


def local_ms_of(time: MeterTime) -> int:
    """The local millisecond count of a date and time, to the second."""
    days = (time.date - _EPOCH).days
    seconds = time.time.hour * 3600 + time.time.minute * 60 + time.time.second
    return days * DAY_MS + seconds * 1000
