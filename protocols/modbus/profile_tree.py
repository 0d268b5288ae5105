"""The tree of a profile's file, checked piece by piece.

Numbers may stand as integers, decimal fractions or text with 0x; a plain YAML reader's floats are
taken by how they are written.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, get_args

from protocols.modbus.delimiter import COUNT_MAX, READ_FUNCTIONS
from protocols.modbus.profile_checks import check_together
from protocols.modbus.profile_schema import (
    BAUD_MAX,
    BAUD_MIN,
    CONNECT_PAUSE_MS_MAX,
    DECIMALS_MAX,
    PHASES_MAX,
    REGISTER_KEYS,
    SERIAL_KEYS,
    SPAN_KEYS,
    STOP_BITS_MAX,
    TOP_KEYS,
    TURNAROUND_MS_MAX,
)
from protocols.modbus.register import (
    FLOATS,
    HOLE_WORDS_MAX,
    ONE,
    SIGNED,
    TEXTS,
    TYPE_WORDS,
    DeviceProfile,
    Gaps,
    Kind,
    Parity,
    ProfileError,
    ProfileProblem,
    Ratio,
    Register,
    SerialLine,
    Side,
    Sign,
    Span,
    WordOrder,
)
from protocols.modbus.units import UNITS, shift_of
from protocols.quantities import UnknownQuantity, quantity

_TYPES = tuple(TYPE_WORDS)
# What SunSpec's own types mean with these, whatever device has them.
_TYPE_MISSING: Mapping[str, tuple[int, ...]] = {
    "acc32": (0,),
    "acc64": (0,),
    "enum16": (0xFFFF,),
    "bitfield32": (0xFFFFFFFF,),
    "sunssf": (0x8000,),
}
_INTEGER = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?")

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
            phases=self._integer(tree, "phases", (), 1, PHASES_MAX) if "phases" in tree else None,
            serial=self._serial(tree),
            hole_max=self._integer(tree, "hole_max", (), 0, COUNT_MAX, HOLE_WORDS_MAX),
            filler=self._integer(tree, "filler", (), 0, 0xFFFF) if "filler" in tree else None,
            breaks=self._breaks(tree),
            spans=self._spans(tree),
            bill_apart=self._optional(tree, "bill_apart", ()),
            connect_pause_ms=self._integer(
                tree, "connect_pause_ms", (), 0, CONNECT_PAUSE_MS_MAX, 0
            ),
            doubtful=self._doubtful(tree),
        )
        rows = tree.get("registers")
        if isinstance(rows, list) and all(one.path != ("registers_max",) for one in self._problems):
            self._problems += check_together(top, rows)
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

    def _optional(self, row: Mapping[str, Any], key: str, path: Path) -> str:
        return self._text(row, key, path) if key in row else ""

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

    # -- what holds for the whole device ----------------------------------------------------------

    def _serial(self, tree: Mapping[str, Any]) -> SerialLine | None:
        if "serial" not in tree:
            return None
        row = tree["serial"]
        path: Path = ("serial",)
        if not isinstance(row, Mapping):
            self._say(path, "must be a mapping of keys", f"known: {', '.join(SERIAL_KEYS)}")
            return None
        self._unknown_keys(row, SERIAL_KEYS, path)
        usual = SerialLine()
        return SerialLine(
            self._integer(row, "baud", path, BAUD_MIN, BAUD_MAX, usual.baud),
            self._choice(row, "parity", path, get_args(Parity), default=usual.parity),
            self._integer(row, "stop_bits", path, 1, STOP_BITS_MAX, usual.stop_bits),
        )

    def _rows(self, tree: Mapping[str, Any], key: str) -> list[Any]:
        rows = tree.get(key, [])
        if isinstance(rows, list):
            return rows
        self._say((key,), "must be a list")
        return []

    def _breaks(self, tree: Mapping[str, Any]) -> tuple[int, ...]:
        rows = self._rows(tree, "breaks")
        for index, row in enumerate(rows):
            at = as_integer(row)
            if at is None or not 0 <= at <= 0xFFFF:
                self._say(("breaks", index), f"is {row}", "an address, 0 to 65535")
        return tuple(sorted({at for row in rows if (at := as_integer(row)) is not None}))

    def _spans(self, tree: Mapping[str, Any]) -> tuple[Span, ...]:
        found = []
        for index, row in enumerate(self._rows(tree, "spans")):
            path: Path = ("spans", index)
            if not isinstance(row, Mapping):
                self._say(path, "must be a mapping of keys", f"known: {', '.join(SPAN_KEYS)}")
                continue
            self._unknown_keys(row, SPAN_KEYS, path)
            function = self._function(row, tree, path)
            address = self._integer(row, "address", path, 0, 0xFFFF)
            count = self._integer(row, "count", path, 1, 0x10000 - address)
            found.append(Span(function, address, count))
        return tuple(found)

    def _doubtful(self, tree: Mapping[str, Any]) -> dict[str, str]:
        rows = tree.get("doubtful", {})
        if not isinstance(rows, Mapping):
            self._say(("doubtful",), "must be a mapping of settings to what is not sure of them")
            return {}
        self._unknown_keys(rows, TOP_KEYS, ("doubtful",))
        return {str(key): self._text(rows, key, ("doubtful",)) for key in rows}

    def _function(self, row: Mapping[str, Any], tree: Mapping[str, Any], path: Path) -> int:
        function = as_integer(row.get("function", tree.get("function")))
        if function in READ_FUNCTIONS:
            return function
        self._say((*path, "function"), f"is {function!r}", "3 or 4; or one for all, at the top")
        return READ_FUNCTIONS[0]

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
        numbers = [kind for kind in _TYPES if kind not in TEXTS]
        self._unknown_keys(rows, numbers, ("missing",))
        return {
            kind: self._patterns(value, ("missing", kind), kind, TYPE_WORDS[kind] or 0)
            for kind, value in rows.items()
            if kind in numbers
        }

    def _patterns(self, value: object, path: Path, kind: str, words: int) -> tuple[int, ...]:
        """Raw patterns; of a float also `nan`, which is no value anyway."""
        rows = value if isinstance(value, list) else [value]
        if kind in FLOATS and rows == ["nan"]:
            return ()
        limit = 1 << (16 * words)
        patterns = [as_integer(row) for row in rows]
        if all(one is not None and 0 <= one < limit for one in patterns):
            found = tuple(one for one in patterns if one is not None)
            self._check_width(found, path, kind, words)
            return found
        self._say(
            path, f"{value} does not fit {kind}", f"raw patterns 0 to 0x{limit - 1:X} (hex is fine)"
        )
        return ()

    def _check_width(self, patterns: tuple[int, ...], path: Path, kind: str, words: int) -> None:
        """The patterns of a narrower type are good numbers in a wider one: 65535 is no silence."""
        narrower = {
            one for bits in (16, 32) if bits < 16 * words
            for one in ((1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1)
        }  # fmt: skip
        for one in patterns:
            if one in narrower:
                self._say(
                    path,
                    f"0x{one:X} is a number that {kind} can hold",
                    f"the pattern has {words} words, as 0x{(1 << 16 * words) - 1:X} has",
                )

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
        missing = defaults.get(kind, _TYPE_MISSING.get(kind, ()))
        if "missing" in row:
            missing = self._patterns(row["missing"], (*path, "missing"), kind, words)
        order = {"word_order": row.get("word_order", tree.get("word_order", "big"))}
        ratio = None
        if "ratio" in row:
            ratio = self._choice(row, "ratio", path, get_args(Ratio))
            if tree.get("side", "primary") != "secondary":
                self._say(
                    (*path, "ratio"), "a device of the primary side has none", "side: secondary"
                )
        return Register(
            point=point,
            function=self._function(row, tree, path),
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
            note=self._optional(row, "note", path),
            scale_address=self._scale_address(row, path, kind),
            sign=self._sign(row, path, kind, point),
            byte_order=self._choice(
                {"byte_order": row.get("byte_order", tree.get("byte_order", "big"))},
                "byte_order",
                path,
                get_args(WordOrder),
            ),
            rollover=self._rollover(row, path, kind, point, words),
            doubtful=self._optional(row, "doubtful", path),
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
        if scale is None or scale <= 0 or kind in TEXTS:
            self._say((*path, "scale"), f"is {row['scale']}", "a number above 0, for numbers only")
            return ONE
        return scale

    def _scale_address(self, row: Mapping[str, Any], path: Path, kind: str) -> int | None:
        if "scale_address" not in row:
            return None
        if kind in TEXTS:
            self._say((*path, "scale_address"), f"{kind} is no number", "for numbers only")
        return self._integer(row, "scale_address", path, 0, 0xFFFF)

    def _sign(self, row: Mapping[str, Any], path: Path, kind: str, point: str) -> Sign:
        sign: Sign = self._choice(row, "sign", path, get_args(Sign), default="same")
        if sign != "same" and kind not in SIGNED | FLOATS:
            self._say((*path, "sign"), f"{kind} has no sign", "for signed types only")
        if sign == "inverted" and _is_counter(point):
            self._say(
                (*path, "sign"), f"{point} counts up", "absolute, or a point of the other way"
            )
        return sign

    def _rollover(
        self, row: Mapping[str, Any], path: Path, kind: str, point: str, words: int
    ) -> Decimal | None:
        """Where a display begins anew; never beyond what the register can hold."""
        if "rollover" not in row:
            return None
        number = as_decimal(row["rollover"])
        if number is None or number <= 0 or not _is_counter(point):
            self._say(
                (*path, "rollover"), f"is {row['rollover']}", "a number above 0, for counters only"
            )
            return None
        scale = as_decimal(row.get("scale", 1)) or ONE
        most = scale * (1 << (16 * words - (kind in SIGNED)))
        if kind not in FLOATS and "scale_address" not in row and number > most:
            self._say((*path, "rollover"), f"is {number}, the register ends at {most}")
        return number

    def _decimals(
        self, row: Mapping[str, Any], path: Path, kind: str, point: str, unit: str
    ) -> int | None:
        """Those of a float in the map's unit; where none are given, what is usual for the point."""
        if kind not in FLOATS:
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


def _is_counter(point: str) -> bool:
    try:
        return quantity(point).kind == "register"
    except UnknownQuantity:
        return False  # told where the point is looked up


def as_integer(value: object) -> int | None:
    """A whole number, also as text with 0x; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        try:
            return int(value, 0)
        except ValueError:  # 010 may be eight or ten
            return None
    return None


def as_decimal(value: object) -> Decimal | None:
    """An exact number; a float by how it is written; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return None
    if isinstance(value, int | Decimal | str | float):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None
