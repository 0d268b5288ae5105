"""The transformers' ratios of a configuration against those that the device itself holds.

A device of the secondary side gives what its transformers hand it; what was used is that times CT
and PT. With a wrong ratio every bill is wrong by a factor, and nothing else shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from protocols.modbus.decode import decode
from protocols.modbus.register import DeviceProfile

CT, PT = "ct_ratio", "pt_ratio"
RATIO_POINTS = (CT, PT)


@dataclass(frozen=True, slots=True)
class Ok:
    """`checked`: the points that agree. Empty: the device says nothing of its ratios."""

    checked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RatioDifference:
    """One ratio. `told` None: the register holds no value. `doubtful`: what is not sure of it."""

    point: str
    configured: Decimal
    told: Decimal | None
    doubtful: str

    def __str__(self) -> str:
        """For people."""
        told = "nothing" if self.told is None else format(self.told, "f")
        note = f" ({self.doubtful})" if self.doubtful else ""
        return f"{self.point} of the device is {told}, configured is {self.configured:f}{note}"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Nothing is to be billed until somebody has said which is right."""

    differences: tuple[RatioDifference, ...]

    @property
    def sure(self) -> bool:
        """Whether a register says so of which there is no doubt."""
        return any(not one.doubtful for one in self.differences)

    def __str__(self) -> str:
        """For people."""
        return "; ".join(map(str, self.differences))


def ratio_points(profile: DeviceProfile) -> tuple[str, ...]:
    """The points to read for `ratio_check`; none of a device that applies its ratios itself."""
    if profile.side == "primary":
        return ()
    return tuple(point for point in RATIO_POINTS if point in profile.registers)


def ratio_check(
    profile: DeviceProfile,
    registers: Mapping[str, Sequence[int]],
    ct: Decimal | int,
    pt: Decimal | int,
) -> Ok | Mismatch:
    """Whether the ratios agree with what the device holds.

    `registers`: the words of `ratio_points`, as many of them as were read. A device of the primary
    side agrees when nothing is configured to be multiplied again.
    """
    configured = {CT: Decimal(ct), PT: Decimal(pt)}
    if profile.side == "primary":
        twice = tuple(
            RatioDifference(point, ratio, Decimal(1), "")
            for point, ratio in configured.items()
            if ratio != 1
        )
        return Mismatch(twice) if twice else Ok(())
    checked: list[str] = []
    differences: list[RatioDifference] = []
    for point in ratio_points(profile):
        if point not in registers:
            continue
        register = profile.registers[point]
        value = decode(register, registers[point], apply_ratio=False)
        told = value if isinstance(value, Decimal) else None
        if told == configured[point]:
            checked.append(point)
        else:
            doubt = register.doubtful
            differences.append(RatioDifference(point, configured[point], told, doubt))
    return Mismatch(tuple(differences)) if differences else Ok(tuple(checked))
