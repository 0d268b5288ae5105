"""Readings, exchanges and due points to rows and back. Every value comes back as it was."""

import sqlite3
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from headend.domain.clock import iso
from headend.domain.due import DueState
from headend.domain.exchange import Exchange, Outcome
from headend.domain.identity import canonical_number
from headend.domain.reading import Reading, Side, Source, Status, Verdict
from headend.journal.model import Kept, Stored
from headend.journal.schema import NO_INTERVAL

# The position of a member is its code in the file: members are appended, never moved.
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
    Outcome.UNREACHED,
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

READING_COLUMNS = (
    "rid, series, time_ms, revision, read_id, service_point, value, form, received_ms, due_ms,"
    " meter_time_ms, xid"
)
_FORM = 7  # the column `form`
READING_WIDTH = READING_COLUMNS.count(",") + 1
EXCHANGE_COLUMNS = (
    "xid, bus, device, request, reply, stray, sent_ms, received_ms, took_ms, attempt, outcome,"
    " software"
)
EXCHANGE_WIDTH = EXCHANGE_COLUMNS.count(",") + 1
DUE_COLUMNS = (
    "due_ms, series, bus, area, window_end_ms, state, reason, read_id, after_close, settled_ms,"
    " failed, concentrator"
)
DUE_WIDTH = DUE_COLUMNS.count(",") + 1

STREAM_WIDTH = 7
ROWS_AT_ONCE = 32


@lru_cache(maxsize=256)
def insert_sql(table: str, width: int, rows: int = 1) -> str:
    """An INSERT of so many whole rows."""
    row = f"({','.join('?' * width)})"
    return f"INSERT INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - our own names


def insert_rows(
    connection: sqlite3.Connection, table: str, width: int, rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows: as many as possible with one step of SQLite for several of them."""
    whole = len(rows) - len(rows) % ROWS_AT_ONCE
    for at in range(0, whole, ROWS_AT_ONCE):
        values = tuple(chain.from_iterable(rows[at : at + ROWS_AT_ONCE]))
        connection.execute(insert_sql(table, width, ROWS_AT_ONCE), values)
    if whole < len(rows):
        connection.executemany(insert_sql(table, width), rows[whole:])


def number_text(value: Decimal) -> str:
    """A number with exactly its decimals, never with an exponent; ValueError for NaN, infinity."""
    text = str(value)
    if "E" in text:
        return format(value, "f")
    if not value.is_finite():
        msg = f"{value} is not a number that can be kept"
        raise ValueError(msg)
    return text


def canonical_text(text: str) -> str:
    """`domain.identity.canonical_number` of a number that is `number_text` already."""
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def canonical_multiplier(text: str) -> str:
    """The canonical text of a multiplier's `str`; there are few different ones."""
    return canonical_number(Decimal(text))


def content_of(
    value: str | None, unit: str, status: str, verdict: str, multiplier: str, side: str
) -> str:
    """`domain.identity.content_text`, from texts: the same result, for the hot path."""
    number = "" if value is None else canonical_text(value)
    return number + _content_but_number(unit, status, verdict, multiplier, side)


@lru_cache(maxsize=1024)
def _content_but_number(unit: str, status: str, verdict: str, multiplier: str, side: str) -> str:
    return "|".join(("", unit, status, verdict, canonical_multiplier(multiplier), side))


class Series(NamedTuple):
    """What a reading is of, but for the instant."""

    meter: str
    point: str
    interval_s: int  # NO_INTERVAL when it has none


class Form(NamedTuple):
    """What many readings have in common; few different ones exist. Texts as they are stored."""

    unit: str
    multiplier: str
    side: Side
    status: Status
    verdict: Verdict
    flags: tuple[str, ...]
    late: bool
    final: bool
    source: Source
    software: str

    def row(self) -> tuple[object, ...]:
        """The columns of table forms behind the id."""
        return (
            *self[:2],
            *map(str, self[2:5]),
            ",".join(self.flags),
            *self[6:8],
            *map(str, self[8:]),
        )

    @property
    def good(self) -> bool:
        """Fit to be the base of a register."""
        return self.verdict is Verdict.OK and self.status is Status.ACTUAL


def form_from_row(row: Sequence[Any]) -> Form:
    """A row of table forms without its id."""
    unit, multiplier, side, status, verdict, flags, late, final, source, software = row
    return Form(
        unit,
        multiplier,
        Side(side),
        Status(status),
        Verdict(verdict),
        tuple(flags.split(",")) if flags else (),
        bool(late),
        bool(final),
        Source(source),
        software,
    )


class Lexicon:
    """What numbers stand for, as a reader of the file sees it; the unknown is fetched."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._names: dict[int, str] = {}
        self._series: dict[int, Series] = {}
        self._forms: dict[int, tuple[Form, Decimal]] = {}

    def name(self, number: int) -> str:
        """An interned text."""
        if number not in self._names:
            self._names.update(
                self._connection.execute(
                    "SELECT id, text FROM names WHERE id>?", (max(self._names, default=0),)
                )
            )
        return self._names[number]

    def series(self, number: int) -> Series:
        """A series."""
        if number not in self._series:
            rows = self._connection.execute(
                "SELECT id, meter, point, interval_s FROM series WHERE id>?",
                (max(self._series, default=0),),
            )
            self._series.update((row[0], Series(*row[1:])) for row in rows)
        return self._series[number]

    def form(self, number: int) -> tuple[Form, Decimal]:
        """A form with its multiplier."""
        if number not in self._forms:
            rows = self._connection.execute(
                "SELECT * FROM forms WHERE id>?", (max(self._forms, default=0),)
            )
            for row in rows:
                form = form_from_row(row[1:])
                self._forms[row[0]] = (form, Decimal(form.multiplier))
        return self._forms[number]

    def kept(self, row: Sequence[Any]) -> Kept:
        """A row of READING_COLUMNS as streams carry it, but for the exchange's bytes."""
        (
            _rid, series, time_ms, revision, read_id, place, value, form, received_ms, due_ms,
            meter_time_ms, xid,
        ) = row  # fmt: skip
        meter, point, interval_s = self._series.get(series) or self.series(series)
        shape, multiplier = self._forms.get(form) or self.form(form)
        unit, _text, side, status, verdict, flags, late, final, source, _software = shape
        service_point = self._names.get(place)
        reading = Reading(
            meter,
            self.name(place) if service_point is None else service_point,
            point,
            None if value is None else Decimal(value),
            unit,
            time_ms,
            received_ms,
            None if interval_s == NO_INTERVAL else interval_s,
            due_ms,
            status,
            verdict,
            flags,
            multiplier,
            side,
            late,
            final,
            source,
            meter_time_ms,
        )
        return (reading, read_id.hex(), revision, xid)


def stored_from_row(row: Sequence[Any], lexicon: Lexicon) -> Stored:
    """A row of READING_COLUMNS as it was appended, but for the exchange's bytes."""
    reading, read_id, revision, xid = lexicon.kept(row)
    shape, _multiplier = lexicon.form(row[_FORM])
    return Stored(reading, read_id, revision, xid, shape.software, row[0])


def outcome_code(outcome: Outcome) -> int:
    """The stored code of an outcome."""
    return OUTCOMES.index(outcome)


def exchange_from_row(row: Sequence[Any], lexicon: Lexicon) -> tuple[int, Exchange, str]:
    """A row of EXCHANGE_COLUMNS: its id, the attempt, and the software that made it."""
    (
        xid, bus, device, request, reply, stray, sent_ms, received_ms, took_ms, attempt, outcome,
        software,
    ) = row  # fmt: skip
    exchange = Exchange(
        bus=lexicon.name(bus),
        device=lexicon.name(device),
        request=request,
        reply=reply,
        sent_ms=sent_ms,
        received_ms=received_ms,
        took_ms=took_ms,
        attempt=attempt,
        outcome=OUTCOMES[outcome],
        stray=stray,
    )
    return xid, exchange, lexicon.name(software)


_MILLISECONDS = ("Z", *(f".{n:03d}Z" for n in range(1, 1000)))


def iso_cache(size_max: int = 4096) -> Callable[[int], str]:
    """A faster `domain.clock.iso` for stamps that lie close together: seconds are kept."""
    seconds: dict[int, str] = {}

    def text(time_ms: int) -> str:
        second = time_ms // 1000
        head = seconds.get(second)
        if head is None:
            if len(seconds) >= size_max:
                seconds.clear()
            head = seconds[second] = iso(second * 1000)[:-1]
        return head + _MILLISECONDS[time_ms - second * 1000]

    return text
