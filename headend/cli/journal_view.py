"""What the commands that look into the journal share: times, days, JSON of its objects."""

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from headend.domain.clock import iso, to_datetime, to_ms
from headend.domain.errors import ConfigError
from headend.journal import DueLine
from headend.messages.records import ReadRecord

DAY_HINT = "for example 2026-03-01"
TIME_HINT = "for example 2026-03-01, 2026-03-01T08:00 (local) or 2026-03-01T00:00:00Z"


def parse_day(text: str, option: str) -> date:
    """A calendar day from the command line."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        msg = f"{option} {text} is not a day"
        raise ConfigError(msg, hint=DAY_HINT) from None


def parse_instant(text: str | None, option: str, zone: ZoneInfo) -> int | None:
    """An instant from the command line in UTC ms; without an offset it is local time."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{option} {text} is not a time"
        raise ConfigError(msg, hint=TIME_HINT) from None
    return to_ms(when if when.tzinfo is not None else when.replace(tzinfo=zone))


def local(time_ms: int, zone: ZoneInfo) -> str:
    """A time for people: local, with milliseconds only when there are any."""
    when = to_datetime(time_ms).astimezone(zone)
    text = f"{when:%Y-%m-%d %H:%M:%S}"
    return f"{text}.{time_ms % 1000:03d}" if time_ms % 1000 else text


def record_json(record: ReadRecord) -> dict[str, Any]:
    """A reading as the feed's read record; `seq` is a stream's own and left out."""
    shown: dict[str, Any] = msgspec.to_builtins(record)
    del shown["seq"]
    return shown


def due_json(line: DueLine) -> dict[str, Any]:
    """A due point."""
    return {
        "meter": line.key.meter,
        "point": line.key.point,
        "due_at": iso(line.key.due_ms),
        "window_end": iso(line.window_end_ms),
        "bus": line.bus,
        "area": line.area,
        "state": line.state.value,
        "reason": line.reason,
        "read_id": line.read_id,
        "after_close": line.after_close,
        "settled_at": None if line.settled_ms is None else iso(line.settled_ms),
        "failed_rounds": line.failed_rounds,
        "concentrator": line.concentrator,
    }
