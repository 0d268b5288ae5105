"""How a register counts: its smallest step, where it begins anew, and what its zero is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from struct import unpack

from protocols.errors import BadContent
from protocols.modbus.decode import NO_SCALE, scale_power
from protocols.modbus.register import FLOATS, ONE, SIGNED, TEXTS, DeviceProfile, Register
from protocols.modbus.units import shift_to_point

_FORMS = {"float32": ">f", "float64": ">d"}
_FLOAT32_BITS = 24  # of the significand


@dataclass(frozen=True, slots=True)
class Counting:
    """In the unit of the point. `step`: the smallest difference the register can show. `limit`: the
    first number it does not show, after which it begins at 0 again; None = it does not wrap.
    `zero_says_nothing`: a device of this kind also gives 0 for what it does not have.
    """

    step: Decimal
    limit: Decimal | None
    zero_says_nothing: bool = False


def counting_of(
    register: Register, words: Sequence[int] | None = None, *, profile: DeviceProfile | None = None
) -> Counting:
    """How a register counts. `words`, as `decode` takes them, where it depends on what it holds:
    a float's step grows with its value, a scale factor comes with it.

    A display that ends before the register does (`rollover`) ends the count there.
    """
    power = _power(register, words)
    step = _step(register, words).scaleb(power)
    zero = profile is not None and profile.gaps == "ok" and profile.filler == 0
    if register.rollover is not None:
        shift = shift_to_point(register.unit, register.point)
        return Counting(step, register.rollover.scaleb(shift + power), zero)
    if register.type in FLOATS | TEXTS:
        return Counting(step, None, zero)
    bits = 16 * register.words - (register.type in SIGNED)
    return Counting(step, step * Decimal(2**bits), zero)


def _power(register: Register, words: Sequence[int] | None) -> int:
    """The power of ten of a scale factor that came along; 0 for one that says nothing."""
    if register.scale_address is None or words is None or len(words) != register.words + 1:
        return 0
    if words[-1] == NO_SCALE:
        return 0
    try:
        return scale_power(words[-1])
    except BadContent:
        return 0  # told where the value is decoded


def _step(register: Register, words: Sequence[int] | None) -> Decimal:
    """One count of an integer register; of a float its last decimal, or what its bits allow."""
    if register.type in TEXTS:
        return ONE
    shift = shift_to_point(register.unit, register.point)
    if register.type not in FLOATS:
        return register.scale.scaleb(shift)
    shown = ONE.scaleb(shift - (register.decimals or 0))
    if words is None:
        return shown
    return max(shown, _float_step(register, words[: register.words]))


def _float_step(register: Register, words: Sequence[int]) -> Decimal:
    """The distance to the next number that the register can hold, in the point's unit."""
    if register.word_order == "little":
        words = words[::-1]
    raw = b"".join(word.to_bytes(2, register.byte_order) for word in words)
    (value,) = unpack(_FORMS[register.type], raw)
    if not math.isfinite(value):
        return ONE
    if register.type == "float32":
        step = Decimal(math.ldexp(1.0, math.frexp(value)[1] - _FLOAT32_BITS))
    else:
        step = Decimal(math.ulp(value))
    return (step * register.scale).scaleb(shift_to_point(register.unit, register.point))
