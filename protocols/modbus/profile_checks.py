"""What is wrong in a profile that no register shows by itself: overlaps, impossible requests."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.readable import Readable
from protocols.modbus.register import DeviceProfile, ProfileProblem, Register

Path = tuple[str | int, ...]


def check_together(profile: DeviceProfile, rows: list[Any]) -> Iterator[ProfileProblem]:
    """Every problem between registers, or between a register and the device's rules.

    `rows`: the registers as they stand in the file, for the places of the problems.
    """
    place = {
        str(row.get("point")): index for index, row in enumerate(rows) if isinstance(row, Mapping)
    }
    registers = sorted(profile.registers.values(), key=lambda one: (one.function, one.address))
    for one in registers:
        yield from _check_alone(profile, one, ("registers", place[one.point]))
    yield from _check_overlaps(registers, place)
    yield from _check_billing(profile, registers, place)


def _check_alone(profile: DeviceProfile, one: Register, path: Path) -> Iterator[ProfileProblem]:
    """A request for this register alone must be one that the device takes."""
    size = one.behind - one.first
    if size > profile.registers_max:
        with_scale = "" if one.scale_address is None else " with its scale factor"
        yield ProfileProblem(
            path,
            f"{size} registers{with_scale} are more than one request may ask for",
            f"registers_max is {profile.registers_max}",
        )
    if profile.even_only and (one.first | size) & 1:
        yield ProfileProblem(
            (*path, "address"),
            f"{size} registers from {one.first} on break even_only",
            "start and count must be even",
        )
    if one.scale_address is not None and one.address <= one.scale_address < one.end:
        yield ProfileProblem((*path, "scale_address"), "lies within the value's own registers")
    for at in profile.breaks:
        if one.first < at < one.behind:
            yield ProfileProblem(
                (*path, "address"), f"a request for {one.first} to {one.behind - 1} reaches "
                f"across {at}", "breaks forbids that",
            )  # fmt: skip


def _check_overlaps(
    registers: list[Register], place: Mapping[str, int]
) -> Iterator[ProfileProblem]:
    """Two values may be made of the same words only when both take all of them."""
    for index, one in enumerate(registers):
        for other in registers[index + 1 :]:
            if other.function != one.function or other.address >= one.end:
                break
            same = (one.address, one.words, one.word_order)
            if same == (other.address, other.words, other.word_order):
                continue
            yield ProfileProblem(
                ("registers", place[other.point], "address"),
                f"{other.point} ({other.address} to {other.end - 1}) overlaps {one.point} "
                f"({one.address} to {one.end - 1})",
            )


def _check_billing(
    profile: DeviceProfile, registers: list[Register], place: Mapping[str, int]
) -> Iterator[ProfileProblem]:
    """Import and export must come out of one reply, so that they share one moment."""
    billing = sorted((one for one in registers if one.bill), key=lambda one: one.first)
    if len(billing) < 2:
        return
    path: Path = ("registers", place[billing[-1].point], "bill")
    problem = _apart(profile, billing)
    if problem is not None and not profile.bill_apart:
        message, hint = problem
        yield ProfileProblem(path, message, f"{hint}; or bill_apart says why it must be so")
    if problem is None and profile.bill_apart:
        yield ProfileProblem(
            ("bill_apart",), "one request reads all that is billed", "leave it out"
        )


def _apart(profile: DeviceProfile, billing: list[Register]) -> tuple[str, str] | None:
    """Why no one request reads them all, and what would help."""
    functions = sorted({one.function for one in billing})
    if len(functions) > 1:
        return "the billed registers are of functions 3 and 4", "one function may have them all"
    first, behind = billing[0].first, max(one.behind for one in billing)
    limit = min(profile.registers_max, COUNT_MAX)
    if behind - first > limit:
        return (
            f"the billed registers of function {functions[0]} lie {behind - first} registers apart",
            f"one request of this device reads {limit}",
        )
    readable = Readable.of(profile, billing)
    if readable.allows(functions[0], first, behind):
        return None
    gap = next(
        (
            f"{one.point} and {other.point}"
            for one, other in pairwise(billing)
            if not readable.allows(functions[0], one.first, other.behind)
        ),
        "the billed registers",
    )
    return (
        f"between {gap} lie registers that no request may touch",
        "gaps: ok where the device reads through them, or spans for what exists there",
    )
