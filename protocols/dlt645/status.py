"""What the bits of status words mean: `status_words.csv`, looked up; and directions told by them.

A word is what the codec gives of it: hex digits, most significant first. Bits that the table does
not name are reserved or a maker's own; nothing is said of them unless they are set.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files

DIRECTIONS_TOTAL, DIRECTIONS_PHASES = "04000501", "04000502"
# The bit that says "reverse" of each power that some meters report without a sign.
_REVERSE_BIT = {
    "active_power_total": (DIRECTIONS_TOTAL, 4),
    "reactive_power_total": (DIRECTIONS_TOTAL, 5),
    **{f"active_power_{p}": (DIRECTIONS_PHASES, at) for at, p in enumerate("abc")},
    **{f"current_{p}": (DIRECTIONS_PHASES, at) for at, p in enumerate("abc")},
    **{f"reactive_power_{p}": (DIRECTIONS_PHASES, 4 + at) for at, p in enumerate("abc")},
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """Some bits of a word: what they are about, and all states they can be in.

    `verified` False: not seen in a source that can be relied on.
    """

    first_bit: int
    last_bit: int
    name_en: str
    name_zh: str
    states_en: tuple[str, ...]
    states_zh: tuple[str, ...]
    verified: bool


@dataclass(frozen=True, slots=True)
class State:
    """What a word says in some of its bits. `number` is the bits as a number."""

    meaning: Meaning
    number: int

    def text(self, lang: str) -> str:
        """`relay: open`, in English or Chinese (`zh`)."""
        one = self.meaning
        if lang == "zh":
            return f"{one.name_zh}: {one.states_zh[self.number]}"
        return f"{one.name_en}: {one.states_en[self.number]}"


def meanings(di: str) -> tuple[Meaning, ...]:
    """What the bits of a word mean, lowest first; empty for what is no word of the table."""
    return _table().get(di, ())


def states(di: str, word: str) -> list[State]:
    """What a word says, bit by bit; ValueError when `word` is no hex number."""
    number = int(word, 16)
    return [
        State(one, number >> one.first_bit & ((2 << (one.last_bit - one.first_bit)) - 1))
        for one in meanings(di)
    ]


def unnamed_bits(di: str, word: str) -> list[int]:
    """The bits that are set and that the table does not name."""
    number = int(word, 16)
    for one in meanings(di):
        for bit in range(one.first_bit, one.last_bit + 1):
            number &= ~(1 << bit)
    return [bit for bit in range(number.bit_length()) if number >> bit & 1]


def words_of_directions(points: Sequence[str]) -> list[str]:
    """The words that are needed to give these points their sign, where a meter gives none."""
    return sorted({_REVERSE_BIT[point][0] for point in points if point in _REVERSE_BIT})


def signed_by_status(point: str, value: Decimal, words: dict[str, str]) -> Decimal | None:
    """A value that its meter reports without a sign, with the sign its status words tell.

    Export is negative. A value that already has a sign, and a point that has no direction, stay as
    they are. None when the word that tells is not in `words`: without it nobody knows.
    """
    place = _REVERSE_BIT.get(point)
    if place is None or value <= 0:
        return value
    di, bit = place
    if di not in words:
        return None
    return -value if int(words[di], 16) >> bit & 1 else value


@cache
def _table() -> dict[str, tuple[Meaning, ...]]:
    text = files("protocols.dlt645").joinpath("status_words.csv").read_text(encoding="utf-8")
    found: dict[str, list[Meaning]] = {}
    for line in csv.DictReader(text.splitlines()):
        first, _, last = line["bits"].partition("-")
        found.setdefault(line["di"], []).append(
            Meaning(
                int(first),
                int(last or first),
                line["name_en"],
                line["name_zh"],
                tuple(line["states_en"].split("|")),
                tuple(line["states_zh"].split("|")),
                line["verified"] == "1",
            )
        )
    return {di: tuple(rows) for di, rows in found.items()}
