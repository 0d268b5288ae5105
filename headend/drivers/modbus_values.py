"""How a Modbus register's value is to be taken: its side, its multiplier, its limit and step.

Counters of a device that knows nothing of its transformers stay as the device shows them and carry
the meter's multiplier, as those of other meters do. Everything else is turned into the primary
quantity when it is decoded. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from struct import unpack

from headend.domain.reading import Side
from headend.drivers.result import Footing
from protocols.modbus.profile import DeviceProfile, Register
from protocols.modbus.units import shift_to_point
from protocols.quantities import quantity

ONE = Decimal(1)
NO_LIMIT = Decimal("Infinity")
RAW_PREFIX = "reg:"

_FLOAT_FORMS = {"float32": ">f", "float64": ">d"}
_FLOAT32_BITS = 24  # of the significand


@dataclass(frozen=True, slots=True)
class Place:
    """One point on one device. `footing` None: a raw register, of which nothing more is known."""

    register: Register
    unit: str
    apply_ratio: bool
    footing: Footing | None

    def footing_of(self, words: Sequence[int]) -> Footing | None:
        """The footing of one value: a float's step grows with the value."""
        form = _FLOAT_FORMS.get(self.register.type)
        if self.footing is None or form is None:
            return self.footing
        step = _float_step(self.register, words, form)
        return replace(self.footing, count=max(self.footing.count, step))


def place_of(register: Register, profile: DeviceProfile, *, ct: Decimal, pt: Decimal) -> Place:
    """What the profile and the meter's ratios say of one register."""
    if register.point.startswith(RAW_PREFIX):
        return Place(register, register.unit, apply_ratio=False, footing=None)
    known = quantity(register.point)
    factor = {None: ONE, "ct": ct, "pt": pt, "ct*pt": ct * pt}[register.ratio]
    counter = known.kind == "register"
    limit = _limit(register) if counter else NO_LIMIT
    if counter and register.ratio is not None:
        footing = Footing(Side.SECONDARY, factor, ONE, limit, _step(register))
    else:
        applied = None if profile.side == "primary" else factor
        footing = Footing(Side.PRIMARY, ONE, applied, limit, _step(register))
    return Place(register, known.unit, apply_ratio=not counter, footing=footing)


def _step(register: Register) -> Decimal:
    """One count of an integer register, in the point's unit; of a float its last decimal."""
    if register.type in ("string", "hex"):
        return ONE
    shift = shift_to_point(register.unit, register.point)
    if register.type in _FLOAT_FORMS:
        return ONE.scaleb(shift - (register.decimals or 0))
    return register.scale.scaleb(shift)


def _limit(register: Register) -> Decimal:
    """The first number that an integer counter of this width cannot show; floats do not wrap."""
    if not register.type.startswith(("uint", "int")):
        return NO_LIMIT
    bits = 16 * register.words - register.type.startswith("int")
    return _step(register) * Decimal(2**bits)


def _float_step(register: Register, words: Sequence[int], form: str) -> Decimal:
    """The distance to the next number that the register can hold, in the point's unit."""
    if register.word_order == "little":
        words = words[::-1]
    (value,) = unpack(form, b"".join(word.to_bytes(2) for word in words))
    if not math.isfinite(value):
        return ONE
    if register.type == "float32":
        step = Decimal(math.ldexp(1.0, math.frexp(value)[1] - _FLOAT32_BITS))
    else:
        step = Decimal(math.ulp(value))
    return (step * register.scale).scaleb(shift_to_point(register.unit, register.point))
