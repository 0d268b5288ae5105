"""Stream entries to the feed's records: one builder for the memory's tail and for the file."""

from collections.abc import Iterable, Sequence

import msgspec

from headend.domain.exchange import Exchange
from headend.domain.meter import Event
from headend.domain.reading import Reading, Side, Status, Verdict
from headend.journal.codec import iso_cache, number_text
from headend.journal.model import Kept, RecordClass, StreamEntry
from headend.journal.points import point_facts
from headend.messages.records import (
    EventRecord,
    ExchangeEvidence,
    ExpiredRecord,
    FreezeRecord,
    ReadRecord,
    Record,
)

_iso = iso_cache()

# A member of an Enum costs as much as three lookups of a global.
_BILLING, _ACTUAL = RecordClass.BILLING, Status.ACTUAL
_OK, _SECONDARY = Verdict.OK, Side.SECONDARY

# Generous bytes of JSON for everything of a record but its names and values.
_READ_BYTES = 520
_FREEZE_BYTES = 420
_VALUE_BYTES = 40
_EVIDENCE_BYTES = 220


def evidence_ref(xid: int) -> str | None:
    """How records point at their exchange; None when there was none."""
    return f"x{xid}" if xid else None


def freeze_key(reading: Reading, revision: int) -> tuple[object, ...] | None:
    """What readings must share to travel as one freeze record; None = only as a read record.

    The exchange is part of it (a record names one piece of evidence), and the unit must be the
    one both ends know for the point (a freeze does not carry units).
    """
    if reading.interval_s is not None or point_facts(reading.point).unit != reading.unit:
        return None
    return (
        reading.meter,
        reading.service_point,
        reading.time_ms,
        reading.received_ms,
        reading.due_ms,
        reading.status,
        reading.verdict,
        reading.flags,
        reading.multiplier,
        reading.side,
        reading.late,
        reading.final,
        revision,
        None if reading.exchange is None else id(reading.exchange),
    )


def build_record(seq: int, entry: StreamEntry) -> Record:
    """The record of an entry under its number."""
    if entry.event is not None:
        return event_record(seq, entry.event)
    items = entry.items
    if len(items) == 1:
        return read_record(seq, items[0], with_evidence=entry.kind is _BILLING)
    return _freeze_record(seq, items, with_evidence=entry.kind is _BILLING)


def event_record(seq: int, event: Event) -> EventRecord:
    """An event as it travels."""
    return EventRecord(seq=seq, event=event.kind, at=_iso(event.at_ms), fields=event.fields)


def read_record(seq: int, kept: Kept, *, with_evidence: bool = True) -> ReadRecord:
    """One reading as it travels."""
    r, read_id, revision, xid = kept
    value = r.value
    status = r.status
    verdict = r.verdict
    multiplier = r.multiplier
    due_ms = r.due_ms
    time = _iso(r.time_ms)
    return ReadRecord(
        seq=seq,
        read_id=read_id,
        meter=r.meter,
        service_point=r.service_point,
        point=r.point,
        obis=point_facts(r.point).obis,
        value=None if value is None else number_text(value),
        unit=r.unit,
        time=time,
        interval_s=r.interval_s,
        received_at=time if r.received_ms == r.time_ms else _iso(r.received_ms),
        due_at=None if due_ms is None else _iso(due_ms),
        status="actual" if status is _ACTUAL else status.value,
        verdict="ok" if verdict is _OK else verdict.value,
        flags=list(r.flags),
        revision=revision,
        late=r.late,
        multiplier=number_text(multiplier),
        side="secondary" if r.side is _SECONDARY else r.side.value,
        evidence=f"x{xid}" if with_evidence and xid else None,
        final=r.final,
    )


def _freeze_record(seq: int, items: Sequence[Kept], *, with_evidence: bool) -> FreezeRecord:
    r, _read_id, revision, xid = items[0]
    values = {
        kept[0].point: None if kept[0].value is None else number_text(kept[0].value)
        for kept in items
    }
    assert len(values) == len(items)
    return FreezeRecord(
        seq=seq,
        meter=r.meter,
        service_point=r.service_point,
        values=values,
        time=_iso(r.time_ms),
        received_at=_iso(r.received_ms),
        due_at=None if r.due_ms is None else _iso(r.due_ms),
        status=r.status.value,
        verdict=r.verdict.value,
        flags=list(r.flags),
        revision=revision,
        late=r.late,
        multiplier=number_text(r.multiplier),
        side=r.side.value,
        evidence=evidence_ref(xid) if with_evidence else None,
        final=r.final,
    )


def evidence(xid: int, exchange: Exchange, software: str) -> ExchangeEvidence:
    """An exchange as it travels: upper-case hex, no spaces."""
    reply = exchange.reply
    return ExchangeEvidence(
        ref=f"x{xid}",
        request=exchange.request.hex().upper(),
        reply=None if reply is None else reply.hex().upper(),
        bus=exchange.bus,
        received_at=_iso(exchange.received_ms),
        attempts=exchange.attempt,
        software=software,
    )


def entry_bytes(entry: StreamEntry) -> int:
    """Roughly the JSON bytes of an entry's record; rather too many than too few."""
    if entry.event is not None:
        return 160 + len(msgspec.json.encode(entry.event.fields))
    items = entry.items
    r = items[0][0]
    size = len(r.meter) + len(r.service_point)
    if r.flags:
        size += sum(map(len, r.flags))
    if len(items) == 1:
        return _READ_BYTES + size + len(r.point)
    return _FREEZE_BYTES + size + sum(_VALUE_BYTES + len(kept[0].point) for kept in items)


def evidence_bytes(exchange: Exchange) -> int:
    """Roughly the JSON bytes of an exchange."""
    hex_chars = 2 * (len(exchange.request) + len(exchange.reply or b""))
    return _EVIDENCE_BYTES + hex_chars + len(exchange.bus)


def merge_expired(records: Iterable[Record]) -> list[Record]:
    """Neighbouring `expired` records become one."""
    merged: list[Record] = []
    for record in records:
        last = merged[-1] if merged else None
        if (
            isinstance(record, ExpiredRecord)
            and isinstance(last, ExpiredRecord)
            and last.last_seq + 1 == record.first_seq
        ):
            merged[-1] = ExpiredRecord(first_seq=last.first_seq, last_seq=record.last_seq)
        else:
            merged.append(record)
    return merged
