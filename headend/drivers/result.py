"""What became of one point that was asked for, and its shape as JSON (`reading/1`)."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from headend.domain.clock import iso
from headend.domain.errors import (
    BadReply,
    BusError,
    Busy,
    ConfigError,
    DeadlinePassed,
    NoAnswer,
    PolicyError,
    PortBusy,
    PortGone,
    QueueFull,
    Refused,
)
from headend.domain.exchange import Exchange
from headend.domain.reading import Side
from protocols.errors import ProtocolError

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from headend.domain.values import dataclass

SCHEMA = "reading/1"

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (NoAnswer, "no_answer"),
    (PortGone, "port_gone"),
    (PortBusy, "port_busy"),
    (DeadlinePassed, "deadline_passed"),
    (QueueFull, "queue_full"),
    (BusError, "bus"),
    (Busy, "busy"),
    (Refused, "refused"),
    (PolicyError, "not_allowed"),
    (ConfigError, "configuration"),
)


@dataclass(frozen=True, slots=True)
class Footing:
    """What a value stands on, where the device says more of it than its number.

    `side`, `multiplier`: value x multiplier is the primary quantity. `applied`: the transformers'
    ratio that is in the value already; None = the device works with one that only it knows.
    `limit`: the first value its counter cannot show (infinite: it does not wrap). `count`: the
    smallest step the counter can take.
    """

    side: Side
    multiplier: Decimal
    applied: Decimal | None
    limit: Decimal
    count: Decimal


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a value that was read well is not to be relied on. `flag`: a word for programs.

    `holds`: what goes to a bill is held until somebody decides; otherwise it is suspect.
    """

    flag: str
    reason: str
    holds: bool


@dataclass(frozen=True, slots=True)
class PointResult:
    """One point: a value with the instant it holds for, or an error.

    `value` None without an error means that the meter has no value, or that it is no number:
    `texts` holds every member of the reply as text (a block has many). `time_ms` is the midpoint
    of the exchange, or the freeze's own time; None on error. `exchange` is the one that counts (of
    two reads the second), `exchanges` all that were made for it. `attempts`: how often the request
    that counts was sent. `meter_time_ms`: the meter's clock, read just now. `occurred_ms`: when a
    maximum demand occurred, by the meter's clock. `footing` None: the value is of the meter's own
    side, its multiplier is the meter's CT x PT, and its counter has the digits of a DL/T 645 one.
    `doubt`: what the device itself says against it.
    """

    point: str
    di: str
    value: Decimal | None
    unit: str
    time_ms: int | None
    exchange: Exchange | None
    attempts: int
    error: Exception | None
    meter_time_ms: int | None = None
    occurred_ms: int | None = None
    texts: tuple[str | None, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    footing: Footing | None = None
    doubt: Doubt | None = None


def error_code(error: Exception) -> str:
    """A short name of an error for programs: `no_answer`, `refused`, `not_bcd`, ..."""
    if isinstance(error, BadReply | ProtocolError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), "error")


def reading_json(meter: str, result: PointResult) -> dict[str, Any]:
    """A result as a JSON-ready object of shape `reading/1`. `meter`: its id or its address."""
    exchange = result.exchange
    shown: dict[str, Any] = {
        "schema": SCHEMA,
        "meter": meter,
        "point": result.point,
        "value": _value_text(result),
        "unit": result.unit,
        "time": None if result.time_ms is None else iso(result.time_ms),
        "received_at": None if exchange is None else iso(exchange.received_ms),
        "took_ms": None if exchange is None else round(exchange.took_ms),
        "attempts": result.attempts,
        "status": "actual" if result.error is None else None,
        "request": None if exchange is None else _hex(exchange.request),
        "reply": None if exchange is None or exchange.reply is None else _hex(exchange.reply),
    }
    if result.footing is not None and result.value is not None:
        shown["side"] = result.footing.side.value
        shown["multiplier"] = format(result.footing.multiplier, "f")
    if result.meter_time_ms is not None:
        shown["meter_time"] = iso(result.meter_time_ms)
    if result.occurred_ms is not None:
        shown["occurred_at"] = iso(result.occurred_ms)
    if result.error is not None:
        shown["error"] = _error(result.error)
    elif len(result.texts) > 1 and result.value is None:
        shown["values"] = list(result.texts)
    elif shown["value"] is None:
        shown["status"] = "null"
    return shown


def _value_text(result: PointResult) -> str | None:
    if result.error is not None:
        return None
    if result.value is not None:
        return format(result.value, "f")
    return result.texts[0] if len(result.texts) == 1 else None


def _error(error: Exception) -> dict[str, Any]:
    shown: dict[str, Any] = {"code": error_code(error), "message": str(error)}
    if isinstance(error, NoAnswer):
        shown["diagnosis"] = error.diagnosis
    if isinstance(error, Refused):
        shown["reasons"] = list(error.reasons)
    return shown


def _hex(data: bytes) -> str:
    return data.hex().upper()
