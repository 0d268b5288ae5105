"""Readings, exchanges and due points to rows and back. Every value comes back as it was."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from headend.domain.clock import iso
from headend.domain.due import DueState
from headend.domain.exchange import Exchange, Outcome
from headend.domain.reading import Reading, Side, Source, Status, Verdict
from headend.journal.model import Stored
from headend.journal.schema import NO_INTERVAL

# The position of a member is its code in the file: members are appended, never moved.
STATUSES = (Status.ACTUAL, Status.ESTIMATED, Status.SUBSTITUTED, Status.MANUAL, Status.NULL)
VERDICTS = (Verdict.OK, Verdict.SUSPECT, Verdict.HELD, Verdict.FAIL)
SIDES = (Side.SECONDARY, Side.PRIMARY)
SOURCES = (Source.PLANNED, Source.ON_DEMAND, Source.BACKFILL, Source.DERIVED)
OUTCOMES = (
    Outcome.REPLY,
    Outcome.REFUSED,
    Outcome.SILENCE,
    Outcome.INCOMPLETE,
    Outcome.DAMAGED,
    Outcome.ECHO_ONLY,
    Outcome.FOREIGN,
    Outcome.PORT_GONE,
    Outcome.CANCELLED,
)
DUE_STATES = (
    DueState.OPEN,
    DueState.READ,
    DueState.LATE,
    DueState.BACKFILLED,
    DueState.ESTIMATED,
    DueState.MISSING,
)
DUE_CODE = {state: code for code, state in enumerate(DUE_STATES)}
ONE = Decimal(1)

_LATE = 1
_FINAL = 2
_SIDE_SHIFT = 2
_SOURCE_SHIFT = 3

READING_COLUMNS = (
    "rid, meter, point, time_ms, interval_s, revision, read_id, service_point, value, unit,"
    " received_ms, due_ms, status, verdict, flags, multiplier, bits, meter_time_ms, xid, xday,"
    " software"
)
READING_WIDTH = READING_COLUMNS.count(",") + 1
EXCHANGE_COLUMNS = (
    "xid, bus, device, request, reply, stray, sent_ms, received_ms, took_ms, attempt, outcome,"
    " software"
)
EXCHANGE_WIDTH = EXCHANGE_COLUMNS.count(",") + 1


def insert_sql(table: str, width: int) -> str:
    """An INSERT of whole rows."""
    return f"INSERT INTO {table} VALUES ({','.join('?' * width)})"  # noqa: S608 - our own names


def number_text(value: Decimal) -> str:
    """A number with exactly its decimals, never with an exponent; ValueError for NaN, infinity."""
    text = str(value)
    if "E" in text:
        return format(value, "f")
    if not value.is_finite():
        msg = f"{value} is not a number that can be kept"
        raise ValueError(msg)
    return text


@lru_cache(maxsize=1024)
def parse_multiplier(text: str) -> Decimal:
    """A stored multiplier; there are few different ones."""
    return Decimal(text)


@lru_cache(maxsize=4096)
def parse_flags(text: str) -> tuple[str, ...]:
    """Stored flags; there are few different sets."""
    return tuple(text.split(",")) if text else ()


def bits_of(reading: Reading) -> int:
    """The small facts of a reading in one integer."""
    bits = 0
    if reading.late:
        bits = _LATE
    if reading.final:
        bits |= _FINAL
    if reading.side is not Side.SECONDARY:
        bits |= SIDES.index(reading.side) << _SIDE_SHIFT
    if reading.source is not Source.PLANNED:
        bits |= SOURCES.index(reading.source) << _SOURCE_SHIFT
    return bits


def status_code(status: Status) -> int:
    """The stored code of a status."""
    return 0 if status is Status.ACTUAL else STATUSES.index(status)


def verdict_code(verdict: Verdict) -> int:
    """The stored code of a verdict."""
    return 0 if verdict is Verdict.OK else VERDICTS.index(verdict)


def side_of(bits: int) -> Side:
    """The side that `bits_of` packed."""
    return SIDES[bits >> _SIDE_SHIFT & 1]


def outcome_code(outcome: Outcome) -> int:
    """The stored code of an outcome."""
    return 0 if outcome is Outcome.REPLY else OUTCOMES.index(outcome)


def stored_from_row(row: Sequence[Any], names: Mapping[int, str]) -> Stored:
    """A row of READING_COLUMNS as it was appended, but for the exchange's bytes."""
    (
        rid, meter, point, time_ms, interval_s, revision, read_id, service_point, value, unit,
        received_ms, due_ms, status, verdict, flags, multiplier, bits, meter_time_ms, xid, _xday,
        software,
    ) = row  # fmt: skip
    reading = Reading(
        names[meter],
        names[service_point],
        names[point],
        None if value is None else Decimal(value),
        names[unit],
        time_ms,
        received_ms,
        None if interval_s == NO_INTERVAL else interval_s,
        due_ms,
        STATUSES[status],
        VERDICTS[verdict],
        parse_flags(names[flags]),
        parse_multiplier(names[multiplier]),
        side_of(bits),
        bool(bits & _LATE),
        bool(bits & _FINAL),
        SOURCES[bits >> _SOURCE_SHIFT],
        meter_time_ms,
    )
    return Stored(reading, read_id.hex(), revision, xid, names[software], rid)


def exchange_from_row(row: Sequence[Any], names: Mapping[int, str]) -> tuple[int, Exchange, str]:
    """A row of EXCHANGE_COLUMNS: its id, the attempt, and the software that made it."""
    (
        xid, bus, device, request, reply, stray, sent_ms, received_ms, took_ms, attempt, outcome,
        software,
    ) = row  # fmt: skip
    exchange = Exchange(
        bus=names[bus],
        device=names[device],
        request=request,
        reply=reply,
        sent_ms=sent_ms,
        received_ms=received_ms,
        took_ms=took_ms,
        attempt=attempt,
        outcome=OUTCOMES[outcome],
        stray=stray,
    )
    return xid, exchange, names[software]


class Names(Mapping[int, str]):
    """The interned texts as a reader sees them; one that is not known yet is fetched."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, str] = {}

    def __getitem__(self, number: int) -> str:
        try:
            return self._known[number]
        except KeyError:
            self._known.update(self._connection.execute("SELECT id, text FROM names"))
            return self._known[number]

    def __iter__(self) -> Any:  # noqa: ANN401 - Mapping's own signature
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def iso_cache(size_max: int = 4096) -> Callable[[int], str]:
    """A faster `domain.clock.iso` for stamps that lie close together: minutes are kept."""
    minutes: dict[int, str] = {}

    def text(time_ms: int) -> str:
        minute, rest = divmod(time_ms, 60_000)
        head = minutes.get(minute)
        if head is None:
            if len(minutes) >= size_max:
                minutes.clear()
            head = minutes[minute] = iso(minute * 60_000)[:-3]
        second, ms = divmod(rest, 1000)
        return f"{head}{second:02d}.{ms:03d}Z" if ms else f"{head}{second:02d}Z"

    return text
