"""The keys of a device profile, as a JSON Schema: what editors check while a profile is written.

The tables here are also where the reader takes its keys from, so that both know the same ones. A
schema sees one key at a time; what only shows when registers are seen together (overlaps, requests
that cannot be made) the reader alone tells.
"""

from typing import Any, get_args

from protocols.modbus.delimiter import COUNT_MAX, READ_FUNCTIONS
from protocols.modbus.register import (
    TYPE_WORDS,
    Gaps,
    Kind,
    Parity,
    Ratio,
    Side,
    Sign,
    WordOrder,
)
from protocols.modbus.units import UNITS

SCHEMA_ID = "device_profile/1"
TURNAROUND_MS_MAX = 10_000
CONNECT_PAUSE_MS_MAX = 60_000
DECIMALS_MAX = 9
PHASES_MAX = 3
STOP_BITS_MAX = 2
BAUD_MIN, BAUD_MAX = 300, 4_000_000
INTEGER_TEXT = "^(0[xX][0-9A-Fa-f]+|[0-9]+)$"
DECIMAL_TEXT = "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?$"

Schema = dict[str, Any]


def _whole(low: int, high: int, what: str) -> Schema:
    """A whole number, also as text with 0x."""
    number = {"type": "integer", "minimum": low, "maximum": high}
    return {"description": what, "anyOf": [number, {"type": "string", "pattern": INTEGER_TEXT}]}


def _choice(kind: Any, what: str) -> Schema:  # noqa: ANN401 - a Literal
    return {"description": what, "enum": list(get_args(kind))}


def _text(what: str) -> Schema:
    return {"description": what, "type": "string", "minLength": 1}


def _flag(what: str) -> Schema:
    return {"description": what, "type": "boolean"}


def _number(what: str) -> Schema:
    text = {"type": "string", "pattern": DECIMAL_TEXT}
    return {
        "description": what,
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, text],
    }


_PATTERN: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": INTEGER_TEXT},
        {"const": "nan"},
    ]
}
_PATTERNS: Schema = {"anyOf": [*_PATTERN["anyOf"], {"type": "array", "items": _PATTERN}]}
_FUNCTION: Schema = {
    "anyOf": [
        {"enum": list(READ_FUNCTIONS)},
        {"type": "string", "pattern": "^(0[xX]0*)?[34]$"},
    ]
}

REGISTER_PROPERTIES: dict[str, Schema] = {
    "point": _text("The quantity: a name of the table of quantities."),
    "address": _whole(0, 0xFFFF, "As it goes on the wire, counted from 0."),
    "type": {"description": "How the words make a number.", "enum": list(TYPE_WORDS)},
    "words": _whole(1, COUNT_MAX, "Registers of a text; other types have their own number."),
    "unit": {"description": "The device's own unit, of the scaled value.", "enum": list(UNITS)},
    "function": {**_FUNCTION, "description": "3 or 4, where it is not that of the whole map."},
    "scale": _number("The value in `unit` is the number in the register times this."),
    "scale_address": _whole(
        0, 0xFFFF, "Where the device keeps the power of ten for this value; read along with it."
    ),
    "sign": _choice(Sign, "inverted: the device counts the other way; absolute: without a sign."),
    "decimals": _whole(0, DECIMALS_MAX, "Of a float in `unit`; it is rounded to them, once."),
    "ratio": _choice(Ratio, "What turns a value of the secondary side into a primary one."),
    "word_order": _choice(WordOrder, "little: the low word first."),
    "byte_order": _choice(WordOrder, "little: the low byte of each word first."),
    "missing": {**_PATTERNS, "description": "Raw patterns that mean `no value`."},
    "bill": _flag("A counter of one direction, fit for billing."),
    "rollover": _number("The first number in `unit` that the device does not show any more."),
    "note": _text("What there is to know about it."),
    "doubtful": _text("What no second source confirms."),
}
REGISTER_REQUIRED = ("point", "address", "type")

_SERIAL: dict[str, Schema] = {
    "baud": _whole(BAUD_MIN, BAUD_MAX, "Bits a second."),
    "parity": _choice(Parity, "As delivered."),
    "stop_bits": _whole(1, STOP_BITS_MAX, "As delivered."),
}
_SPAN: dict[str, Schema] = {
    "function": _FUNCTION,
    "address": _whole(0, 0xFFFF, "The first register."),
    "count": _whole(1, 0x10000, "How many."),
}
SERIAL_KEYS = tuple(_SERIAL)
SPAN_KEYS = tuple(_SPAN)


def _object(properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    made: Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return {**made, "required": list(required)} if required else made


TOP_PROPERTIES: dict[str, Schema] = {
    "id": _text("Its name: that of the file."),
    "device": _text("Maker and model, for people."),
    "kind": _choice(Kind, "A meter counts what passes, an inverter what it generates."),
    "phases": _whole(1, PHASES_MAX, "Of the grid it hangs on."),
    "side": _choice(Side, "primary: the device has multiplied with its transformers' ratios."),
    "function": {**_FUNCTION, "description": "3 reads holding registers, 4 input registers."},
    "word_order": _choice(WordOrder, "For all registers that say nothing else."),
    "byte_order": _choice(WordOrder, "Likewise."),
    "registers_max": _whole(1, COUNT_MAX, "How many one request may ask for."),
    "gaps": _choice(Gaps, "What happens to a request that touches undefined registers."),
    "hole_max": _whole(0, COUNT_MAX, "Undefined registers in a row that are read through."),
    "filler": _whole(0, 0xFFFF, "What undefined registers hold, where they can be read."),
    "breaks": {
        "description": "Addresses that no request reaches across: it ends before or begins there.",
        "type": "array",
        "items": _whole(0, 0xFFFF, "The address."),
    },
    "spans": {
        "description": "Registers that exist and are read in one request, though not all have "
        "points.",
        "type": "array",
        "items": _object(_SPAN, ("address", "count")),
    },
    "bill_apart": _text("Why what is billed cannot come out of one reply."),
    "even_only": _flag("Requests begin at even addresses and ask for even counts."),
    "turnaround_ms": _whole(0, TURNAROUND_MS_MAX, "Silence between its reply and a new request."),
    "connect_pause_ms": _whole(0, CONNECT_PAUSE_MS_MAX, "Silence after a connection is made."),
    "serial": {**_object(_SERIAL), "description": "The line as delivered."},
    "missing": {
        "description": "Raw patterns that mean `no value`, by type.",
        "type": "object",
        "properties": {kind: _PATTERNS for kind, words in TYPE_WORDS.items() if words},
        "additionalProperties": False,
    },
    "doubtful": {
        "description": "Settings that no second source confirms, each with what is not sure.",
        "type": "object",
        "additionalProperties": {"type": "string", "minLength": 1},
    },
    "registers": {
        "description": "The map.",
        "type": "array",
        "minItems": 1,
        "items": _object(REGISTER_PROPERTIES, REGISTER_REQUIRED),
    },
}
TOP_KEYS = tuple(TOP_PROPERTIES)
REGISTER_KEYS = tuple(REGISTER_PROPERTIES)
TOP_REQUIRED = ("id", "device", "kind", "registers")


def profile_schema() -> Schema:
    """The JSON Schema of a profile's file, which docs/schemas holds."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": SCHEMA_ID,
        "description": "A kind of Modbus device: which register holds what. The files of "
        "config/devices are of this shape.",
        **_object(TOP_PROPERTIES, TOP_REQUIRED),
    }
