"""Registers into values, and values into registers.

Order of decoding: word order, "no value" patterns by type and width, number, scale (and the power
of ten that the device gives along with the value), sign, ratio, unit.
Integers never pass through binary floating point; a float is rounded once, to the decimals the
device's own display has, because it holds no more than that.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from struct import error as struct_error
from struct import pack, unpack

from protocols.errors import BadContent, LocalProtocolError
from protocols.modbus.register import ONE, SIGNED, TEXTS, Register
from protocols.modbus.units import shift_to_point

Value = Decimal | str | None

# Wide enough for every float64 written out; so nothing here is ever rounded by accident.
_EXACT = Context(prec=1200, traps=[InvalidOperation, Inexact])
_ROUNDING = Context(prec=1200, traps=[InvalidOperation])
_FLOAT_FORMS = {"float32": ">f", "float64": ">d"}
NO_SCALE = 0x8000  # a scale factor that says: the values it belongs to cannot be used
SCALE_POWER_MAX = 10
_SHORTEST_DIGITS = {"float32": range(6, 10), "float64": range(15, 18)}


def decode(
    register: Register,
    words: Sequence[int],
    *,
    ct: Decimal | int = 1,
    pt: Decimal | int = 1,
    apply_ratio: bool,
) -> Value:
    """The value that the words of a register hold, in the unit of its point; None = no value.

    The words are the register's own and, where it has a scale factor, that one behind them
    (`Block.words_of` gives both). Numbers are Decimal with the register's own decimals, texts are
    str. With `apply_ratio` a value of the secondary side becomes that of the primary side.
    BadContent(code="not_ascii") for a text that is none, `bad_scale` for a power of ten that no
    device has; LocalProtocolError when there are not as many words as the register has.
    """
    own, power = words, 0
    if register.scale_address is not None and len(words) == register.words + 1:
        own, factor = words[:-1], words[-1]
        if factor == NO_SCALE:
            return None
        power = scale_power(factor)
    elif register.scale_address is not None:
        raise _bad_count(register, words)
    raw = _raw_bytes(register, own)
    if register.type == "string":
        return _text(raw)
    if register.type == "hex":
        return raw.hex().upper()
    if int.from_bytes(raw) in register.missing:
        return None
    number = _number(register, raw)
    if number is None:
        return None
    if power:
        number = number.scaleb(power, _EXACT)
    if register.sign != "same":
        number = number.copy_abs() if register.sign == "absolute" else number.copy_negate()
    if apply_ratio and register.ratio is not None:
        number = _EXACT.multiply(number, _factor(register, ct, pt))
    return _plain(number.scaleb(shift_to_point(register.unit, register.point), _EXACT))


def scale_power(word: int) -> int:
    """The power of ten that a scale factor's register holds, -10 to 10; BadContent otherwise."""
    power = word - 0x10000 if word & 0x8000 else word
    if abs(power) > SCALE_POWER_MAX:
        raise BadContent(
            f"{power} is no scale factor: -{SCALE_POWER_MAX} to {SCALE_POWER_MAX}",
            code="bad_scale",
            raw=word.to_bytes(2),
        )
    return power


def _bad_count(register: Register, words: Sequence[int]) -> LocalProtocolError:
    scale = "" if register.scale_address is None else " and a scale factor"
    return LocalProtocolError(
        f"{register.point} has {register.words} registers{scale}, not {len(words)}",
        code="bad_count",
    )


def _raw_bytes(register: Register, words: Sequence[int]) -> bytes:
    """The value's bytes, the most significant first."""
    if len(words) != register.words:
        raise _bad_count(register, words)
    if register.word_order == "little" and register.type not in TEXTS:
        words = words[::-1]
    return b"".join(word.to_bytes(2, register.byte_order) for word in words)


def _text(raw: bytes) -> str | None:
    """Printable ASCII, filled up with NUL or spaces; None when there is nothing else.

    All ones, too: that is what devices fill a text with that they do not have.
    """
    plain = raw.strip(b"\x00 ") if raw.strip(b"\xff") else b""
    for offset, byte in enumerate(plain):
        if not 0x20 <= byte < 0x7F:
            raise BadContent(
                f"byte {byte:02X} is no text", code="not_ascii", raw=raw, offset=offset
            )
    return plain.decode("ascii") or None


def _number(register: Register, raw: bytes) -> Decimal | None:
    """The scaled number in the map's unit; None for what is no number."""
    form = _FLOAT_FORMS.get(register.type)
    if form is None:
        number = int.from_bytes(raw, signed=register.type in SIGNED)
        return _EXACT.multiply(Decimal(number), register.scale)
    (value,) = unpack(form, raw)
    if not -float("inf") < value < float("inf"):
        return None
    if register.decimals is None:
        return _EXACT.multiply(_shortest(value, register.type), register.scale)
    scaled = _EXACT.multiply(Decimal(value), register.scale)
    return scaled.quantize(ONE.scaleb(-register.decimals), context=_ROUNDING)


def _shortest(value: float, kind: str) -> Decimal:
    """The shortest decimal number that is this float and no other."""
    form = _FLOAT_FORMS[kind]
    texts = (f"{value:.{digits}g}" for digits in _SHORTEST_DIGITS[kind])
    return Decimal(next(text for text in texts if _same_float(form, text, value)))


def _same_float(form: str, text: str, value: float) -> bool:
    try:
        return pack(form, float(text)) == pack(form, value)
    except OverflowError:  # rounded up beyond the largest float
        return False


def _factor(register: Register, ct: Decimal | int, pt: Decimal | int) -> Decimal:
    if register.ratio == "ct":
        return Decimal(ct)
    if register.ratio == "pt":
        return Decimal(pt)
    return _EXACT.multiply(Decimal(ct), Decimal(pt))


def _plain(number: Decimal) -> Decimal:
    """Written without an exponent, and without a negative zero."""
    if not number:
        number = number.copy_abs()
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        return number.quantize(ONE, context=_EXACT)
    return number


def encode(register: Register, value: Value, *, power: int = 0) -> tuple[int, ...]:
    """The words a device has in a register that shows `value`, given in the unit of its point.

    The device's side: no ratio is taken off. An integer register shows what is below its step cut
    off, as a counter does. None = the register's first "no value" pattern, of a float NaN.
    `power`: what its scale factor holds; that register is not among the words.
    LocalProtocolError for a value the register cannot hold.
    """
    size = 2 * register.words
    if register.type in TEXTS:
        raw = _text_bytes(register, value)
    elif value is None:
        raw = _missing_bytes(register)
    else:
        raw = _number_bytes(register, Decimal(value), power)
    assert len(raw) == size
    endian = ">" if register.byte_order == "big" else "<"
    words = unpack(f"{endian}{register.words}H", raw)
    if register.word_order == "little" and register.type not in TEXTS:
        words = words[::-1]
    return words


def _cannot(register: Register, value: Value) -> LocalProtocolError:
    return LocalProtocolError(
        f"{register.point} ({register.type}) cannot hold {value}", code="out_of_range"
    )


def _text_bytes(register: Register, value: Value) -> bytes:
    size = 2 * register.words
    text = "" if value is None else str(value)
    try:
        raw = bytes.fromhex(text) if register.type == "hex" else text.encode("ascii")
    except ValueError as error:
        raise _cannot(register, value) from error
    if len(raw) > size:
        raise _cannot(register, value)
    return raw.ljust(size, b"\x00")


def _missing_bytes(register: Register) -> bytes:
    size = 2 * register.words
    if register.missing:
        return register.missing[0].to_bytes(size)
    form = _FLOAT_FORMS.get(register.type)
    if form is None:
        raise _cannot(register, None)
    return pack(form, float("nan"))


def _number_bytes(register: Register, value: Decimal, power: int) -> bytes:
    shift = shift_to_point(register.unit, register.point) + power
    form = _FLOAT_FORMS.get(register.type)
    if register.sign == "inverted":
        value = value.copy_negate()
    try:
        number = _ROUNDING.divide(value.scaleb(-shift, _ROUNDING), register.scale)
        if form is not None:
            return pack(form, float(number))
        signed = register.type in SIGNED
        return int(number).to_bytes(2 * register.words, signed=signed)
    except (InvalidOperation, OverflowError, ValueError, struct_error) as error:
        raise _cannot(register, value) from error
