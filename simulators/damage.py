"""What a bad line does to characters, with honest parity marks.

A character is eight data bits and, on a line with parity, one parity bit. Flipping an odd number of
those nine bits is seen by the receiver's hardware and the character is marked; an even number is
not seen and only the data tells. Lost and doubled characters carry no mark. Start and stop bits are
taken as safe: a receiver that sees them broken reports more, never less.

All chance comes from the generator handed in: one seed gives one run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes as received; `bad` = indexes in them that the receiver's hardware marks, rising."""

    data: bytes
    bad: tuple[int, ...] = ()


Damager = Callable[[bytes], Damaged]


def flip_positions(data: bytes, positions: list[int], *, parity: bool = True) -> Damaged:
    """Flip bits counted along the line: nine to a character with parity (the ninth is parity)."""
    width = 9 if parity else 8
    received = bytearray(data)
    flips: dict[int, int] = {}
    for position in positions:
        index, bit = divmod(position, width)
        flips[index] = flips.get(index, 0) + 1
        if bit < 8:
            received[index] ^= 1 << bit
    bad = tuple(sorted(index for index, count in flips.items() if count % 2)) if parity else ()
    return Damaged(bytes(received), bad)


def flip_bits(data: bytes, rng: Random, count: int = 1, *, parity: bool = True) -> Damaged:
    """Flip exactly `count` different bits anywhere in the characters."""
    bits = len(data) * (9 if parity else 8)
    return flip_positions(data, rng.sample(range(bits), min(count, bits)), parity=parity)


def burst(data: bytes, rng: Random, bits: int, *, parity: bool = True) -> Damaged:
    """A spell of `bits` line bits, somewhere, in which each is as likely wrong as right.

    Its first and last bit are wrong: the spell is exactly that long (shorter at the very ends of a
    frame too short for it).
    """
    positions = _burst_positions(len(data) * (9 if parity else 8), rng, bits)
    return flip_positions(data, positions, parity=parity)


def _burst_positions(total: int, rng: Random, bits: int) -> list[int]:
    bits = min(bits, total)
    if bits < 1:
        return []
    start = rng.randrange(total - bits + 1)
    inner = [start + i for i in range(1, bits - 1) if rng.random() < 0.5]
    return sorted({start, start + bits - 1, *inner})


def lose_byte(data: bytes, rng: Random) -> Damaged:
    """One character never arrives."""
    at = rng.randrange(len(data))
    return Damaged(data[:at] + data[at + 1 :])


def double_byte(data: bytes, rng: Random) -> Damaged:
    """One character arrives twice."""
    at = rng.randrange(len(data))
    return Damaged(data[: at + 1] + data[at:])


def cut_tail(data: bytes, rng: Random) -> Damaged:
    """The end is missing: at least one character, at most all but one."""
    return Damaged(data[: rng.randrange(1, len(data))] if len(data) > 1 else b"")


class OneDamage:
    """Exactly one damage for each transmission, its kind drawn evenly from `kinds`.

    Kinds: `flip1`, `flip2`, `flip3`, `lost`, `doubled`, `cut`, `burst`. `last` names the latest.
    """

    KINDS = ("flip1", "flip2", "flip3", "lost", "doubled", "cut", "burst")

    def __init__(
        self,
        rng: Random,
        kinds: tuple[str, ...] = ("flip1", "flip2", "lost", "doubled", "cut"),
        *,
        parity: bool = True,
        burst_bits: tuple[int, int] = (3, 40),
    ) -> None:
        unknown = set(kinds) - set(self.KINDS)
        if unknown or not kinds:
            msg = f"unknown kinds of damage {sorted(unknown)}; known: {', '.join(self.KINDS)}"
            raise ValueError(msg)
        self._rng = rng
        self._kinds = kinds
        self._parity = parity
        self._burst_bits = burst_bits
        self.last = ""

    def __call__(self, data: bytes) -> Damaged:
        """The transmission, damaged once."""
        self.last = kind = self._rng.choice(self._kinds)
        if not data:
            return Damaged(data)
        match kind:
            case "lost":
                return lose_byte(data, self._rng)
            case "doubled":
                return double_byte(data, self._rng)
            case "cut":
                return cut_tail(data, self._rng)
            case "burst":
                length = self._rng.randint(*self._burst_bits)
                return burst(data, self._rng, length, parity=self._parity)
            case _:
                return flip_bits(data, self._rng, int(kind[-1]), parity=self._parity)


@dataclass(slots=True)
class RandomDamage:
    """A line with rates: of flipped bits (per bit), lost and doubled characters (per character),
    cut ends and bursts (per transmission). Most transmissions of a fair line stay whole.
    """

    rng: Random
    flip_rate: float = 0.0
    lost_rate: float = 0.0
    doubled_rate: float = 0.0
    cut_rate: float = 0.0
    burst_rate: float = 0.0
    burst_bits: tuple[int, int] = (3, 40)
    parity: bool = True

    def __call__(self, data: bytes) -> Damaged:
        """The transmission as it arrives."""
        if not data:
            return Damaged(data)
        rng = self.rng
        bits = len(data) * (9 if self.parity else 8)
        wrong: set[int] = set()
        if self.flip_rate:
            wrong.update(at for at in range(bits) if rng.random() < self.flip_rate)
        if self.burst_rate and rng.random() < self.burst_rate:
            # a bit hit by both is right again, and its parity knows
            wrong ^= set(_burst_positions(bits, rng, rng.randint(*self.burst_bits)))
        seen = flip_positions(data, sorted(wrong), parity=self.parity)
        if self.lost_rate or self.doubled_rate:
            seen = self._drop_and_double(seen)
        if self.cut_rate and rng.random() < self.cut_rate:
            rest = cut_tail(seen.data, rng).data if seen.data else b""
            seen = Damaged(rest, tuple(at for at in seen.bad if at < len(rest)))
        return seen

    def _drop_and_double(self, seen: Damaged) -> Damaged:
        marked = set(seen.bad)
        received = bytearray()
        bad: list[int] = []
        for index, byte in enumerate(seen.data):
            if self.rng.random() < self.lost_rate:
                continue
            for _ in range(2 if self.rng.random() < self.doubled_rate else 1):
                if index in marked:
                    bad.append(len(received))
                received.append(byte)
        return Damaged(bytes(received), tuple(bad))
