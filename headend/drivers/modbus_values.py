"""How a Modbus register's value is to be taken: its side, its multiplier, its limit and step.

Counters of a device that knows nothing of its transformers stay as the device shows them and carry
the meter's multiplier, as those of other meters do. Everything else is turned into the primary
quantity when it is decoded. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from headend.domain.reading import Side
from headend.drivers.result import Footing
from protocols.modbus.counting import counting_of
from protocols.modbus.profile import DeviceProfile, Register
from protocols.modbus.register import FLOATS
from protocols.quantities import quantity

ONE = Decimal(1)
NO_LIMIT = Decimal("Infinity")
RAW_PREFIX = "reg:"


@dataclass(frozen=True, slots=True)
class Place:
    """One point on one device. `footing` None: a raw register, of which nothing more is known.

    `zero_says_nothing`: the device also gives 0 for what it does not have.
    """

    register: Register
    unit: str
    apply_ratio: bool
    footing: Footing | None
    zero_says_nothing: bool = False

    def footing_of(self, words: Sequence[int]) -> Footing | None:
        """The footing of one value: a float's step grows with it, a scale factor comes with it.

        A zero that may be filler never counts as a counter that began anew.
        """
        register = self.register
        if self.zero_says_nothing and self.footing is not None and not any(words):
            return replace(self.footing, limit=NO_LIMIT)
        if self.footing is None or (register.type not in FLOATS and register.scale_address is None):
            return self.footing
        counting = counting_of(register, words)
        limit = NO_LIMIT if self.footing.limit == NO_LIMIT else counting.limit
        return replace(
            self.footing, count=counting.step, limit=NO_LIMIT if limit is None else limit
        )


def place_of(register: Register, profile: DeviceProfile, *, ct: Decimal, pt: Decimal) -> Place:
    """What the profile and the meter's ratios say of one register."""
    if register.point.startswith(RAW_PREFIX):
        return Place(register, register.unit, apply_ratio=False, footing=None)
    known = quantity(register.point)
    factor = {None: ONE, "ct": ct, "pt": pt, "ct*pt": ct * pt}[register.ratio]
    counter = known.kind == "register"
    counting = counting_of(register, profile=profile)
    limit = NO_LIMIT if counting.limit is None or not counter else counting.limit
    if counter and register.ratio is not None:
        footing = Footing(Side.SECONDARY, factor, ONE, limit, counting.step)
    else:
        applied = None if profile.side == "primary" else factor
        footing = Footing(Side.PRIMARY, ONE, applied, limit, counting.step)
    return Place(
        register,
        known.unit,
        apply_ratio=not counter,
        footing=footing,
        zero_says_nothing=counter and counting.zero_says_nothing,
    )
