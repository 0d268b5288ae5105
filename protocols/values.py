"""`dataclass` for the values that are made several times for every frame and every reading.

At run time a frozen dataclass pays for every field it is given: three to four times the price of a
plain one. These are frozen where it costs nothing, for the type checker:

    if TYPE_CHECKING:
        from dataclasses import dataclass
    else:
        from protocols.values import dataclass

    @dataclass(frozen=True, slots=True)
    class Reading: ...

Whoever assigns to a field is told by mypy, not by an exception. Equality and hash are those of a
frozen dataclass; `dataclasses.replace` and `asdict` work.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def dataclass(*, frozen: bool, slots: bool, eq: bool = True) -> Callable[[type[_T]], type[_T]]:
    """As `dataclasses.dataclass`, but what is frozen is not guarded at run time."""
    return dataclasses.dataclass(slots=slots, eq=eq, unsafe_hash=frozen and eq)
