"""The layouts of SunSpec's models, from `sunspec_models.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from protocols.modbus.register import FLOATS, TYPE_WORDS, Register
from protocols.modbus.units import shift_to_point

FamilyKind = Literal["identity", "inverter", "meter"]

# What means "no value", by type, in every model.
MISSING: Mapping[str, tuple[int, ...]] = {
    "int16": (0x8000,),
    "uint16": (0xFFFF,),
    "int32": (0x80000000,),
    "uint32": (0xFFFFFFFF,),
    "int64": (0x8000000000000000,),
    "uint64": (0xFFFFFFFFFFFFFFFF,),
    "acc32": (0,),
    "acc64": (0,),
    "enum16": (0xFFFF,),
    "bitfield32": (0xFFFFFFFF,),
    "sunssf": (0x8000,),
}


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A point of a model. `offset`, `scale`: counted from the model's id."""

    point: str
    offset: int
    type: str
    words: int
    unit: str
    scale: int | None
    bill: bool

    @property
    def behind(self) -> int:
        """The offset behind the last register that it needs."""
        end = self.offset + self.words
        return end if self.scale is None else max(end, self.scale + 1)

    def register(
        self, name: str, function: int, base: int, *, decimals: int, bill: bool
    ) -> Register:
        """Where it stands in a device whose model begins at `base`. `decimals`: of the quantity."""
        shift = shift_to_point(self.unit, name)
        return Register(
            point=name,
            function=function,
            address=base + self.offset,
            type=self.type,
            words=self.words,
            unit=self.unit,
            decimals=max(0, decimals + shift) if self.type in FLOATS else None,
            missing=MISSING.get(self.type, ()),
            bill=bill,
            scale_address=None if self.scale is None else base + self.scale,
        )


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one layout. `models`: id -> phases (0: of none). `length`: as their L says."""

    name: str
    kind: FamilyKind
    models: Mapping[int, int]
    length: int
    points: tuple[ModelPoint, ...]

    @property
    def floats(self) -> bool:
        """Whether its counters are floats, which know less of a large number."""
        return any(one.type in FLOATS for one in self.points)


def family_of(model: int) -> Family | None:
    """The layout of a model; None when it is not known here."""
    return _families().get(model)


def known_models() -> tuple[int, ...]:
    """Every id with a layout, ascending."""
    return tuple(sorted(_families()))


@cache
def _families() -> dict[int, Family]:
    text = files("protocols.modbus").joinpath("sunspec_models.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[int, Family] = {}
    for row in yaml.load(text, Loader=loader)["families"]:  # noqa: S506 - a safe loader
        points = tuple(_point(one) for one in row.pop("points"))
        family = Family(points=points, **row)
        found.update(dict.fromkeys(family.models, family))
    return found


def _point(row: dict[str, Any]) -> ModelPoint:
    kind = row["type"]
    words = TYPE_WORDS[kind] or row["words"]
    return ModelPoint(
        point=row["point"],
        offset=row["offset"],
        type=kind,
        words=words,
        unit=row.get("unit", ""),
        scale=row.get("scale"),
        bill=row.get("bill", False),
    )
