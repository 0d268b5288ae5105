"""A beginning of a profile for a device of which nobody has a map: from a dump of its registers.

Only what a grid gives away is guessed: voltages of nearly the same size side by side, a frequency.
Everything else stands as comments with what it could be, for whoever holds the maker's table.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from protocols.modbus.decode import decode
from protocols.modbus.plausible import is_plausible
from protocols.modbus.register import Register, WordOrder

PHASES = "abc"
NEAR = Decimal("0.1")  # the voltages of three phases differ by less than this part
_ZERO_RUN = 4  # registers without content that are told as one line
_INTEGER_SCALES = ("0.1", "0.01", "1")


@dataclass(frozen=True, slots=True)
class DumpRun:
    """Registers that came, one after the other."""

    function: int
    address: int
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """How a number may stand in registers."""

    type: str
    words: int
    order: WordOrder
    scales: tuple[str, ...]


# The least likely to be met by chance first.
_WAYS = (
    _Way("float32", 2, "big", ("1",)),
    _Way("float32", 2, "little", ("1",)),
    _Way("uint32", 2, "big", _INTEGER_SCALES),
    _Way("uint32", 2, "little", _INTEGER_SCALES),
    _Way("uint16", 1, "big", _INTEGER_SCALES),
)


def skeleton(dump: Iterable[DumpRun], *, name: str, device: str) -> str:
    """The text of a profile's file. Rows that are guesses say so; `profile_from` takes it when
    anything was guessed, else the list of registers is empty and it is told so there.
    """
    device = "".join(char if char.isprintable() else " " for char in device)
    runs = sorted(dump, key=lambda run: (run.function, run.address))
    guessed = {run: _guess(run) for run in runs}
    rows = [one for found in guessed.values() for one in found]
    function = rows[0].function if rows else (runs[0].function if runs else 3)
    seen: set[str] = set()
    lines = [
        f"# {device}: begun from a dump of its registers. Guessed rows are to be held against the",
        "# maker's table; what stands as a comment behind them came too, and wants a name.",
        f"id: {name}",
        f"device: {_quoted(device)}",
        "kind: meter",
        "side: primary        # secondary, when the values want the transformers' ratios",
        f"function: {function}",
        "word_order: big",
        "gaps: unknown",
        "turnaround_ms: 100",
        "registers:" if rows else "registers: []",
    ]
    for found in guessed.values():
        first = [one for one in found if one.point not in seen]
        seen.update(one.point for one in first)
        lines += [_row(one, function) for one in first]
    for run, found in guessed.items():
        lines += _comments(run, found)
    return "\n".join(lines) + "\n"


def _guess(run: DumpRun) -> list[Register]:
    """Voltages side by side, and the frequency; each once, in the likeliest way of reading."""
    voltages = next(filter(None, (_voltages(run, way) for way in _WAYS)), [])
    ways: Sequence[_Way] = _WAYS
    if voltages:  # a device keeps to one way, as a rule
        same = [w for w in _WAYS if (w.type, w.order) == (voltages[0].type, voltages[0].word_order)]
        ways = (*same, *(way for way in _WAYS if way not in same))
    taken = {at for one in voltages for at in range(one.address, one.end)}
    frequency = next(filter(None, (_frequency(run, way, taken) for way in ways)), None)
    return voltages if frequency is None else [*voltages, frequency]


def _places(run: DumpRun, way: _Way, scale: str, points: Sequence[str]) -> Iterator[list[Register]]:
    """The points side by side at every place of the run."""
    size = way.words * len(points)
    for at in range(len(run.words) - size + 1):
        yield [
            Register(
                point=point,
                function=run.function,
                address=run.address + at + way.words * index,
                type=way.type,
                words=way.words,
                unit="Hz" if point == "frequency" else "V",
                scale=Decimal(scale),
                word_order=way.order,
            )
            for index, point in enumerate(points)
        ]


def _voltages(run: DumpRun, way: _Way) -> list[Register]:
    points = [f"voltage_{phase}" for phase in PHASES]
    for scale in way.scales:
        for registers in _places(run, way, scale, points):
            values = [_value(run, one) for one in registers]
            known = [value for value in values if value is not None]
            if len(known) < len(points):
                continue
            near = max(known) - min(known) <= NEAR * max(known)
            if near and all(is_plausible(p, v) for p, v in zip(points, known, strict=True)):
                return registers
    return []


def _frequency(run: DumpRun, way: _Way, taken: set[int]) -> Register | None:
    """The one place where nearly 50 or 60 Hz stand; None when there are several."""
    for scale in way.scales:
        found = []
        for (one,) in _places(run, way, scale, ["frequency"]):
            value = _value(run, one)
            if value is None or not taken.isdisjoint(range(one.address, one.end)):
                continue
            if taken and (one.address - min(taken)) % one.words:
                continue  # numbers of two words stand side by side with the others
            if min(abs(value - 50), abs(value - 60)) <= 1:
                found.append(one)
        if len(found) == 1 and (way.type == "float32" or scale != "1"):
            return found[0]
    return None


def _value(run: DumpRun, register: Register) -> Decimal | None:
    at = register.address - run.address
    value = decode(register, run.words[at : at + register.words], apply_ratio=False)
    return value if isinstance(value, Decimal) and value else None


def _row(one: Register, function: int) -> str:
    keys = [f"point: {one.point}", f"address: {one.address}", f"type: {one.type}"]
    keys.append(f"unit: {one.unit}")
    if one.scale != 1:
        keys.append(f"scale: {one.scale}")
    if one.function != function:
        keys.append(f"function: {one.function}")
    if one.word_order != "big":
        keys.append(f"word_order: {one.word_order}")
    keys.append("doubtful: guessed from a dump")
    return f"  - {{{', '.join(keys)}}}"


def _comments(run: DumpRun, found: Sequence[Register]) -> Iterator[str]:
    """What else came, register by register, with what it could be."""
    taken = {at for one in found for at in range(one.address, one.end)}
    end = run.address + len(run.words)
    yield f"# function {run.function}, registers {run.address} to {end - 1}"
    at = run.address
    while at < end:
        zeros = next((n for n in range(end - at) if run.words[at - run.address + n]), end - at)
        if zeros >= _ZERO_RUN:
            yield f"#   {at} to {at + zeros - 1}: 0"
            at += zeros
            continue
        if at not in taken:
            yield f"#   {at}: {_readings(run, at)}"
        at += 1


def _readings(run: DumpRun, at: int) -> str:
    """A register in every way, those of two words only where the next one came too."""
    word = run.words[at - run.address]
    ways: Mapping[str, tuple[str, WordOrder]] = {
        "int16": ("int16", "big"),
        "uint32": ("uint32", "big"),
        "int32 little": ("int32", "little"),
        "float32": ("float32", "big"),
        "float32 little": ("float32", "little"),
    }
    parts = [f"0x{word:04X} = {word}"]
    for label, (kind, order) in ways.items():
        words = 1 if kind == "int16" else 2
        if at - run.address + words > len(run.words) or (kind == "int16" and word < 0x8000):
            continue
        value = _value(run, Register(f"reg:{at}", run.function, at, kind, words, word_order=order))
        if value is not None and (kind != "float32" or Decimal("0.001") <= abs(value) < 10**9):
            parts.append(f"{label} {value:f}")
    return ", ".join(parts)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
