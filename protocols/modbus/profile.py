"""Device profiles: what a kind of device keeps in which register, from data.

`profile_from` takes the tree of a YAML file (`config/devices`) and gives a `DeviceProfile`, or
every problem of it at once. Reads no files itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import Literal

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
}
WORDS_MAX = 125


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
