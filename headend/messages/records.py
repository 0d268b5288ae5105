"""What travels on the feed, as typed records with their encoding and strict decoding.

Numbers are text with exactly the item's decimals; times are ISO 8601 UTC. Unknown fields are
ignored when decoding (shapes are added to freely); missing or mistyped ones are refused with a
`FeedError` whose `code` names the kind: `too_large`, `not_json`, `wrong_schema`, `bad_record`,
`bad_seq`. The constraints in the annotations hold when decoding; building a struct in Python does
not check them.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from headend.domain.clock import from_iso
from headend.domain.errors import FeedError

MESSAGE_BYTES_MAX = 256 * 1024
SEQ_MAX = 2**53 - 1  # JSON numbers are exact up to here everywhere
EVENT_DEPTH_MAX = 8
SCHEMA_FEED = "feed/1"
SCHEMA_RECEIPT = "receipt/1"
SCHEMA_RESUME = "resume/1"
SCHEMA_RESUME_REFUSED = "resume_refused/1"
SCHEMA_STATUS = "status/1"

NAME_PATTERN = r"^[a-z0-9_-]{1,64}\Z"
Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
Count = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Epoch = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=128)]
Flags = Annotated[list[Word], Meta(max_length=64)]
Number = Annotated[str, Meta(pattern=r"^-?[0-9]{1,30}(\.[0-9]{1,18})?\Z")]
Time = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3])"
        r"(:[0-5][0-9]){2}(\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\Z"
    ),
]
StatusWord = Annotated[str, Meta(pattern=r"^(actual|estimated|substituted|manual|null)\Z")]
VerdictWord = Annotated[str, Meta(pattern=r"^(ok|suspect|held|fail)\Z")]
SideWord = Annotated[str, Meta(pattern=r"^(primary|secondary)\Z")]
ReadId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex = Annotated[str, Meta(pattern=r"^([0-9A-F]{2})*\Z")]
Interval = Annotated[int, Meta(ge=1, le=366 * 86_400)]
Revision = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class ReadRecord(msgspec.Struct, tag_field="kind", tag="read", kw_only=True):
    """One value of one point."""

    seq: Seq
    read_id: ReadId
    meter: Word
    service_point: Word
    point: Word
    obis: Text | None
    value: Number | None
    unit: Text
    time: Time
    interval_s: Interval | None
    received_at: Time
    due_at: Time | None
    status: StatusWord
    verdict: VerdictWord
    flags: Flags
    revision: Revision
    late: bool
    multiplier: Number
    side: SideWord
    evidence: Text | None
    final: bool = False


class FreezeRecord(msgspec.Struct, tag_field="kind", tag="freeze", kw_only=True):
    """Several points of one meter for one instant. Read ids are computed by both ends."""

    seq: Seq
    meter: Word
    service_point: Word
    values: Annotated[dict[Word, Number | None], Meta(min_length=1, max_length=256)]
    time: Time
    received_at: Time
    due_at: Time | None
    status: StatusWord
    verdict: VerdictWord
    flags: Flags
    revision: Revision
    late: bool
    multiplier: Number
    side: SideWord
    evidence: Text | None
    final: bool = False


class SeriesRecord(msgspec.Struct, tag_field="kind", tag="series", kw_only=True):
    """Equally spaced interval values of one point; `values[i]` starts at start + i x interval."""

    seq: Seq
    meter: Word
    service_point: Word
    point: Word
    unit: Text
    start: Time
    interval_s: Interval
    values: Annotated[list[Number | None], Meta(min_length=1, max_length=4096)]
    received_at: Time
    status: StatusWord
    verdict: VerdictWord
    flags: Flags
    revision: Revision
    late: bool
    multiplier: Number
    side: SideWord
    evidence: Text | None
    final: bool = False


class EventRecord(msgspec.Struct, tag_field="kind", tag="event", kw_only=True):
    """Something dated; `fields` stand beside `event` and `at` on the wire."""

    seq: Seq
    event: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
    at: Time
    fields: dict[str, Any] = {}


class ExpiredRecord(msgspec.Struct, tag_field="kind", tag="expired", kw_only=True):
    """What retention dropped before a replay could send it."""

    first_seq: Seq
    last_seq: Seq


Record = ReadRecord | FreezeRecord | SeriesRecord | EventRecord | ExpiredRecord


class ExchangeEvidence(msgspec.Struct, kw_only=True):
    """The raw frames a billing quantity came from."""

    ref: Word
    request: Hex
    reply: Hex | None
    bus: Word
    received_at: Time
    attempts: Count
    software: Text


class Batch(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_FEED):
    """One feed message: records first_seq..last_seq of one consumer's stream, without holes."""

    headend: Name
    epoch: Epoch
    consumer: Name
    first_seq: Seq
    last_seq: Seq
    records: list[Record]
    exchanges: list[ExchangeEvidence]


class Receipt(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_RECEIPT):
    """Everything up to `through_seq` is durable at the consumer."""

    epoch: Epoch
    through_seq: Seq


class Resume(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_RESUME):
    """Send again from `from_seq` (the consumer's durable cursor + 1)."""

    epoch: Epoch
    from_seq: Seq


class ResumeRefused(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_RESUME_REFUSED):
    """`from_seq` is below the oldest kept record."""

    headend: Name
    epoch: Epoch
    consumer: Name
    from_seq: Seq
    oldest_seq: Seq


class ConsumerStatus(msgspec.Struct, kw_only=True):
    """Where one consumer's stream stands."""

    last_seq: Count
    oldest_seq: Count
    backlog: Count
    expired: bool = False


class Status(
    msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="schema", tag=SCHEMA_STATUS
):
    """The retained status of a head-end; the last will is the same with online = false.

    `alarms`: names of the feed's own alarms that stand.
    """

    headend: Name
    online: bool
    version: Text
    epoch: Epoch
    configuration: Text
    consumers: dict[Name, ConsumerStatus]
    alarms: Annotated[list[Word], Meta(max_length=64)] = []


def feed_error(code: str, message: str) -> FeedError:
    """A FeedError of this module's codes."""
    return FeedError(message, code=code)


_Message = TypeVar("_Message", bound=msgspec.Struct)
_RESERVED = frozenset({"seq", "kind", "event", "at", "fields"})
_encoder = msgspec.json.Encoder()
_from_consumer_decoder: msgspec.json.Decoder[Receipt | Resume] = msgspec.json.Decoder(
    Receipt | Resume
)
_to_consumer_decoder: msgspec.json.Decoder[Batch | ResumeRefused] = msgspec.json.Decoder(
    Batch | ResumeRefused
)


class _Records(msgspec.Struct):
    records: list[msgspec.Raw]


class _Head(msgspec.Struct):
    schema: Any = None


class OtherSchema(msgspec.Struct, tag_field="schema", tag=""):
    """Makes a decoder of one shape a decoder of a choice: only there is the tag demanded."""


_records_decoder = msgspec.json.Decoder(_Records)
_head_decoder = msgspec.json.Decoder(_Head)
_status_decoder: msgspec.json.Decoder[Status | OtherSchema] = msgspec.json.Decoder(
    Status | OtherSchema
)
_event_decoder = msgspec.json.Decoder(dict[str, Any])


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of a message that is not a batch; `too_large` above the feed's limit."""
    return _bounded(_encoder.encode(message))


def encode_batch(batch: Batch) -> bytes:
    """The bytes of a batch.

    `bad_seq` when its records have holes, `too_large` above the limit, `bad_record` for event
    fields that cannot travel (a reserved name, a number that not every reader holds).
    """
    _check_sequence(batch)
    if not any(isinstance(record, EventRecord) for record in batch.records):
        return _bounded(_encoder.encode(batch))
    wire: dict[str, Any] = {"schema": SCHEMA_FEED, **msgspec.structs.asdict(batch)}
    wire["records"] = [_flat(r) if isinstance(r, EventRecord) else r for r in batch.records]
    return _bounded(_encoder.encode(wire))


def decode_batch(data: bytes) -> Batch:
    """A batch that holds every promise of its shape, its sequence numbers included; FeedError."""
    message = decode_to_consumer(data)
    if not isinstance(message, Batch):
        raise feed_error("wrong_schema", f"expected {SCHEMA_FEED}")
    return message


def decode_to_consumer(data: bytes) -> Batch | ResumeRefused:
    """What a consumer can get on its feed topic; FeedError."""
    message = decode_message(_to_consumer_decoder, data, (SCHEMA_FEED, SCHEMA_RESUME_REFUSED))
    return _checked(message, data) if isinstance(message, Batch) else message


def decode_from_consumer(data: bytes) -> Receipt | Resume:
    """What a head-end can get on a receipts topic; FeedError."""
    return decode_message(_from_consumer_decoder, data, (SCHEMA_RECEIPT, SCHEMA_RESUME))


def decode_status(data: bytes) -> Status:
    """The retained status of a head-end; FeedError."""
    message = decode_message(_status_decoder, data, (SCHEMA_STATUS,))
    if isinstance(message, OtherSchema):
        raise feed_error("wrong_schema", f"expected {SCHEMA_STATUS}")
    return message


def decode_message(
    decoder: "msgspec.json.Decoder[_Message]",
    data: bytes,
    schemas: tuple[str, ...],
    *,
    may_lack_schema: bool = False,
) -> _Message:
    """Decode one message from outside; whatever is wrong with it becomes a FeedError."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise feed_error("too_large", f"{len(data)} bytes, at most {MESSAGE_BYTES_MAX} are taken")
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _refusal(data, schemas, may_lack_schema, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise feed_error("not_json", f"not JSON: {cleaned(str(error))}") from error
    except RecursionError as error:
        raise feed_error("bad_record", "nested too deeply") from error


def cleaned(text: str, length_max: int = 160) -> str:
    """Text from outside as it may stand in a log line: printable ASCII, bounded."""
    return ascii(text[:length_max])[1:-1]


def last_seq_of(record: Record) -> int:
    """The last sequence number a record stands for (`expired` stands for a range)."""
    return record.last_seq if isinstance(record, ExpiredRecord) else record.seq


def _bounded(data: bytes) -> bytes:
    if len(data) > MESSAGE_BYTES_MAX:
        raise feed_error("too_large", f"a message of {len(data)} bytes, limit {MESSAGE_BYTES_MAX}")
    return data


def _refusal(
    data: bytes, schemas: tuple[str, ...], may_lack_schema: bool, error: Exception
) -> FeedError:
    """Tell a message of another kind from a bad one of this kind."""
    try:
        schema = _head_decoder.decode(data).schema
    except (msgspec.MsgspecError, RecursionError):
        schema = None
    if schema is None and may_lack_schema:
        return feed_error("bad_record", cleaned(str(error)))
    if not isinstance(schema, str):
        return feed_error("wrong_schema", f"no schema; expected {' or '.join(schemas)}")
    if schema not in schemas:
        return feed_error(
            "wrong_schema", f"schema {cleaned(schema, 40)}; expected {' or '.join(schemas)}"
        )
    return feed_error("bad_record", cleaned(str(error)))


def _checked(batch: Batch, data: bytes) -> Batch:
    _check_sequence(batch)
    has_events = False
    for record in batch.records:
        if isinstance(record, EventRecord):
            has_events = True
        else:
            _check_days(record)
    if has_events:
        _lift_event_fields(batch, data)
    return batch


def _check_sequence(batch: Batch) -> None:
    """Records follow one another without holes from first_seq to last_seq."""
    expected = batch.first_seq
    for record in batch.records:
        if isinstance(record, ExpiredRecord):
            if record.first_seq != expected or record.last_seq < expected:
                raise feed_error(
                    "bad_seq",
                    f"expired {record.first_seq}..{record.last_seq} where {expected} is due",
                )
            expected = record.last_seq + 1
        else:
            if record.seq != expected:
                raise feed_error("bad_seq", f"seq {record.seq} where {expected} is due")
            expected += 1
    if not batch.records or batch.last_seq != expected - 1:
        raise feed_error(
            "bad_seq", f"last_seq {batch.last_seq}, but the records end with {expected - 1}"
        )


def _check_days(record: ReadRecord | FreezeRecord | SeriesRecord | ExpiredRecord) -> None:
    """The patterns let 30 February pass; the calendar does not."""
    if isinstance(record, ExpiredRecord):
        return
    start = record.start if isinstance(record, SeriesRecord) else record.time
    due_at = None if isinstance(record, SeriesRecord) else record.due_at
    for text in (start, record.received_at, due_at):
        if text is not None and text[8:10] > "28":
            _check_time(text)


def _check_time(text: str) -> None:
    try:
        from_iso(text)
    except ValueError as error:
        raise feed_error("bad_record", f"no such day: {text}") from error


def _flat(event: EventRecord) -> dict[str, Any]:
    clash = _RESERVED & event.fields.keys()
    if clash:
        raise feed_error("bad_record", f"event fields may not be named {', '.join(sorted(clash))}")
    _check_event_fields(event.fields)
    return {
        "kind": "event",
        "seq": event.seq,
        "event": event.event,
        "at": event.at,
        **event.fields,
    }


def _check_event_fields(fields: dict[str, Any]) -> None:
    """Not nested beyond the bound, and no number that some reader of JSON would bend."""
    if _depth(fields) > EVENT_DEPTH_MAX:
        raise feed_error("bad_record", "event fields are nested too deeply")
    for value in _inside(fields):
        is_odd_float = isinstance(value, float) and not math.isfinite(value)
        if is_odd_float or (isinstance(value, int) and abs(value) > SEQ_MAX):
            raise feed_error("bad_record", "a number in event fields that not every reader holds")


def _lift_event_fields(batch: Batch, data: bytes) -> None:
    """Fill `fields` of event records from what stands beside `event` and `at` on the wire."""
    raws = _records_decoder.decode(data).records
    for raw, record in zip(raws, batch.records, strict=True):
        if not isinstance(record, EventRecord):
            continue
        wire = _event_decoder.decode(raw)
        if "fields" in wire:
            raise feed_error("bad_record", "an event's own fields stand beside its name")
        record.fields = {k: v for k, v in wire.items() if k not in _RESERVED}
        _check_event_fields(record.fields)
        _check_time(record.at)


def _depth(value: Any) -> int:  # noqa: ANN401 - any JSON value
    """How deep a decoded JSON value is nested, without recursion."""
    depth = 0
    level = [value]
    while level:
        depth += 1
        level = [inner for one in level for inner in _children(one)]
    return depth


def _inside(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON value
    """Every value inside a JSON value, without recursion."""
    pending = [value]
    while pending:
        one = pending.pop()
        yield one
        pending.extend(_children(one))


def _children(value: Any) -> Iterable[Any]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
