"""Readings on demand: the request and its answer."""

from typing import Annotated

import msgspec
from msgspec import Meta

from headend.messages.records import (
    Count,
    Hex,
    Name,
    Number,
    OtherSchema,
    StatusWord,
    Text,
    Time,
    Word,
    decode_message,
    encode,
    feed_error,
)

SCHEMA_READ_REQUEST = "read_request/1"
SCHEMA_READ_REPLY = "read_reply/1"
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}\Z")]


class ReadRequest(msgspec.Struct, kw_only=True):
    """Read these points of a meter now; answer on `reply_to` before `deadline`.

    The schema may be named; `read_request/1` is understood when it is not.
    """

    id: RequestId
    reply_to: Annotated[str, Meta(min_length=1, max_length=512)]
    meter: Word
    points: Annotated[list[Word], Meta(min_length=1, max_length=1024)]
    deadline: Time
    schema: str = SCHEMA_READ_REQUEST


class Fault(msgspec.Struct, kw_only=True):
    """Why something was not done: a word for programs and a sentence for people."""

    code: Word
    message: Annotated[str, Meta(max_length=512)]


class PointAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One point as it was read, or why it was not. `took_ms`: milliseconds on the bus."""

    point: Word
    value: Number | None
    unit: Text
    time: Time | None
    status: StatusWord = "actual"
    received_at: Time | None = None
    took_ms: float | None = None
    attempts: Count | None = None
    request: Hex | None = None
    reply: Hex | None = None
    error: Fault | None = None


class ReadReply(msgspec.Struct, kw_only=True, tag_field="schema", tag=SCHEMA_READ_REPLY):
    """The answer: `results` in the order asked, or `refused` with nothing read."""

    id: RequestId
    headend: Name
    meter: Word
    results: list[PointAnswer]
    refused: Fault | None = None


_request_decoder = msgspec.json.Decoder(ReadRequest)
_reply_decoder: msgspec.json.Decoder[ReadReply | OtherSchema] = msgspec.json.Decoder(
    ReadReply | OtherSchema
)


def decode_read_request(data: bytes) -> ReadRequest:
    """A request from outside; FeedError."""
    request = decode_message(_request_decoder, data, (SCHEMA_READ_REQUEST,), may_lack_schema=True)
    if request.schema != SCHEMA_READ_REQUEST:
        raise feed_error("wrong_schema", f"expected {SCHEMA_READ_REQUEST}")
    return request


def encode_read_reply(reply: ReadReply) -> bytes:
    """The bytes of an answer; `too_large` above the feed's limit."""
    return encode(reply)


def decode_read_reply(data: bytes) -> ReadReply:
    """An answer as the asking side reads it; FeedError."""
    reply = decode_message(_reply_decoder, data, (SCHEMA_READ_REPLY,))
    if isinstance(reply, OtherSchema):
        raise feed_error("wrong_schema", f"expected {SCHEMA_READ_REPLY}")
    return reply
