"""The tree of a profile's file, checked piece by piece.

Numbers may stand as integers, decimal fractions or text with 0x; a plain YAML reader's floats are
taken by how they are written.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, get_args

from protocols.modbus.delimiter import COUNT_MAX, READ_FUNCTIONS
from protocols.modbus.register import (
    ONE,
    TYPE_WORDS,
    DeviceProfile,
    Gaps,
    Kind,
    ProfileError,
    ProfileProblem,
    Ratio,
    Register,
    Side,
    WordOrder,
)
from protocols.modbus.units import UNITS, shift_of
from protocols.quantities import UnknownQuantity, quantity

TOP_KEYS = (
    "id", "device", "kind", "side", "function", "word_order", "registers_max", "gaps",
    "even_only", "turnaround_ms", "missing", "registers",
)  # fmt: skip
REGISTER_KEYS = (
    "point", "address", "type", "words", "unit", "function", "scale", "decimals", "ratio",
    "word_order", "missing", "bill", "note",
)  # fmt: skip
TURNAROUND_MS_MAX = 10_000
DECIMALS_MAX = 9
_FLOATS = ("float32", "float64")
_TYPES = tuple(TYPE_WORDS)

Path = tuple[str | int, ...]


class ProfileReader:
    """Reads one tree, and collects what is wrong in it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._problems: list[ProfileProblem] = []

    def read(self, tree: Mapping[str, Any]) -> DeviceProfile:
        """The profile; ProfileError with every problem."""
        self._unknown_keys(tree, TOP_KEYS, ())
        side = self._choice(tree, "side", (), get_args(Side), default="primary")
        top = DeviceProfile(
            id=self._text(tree, "id", ()),
            device=self._text(tree, "device", ()),
            kind=self._choice(tree, "kind", (), get_args(Kind)),
            side=side,
            registers_max=self._integer(tree, "registers_max", (), 1, COUNT_MAX, COUNT_MAX),
            gaps=self._choice(tree, "gaps", (), get_args(Gaps), default="unknown"),
            even_only=self._flag(tree, "even_only", ()),
            turnaround_ms=self._integer(tree, "turnaround_ms", (), 0, TURNAROUND_MS_MAX, 20),
            registers=self._registers(tree),
        )
        self._check_together(top, tree.get("registers"))
        if self._problems:
            raise ProfileError(self._name, self._problems)
        return top

    # -- single values ---------------------------------------------------------------------------

    def _say(self, path: Path, message: str, hint: str | None = None) -> None:
        self._problems.append(ProfileProblem(path, message, hint))

    def _unknown_keys(self, tree: Mapping[str, Any], known: Iterable[str], path: Path) -> None:
        for key in tree:
            if key not in known:
                near = get_close_matches(str(key), list(known), n=1)
                hint = f"{near[0]} is meant?" if near else f"known: {', '.join(known)}"
                self._say((*path, str(key)), "is not a key of a profile", hint)

    def _text(self, tree: Mapping[str, Any], key: str, path: Path) -> str:
        value = tree.get(key)
        if isinstance(value, str) and value:
            return value
        self._say((*path, key), "must be a text" if key in tree else "is needed")
        return ""

    def _note(self, row: Mapping[str, Any], path: Path) -> str:
        return self._text(row, "note", path) if "note" in row else ""

    def _unit(self, row: Mapping[str, Any], path: Path) -> str:
        unit = row.get("unit", "")
        if isinstance(unit, str) and unit in UNITS:
            return unit
        self._say((*path, "unit"), f"is {unit!r}", f"one of {', '.join(filter(None, UNITS))}")
        return ""

    def _choice(
        self,
        tree: Mapping[str, Any],
        key: str,
        path: Path,
        choices: tuple[Any, ...],
        default: str | None = None,
    ) -> Any:  # noqa: ANN401 - one of the choices
        value = tree.get(key, default)
        if value in choices:
            return value
        what = "is needed" if value is None else f"is {value!r}"
        self._say((*path, key), what, f"one of {', '.join(map(str, choices))}")
        return choices[0]

    def _flag(self, tree: Mapping[str, Any], key: str, path: Path) -> bool:
        value = tree.get(key, False)
        if not isinstance(value, bool):
            self._say((*path, key), f"is {value!r}", "true or false")
        return value is True

    def _integer(
        self,
        tree: Mapping[str, Any],
        key: str,
        path: Path,
        low: int,
        high: int,
        default: int | None = None,
    ) -> int:
        if key not in tree and default is not None:
            return default
        value = as_integer(tree.get(key))
        if value is not None and low <= value <= high:
            return value
        what = "is needed" if key not in tree else f"is {tree[key]}"
        self._say((*path, key), what, f"a whole number, {low} to {high}")
        return low

    # -- registers -------------------------------------------------------------------------------

    def _registers(self, tree: Mapping[str, Any]) -> dict[str, Register]:
        rows = tree.get("registers")
        if not isinstance(rows, list) or not rows:
            self._say(("registers",), "must be a list of registers, one at least")
            return {}
        defaults = self._missing_by_type(tree)
        found: dict[str, Register] = {}
        for index, row in enumerate(rows):
            path: Path = ("registers", index)
            if not isinstance(row, Mapping):
                self._say(path, "must be a mapping of keys")
                continue
            before = len(self._problems)
            register = self._register(row, path, tree, defaults)
            if register.point in found:
                self._say((*path, "point"), f"{register.point} stands there twice")
            elif len(self._problems) == before:
                found[register.point] = register
        return found

    def _missing_by_type(self, tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        rows = tree.get("missing", {})
        if not isinstance(rows, Mapping):
            self._say(("missing",), "must be a mapping of types to patterns")
            return {}
        self._unknown_keys(rows, _TYPES, ("missing",))
        return {
            kind: self._patterns(value, ("missing", kind), kind, TYPE_WORDS[kind] or 0)
            for kind, value in rows.items()
            if kind in _TYPES
        }

    def _patterns(self, value: object, path: Path, kind: str, words: int) -> tuple[int, ...]:
        """Raw patterns; of a float also `nan`, which is no value anyway."""
        rows = value if isinstance(value, list) else [value]
        if kind in _FLOATS and rows == ["nan"]:
            return ()
        limit = 1 << (16 * words)
        patterns = [as_integer(row) for row in rows]
        if all(one is not None and 0 <= one < limit for one in patterns):
            return tuple(one for one in patterns if one is not None)
        self._say(
            path, f"{value} does not fit {kind}", f"raw patterns 0 to 0x{limit - 1:X} (hex is fine)"
        )
        return ()

    def _register(
        self,
        row: Mapping[str, Any],
        path: Path,
        tree: Mapping[str, Any],
        defaults: Mapping[str, tuple[int, ...]],
    ) -> Register:
        self._unknown_keys(row, REGISTER_KEYS, path)
        point = self._text(row, "point", path)
        kind: str = self._choice(row, "type", path, _TYPES)
        words = self._words(row, path, kind)
        unit = self._unit(row, path)
        missing = defaults.get(kind, ())
        if "missing" in row:
            missing = self._patterns(row["missing"], (*path, "missing"), kind, words)
        function = as_integer(row.get("function", tree.get("function")))
        if function not in READ_FUNCTIONS:
            self._say((*path, "function"), f"is {function!r}", "3 or 4; or one for all, at the top")
            function = READ_FUNCTIONS[0]
        order = {"word_order": row.get("word_order", tree.get("word_order", "big"))}
        ratio = row.get("ratio")
        if ratio is not None:
            ratio = self._choice(row, "ratio", path, get_args(Ratio))
            if tree.get("side", "primary") != "secondary":
                self._say(
                    (*path, "ratio"), "a device of the primary side has none", "side: secondary"
                )
        return Register(
            point=point,
            function=function,
            address=self._integer(row, "address", path, 0, 0x10000 - words),
            type=kind,
            words=words,
            unit=unit,
            scale=self._scale(row, path, kind),
            decimals=self._decimals(row, path, kind, point, unit),
            ratio=ratio,
            word_order=self._choice(order, "word_order", path, get_args(WordOrder)),
            missing=missing,
            bill=self._bill(row, path, point, unit),
            note=self._note(row, path),
        )

    def _words(self, row: Mapping[str, Any], path: Path, kind: str) -> int:
        fixed = TYPE_WORDS[kind]
        if fixed is None:
            return self._integer(row, "words", path, 1, COUNT_MAX)
        if "words" in row and as_integer(row["words"]) != fixed:
            self._say((*path, "words"), f"{kind} has {fixed} registers, not {row['words']}")
        return fixed

    def _scale(self, row: Mapping[str, Any], path: Path, kind: str) -> Decimal:
        if "scale" not in row:
            return ONE
        scale = as_decimal(row["scale"])
        if scale is None or scale <= 0 or kind in ("string", "hex"):
            self._say((*path, "scale"), f"is {row['scale']}", "a number above 0, for numbers only")
            return ONE
        return scale

    def _decimals(
        self, row: Mapping[str, Any], path: Path, kind: str, point: str, unit: str
    ) -> int | None:
        """Those of a float in the map's unit; where none are given, what is usual for the point."""
        if kind not in _FLOATS:
            if "decimals" in row:
                self._say((*path, "decimals"), f"{kind} has those of its scale", "for floats only")
            return None
        if "decimals" in row:
            return self._integer(row, "decimals", path, 0, DECIMALS_MAX)
        try:
            known = quantity(point)
        except KeyError:
            return None
        return max(0, known.decimals + (shift_of(unit, known.unit) or 0))

    def _bill(self, row: Mapping[str, Any], path: Path, point: str, unit: str) -> bool:
        """Only counters of one direction can be billed: of a sum nobody can tell them apart."""
        bill = self._flag(row, "bill", path)
        try:
            known = quantity(point)
        except UnknownQuantity as error:
            if point:
                hint = f"{error.nearest} is meant?" if error.nearest else None
                self._say((*path, "point"), f"there is no point {point}", hint)
            return bill
        if shift_of(unit, known.unit) is None:
            fitting = [name for name in UNITS if shift_of(name, known.unit) is not None]
            self._say(
                (*path, "unit"),
                f"{unit!r} cannot become {known.unit!r} of {point}",
                f"one of {', '.join(fitting) or repr(known.unit)}",
            )
        if bill and known.kind != "register":
            self._say(
                (*path, "bill"),
                f"{point} is no counter of one direction",
                "only separate import and export counters are billed",
            )
        return bill

    # -- what no register can see by itself ------------------------------------------------------

    def _check_together(self, profile: DeviceProfile, rows: object) -> None:
        place = {
            str(row.get("point")): index
            for index, row in enumerate(rows if isinstance(rows, list) else [])
            if isinstance(row, Mapping)
        }
        registers = sorted(profile.registers.values(), key=lambda one: (one.function, one.address))
        for one in registers:
            path: Path = ("registers", place[one.point])
            if one.words > profile.registers_max:
                message = f"{one.words} registers are more than one request may ask for"
                self._say(path, message, f"registers_max is {profile.registers_max}")
            if profile.even_only and (one.address | one.words) & 1:
                message = f"{one.words} registers from {one.address} on break even_only"
                self._say((*path, "address"), message, "start and count must be even")
        self._check_overlaps(registers, place)
        self._check_billing(profile, registers, place)

    def _check_overlaps(self, registers: list[Register], place: Mapping[str, int]) -> None:
        """Two values may be made of the same words only when both take all of them."""
        for index, one in enumerate(registers):
            for other in registers[index + 1 :]:
                if other.function != one.function or other.address >= one.end:
                    break
                same = (one.address, one.words, one.word_order)
                if same == (other.address, other.words, other.word_order):
                    continue
                self._say(
                    ("registers", place[other.point], "address"),
                    f"{other.point} ({other.address} to {other.end - 1}) overlaps {one.point} "
                    f"({one.address} to {one.end - 1})",
                )

    def _check_billing(
        self, profile: DeviceProfile, registers: list[Register], place: Mapping[str, int]
    ) -> None:
        """Import and export must come out of one reply, so that they share one moment."""
        for function in READ_FUNCTIONS:
            billing = [one for one in registers if one.bill and one.function == function]
            if not billing:
                continue
            first, last = billing[0].address, max(one.end for one in billing)
            if last - first > profile.registers_max:
                self._say(
                    ("registers", place[billing[-1].point], "bill"),
                    f"the billed registers of function {function} lie {last - first} registers "
                    f"apart",
                    f"one request of this device reads {profile.registers_max}",
                )


def as_integer(value: object) -> int | None:
    """A whole number, also as text with 0x; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            return None
    return None


def as_decimal(value: object) -> Decimal | None:
    """An exact number; a float by how it is written; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal | str | float):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None
