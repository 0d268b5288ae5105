"""What one device has shown of itself: what it refuses, and what it gives although nobody told.

A plain value. Whoever owns the device keeps it (`to_json`, `from_json`), so that a device is not
asked again for what it refused, whatever is started anew. Nothing here forgets: a device whose
firmware changed is told afresh, by leaving the state away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from protocols.errors import LocalProtocolError
from protocols.modbus.delimiter import COUNT_MAX, READ_FUNCTIONS
from protocols.modbus.register import Register, Span

_One = TypeVar("_One")

SCHEMA = "modbus_learned/1"
ILLEGAL_ADDRESS, ILLEGAL_VALUE = 2, 3
# More than a map has; a device that refuses more is not the one the profile describes.
KEPT_MAX = 512


@dataclass(frozen=True, slots=True)
class Cut:
    """A request for all of `refused` is refused, so none reaches across the address `at`."""

    refused: Span
    at: int


@dataclass(frozen=True, slots=True)
class Learned:
    """`absent`: registers that are refused alone. `cut`: requests refused for one of theirs, not
    yet known which. `readable`: holes that were read through. `count_max`: of one request.
    """

    absent: tuple[Span, ...] = ()
    cut: tuple[Cut, ...] = ()
    readable: tuple[Span, ...] = ()
    count_max: int | None = None

    def absent_words(self, function: int) -> set[int]:
        """Addresses no request may touch."""
        return {
            at
            for one in self.absent
            if one.function == function
            for at in range(one.address, one.address + one.count)
        }

    def cuts(self, function: int) -> set[int]:
        """Addresses no request may reach across."""
        return {one.at for one in self.cut if one.refused.function == function}

    def lacks(self, register: Register) -> bool:
        """Whether the device refused just this register, or part of it."""
        return not self.absent_words(register.function).isdisjoint(
            range(register.first, register.behind)
        )

    def refused(self, asked: Span, registers: Sequence[Register], code: int) -> "Learned":
        """After exception 2 or 3 to a request. Others say nothing lasting: the value is unchanged.

        A request for several registers is not made whole again: the plan cuts it in halves, until
        what is refused is one register alone. That one is absent, and what was cut for it is whole
        again around it. Exception 3 to several is taken to mean the count.
        """
        if code not in (ILLEGAL_ADDRESS, ILLEGAL_VALUE):
            return self
        starts = sorted({one.first for one in registers})
        if len(starts) <= 1:
            explained = tuple(one for one in self.cut if not _within(asked, one.refused))
            return replace(self, absent=_added(self.absent, asked), cut=explained)
        if code == ILLEGAL_VALUE:
            widest = max(one.behind - one.first for one in registers)
            count = max(asked.count // 2, widest)
            if count < asked.count:
                return replace(self, count_max=min(count, self.count_max or COUNT_MAX))
        return replace(self, cut=_added(self.cut, Cut(asked, starts[len(starts) // 2])))

    def answered(self, asked: Span) -> "Learned":
        """After a request with a hole in it was tried, and answered: it may be made again."""
        return replace(self, readable=_added(self.readable, asked))

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it, of shape modbus_learned/1."""
        return {
            "schema": SCHEMA,
            "absent": [_span_json(one) for one in self.absent],
            "cut": [{**_span_json(one.refused), "at": one.at} for one in self.cut],
            "readable": [_span_json(one) for one in self.readable],
            "count_max": self.count_max,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Learned":
        """What `to_json` gave; LocalProtocolError(code="bad_state") for anything else."""
        try:
            _check_schema(tree["schema"])
            count_max = tree["count_max"]
            return cls(
                absent=tuple(map(_span_from, _rows(tree, "absent"))),
                cut=tuple(Cut(_span_from(row), _whole(row, "at")) for row in _rows(tree, "cut")),
                readable=tuple(map(_span_from, _rows(tree, "readable"))),
                count_max=None if count_max is None else _whole(tree, "count_max", 1, COUNT_MAX),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LocalProtocolError(
                f"this is no {SCHEMA} that was kept: {error}", code="bad_state"
            ) from error


def _check_schema(schema: object) -> None:
    if schema != SCHEMA:
        raise ValueError(f"the schema is {schema!r}")


def _within(inner: Span, outer: Span) -> bool:
    return (
        inner.function == outer.function
        and outer.address <= inner.address
        and inner.address + inner.count <= outer.address + outer.count
    )


def _added(kept: tuple[_One, ...], one: _One) -> tuple[_One, ...]:
    return kept if one in kept else (*kept, one)[-KEPT_MAX:]


def _span_json(one: Span) -> dict[str, int]:
    return {"function": one.function, "address": one.address, "count": one.count}


def _rows(tree: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    rows = tree[key]
    if not isinstance(rows, list) or len(rows) > KEPT_MAX:
        raise ValueError(f"{key} is no list of at most {KEPT_MAX}")
    return rows


def _span_from(row: Mapping[str, Any]) -> Span:
    address = _whole(row, "address")
    function = _whole(row, "function", READ_FUNCTIONS[0], READ_FUNCTIONS[-1])
    return Span(function, address, _whole(row, "count", 1, 0x10000 - address))


def _whole(row: Mapping[str, Any], key: str, low: int = 0, high: int = 0xFFFF) -> int:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{key} is {value!r}, not {low} to {high}")
    return value
