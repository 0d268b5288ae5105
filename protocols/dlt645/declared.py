"""The payload layouts of `formats.py` declared with construct, out of nibbles and bytes.

A second, slower description of the same bytes: tests hold both equal on every payload, so that the
fast decoders mean what is declared here. Not used on the way of a reading.
"""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

import construct as c

from protocols.dlt645.catalogue import Item
from protocols.dlt645.formats import (
    Field,
    Layout,
    MeterTime,
    OperatorCode,
    Value,
    layout_of,
)
from protocols.errors import BadContent, LocalProtocolError

_TIME_LETTERS = {  # wire order: the last letter of the format comes first
    ("date", 4): "WDMY",
    ("time", 3): "smh",
    ("stamp", 4): "hDMY",
    ("stamp", 5): "mhDMY",
    ("stamp", 6): "smhDMY",
    ("stamp", 7): "smhWDMY",
}


def decode_declared(item: Item, payload: bytes) -> tuple[Value, ...]:
    """As `items.decode`, by the declaration; BadContent(code="declared") for what it refuses."""
    if item.layout is None:
        raise LocalProtocolError(f"the layout of {item.di} is not known here", code="declared")
    layout = item.layout
    if layout.optional and len(payload) < layout.round_bytes:
        layout = layout_of(layout.fields[:-1])
    rounds, rest = divmod(len(payload), layout.round_bytes)
    if rest or not layout.rounds_min <= rounds <= layout.rounds_max:
        raise BadContent("no whole number of rounds", code="declared", raw=payload)
    try:
        parsed = declaration(layout, rounds).parse(payload)
    except c.ConstructError as error:
        raise BadContent(str(error), code="declared", raw=payload) from error
    return tuple(value for one in parsed for value in one)


@lru_cache(maxsize=512)
def declaration(layout: Layout, rounds: int) -> c.Construct:
    """The construct of a layout with that many rounds of its fields, and nothing behind them."""
    one_round = c.Sequence(*(_declare(field) for field in layout.fields))
    return c.FocusedSeq("rounds", "rounds" / c.Array(rounds, one_round), c.Terminated)


def _declare(field: Field) -> c.Construct:
    if field.kind == "bits":
        return c.ExprAdapter(c.Bytes(field.width), lambda o, _: o[::-1].hex().upper(), None)
    if field.kind == "operator":
        return c.ExprAdapter(
            c.Bytes(field.width), lambda o, _: OperatorCode(o[::-1].hex().upper()), None
        )
    if field.kind == "number":
        known = _signed_number(field) if field.signed else _unsigned_number(field)
    elif field.kind == "digits":
        known = c.ExprAdapter(_digits(field.width), lambda o, _: "".join(map(str, o)), None)
    elif field.kind == "text":
        known = _text(field.width)
    elif field.kind == "pattern":
        known = _pattern(field)
    else:
        known = _time(field)
    nothing = (
        c.ExprAdapter(c.Const(bytes((filler,)) * field.width), lambda _o, _c: None, None)
        for filler in (0xFF, 0xEE)
    )
    return c.Select(*nothing, known)


_DIGIT = c.ExprValidator(c.Nibble, lambda obj, _: obj <= 9)


def _digits(width: int) -> c.Construct:
    """All digits, the most significant first, of bytes that come low byte first."""
    return c.ByteSwapped(c.Bitwise(c.Array(2 * width, _DIGIT)))


def _decimal(sign: int, digits: Sequence[int], scale: int) -> Decimal:
    """There is no negative zero."""
    return Decimal((sign if any(digits) else 0, tuple(digits), -scale))


def _unsigned_number(field: Field) -> c.Construct:
    return c.ExprAdapter(_digits(field.width), lambda obj, _: _decimal(0, obj, field.scale), None)


def _signed_number(field: Field) -> c.Construct:
    """The top bit is the sign; three bits are left of the first digit."""
    bits = c.Struct(
        "sign" / c.BitsInteger(1),
        "first" / c.BitsInteger(3),
        "others" / c.Array(2 * field.width - 1, _DIGIT),
    )
    swapped = c.ByteSwapped(c.Bitwise(bits))
    return c.ExprAdapter(
        swapped,
        lambda obj, _: _decimal(obj.sign, (obj.first, *obj.others), field.scale),
        None,
    )


def _text(width: int) -> c.Construct:
    plain = c.ExprValidator(
        c.ExprAdapter(c.Bytes(width), lambda obj, _: obj[::-1].strip(b"\x00 "), None),
        lambda obj, _: all(0x20 <= byte < 0x7F for byte in obj),
    )
    return c.ExprAdapter(plain, lambda obj, _: obj.decode("ascii"), None)


def _time(field: Field) -> c.Construct:
    """BCD bytes that are named by letters, and make a date or a time that exists."""
    pair = c.ExprAdapter(c.Sequence(_DIGIT, _DIGIT), lambda obj, _: 10 * obj[0] + obj[1], None)
    letters = _TIME_LETTERS[field.kind, field.width]
    pairs = c.Struct(*(letter / c.Bitwise(pair) for letter in letters))

    def made(obj: c.Container, _: object) -> Value:
        if field.kind == "stamp" and not any(obj[letter] for letter in letters):
            return None
        try:
            day = dt.date(2000 + obj.Y, obj.M, obj.D) if "D" in letters else None
            time = dt.time(obj.h, obj.get("m", 0), obj.get("s", 0)) if "h" in letters else None
        except ValueError as error:
            raise c.ValidationError(str(error)) from error
        return MeterTime(day, time) if day is not None and time is not None else day or time

    return c.ExprAdapter(pairs, made, None)


_PATTERN_MAX = {"YY": 99, "MM": 12, "DD": 31, "hh": 24, "mm": 59, "NN": 99}
_PATTERN_TEXT = {  # what each pattern looks like
    "MMDDhhmm": "{0}-{1} {2}:{3}",
    "MMDDNN": "{0}-{1} {2}",
    "hhmmNN": "{0}:{1} {2}",
    "YYMMDDNN": "{0}-{1}-{2} {3}",
    "DDhh": "{0} {1}",
}


def _pattern(field: Field) -> c.Construct:
    """Pairs of digits, each within its bounds or 99; zeros all through are an empty slot."""
    letters = [field.pattern[at : at + 2] for at in range(0, len(field.pattern), 2)]

    def made(obj: Sequence[int], _: object) -> Value:
        if not any(obj) and {"MM", "hh"} <= set(letters):
            return None
        pairs = [f"{obj[at]}{obj[at + 1]}" for at in range(0, len(obj), 2)]
        for letter, pair in zip(letters, pairs, strict=True):
            if pair != "99" and int(pair) > _PATTERN_MAX[letter]:
                raise c.ValidationError(f"{pair} is no {letter}")
        return _PATTERN_TEXT[field.pattern].format(*pairs)

    return c.ExprAdapter(_digits(field.width), made, None)
