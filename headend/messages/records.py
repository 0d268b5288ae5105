"""What travels on the feed (contract §3), as typed records with their encoding.

Numbers are text with exactly the item's decimals; times are ISO 8601 UTC. Unknown fields are
ignored when decoding (the contract is added to freely); missing or mistyped ones are refused with
a `FeedError` whose `code` names the kind: `not_json`, `wrong_schema`, `bad_record`, `bad_seq`,
`too_large`.
"""

from typing import Any

import msgspec

from headend.domain.errors import FeedError

MESSAGE_BYTES_MAX = 256 * 1024
SCHEMA_FEED = "feed/1"
SCHEMA_RECEIPT = "receipt/1"
SCHEMA_RESUME = "resume/1"
SCHEMA_RESUME_REFUSED = "resume_refused/1"
SCHEMA_STATUS = "status/1"


class ReadRecord(msgspec.Struct, tag_field="kind", tag="read", kw_only=True):
    """One value of one point."""

    seq: int
    read_id: str
    meter: str
    service_point: str
    point: str
    obis: str | None
    value: str | None
    unit: str
    time: str
    interval_s: int | None
    received_at: str
    due_at: str | None
    status: str
    verdict: str
    flags: list[str]
    revision: int
    late: bool
    multiplier: str
    side: str
    evidence: str | None
    final: bool = False


class FreezeRecord(msgspec.Struct, tag_field="kind", tag="freeze", kw_only=True):
    """Several points of one meter for one instant. Read ids are computed by both ends."""

    seq: int
    meter: str
    service_point: str
    values: dict[str, str | None]
    time: str
    received_at: str
    due_at: str | None
    status: str
    verdict: str
    flags: list[str]
    revision: int
    late: bool
    multiplier: str
    side: str
    evidence: str | None
    final: bool = False


class SeriesRecord(msgspec.Struct, tag_field="kind", tag="series", kw_only=True):
    """Equally spaced interval values of one point; `values[i]` starts at start + i x interval."""

    seq: int
    meter: str
    service_point: str
    point: str
    unit: str
    start: str
    interval_s: int
    values: list[str | None]
    received_at: str
    status: str
    verdict: str
    flags: list[str]
    revision: int
    late: bool
    multiplier: str
    side: str
    evidence: str | None
    final: bool = False


class EventRecord(msgspec.Struct, tag_field="kind", tag="event", kw_only=True):
    """Something dated; `fields` stand beside `event` and `at` on the wire."""

    seq: int
    event: str
    at: str
    fields: dict[str, Any] = {}


class ExpiredRecord(msgspec.Struct, tag_field="kind", tag="expired", kw_only=True):
    """What retention dropped before a replay could send it."""

    first_seq: int
    last_seq: int


Record = ReadRecord | FreezeRecord | SeriesRecord | EventRecord | ExpiredRecord


class ExchangeEvidence(msgspec.Struct, kw_only=True):
    """The raw frames a billing quantity came from."""

    ref: str
    request: str
    reply: str | None
    bus: str
    received_at: str
    attempts: int
    software: str


class Batch(msgspec.Struct, kw_only=True):
    """One feed message: records first_seq..last_seq of one consumer's stream, without holes."""

    headend: str
    epoch: str
    consumer: str
    first_seq: int
    last_seq: int
    records: list[Record]
    exchanges: list[ExchangeEvidence]


class Receipt(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_RECEIPT):
    """Everything up to `through_seq` is durable at the consumer."""

    epoch: str
    through_seq: int


class Resume(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_RESUME):
    """Send again from `from_seq` (the consumer's durable cursor + 1)."""

    epoch: str
    from_seq: int


class ResumeRefused(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_RESUME_REFUSED):
    """`from_seq` is below the oldest kept record."""

    headend: str
    epoch: str
    consumer: str
    from_seq: int
    oldest_seq: int


class ConsumerStatus(msgspec.Struct, kw_only=True):
    """Where one consumer's stream stands."""

    last_seq: int
    oldest_seq: int
    backlog: int
    expired: bool = False


class Status(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_STATUS):
    """The retained status of a head-end; the last will is the same with online = false."""

    headend: str
    online: bool
    version: str
    epoch: str
    configuration: str
    consumers: dict[str, ConsumerStatus]


def feed_error(code: str, message: str) -> FeedError:
    """A FeedError of this module's codes."""
    return FeedError(message, code=code)
