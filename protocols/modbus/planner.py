"""Points into requests: which registers are read together, and what that costs.

A block never splits a value, nor a value from its scale factor, and holds no word that the device
may refuse. What is billed belongs together: import and export that are asked for together come out
of one reply where the device allows it, and so share one moment. Beyond that the cheapest set of
requests is taken: reading words nobody wants is cheaper than another request up to some number of
them, which the line decides.

The plan is a function of its arguments: the same every time, whatever the order of asking.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from protocols.errors import LocalProtocolError
from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.learned import Learned
from protocols.modbus.line_cost import UNKNOWN_LINE, Line
from protocols.modbus.readable import Readable
from protocols.modbus.register import DeviceProfile, Register, Span


@dataclass(frozen=True, slots=True)
class Block:
    """One request, and the registers that are taken out of its reply, by address."""

    function: int
    address: int
    count: int
    registers: tuple[Register, ...]

    @property
    def span(self) -> Span:
        """What is asked for."""
        return Span(self.function, self.address, self.count)

    def words_of(self, register: Register, words: tuple[int, ...]) -> tuple[int, ...]:
        """The words of one of its registers, out of those of the reply, as `decode` takes them."""
        at = register.address - self.address
        own = words[at : at + register.words]
        if register.scale_address is None:
            return own
        return (*own, words[register.scale_address - self.address])


@dataclass(frozen=True, slots=True)
class Plan:
    """`absent`: registers that the device has refused, so that nothing asks for them."""

    blocks: tuple[Block, ...]
    absent: tuple[Register, ...]
    line: Line

    @property
    def cost_ms(self) -> float:
        """What all requests take, one after the other."""
        return sum(self.line.cost_ms(block.count) for block in self.blocks)

    def rows(self) -> list[dict[str, Any]]:
        """For people and programs: one row a request, `cost_ms` rounded to tenths."""
        return [
            {
                "function": block.function,
                "address": block.address,
                "count": block.count,
                "points": [one.point for one in block.registers],
                "unused": block.count - _used(block),
                "cost_ms": round(self.line.cost_ms(block.count), 1),
            }
            for block in self.blocks
        ]


def plan_blocks(
    profile: DeviceProfile,
    registers: Iterable[Register],
    *,
    line: Line | None = None,
    learned: Learned | None = None,
) -> tuple[Block, ...]:
    """`plan`, of which only the requests are wanted."""
    return plan(profile, registers, line=line, learned=learned).blocks


def plan(
    profile: DeviceProfile,
    registers: Iterable[Register],
    *,
    line: Line | None = None,
    learned: Learned | None = None,
) -> Plan:
    """The requests that read these registers, by function and address.

    `line`: what they go over; None = nothing is known of it. `learned`: what this one device has
    shown. Registers that the map does not know (raw ones) may be among
    them. LocalProtocolError for one that is longer than a request of the device or breaks its rule
    of even addresses.
    """
    told = learned or Learned()
    way = UNKNOWN_LINE if line is None else line
    asked = sorted(set(registers), key=_order)
    limit = min(profile.registers_max, COUNT_MAX)
    for one in asked:
        _check(profile, one, limit)
    absent = tuple(one for one in asked if told.lacks(one))
    wanted = [one for one in asked if one not in absent]
    limit = min(limit, told.count_max or limit)
    readable = Readable.of(profile, wanted, told)
    blocks: list[Block] = []
    for function in sorted({one.function for one in wanted}):
        own = [one for one in wanted if one.function == function]
        parts = _parts(own, _Rules(function, limit, readable, way))
        blocks += [_block(function, part) for part in parts]
    return Plan(tuple(blocks), absent, way)


def halves(block: Block) -> tuple[Block, ...]:
    """The block as two with half of the registers each; holes between them are left out."""
    middle = len(block.registers) // 2
    parts = (block.registers[:middle], block.registers[middle:])
    return tuple(_block(block.function, part) for part in parts if part)


def _order(one: Register) -> tuple[int, int, int, int, str]:
    return (one.function, one.first, one.behind, one.address, one.point)


def _check(profile: DeviceProfile, one: Register, limit: int) -> None:
    size = one.behind - one.first
    if size > limit or (profile.even_only and (one.first | size) & 1):
        raise LocalProtocolError(
            f"{profile.id} cannot give {one.point} ({size} registers from {one.first} on) in one "
            f"request: at most {limit}" + (", start and count even" if profile.even_only else ""),
            code="bad_register",
        )


def _block(function: int, registers: Sequence[Register]) -> Block:
    first = min(one.first for one in registers)
    behind = max(one.behind for one in registers)
    ordered = tuple(sorted(registers, key=lambda one: (one.address, one.end, one.point)))
    return Block(function, first, behind - first, ordered)


def _used(block: Block) -> int:
    """Words of it that somebody wants."""
    words = {at for one in block.registers for at in range(one.address, one.end)}
    words |= {one.scale_address for one in block.registers if one.scale_address is not None}
    return len(words)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What decides whether one request may be made, and what it costs."""

    function: int
    limit: int
    readable: Readable
    line: Line

    def allow(self, first: int, behind: int) -> bool:
        return behind - first <= self.limit and self.readable.allows(self.function, first, behind)


def _parts(asked: list[Register], rules: _Rules) -> list[list[Register]]:
    """The registers of each request: what is billed as one, where that can be."""
    atoms = [[one] for one in asked]
    billing = [one for one in asked if one.bill]
    if len(billing) > 1:
        first, behind = _reach(billing)
        if rules.allow(first, behind):
            within = [one for one in asked if first <= one.first and one.behind <= behind]
            atoms = [[one] for one in asked if one not in within] + [within]
            atoms.sort(key=lambda atom: (_reach(atom), atom[0].point))
    return _cheapest(atoms, rules)


def _reach(registers: Iterable[Register]) -> tuple[int, int]:
    held = list(registers)
    return min(one.first for one in held), max(one.behind for one in held)


def _cheapest(atoms: list[list[Register]], rules: _Rules) -> list[list[Register]]:
    """Neighbours in order of address, cut where that costs least; of equal ones the fewest cuts.

    `best[n]` is the cost of the first n, and where the last request of them begins. A register
    that no request may hold by what was learnt is asked for alone all the same.
    """
    reaches = [_reach(atom) for atom in atoms]
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for last in range(1, len(atoms) + 1):
        found: tuple[float, int, int] | None = None
        first, behind = reaches[last - 1]
        for start in range(last - 1, -1, -1):
            first = min(first, reaches[start][0])
            behind = max(behind, reaches[start][1])
            if start < last - 1 and not rules.allow(first, behind):
                if behind - first > rules.limit:
                    break
                continue
            cost, requests, _ = best[start]
            one = (round(cost + rules.line.cost_ms(behind - first), 6), requests + 1, start)
            if found is None or one < found:
                found = one
        assert found is not None  # an atom alone is always a request
        best.append(found)
    parts: list[list[Register]] = []
    last = len(atoms)
    while last:
        start = best[last][2]
        parts.append([one for atom in atoms[start:last] for one in atom])
        last = start
    return parts[::-1]
