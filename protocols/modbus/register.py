"""What a profile is made of: registers, the device they belong to, and what can be wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import Literal, NamedTuple

from protocols.errors import LocalProtocolError

Ratio = Literal["ct", "pt", "ct*pt"]
WordOrder = Literal["big", "little"]
Kind = Literal["meter", "inverter"]
Side = Literal["primary", "secondary"]
Gaps = Literal["ok", "refuse", "unknown"]

ONE = Decimal(1)

# Words of each type; those of a string are given.
TYPE_WORDS: Mapping[str, int | None] = {
    "uint16": 1,
    "int16": 1,
    "uint32": 2,
    "int32": 2,
    "uint64": 4,
    "int64": 4,
    "float32": 2,
    "float64": 4,
    "string": None,
    "hex": None,
}


@dataclass(frozen=True, slots=True)
class Register:
    """Where one point stands, and how its words become its value.

    `unit` is the map's own; `decode` gives the unit of the point. `decimals`: those of a float,
    after which it is rounded, in the map's unit; None for integers, whose scale says it.
    `missing`: raw patterns, as unsigned numbers of the full width in the order of the words, that
    mean "no value". `ratio`: what a value of the secondary side is multiplied with.
    """

    point: str
    function: int
    address: int
    type: str
    words: int
    unit: str = ""
    scale: Decimal = ONE
    decimals: int | None = None
    ratio: Ratio | None = None
    word_order: WordOrder = "big"
    missing: tuple[int, ...] = ()
    bill: bool = False
    note: str = ""

    @property
    def end(self) -> int:
        """The address behind its last word."""
        return self.address + self.words


class UnknownPoint(KeyError):
    """A point the profile does not have. `nearest` is the most similar one, if any is similar."""

    def __init__(self, profile: str, point: str, nearest: str | None) -> None:
        self.profile = profile
        self.point = point
        self.nearest = nearest
        super().__init__(point)

    def __str__(self) -> str:
        """A sentence, where KeyError would show only the key."""
        hint = f"; the nearest is {self.nearest!r}" if self.nearest else ""
        return f"{self.profile} has no point {self.point!r}{hint}"


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One kind of device. `gaps`: what it does with undefined registers inside a block.

    `even_only`: requests start at even addresses and ask for even counts. `turnaround_ms`: silence
    it needs between its reply and the next request.
    """

    id: str
    device: str
    kind: Kind
    side: Side
    registers_max: int
    gaps: Gaps
    even_only: bool
    turnaround_ms: int
    registers: Mapping[str, Register] = field(default_factory=dict)

    def register(self, point: str) -> Register:
        """The register of a point; UnknownPoint (a KeyError) naming the nearest."""
        found = self.registers.get(point)
        if found is None:
            nearest = get_close_matches(point, self.registers, n=1, cutoff=0.5)
            raise UnknownPoint(self.id, point, nearest[0] if nearest else None)
        return found


class ProfileProblem(NamedTuple):
    """One thing wrong in a profile's tree. `path`: keys and indexes that lead to it."""

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        """`registers[3].unit: what is wrong (what would be right)`."""
        text = ""
        for step in self.path:
            if isinstance(step, int):
                text += f"[{step}]"
            else:
                text += f".{step}" if text else step
        hint = f" ({self.hint})" if self.hint else ""
        return f"{text}: {self.message}{hint}" if text else f"{self.message}{hint}"


class ProfileError(LocalProtocolError):
    """A profile that cannot be used, with everything that is wrong in it."""

    def __init__(self, name: str, problems: Sequence[ProfileProblem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        lines = "\n".join(f"{name}: {problem}" for problem in problems)
        super().__init__(lines, code="bad_profile")
