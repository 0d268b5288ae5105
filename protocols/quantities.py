"""The one table of point names: `quantities.yaml`, looked up.

Every room and every protocol names its quantities with these words and no others.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

import yaml

Kind = Literal["register", "interval", "instantaneous", "demand", "state"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity. `obis` is None where no code says the same; `decimals` is what is usual."""

    name: str
    label_en: str
    label_zh: str
    unit: str
    obis: str | None
    kind: Kind
    decimals: int


class UnknownQuantity(KeyError):
    """A name that is not in the table. `nearest` is the most similar one, if any is similar."""

    def __init__(self, name: str, nearest: str | None) -> None:
        self.name = name
        self.nearest = nearest
        super().__init__(name)

    def __str__(self) -> str:
        """A sentence, where KeyError would show only the key."""
        hint = f"; the nearest is {self.nearest!r}" if self.nearest else ""
        return f"there is no quantity {self.name!r}{hint}"


def quantity(point: str) -> Quantity:
    """The quantity of a point name; UnknownQuantity (a KeyError) naming the nearest."""
    found = _table().get(point)
    if found is None:
        nearest = get_close_matches(point, _table(), n=1, cutoff=0.5)
        raise UnknownQuantity(point, nearest[0] if nearest else None)
    return found


def known_quantity(point: str) -> Quantity | None:
    """The quantity of a point name; None when there is none. (Finding the nearest takes long.)"""
    return _table().get(point)


def all_quantities() -> tuple[Quantity, ...]:
    """Every quantity, in the order of the table."""
    return tuple(_table().values())


@cache
def _table() -> dict[str, Quantity]:
    text = files("protocols").joinpath("quantities.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, Quantity] = {}
    for row in yaml.load(text, Loader=loader):  # noqa: S506  (a safe loader, either way)
        for one in _expand(row):
            if one.name in table or one.kind not in get_args(Kind):
                msg = f"quantities.yaml: {one.name} stands there twice or has no known kind"
                raise ValueError(msg)
            table[one.name] = one
    return table


def _expand(row: dict[str, Any]) -> list[Quantity]:
    """One quantity, or one for each tariff."""
    tariffs = row.pop("tariffs", None)
    if tariffs is None:
        return [Quantity(**row)]
    return [
        Quantity(**{key: _numbered(value, n) for key, value in row.items()})
        for n in range(1, tariffs + 1)
    ]


def _numbered(value: Any, n: int) -> Any:  # noqa: ANN401
    return value.replace("{n}", str(n)) if isinstance(value, str) else value
