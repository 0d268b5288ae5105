"""Points into requests: which registers are read together.

A block holds no word that the map does not define, for a device may refuse the whole of a block
that touches one; it never splits a value. What is billed belongs together: import and export that
are asked for together come out of one reply and so share one moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from protocols.errors import LocalProtocolError
from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.register import DeviceProfile, Register

# On a serial line a request of its own costs about as much as this many words that nobody wants.
BRIDGE_WORDS_MAX = 16


@dataclass(frozen=True, slots=True)
class Block:
    """One request, and the registers that are taken out of its reply, by address."""

    function: int
    address: int
    count: int
    registers: tuple[Register, ...]

    def words_of(self, register: Register, words: tuple[int, ...]) -> tuple[int, ...]:
        """The words of one of its registers, out of those of the reply."""
        at = register.address - self.address
        return words[at : at + register.words]


def plan_blocks(profile: DeviceProfile, registers: Iterable[Register]) -> tuple[Block, ...]:
    """The requests that read these registers, by function and address; the same every time.

    Registers that the map does not know (raw ones) may be among them. LocalProtocolError for one
    that is longer than a request of the device or breaks its rule of even addresses.
    """
    asked = sorted(set(registers), key=lambda one: (one.function, one.address, one.end, one.point))
    limit = min(profile.registers_max, COUNT_MAX)
    for one in asked:
        if one.words > limit or (profile.even_only and (one.address | one.words) & 1):
            raise LocalProtocolError(
                f"{profile.id} cannot give {one.point} ({one.words} registers from {one.address} "
                f"on) in one request: at most {limit}"
                + (", start and count even" if profile.even_only else ""),
                code="bad_register",
            )
    defined = _defined(profile, asked)
    blocks: list[Block] = []
    for group in _groups(asked, defined, limit):
        first = min(one.address for one in group)
        last = max(one.end for one in group)
        blocks.append(Block(group[0].function, first, last - first, tuple(group)))
    return tuple(sorted(blocks, key=lambda block: (block.function, block.address)))


def _defined(profile: DeviceProfile, asked: Iterable[Register]) -> set[tuple[int, int]]:
    """(function, address) of every word that is known to exist."""
    return {
        (one.function, address)
        for one in (*profile.registers.values(), *asked)
        for address in range(one.address, one.end)
    }


def _fits(group: list[Register], defined: set[tuple[int, int]], limit: int) -> bool:
    """Whether one request can read the group without touching an undefined word."""
    function = group[0].function
    first = min(one.address for one in group)
    last = max(one.end for one in group)
    return last - first <= limit and all(
        (function, address) in defined for address in range(first, last)
    )


def _groups(
    asked: list[Register], defined: set[tuple[int, int]], limit: int
) -> list[list[Register]]:
    """Billing registers of a function first, as one group where that can be; the rest joins."""
    groups: list[list[Register]] = []
    for function in sorted({one.function for one in asked}):
        own = [one for one in asked if one.function == function]
        billing = [one for one in own if one.bill]
        kept = _chains(billing, defined, limit, bridge=limit)
        left: list[Register] = []
        for one in (one for one in own if not one.bill):
            home = next((group for group in kept if _joins(one, group, defined, limit)), None)
            if home is None:
                left.append(one)
            else:
                home.append(one)
        kept += _chains(left, defined, limit, bridge=BRIDGE_WORDS_MAX)
        groups += [sorted(group, key=lambda one: (one.address, one.end)) for group in kept]
    return groups


def _joins(one: Register, group: list[Register], defined: set[tuple[int, int]], limit: int) -> bool:
    """Whether a register is read along with a group for little more than its own words."""
    before = min(other.address for other in group) - one.end
    behind = one.address - max(other.end for other in group)
    return max(before, behind) <= BRIDGE_WORDS_MAX and _fits([*group, one], defined, limit)


def _chains(
    registers: list[Register], defined: set[tuple[int, int]], limit: int, *, bridge: int
) -> list[list[Register]]:
    """Neighbours in address order, cut where the next one does not fit any more."""
    chains: list[list[Register]] = []
    for one in registers:
        near = chains and one.address - max(other.end for other in chains[-1]) <= bridge
        if near and _fits([*chains[-1], one], defined, limit):
            chains[-1].append(one)
        else:
            chains.append([one])
    return chains
