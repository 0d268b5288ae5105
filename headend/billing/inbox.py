"""What a batch of the feed means for what is held already. Pure: no database, no broker, no clock.

The rules in one place:

- A stream is taken in order. A batch that begins beyond cursor + 1 is a hole: nothing of it is
  taken, the stream is asked for again from cursor + 1.
- A reading is known by its id, an event by what it says. A record that comes again changes
  nothing, whatever way, epoch or head-end it came through.
- A key has one current value. A later revision replaces it, never adds. A revision that is not
  later and says something else is a conflict: reported, never applied.
"""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from headend.domain.clock import from_iso
from headend.domain.errors import FeedError
from headend.domain.identity import content_text, event_id, read_id
from headend.domain.reading import Status
from headend.messages.records import (
    Batch,
    EventRecord,
    ExchangeEvidence,
    FreezeRecord,
    ReadRecord,
    Record,
    SeriesRecord,
    cleaned,
)
from protocols.quantities import quantity

# Instants outside these years are errors, and would not survive the step to a local day.
TIME_MIN_MS = from_iso("1970-01-02T00:00:00Z")
TIME_MAX_MS = from_iso("2999-12-31T00:00:00Z")
EXCHANGE_HASH_CHARS = 12


@lru_cache(maxsize=8192)  # the same few texts come again and again
def _time_ms(text: str) -> int:
    return _checked_time(from_iso(text))


def _checked_time(time_ms: int) -> int:
    if not TIME_MIN_MS <= time_ms <= TIME_MAX_MS:
        msg = f"an instant {time_ms} ms after 1970 cannot be"
        raise ValueError(msg)
    return time_ms


class Row(NamedTuple):
    """One reading as billing keeps it; the order is that of the table's columns.

    `interval_s` 0 means none (a register or an instantaneous value). `value` is the text that was
    sent, exactly; None means there is no value. `flags` are joined by commas.
    """

    meter: str
    point: str
    time_ms: int
    interval_s: int
    revision: int
    read_id: str
    value: str | None
    unit: str
    status: str
    verdict: str
    flags: str
    service_point: str
    received_ms: int
    due_ms: int | None
    late: int
    final: int
    multiplier: str
    side: str
    evidence: str | None
    headend: str
    epoch: str
    seq: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What there is one current value for."""
        return self[:4]

    @property
    def content(self) -> str:
        """The text whose equality means "says the same"."""
        value = None if self.value is None else Decimal(self.value)
        return content_text(
            value, self.unit, self.status, self.verdict, Decimal(self.multiplier), self.side
        )


class EventRow(NamedTuple):
    """One event as billing keeps it. `event_id` is the hash of what it says."""

    headend: str
    event_id: str
    epoch: str
    seq: int
    kind: str
    at_ms: int
    fields: str


class GapRow(NamedTuple):
    """Records that can never come: they were dropped before they were sent."""

    headend: str
    epoch: str
    first_seq: int
    last_seq: int
    reason: str


class ExchangeRow(NamedTuple):
    """The raw frames behind a reading, as hex text.

    `ref` is the sent one and a hash of what the exchange says. The sent one alone holds within
    its message only: a journal that was set back numbers its next exchanges like those it lost,
    in the same epoch until that is noticed.
    """

    headend: str
    epoch: str
    ref: str
    request: str
    reply: str | None
    bus: str
    received_ms: int
    attempts: int
    software: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A batch taken apart, ready to be held against what is known."""

    headend: str
    epoch: str
    first_seq: int
    last_seq: int
    rows: list[Row] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)
    exchanges: list[ExchangeRow] = field(default_factory=list)


class Place(Enum):
    """Where a batch lies in its stream."""

    NEXT = "next"  # begins at cursor + 1
    OVERLAP = "overlap"  # begins at or below the cursor, ends beyond
    REPEAT = "repeat"  # ends at or below the cursor
    HOLE = "hole"  # begins beyond cursor + 1


class Decision(Enum):
    """What becomes of one reading."""

    NEW = "new"  # the first value of its key
    REPLACE = "replace"  # a later revision: the old one goes to the history
    KNOWN = "known"  # this very id is held, now or in the history
    SAME = "same"  # says what is held already
    CONFLICT = "conflict"  # not later, says something else


def place(first_seq: int, last_seq: int, through_seq: int) -> Place:
    """Where first..last lies against a cursor that everything up to `through_seq` is held for."""
    if first_seq > through_seq + 1:
        return Place.HOLE
    if last_seq <= through_seq:
        return Place.REPEAT
    return Place.NEXT if first_seq == through_seq + 1 else Place.OVERLAP


def decide(row: Row, current: Row | None, *, in_history: bool = False) -> Decision:
    """What becomes of `row` when `current` is held for its key."""
    if current is None:
        return Decision.NEW
    if row.read_id == current.read_id or in_history:
        return Decision.KNOWN
    if row.revision > current.revision:
        return Decision.REPLACE
    return Decision.SAME if row.content == current.content else Decision.CONFLICT


def unpack(batch: Batch) -> Unpacked:
    """Take a decoded batch apart; its shape has been checked by the decoder.

    FeedError with a code: `bad_record` (fields that contradict each other or cannot be stored),
    `bad_id` (a read id that is not the hash of what the record says), `unknown_point` (a compact
    record with a point whose unit is not known here). Nothing of a refused batch is used.
    """
    out = Unpacked(batch.headend, batch.epoch, batch.first_seq, batch.last_seq)
    for record in batch.records:
        try:
            _take(record, batch, out)
        except (ValueError, ArithmeticError) as error:
            seq = getattr(record, "seq", batch.first_seq)
            raise FeedError(f"record {seq}: {error}", code="bad_record") from error
    if batch.exchanges:
        out.exchanges.extend(_exchange(exchange, batch) for exchange in batch.exchanges)
        refs = {e.ref: row.ref for e, row in zip(batch.exchanges, out.exchanges, strict=True)}
        out.rows[:] = [_pointing(row, refs) for row in out.rows]
    return out


def useful_exchanges(
    batch: Unpacked, wanted: AbstractSet[tuple[str, str, str | None]]
) -> list[ExchangeRow]:
    """The frames to keep: not those that only repeated readings point at.

    `wanted`: head-end, epoch and evidence of the readings that were kept.
    """
    spoken_of = {row.evidence for row in batch.rows}
    return [e for e in batch.exchanges if e[:3] in wanted or e.ref not in spoken_of]


# --- records ---------------------------------------------------------------------------------


class _Shared(NamedTuple):
    """What all values of a record share, worked out once."""

    received_ms: int
    multiplier: Decimal
    flags: str


def _take(record: Record, batch: Batch, out: Unpacked) -> None:
    if isinstance(record, ReadRecord):
        out.rows.append(_read_row(record, batch))
    elif isinstance(record, FreezeRecord):
        out.rows.extend(_freeze_rows(record, batch))
    elif isinstance(record, SeriesRecord):
        out.rows.extend(_series_rows(record, batch))
    elif isinstance(record, EventRecord):
        out.events.append(_event_row(record, batch))
    else:
        gap = GapRow(batch.headend, batch.epoch, record.first_seq, record.last_seq, "expired")
        out.gaps.append(gap)


def _read_row(record: ReadRecord, batch: Batch) -> Row:
    row = _row(
        record,
        batch,
        _shared(record),
        point=record.point,
        value=record.value,
        unit=record.unit,
        time_ms=_time_ms(record.time),
        interval_s=record.interval_s,
        due_ms=None if record.due_at is None else _time_ms(record.due_at),
    )
    if row.read_id != record.read_id:
        msg = f"record {record.seq}: read id {record.read_id} is not the hash of its content"
        raise FeedError(msg, code="bad_id")
    return row


def _freeze_rows(record: FreezeRecord, batch: Batch) -> list[Row]:
    time_ms = _time_ms(record.time)
    due_ms = None if record.due_at is None else _time_ms(record.due_at)
    shared = _shared(record)
    return [
        _row(
            record,
            batch,
            shared,
            point=point,
            value=value,
            unit=_unit_of(point, record.seq),
            time_ms=time_ms,
            interval_s=None,
            due_ms=due_ms,
        )
        for point, value in record.values.items()
    ]


def _series_rows(record: SeriesRecord, batch: Batch) -> list[Row]:
    start_ms = _time_ms(record.start)
    _checked_time(start_ms + len(record.values) * record.interval_s * 1000)
    shared = _shared(record)
    return [
        _row(
            record,
            batch,
            shared,
            point=record.point,
            value=value,
            unit=record.unit,
            time_ms=start_ms + index * record.interval_s * 1000,
            interval_s=record.interval_s,
            due_ms=None,
        )
        for index, value in enumerate(record.values)
    ]


def _shared(record: ReadRecord | FreezeRecord | SeriesRecord) -> _Shared:
    flags = ",".join(record.flags)
    for name, text in (
        ("meter", record.meter),
        ("service_point", record.service_point),
        ("flags", flags),
        ("evidence", record.evidence or ""),
    ):
        _check_printable(name, text)
    multiplier = Decimal(record.multiplier)
    if multiplier <= 0:
        msg = f"a multiplier of {record.multiplier} cannot be"
        raise ValueError(msg)
    return _Shared(_time_ms(record.received_at), multiplier, flags)


def _row(
    record: ReadRecord | FreezeRecord | SeriesRecord,
    batch: Batch,
    shared: _Shared,
    *,
    point: str,
    value: str | None,
    unit: str,
    time_ms: int,
    interval_s: int | None,
    due_ms: int | None,
) -> Row:
    _check_printable("point or unit", point + unit)
    number = None if value is None else Decimal(value)
    if number is not None and record.status == Status.NULL:
        msg = f"status null with the value {value}"
        raise ValueError(msg)
    content = content_text(
        number, unit, record.status, record.verdict, shared.multiplier, record.side
    )
    return Row(
        record.meter,
        point,
        time_ms,
        interval_s or 0,
        record.revision,
        read_id(record.meter, point, time_ms, interval_s, record.revision, content),
        value,
        unit,
        record.status,
        record.verdict,
        shared.flags,
        record.service_point,
        shared.received_ms,
        due_ms,
        int(record.late),
        int(record.final),
        record.multiplier,
        record.side,
        record.evidence,
        batch.headend,
        batch.epoch,
        record.seq,
    )


def _event_row(record: EventRecord, batch: Batch) -> EventRow:
    at_ms = _time_ms(record.at)
    return EventRow(
        batch.headend,
        event_id(record.event, at_ms, record.fields),
        batch.epoch,
        record.seq,
        record.event,
        at_ms,
        json.dumps(record.fields, sort_keys=True),
    )


def _exchange(exchange: ExchangeEvidence, batch: Batch) -> ExchangeRow:
    try:
        _check_printable("exchange", exchange.ref + exchange.bus + exchange.software)
        received_ms = _time_ms(exchange.received_at)
    except (ValueError, ArithmeticError) as error:
        msg = f"exchange {cleaned(exchange.ref)}: {error}"
        raise FeedError(msg, code="bad_record") from error
    said = f"{exchange.request}|{exchange.reply}|{exchange.bus}|{received_ms}|{exchange.attempts}"
    digest = hashlib.sha256(said.encode()).hexdigest()[:EXCHANGE_HASH_CHARS]
    return ExchangeRow(
        batch.headend,
        batch.epoch,
        f"{exchange.ref}-{digest}",
        exchange.request,
        exchange.reply,
        exchange.bus,
        received_ms,
        exchange.attempts,
        exchange.software,
    )


def _pointing(row: Row, refs: Mapping[str, str]) -> Row:
    """The row with the stored ref of its exchange instead of the sent one."""
    if row.evidence is None:
        return row
    return row._replace(evidence=refs.get(row.evidence, row.evidence))


def _unit_of(point: str, seq: int) -> str:
    try:
        return quantity(point).unit
    except KeyError as error:
        msg = f"record {seq}: the unit of {cleaned(point)} is not known here"
        raise FeedError(msg, code="unknown_point") from error


def _check_printable(name: str, text: str) -> None:
    if not text.isprintable():
        msg = f"{name} {cleaned(text)} holds control characters"
        raise ValueError(msg)
