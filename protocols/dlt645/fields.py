"""How single values stand in a payload: one `Field` for each kind of value.

Rules (DL/T 645): everything travels low byte first. Numbers are BCD with a fixed number of
decimals; of those the catalogue calls signed, the top bit of the highest byte is the sign and the
rest the magnitude; of all others it is part of a digit. All bytes FF = the meter has no value.
Texts travel last character first. Years are 2000 + YY.
"""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Self

from protocols.bcd import bytes_of, digits_of
from protocols.errors import BadContent, LocalProtocolError


@dataclass(frozen=True, slots=True, order=True)
class MeterTime:
    """Date and time as a meter says them: local to the meter, which does not say where it is."""

    date: dt.date
    time: dt.time

    def at(self, zone: dt.tzinfo) -> dt.datetime:
        """The aware datetime, if the meter's clock runs in `zone`."""
        return dt.datetime.combine(self.date, self.time, tzinfo=zone)

    def __str__(self) -> str:
        """ISO 8601 without an offset, to the second."""
        return f"{self.date.isoformat()}T{self.time.isoformat('seconds')}"


class OperatorCode(str):
    """Who changed a meter. As text it is stars, so that it gets into no log: `digits` has it."""

    __slots__ = ("digits",)
    digits: str

    def __new__(cls, digits: str) -> Self:
        """`digits`: the hex digits of the code."""
        code = super().__new__(cls, "*" * len(digits))
        code.digits = digits
        return code

    def __eq__(self, other: object) -> bool:
        """Equal codes have equal digits; a plain text is no code."""
        return isinstance(other, OperatorCode) and self.digits == other.digits

    def __ne__(self, other: object) -> bool:
        """A text has one of its own, which would compare the stars."""
        return not self == other

    __hash__ = str.__hash__


Value = Decimal | str | dt.date | dt.time | MeterTime | None


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a payload: `width` bytes. `decode` gets exactly that many.

    Members of a record have a name and a unit of their own. `pattern`: the letters of a time that
    is not whole.
    """

    kind: str  # number | digits | text | bits | date | time | stamp | pattern | operator
    width: int
    scale: int
    signed: bool
    decode: Callable[[bytes], Value]
    encode: Callable[[Value], bytes]
    pattern: str = ""
    name_en: str = ""
    name_zh: str = ""
    unit: str = ""


@cache
def field_of(text: str, text_bytes: int | None = None, *, signed: bool = False) -> Field | None:
    """The field of one format as the catalogue writes it; None for a format that is none.

    `text_bytes`: the bytes of an ASCII item. A format of more than eight digits is no number but a
    name.
    """
    if text == "ASCII":
        return None if text_bytes is None else _text(text_bytes)
    known = _BY_NAME.get(text)
    if known is not None:
        return known()
    if re.fullmatch("N{10,}", text):
        return _digits(len(text) // 2)
    if re.fullmatch("(YY|MM|DD|hh|mm|NN){2,}", text) and text.strip("N"):
        return _pattern(text)
    return _number_of(text, signed=signed)


def _number_of(text: str, *, signed: bool) -> Field | None:
    digits = len(text.replace(".", ""))
    if not re.fullmatch(r"[XN]+(\.[XN]+)?", text) or digits % 2 or digits > 8:
        return None
    return _number(digits // 2, len(text.partition(".")[2]), signed=signed)


def is_nothing(raw: bytes) -> bool:
    """Whether bytes say that there is no value: all FF, or all EE as terminals write it."""
    return not raw.strip(b"\xff") or not raw.strip(b"\xee")


def _not_bcd(raw: bytes) -> BadContent:
    return BadContent(
        f"{raw[::-1].hex().upper()} is no decimal number", code="not_bcd", raw=raw, offset=0
    )


def _number(width: int, scale: int, *, signed: bool) -> Field:
    nothing = b"\xff" * width
    cut = 2 * width - scale

    def decode_unsigned(raw: bytes) -> Value:
        text = raw[::-1].hex()
        if text.isdigit():
            return Decimal(f"{text[:cut]}.{text[cut:]}")
        if is_nothing(raw):
            return None
        raise _not_bcd(raw)

    def decode_signed(raw: bytes) -> Value:
        top = raw[-1]
        if top < 0x80:
            return decode_unsigned(raw)
        if is_nothing(raw):
            return None
        text = bytes((top & 0x7F, *raw[-2::-1])).hex()
        if not text.isdigit():
            raise _not_bcd(raw)
        value = Decimal(f"{text[:cut]}.{text[cut:]}")
        return value.copy_negate() if value else value

    def encode(value: Value) -> bytes:
        return nothing if value is None else _number_bytes(value, width, scale, signed=signed)

    return Field(
        "number", width, scale, signed, decode_signed if signed else decode_unsigned, encode
    )


def _number_bytes(value: Value, width: int, scale: int, *, signed: bool) -> bytes:
    if not isinstance(value, Decimal):
        raise _wrong_type(value, "Decimal")
    limit = Decimal(10 ** (2 * width) if not signed else 8 * 10 ** (2 * width - 1))
    if not value.is_finite() or abs(value) >= limit or (value < 0 and not signed):
        raise LocalProtocolError(
            f"{value} does not fit {width} bytes {'with' if signed else 'without'} a sign",
            code="out_of_range",
        )
    count = value.scaleb(scale)
    if count != count.to_integral_value():
        raise LocalProtocolError(
            f"{value} has more than {scale} decimals", code="too_many_decimals"
        )
    if abs(count) >= limit:
        raise LocalProtocolError(f"{value} does not fit {width} bytes", code="out_of_range")
    raw = bytes_of(f"{int(abs(count)):0{2 * width}d}")
    return raw if value >= 0 else raw[:-1] + bytes((raw[-1] | 0x80,))


def _wrong_type(value: object, wanted: str) -> LocalProtocolError:
    return LocalProtocolError(
        f"a {wanted} is wanted here, not {type(value).__name__}", code="wrong_type"
    )


def _digits(width: int) -> Field:
    """A number that is a name: its leading zeros count."""
    nothing = b"\xff" * width

    def decode(raw: bytes) -> Value:
        if is_nothing(raw):
            return None
        text = digits_of(raw)
        if text is None:
            raise _not_bcd(raw)
        return text

    def encode(value: Value) -> bytes:
        if value is None:
            return nothing
        if not isinstance(value, str):
            raise _wrong_type(value, "str")
        if len(value) != 2 * width or not (value.isascii() and value.isdigit()):
            raise LocalProtocolError(f"{value!r} is not {2 * width} digits", code="out_of_range")
        return bytes_of(value)

    return Field("digits", width, 0, False, decode, encode)  # noqa: FBT003


def _text(width: int) -> Field:
    """ASCII, last character first, padded with NUL or space on either side."""
    nothing = b"\xff" * width

    def decode(raw: bytes) -> Value:
        if is_nothing(raw):
            return None
        text = raw[::-1].strip(b"\x00 ")
        if not text.isascii() or not text.decode("ascii").isprintable():
            raise BadContent(
                f"{text.hex().upper()} is no ASCII text", code="not_ascii", raw=raw, offset=0
            )
        return text.decode("ascii")

    def encode(value: Value) -> bytes:
        if value is None:
            return nothing
        if not isinstance(value, str):
            raise _wrong_type(value, "str")
        if len(value) > width or not (value.isascii() and value.isprintable()):
            raise LocalProtocolError(
                f"{value!r} is no ASCII text of {width} characters", code="out_of_range"
            )
        return value.encode("ascii").ljust(width, b"\x00")[::-1]

    return Field("text", width, 0, False, decode, encode)  # noqa: FBT003


def _bits(width: int) -> Field:
    """A word of bits, as hex digits, most significant first. FF..FF is a value like any other."""

    def decode(raw: bytes) -> Value:
        return raw[::-1].hex().upper()

    def encode(value: Value) -> bytes:
        if not isinstance(value, str):
            raise _wrong_type(value, "str")
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        if len(raw) != width or len(value) != 2 * width:
            raise LocalProtocolError(f"{value!r} is not {width} bytes in hex", code="out_of_range")
        return raw[::-1]

    return Field("bits", width, 0, False, decode, encode)  # noqa: FBT003


def _operator() -> Field:
    """The operator code of four bytes, kept out of every text."""

    def decode(raw: bytes) -> Value:
        return OperatorCode(raw[::-1].hex().upper())

    def encode(value: Value) -> bytes:
        if not isinstance(value, OperatorCode):
            raise _wrong_type(value, "OperatorCode")
        raw = bytes.fromhex(value.digits) if len(value.digits) == 8 else b""
        if len(raw) != 4:
            raise LocalProtocolError("an operator code has eight hex digits", code="out_of_range")
        return raw[::-1]

    return Field("operator", 4, 0, False, decode, encode)  # noqa: FBT003


# The greatest number each pair of a time that is not whole can be. 99 stands for "every" or "off".
_PAIR_MAX = {"YY": 99, "MM": 12, "DD": 31, "hh": 24, "mm": 59, "NN": 99}
_EVERY = 99


def _pattern(text: str) -> Field:
    """A time of which parts are missing, as a text: `11-24 23:55`; NN, a number, stands by itself.

    Its year or its day is not known, so it is no instant. All zeros with a month and an hour in it
    is an empty slot.
    """
    width = len(text) // 2
    letters = [text[at : at + 2] for at in range(0, len(text), 2)]
    joints = "".join(_joint(a, b) for a, b in pairwise(letters))
    nothing = b"\xff" * width
    is_moment = "MM" in letters and "hh" in letters

    def decode(raw: bytes) -> Value:
        if is_nothing(raw) or (is_moment and not any(raw)):
            return None
        digits = digits_of(raw)
        if digits is None:
            raise _not_bcd(raw)
        pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
        for letter, pair in zip(letters, pairs, strict=True):
            if int(pair) > _PAIR_MAX[letter] and int(pair) != _EVERY:
                raise BadContent(f"{digits} is no {text}", code="bad_date", raw=raw, offset=0)
        return "".join(a + b for a, b in zip(pairs, joints + "\0", strict=True)).rstrip("\0")

    def encode(value: Value) -> bytes:
        if value is None:
            return nothing
        if not isinstance(value, str):
            raise _wrong_type(value, "str")
        digits = re.sub("[-: ]", "", value)
        is_whole = len(digits) == 2 * width and digits.isascii() and digits.isdigit()
        raw = bytes_of(digits) if is_whole else nothing
        try:
            decoded = decode(raw)
        except BadContent:
            decoded = None
        if decoded != value:
            raise LocalProtocolError(f"{value!r} is no {text}", code="out_of_range")
        return raw

    return Field("pattern", width, 0, False, decode, encode, text)  # noqa: FBT003


def _joint(before: str, behind: str) -> str:
    """What stands between two pairs: a date's dash, a time's colon, a blank between the two."""
    if before in ("YY", "MM") and behind in ("MM", "DD"):
        return "-"
    return ":" if (before, behind) == ("hh", "mm") else " "


def weekday_of(day: dt.date) -> int:
    """The WW of a date item: 0 is Sunday."""
    return day.isoweekday() % 7


def _pairs(raw: bytes) -> tuple[int, ...] | None:
    """The two-digit numbers of BCD bytes, high byte first; None when one is not BCD."""
    text = digits_of(raw)
    if text is None:
        return None
    return tuple(int(text[at : at + 2]) for at in range(0, len(text), 2))


def _time_field(kind: str, order: str, make: Callable[[dict[str, int]], Value]) -> Field:
    """A date or time whose bytes, high first, are named by the letters of `order`."""
    width = len(order)
    nothing = b"\xff" * width

    def decode(raw: bytes) -> Value:
        if is_nothing(raw):
            return None
        pairs = _pairs(raw)
        if pairs is None:
            raise _not_bcd(raw)
        if kind == "stamp" and not any(pairs):
            return None  # an empty slot: month 00 is no month
        try:
            return make(dict(zip(order, pairs, strict=True)))
        except ValueError as error:
            code = "bad_time" if kind == "time" else "bad_date"
            raise BadContent(
                f"{raw[::-1].hex()} is no {kind}: {error}", code=code, raw=raw, offset=0
            ) from error

    def encode(value: Value) -> bytes:
        if value is None:
            return nothing
        parts = _time_parts(value, kind)
        return bytes_of("".join(f"{parts[letter]:02d}" for letter in order))

    return Field(kind, width, 0, False, decode, encode)  # noqa: FBT003


def _time_parts(value: Value, kind: str) -> dict[str, int]:
    day: dt.date | None = None
    time: dt.time | None = None
    if kind == "stamp" and isinstance(value, MeterTime):
        day, time = value.date, value.time
    elif kind == "date" and isinstance(value, dt.date):
        day = value
    elif kind == "time" and isinstance(value, dt.time):
        time = value
    else:
        raise _wrong_type(value, {"stamp": "MeterTime", "date": "date", "time": "time"}[kind])
    parts: dict[str, int] = {}
    if day is not None:
        if not 2000 <= day.year <= 2099:
            raise LocalProtocolError(f"year {day.year} has no two digits", code="out_of_range")
        parts |= {"Y": day.year - 2000, "M": day.month, "D": day.day, "W": weekday_of(day)}
    if time is not None:
        parts |= {"h": time.hour, "m": time.minute, "s": time.second}
    return parts


def _date_from(parts: dict[str, int]) -> dt.date:
    return dt.date(2000 + parts["Y"], parts["M"], parts["D"])


def _time_from(parts: dict[str, int]) -> dt.time:
    return dt.time(parts["h"], parts.get("m", 0), parts.get("s", 0))


def _stamp_from(parts: dict[str, int]) -> MeterTime:
    return MeterTime(_date_from(parts), _time_from(parts))


_BY_NAME: dict[str, Callable[[], Field]] = {
    "BIN8": lambda: _bits(1),
    "BIN16": lambda: _bits(2),
    "BIN32": lambda: _bits(4),
    "BIN64": lambda: _bits(8),
    "BIN96": lambda: _bits(12),
    "DI": lambda: _bits(4),
    "OPERATOR": _operator,
    "YYMMDDWW": lambda: _time_field("date", "YMDW", _date_from),
    "hhmmss": lambda: _time_field("time", "hms", _time_from),
    "YYMMDDhh": lambda: _time_field("stamp", "YMDh", _stamp_from),
    "YYMMDDhhmm": lambda: _time_field("stamp", "YMDhm", _stamp_from),
    "YYMMDDhhmmss": lambda: _time_field("stamp", "YMDhms", _stamp_from),
    "YYMMDDWWhhmmss": lambda: _time_field("stamp", "YMDWhms", _stamp_from),
}
