"""Device profiles: what a kind of device keeps in which register, from data.

`profile_from` takes the tree of a YAML file (`config/devices`) and gives a `DeviceProfile`, or
every problem of it at once. Reads no files itself.
"""

from collections.abc import Mapping
from typing import Any

from protocols.errors import LocalProtocolError
from protocols.modbus.delimiter import COUNT_MAX, READ_FUNCTIONS
from protocols.modbus.profile_tree import ProfileReader, as_integer
from protocols.modbus.register import (
    TYPE_WORDS,
    DeviceProfile,
    ProfileError,
    ProfileProblem,
    Register,
    UnknownPoint,
)

__all__ = [
    "DeviceProfile",
    "ProfileError",
    "ProfileProblem",
    "Register",
    "UnknownPoint",
    "profile_from",
    "raw_register",
]


def profile_from(tree: Mapping[str, Any], *, name: str) -> DeviceProfile:
    """The profile that a tree describes; ProfileError with every problem of it.

    `name` is what the problems are told with: the file's.
    """
    return ProfileReader(name).read(tree)


def raw_register(text: str) -> Register:
    """A register named by hand: `reg:FUNCTION:ADDRESS:WHAT`, with `:little` when low words first.

    WHAT is a type, or a number of registers: 1, 2 and 4 are read as an unsigned number, others as
    hex. `string8` is a text of 8 registers. Address as it goes on the wire, 0x for hex.
    LocalProtocolError when it is not written like that.
    """
    parts = text.split(":")
    order = parts.pop() if parts[-1] in ("big", "little") else "big"
    found = _raw_numbers(parts)
    if found is None:
        types = ", ".join(name for name, size in TYPE_WORDS.items() if size)
        raise LocalProtocolError(
            f"{text!r} names no register: reg:FUNCTION:ADDRESS:WHAT is expected, with function 3 "
            f"or 4, address 0 to 65535 and a number of registers or a type ({types}, string8), "
            "as in reg:4:72:float32 or reg:3:19000:2:little",
            code="bad_register",
        )
    function, address, kind, words = found
    return Register(
        text, function, address, kind, words, word_order="little" if order == "little" else "big"
    )


def _raw_numbers(parts: list[str]) -> tuple[int, int, str, int] | None:
    """Function, address, type and words; None when they are not written as they should be."""
    if len(parts) != 4 or parts[0] != "reg":
        return None
    function, address = as_integer(parts[1]), as_integer(parts[2])
    kind, words = _raw_type(parts[3])
    if function not in READ_FUNCTIONS or words is None or not 1 <= words <= COUNT_MAX:
        return None
    if address is None or not 0 <= address <= 0x10000 - words:
        return None
    return function, address, kind, words


def _raw_type(text: str) -> tuple[str, int | None]:
    """Type and words; words None for what is neither a type nor a number."""
    if text.isdecimal():
        words = int(text)
        return {1: "uint16", 2: "uint32", 4: "uint64"}.get(words, "hex"), words
    if text.startswith("string"):
        return "string", as_integer(text.removeprefix("string"))
    return text, TYPE_WORDS.get(text)
