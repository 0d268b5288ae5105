"""Where time comes from. Everything that needs the time is handed a `Clock`.

Only `SystemClock` asks the operating system; compressed-time runs hand in a clock of their own.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps, monotonic time for durations."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps; its zero means nothing."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC: the same clock the event loop's timers run on."""
        return time.monotonic()


def to_datetime(time_ms: int) -> datetime:
    """The aware UTC datetime of a millisecond stamp, exactly."""
    seconds, ms = divmod(time_ms, 1000)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=ms * 1000)


def to_ms(when: datetime) -> int:
    """Whole milliseconds since 1970 UTC of an aware datetime (floor); naive ones are refused."""
    if when.tzinfo is None:
        msg = f"a datetime without a zone cannot be placed in time: {when!r}"
        raise ValueError(msg)
    delta = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def iso(time_ms: int) -> str:
    """ISO 8601 UTC text of a stamp; milliseconds only when there are any."""
    when = to_datetime(time_ms)
    text = when.strftime("%Y-%m-%dT%H:%M:%S")
    ms = time_ms % 1000
    return f"{text}.{ms:03d}Z" if ms else f"{text}Z"


def from_iso(text: str) -> int:
    """The millisecond stamp of an ISO 8601 text with an offset; ValueError otherwise."""
    try:
        return to_ms(datetime.fromisoformat(text))
    except OverflowError as error:
        msg = f"{text} is outside the years 1 to 9999 UTC"
        raise ValueError(msg) from error
