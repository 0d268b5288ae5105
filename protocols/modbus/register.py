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
Sign = Literal["same", "inverted", "absolute"]
Parity = Literal["none", "even", "odd"]

ONE = Decimal(1)
HOLE_WORDS_MAX = 16  # undefined words read through where a device gives filler for them

# Words of each type; those of a string are given. acc32, acc64, enum16, bitfield32 and sunssf are
# SunSpec's words for a counter, a code, flags, and the power of ten of other registers.
TYPE_WORDS: Mapping[str, int | None] = {
    "uint16": 1,
    "int16": 1,
    "uint32": 2,
    "int32": 2,
    "uint64": 4,
    "int64": 4,
    "float32": 2,
    "float64": 4,
    "acc32": 2,
    "acc64": 4,
    "enum16": 1,
    "bitfield32": 2,
    "sunssf": 1,
    "string": None,
    "hex": None,
}
FLOATS = frozenset({"float32", "float64"})
SIGNED = frozenset({"int16", "int32", "int64", "sunssf"})
TEXTS = frozenset({"string", "hex"})


# Points that say which device answers. They are compared, not charted.
IDENTIFYING = frozenset(
    {"manufacturer", "model", "device_type", "firmware", "options", "serial_number", "comm_address"}
)


@dataclass(frozen=True, slots=True)
class Register:
    """Where one point stands, and how its words become its value.

    `unit` is the map's own; `decode` gives the unit of the point. `decimals`: those of a float,
    after which it is rounded, in the map's unit; None for integers, whose scale says it.
    `missing`: raw patterns, as unsigned numbers of the full width in the order of the words, that
    mean "no value". `ratio`: what a value of the secondary side is multiplied with.
    `scale_address`: where the power of ten stands that the device scales this value with; both are
    read in one request, because it changes while the device runs. `sign`: whether the register
    counts the way our points do. `byte_order`: of the two bytes of each word. `rollover`: the first
    number, in the map's unit, that the device does not show any more; None = all of its width.
    `doubtful`: what about the row is not confirmed by a second source.
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
    scale_address: int | None = None
    sign: Sign = "same"
    byte_order: WordOrder = "big"
    rollover: Decimal | None = None
    doubtful: str = ""

    @property
    def end(self) -> int:
        """The address behind its last word."""
        return self.address + self.words

    @property
    def first(self) -> int:
        """The first address that a request for it must hold: its own, or its scale factor's."""
        return self.address if self.scale_address is None else min(self.address, self.scale_address)

    @property
    def behind(self) -> int:
        """The address behind the last word that a request for it must hold."""
        return self.end if self.scale_address is None else max(self.end, self.scale_address + 1)

    @property
    def identifies(self) -> bool:
        """Whether it says which device this is, rather than what it measures."""
        return self.type in TEXTS or self.point in IDENTIFYING


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
class Span:
    """Registers that all exist and are read in one request, whether a point needs them or not."""

    function: int
    address: int
    count: int


class SerialLine(NamedTuple):
    """How a device's line is set up when it is delivered."""

    baud: int = 9600
    parity: Parity = "none"
    stop_bits: int = 1

    @property
    def char_bits(self) -> int:
        """Bits a byte takes on the wire: start, eight of data, parity, stop."""
        return 9 + (self.parity != "none") + self.stop_bits


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One kind of device. `gaps`: what it does with undefined registers inside a block.

    `even_only`: requests start at even addresses and ask for even counts. `turnaround_ms`: silence
    it needs between its reply and the next request. `hole_max`: undefined words in a row that are
    read through where `gaps` is ok. `filler`: what those hold, where it is known. `breaks`:
    addresses no request may reach across: it ends before one or begins there. `spans`: see `Span`.
    `bill_apart`: why what is billed cannot come out of one reply. `connect_pause_ms`: silence it
    needs after a connection was made. `doubtful`: settings that one source alone tells, each with
    what is not sure.
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
    phases: int | None = None
    serial: SerialLine | None = None
    hole_max: int = HOLE_WORDS_MAX
    filler: int | None = None
    breaks: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()
    bill_apart: str = ""
    connect_pause_ms: int = 0
    doubtful: Mapping[str, str] = field(default_factory=dict)

    @property
    def identification(self) -> tuple[str, ...]:
        """The points that say which device answers, in the order of its map."""
        return tuple(one.point for one in self.registers.values() if one.identifies)

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
