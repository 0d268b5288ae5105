"""The ids of what a record carries. Compact records do not send them: both ends compute them."""

from decimal import Decimal
from typing import NamedTuple

from headend.domain.clock import from_iso
from headend.domain.errors import FeedError
from headend.domain.identity import content_text, read_id
from headend.domain.reading import ReadKey
from headend.messages.records import FreezeRecord, ReadRecord, SeriesRecord
from protocols.quantities import quantity


class Identified(NamedTuple):
    """One value of a record with its key and its id. `value` None = no value."""

    key: ReadKey
    value: str | None
    unit: str
    read_id: str


def identify(record: ReadRecord | FreezeRecord | SeriesRecord) -> list[Identified]:
    """Every value of a record, in the record's order.

    FeedError: `bad_record` (a time or number that cannot be), `bad_id` (a sent id that is not the
    hash of what the record says), `unknown_point` (a freeze of a point whose unit is not known).
    """
    try:
        return _identify(record)
    except (ValueError, ArithmeticError) as error:
        raise FeedError(f"record {record.seq}: {error}", code="bad_record") from error


def _identify(record: ReadRecord | FreezeRecord | SeriesRecord) -> list[Identified]:
    if isinstance(record, ReadRecord):
        key = ReadKey(record.meter, record.point, from_iso(record.time), record.interval_s)
        one = _one(record, key, record.value, record.unit)
        if one.read_id != record.read_id:
            raise FeedError(
                f"record {record.seq}: its read id is not the hash of what it says", code="bad_id"
            )
        return [one]
    if isinstance(record, FreezeRecord):
        time_ms = from_iso(record.time)
        return [
            _one(record, ReadKey(record.meter, point, time_ms, None), value, _unit(point))
            for point, value in record.values.items()
        ]
    start_ms = from_iso(record.start)
    step_ms = record.interval_s * 1000
    return [
        _one(
            record,
            ReadKey(record.meter, record.point, start_ms + i * step_ms, record.interval_s),
            value,
            record.unit,
        )
        for i, value in enumerate(record.values)
    ]


def _one(
    record: ReadRecord | FreezeRecord | SeriesRecord, key: ReadKey, value: str | None, unit: str
) -> Identified:
    content = content_text(
        None if value is None else Decimal(value),
        unit,
        record.status,
        record.verdict,
        Decimal(record.multiplier),
        record.side,
    )
    return Identified(key, value, unit, read_id(*key, record.revision, content))


def _unit(point: str) -> str:
    try:
        return quantity(point).unit
    except KeyError as error:
        raise FeedError(f"point {point!r:.80} has no known unit", code="unknown_point") from error
