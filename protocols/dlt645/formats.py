"""How values stand in the payload of an item: one `Layout` for each format of the catalogue.

A layout is made once when the catalogue is loaded; decoding a reading then costs a few
microseconds. `declared.py` declares the same with construct, and tests hold both equal.

Rules (DL/T 645-2007): everything travels low byte first. Numbers are BCD with a fixed number of
decimals; in items that the catalogue calls signed, the top bit of the highest byte is the sign
and the rest the magnitude; in all others it is part of a digit. All bytes FF = the meter has no
value. Texts travel last character first. Years are 2000 + YY.
"""

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from protocols.bcd import bytes_of, digits_of
from protocols.errors import BadContent, LocalProtocolError

TARIFFS_MAX = 63
SETTLEMENTS_MAX = 12
HARMONICS_MAX = 21


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


Value = Decimal | str | dt.date | dt.time | MeterTime | None


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a payload: `width` bytes. `decode` gets exactly that many."""

    kind: str  # number | digits | text | bits | date | time | stamp
    width: int
    scale: int
    signed: bool
    decode: Callable[[bytes], Value]
    encode: Callable[[Value], bytes]


@dataclass(frozen=True, slots=True)
class Layout:
    """A payload: `fields` in turn, `rounds_min` to `rounds_max` times."""

    fields: tuple[Field, ...]
    rounds_min: int
    rounds_max: int
    decode: Callable[[bytes], tuple[Value, ...]]

    @property
    def round_bytes(self) -> int:
        """Bytes of one round."""
        return sum(field.width for field in self.fields)

    @property
    def length(self) -> int | None:
        """Bytes of the payload; None when the number of rounds is the meter's choice."""
        return self.round_bytes * self.rounds_min if self.rounds_min == self.rounds_max else None

    def number_position(self, index: int) -> int:
        """Where the number `index` stands among the decoded values: times beside it are skipped.

        In a layout without numbers every value counts.
        """
        numbers = [at for at, field in enumerate(self.fields) if field.kind == "number"]
        places = numbers or list(range(len(self.fields)))
        rounds, at = divmod(index, len(places))
        return rounds * len(self.fields) + places[at]

    def encode(self, values: Sequence[Value]) -> bytes:
        """The payload of these values, one a member; LocalProtocolError when one does not fit."""
        rounds, rest = divmod(len(values), len(self.fields))
        if rest or not self.rounds_min <= rounds <= self.rounds_max:
            raise LocalProtocolError(
                f"{len(values)} values do not fill this item", code="value_count"
            )
        fields = self.fields * rounds
        return b"".join(f.encode(v) for f, v in zip(fields, values, strict=True))


def make_layout(text: str, length: str, *, signed: bool) -> Layout | None:
    """The layout of a format and a length as the catalogue writes them; None = not decodable.

    ValueError when format and length contradict each other.
    """
    fields: list[Field] = []
    for part in text.split(","):
        count, _, one = part.rpartition("*")
        field = _field(one, length, signed=signed)
        if field is None or (count and not count.isdigit()):
            return None
        fields += [field] * int(count or 1)
    rounds = _rounds(length, sum(field.width for field in fields))
    if rounds is None:
        return None
    return _layout(tuple(fields), *rounds)


def _rounds(length: str, width: int) -> tuple[int, int] | None:
    """How often the fields come: from `4`, `2*3`, `4*(k+1)`, `4*(m+1)`, `2*n`."""
    unit, _, times = length.partition("*")
    if not unit.isdigit():
        return None
    if int(unit) != width:
        msg = f"length {length} does not fit a format of {width} bytes"
        raise ValueError(msg)
    open_counts = {
        "": (1, 1),
        "(k+1)": (1, TARIFFS_MAX + 1),
        "(m+1)": (1, SETTLEMENTS_MAX + 1),
        "n": (1, HARMONICS_MAX),
    }
    return (int(times), int(times)) if times.isdigit() else open_counts[times]


def _field(text: str, length: str, *, signed: bool) -> Field | None:
    if text == "ASCII":
        return _text(int(length)) if length.isdigit() else None
    if text in ("BIN8", "BIN16", "BIN32", "BIN64", "BIN96"):
        return _bits(int(text.removeprefix("BIN")) // 8)
    if text == "N" * 12:
        return _digits(6)
    if text in _TIME_FIELDS:
        return _TIME_FIELDS[text]()
    if re.fullmatch(r"[XN]+(\.[XN]+)?", text):
        digits = len(text.replace(".", ""))
        decimals = len(text.partition(".")[2])
        if digits % 2 or digits > 8:
            return None
        return _number(digits // 2, decimals, signed=signed)
    return None


def _layout(fields: tuple[Field, ...], rounds_min: int, rounds_max: int) -> Layout:
    width = sum(field.width for field in fields)
    if len(fields) == 1 and rounds_min == rounds_max == 1:
        decode = _decode_single(fields[0])
    else:
        decode = _decode_rounds(fields, width, rounds_min, rounds_max)
    return Layout(fields, rounds_min, rounds_max, decode)


def _decode_single(field: Field) -> Callable[[bytes], tuple[Value, ...]]:
    """The hot path: one member, one number."""
    width, decode_field = field.width, field.decode

    def decode(payload: bytes) -> tuple[Value, ...]:
        if len(payload) != width:
            raise _wrong_length(payload, str(width), short=len(payload) < width)
        return (decode_field(payload),)

    return decode


def _decode_rounds(
    fields: tuple[Field, ...], width: int, rounds_min: int, rounds_max: int
) -> Callable[[bytes], tuple[Value, ...]]:
    if rounds_min == rounds_max:
        wanted = str(width * rounds_min)
    else:
        wanted = f"{width} x {rounds_min}..{rounds_max}"

    def decode(payload: bytes) -> tuple[Value, ...]:
        size = len(payload)
        if size > width * rounds_max:
            raise _wrong_length(payload, wanted, short=False)
        if size % width or size < width * rounds_min:
            raise _wrong_length(payload, wanted, short=True)
        values: list[Value] = []
        at = 0
        for field in fields * (size // width):
            try:
                values.append(field.decode(payload[at : at + field.width]))
            except BadContent as error:
                # The place in the whole payload; the first error is the one that is told.
                raise BadContent(str(error), code=error.code, raw=payload, offset=at) from None
            at += field.width
        return tuple(values)

    return decode


def _wrong_length(payload: bytes, wanted: str, *, short: bool) -> BadContent:
    return BadContent(
        f"the item has {wanted} bytes, the payload {len(payload)}",
        code="short_data" if short else "long_data",
        raw=payload,
        offset=len(payload),
    )


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
        if raw == nothing:
            return None
        raise _not_bcd(raw)

    def decode_signed(raw: bytes) -> Value:
        top = raw[-1]
        if top < 0x80:
            return decode_unsigned(raw)
        if raw == nothing:
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
        if raw == nothing:
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
        if raw == nothing:
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
        if raw == nothing:
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
    return dt.time(parts["h"], parts["m"], parts.get("s", 0))


def _stamp_from(parts: dict[str, int]) -> MeterTime:
    return MeterTime(_date_from(parts), _time_from(parts))


_TIME_FIELDS: dict[str, Callable[[], Field]] = {
    "YYMMDDWW": lambda: _time_field("date", "YMDW", _date_from),
    "hhmmss": lambda: _time_field("time", "hms", _time_from),
    "YYMMDDhhmm": lambda: _time_field("stamp", "YMDhm", _stamp_from),
    "YYMMDDhhmmss": lambda: _time_field("stamp", "YMDhms", _stamp_from),
    "YYMMDDWWhhmmss": lambda: _time_field("stamp", "YMDWhms", _stamp_from),
}
