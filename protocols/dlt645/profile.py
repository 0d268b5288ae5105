"""How a model of meter differs from the standard, as data: `profile_from` reads a YAML file's tree.

A profile says nothing about what a meter measures, which is in the catalogue: only where the model
does otherwise. The generic profile (`GENERIC`) does so nowhere. Reads no files itself.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from protocols.dlt645.catalogue import DIGITS_1997, DIGITS_2007, Item, lookup
from protocols.dlt645.fields import Field, field_of
from protocols.dlt645.formats import TARIFFS_MAX, Layout, layout_of
from protocols.dlt645.frame import DATA_BYTES_MAX, DATA_BYTES_USUAL_MAX
from protocols.dlt645.functions import Edition
from protocols.dlt645.load_profile import LoadShape
from protocols.modbus.register import ProfileError, ProfileProblem
from protocols.quantities import quantity

__all__ = ["GENERIC", "MeterProfile", "ProfileError", "ProfileProblem", "profile_from"]

Signs = Literal["sign_bit", "status_words"]
FollowUp = Literal["numbered", "whole", "never"]
WAKEUP_MAX = 8
PAUSE_MS_MAX = 10_000
SUFFIX_BYTES_MAX = 8
SCHEMA_ID = "dlt645_profile/1"

_DIGITS: dict[Edition, int] = {"dlt645-2007": DIGITS_2007, "dlt645-1997": DIGITS_1997}


@dataclass(frozen=True, slots=True)
class MeterProfile:
    """One model of meter.

    `wakeup`: bytes FEH before a request. `pause_ms`: silence it needs between a reply and the next
    request. `suffix`: bytes its converter wants behind every frame (a line end, for some).
    `tariffs`: how many a block of it holds besides the total. `data_max`: bytes of DATA in one
    reply. `blocks`: whether blocks are asked for at all; `refuses`: identifiers it is known to
    refuse. `follow_up`: how further frames are asked for, `never` when it does not know them.
    `signs`: `status_words` when power and current come without a sign and only the status words
    tell the direction. `items`: identifiers that have another layout here, or that only this model
    has. `load`: how it writes load records; `load_all_di`: what asks for all classes, where that
    is not the standard's.
    """

    id: str = "generic"
    device: str = "any meter that keeps to the standard"
    edition: Edition = "dlt645-2007"
    wakeup: int = 4
    pause_ms: int = 30
    suffix: bytes = b""
    tariffs: int = 4
    data_max: int = DATA_BYTES_USUAL_MAX
    blocks: bool = True
    refuses: frozenset[str] = frozenset()
    follow_up: FollowUp = "numbered"
    signs: Signs = "sign_bit"
    items: Mapping[str, Item] = field(default_factory=dict)
    load: LoadShape = field(default_factory=LoadShape)
    load_all_di: str | None = None

    def item(self, di: str) -> Item | None:
        """The item of an identifier as this model has it; None when nobody knows it."""
        return self.items.get(di) or lookup(di)

    def di_of(self, point: str) -> str | None:
        """The identifier that only this model has for a point, if there is one."""
        return next((di for di, item in self.items.items() if item.point == point), None)


GENERIC = MeterProfile()


def profile_from(tree: Mapping[str, Any], *, name: str) -> MeterProfile:
    """The profile that a tree describes; ProfileError with every problem of it.

    `name` is what the problems are told with: the file's.
    """
    reader = _Reader()
    found = reader.read(tree)
    if reader.problems:
        raise ProfileError(name, reader.problems)
    return found


def profile_schema() -> dict[str, Any]:
    """The JSON Schema of a profile's file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "How a model of DL/T 645 meter differs from the standard",
        "type": "object",
        "additionalProperties": False,
        "required": ["id", "device", "protocol"],
        "properties": {key: schema for key, (schema, _) in _TOP.items()},
    }


Path = tuple[str | int, ...]
_Check = Callable[["_Reader", Any, Path], Any]


class _Reader:
    """Reads one tree, and collects what is wrong in it."""

    def __init__(self) -> None:
        self.problems: list[ProfileProblem] = []
        self.edition: Edition = "dlt645-2007"

    def say(self, path: Path, message: str, hint: str | None = None) -> None:
        self.problems.append(ProfileProblem(path, message, hint))

    def read(self, tree: Mapping[str, Any]) -> MeterProfile:
        for key in ("id", "device", "protocol"):
            if key not in tree:
                self.say((key,), "is needed")
        if tree.get("protocol") in _DIGITS:
            self.edition = tree["protocol"]
        values = self.keys(tree, _TOP, ())
        values["edition"] = values.pop("protocol", None) or self.edition
        load = values.pop("load_records", None) or {}
        values["load_all_di"] = load.pop("all_di", None)
        profile = MeterProfile(
            **{key: value for key, value in values.items() if value is not None},
            load=LoadShape(**{key: value for key, value in load.items() if value is not None}),
        )
        # Asked in parts by a number the old edition does not have.
        if profile.edition == "dlt645-1997" and "load_records" in tree:
            self.say(("load_records",), "is of the 2007 edition")
        return profile

    def keys(self, tree: Any, known: "_Keys", path: Path) -> dict[str, Any]:  # noqa: ANN401
        """The values of a mapping, each checked; problems for what is none of `known`."""
        if not isinstance(tree, Mapping):
            self.say(path, "must be a mapping of keys", f"known: {', '.join(known)}")
            return {}
        found: dict[str, Any] = {}
        for key, value in tree.items():
            if key in known:
                found[key] = known[key][1](self, value, (*path, key))
                continue
            near = get_close_matches(str(key), list(known), n=1)
            hint = f"{near[0]} is meant?" if near else f"known: {', '.join(known)}"
            self.say((*path, str(key)), "is not a key of a profile", hint)
        return found

    def identifier(self, value: object, path: Path) -> str | None:
        """An identifier of the profile's edition."""
        digits = _DIGITS[self.edition]
        if isinstance(value, str) and re.fullmatch(f"[0-9A-Fa-f]{{{digits}}}", value):
            return value.upper()
        self.say(path, f"is {value!r}", f"{digits} hex digits, in quotes")
        return None


_Keys = dict[str, tuple[dict[str, Any], _Check]]


def _text(what: str) -> tuple[dict[str, Any], _Check]:
    def check(reader: _Reader, value: object, path: Path) -> str | None:
        if isinstance(value, str) and value:
            return value
        reader.say(path, "must be a text")
        return None

    return {"description": what, "type": "string", "minLength": 1}, check


def _whole(low: int, high: int, what: str) -> tuple[dict[str, Any], _Check]:
    def check(reader: _Reader, value: object, path: Path) -> int | None:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        reader.say(path, f"is {value!r}", f"a whole number, {low} to {high}")
        return None

    return {"description": what, "type": "integer", "minimum": low, "maximum": high}, check


def _choice(choices: tuple[Any, ...], what: str) -> tuple[dict[str, Any], _Check]:
    def check(reader: _Reader, value: object, path: Path) -> Any:  # noqa: ANN401
        if any(value is one or (value == one and type(value) is type(one)) for one in choices):
            return value
        shown = ", ".join(str(one).lower() for one in choices)
        reader.say(path, f"is {value!r}", f"one of {shown}")
        return None

    return {"description": what, "enum": list(choices)}, check


def _refused(reader: _Reader, value: object, path: Path) -> frozenset[str] | None:
    if not isinstance(value, list):
        reader.say(path, "must be a list of identifiers")
        return None
    found = [reader.identifier(one, (*path, index)) for index, one in enumerate(value)]
    return frozenset(one for one in found if one)


def _suffix(reader: _Reader, value: object, path: Path) -> bytes | None:
    is_hex = isinstance(value, str) and re.fullmatch("([0-9A-Fa-f]{2})*", value)
    if is_hex and isinstance(value, str) and len(value) <= 2 * SUFFIX_BYTES_MAX:
        return bytes.fromhex(value)
    reader.say(path, f"is {value!r}", f"at most {SUFFIX_BYTES_MAX} bytes in hex, in quotes")
    return None


def _load(reader: _Reader, value: object, path: Path) -> dict[str, Any] | None:
    return reader.keys(value, _LOAD, path)


def _all_di(reader: _Reader, value: object, path: Path) -> str | None:
    return reader.identifier(value, path)


def _items(reader: _Reader, value: object, path: Path) -> dict[str, Item] | None:
    if not isinstance(value, list):
        reader.say(path, "must be a list of items")
        return None
    found: dict[str, Item] = {}
    for index, row in enumerate(value):
        here: Path = (*path, index)
        values = reader.keys(row, _ITEM, here)
        di = values.get("di")
        if di is None:
            reader.say((*here, "di"), "is needed")
        elif di in found:
            reader.say((*here, "di"), f"{di} stands there twice")
        elif (item := _item(reader, di, values, here)) is not None:
            found[di] = item
    return found


def _item(reader: _Reader, di: str, row: dict[str, Any], path: Path) -> Item | None:
    """The catalogue's item with another layout, or a new one."""
    known = lookup(di)
    signed = row.get("signed", known.signed if known else False)
    fields = _fields(str(row.get("format", "")), signed=bool(signed))
    if fields is None:
        hint = "as in the catalogue: XXXX.XXXX, YYMMDDhhmm, ASCII is none"
        reader.say((*path, "format"), f"is {row.get('format')!r}", hint)
        return None
    _check_point(reader, row, path)
    point = row.get("point", known.point if known else None)
    if known is None and not (row.get("name_en") and row.get("name_zh")):
        reader.say(path, f"{di} is not in the catalogue", "give it name_en and name_zh")
        return None
    layout = _rounds_of(known, fields)
    base = known or Item(
        di, "", "", None, "", "", 0, bool(signed), "r", None, None, None,
        verified=True, block_members="",
    )  # fmt: skip
    points = (point,) if point and not (known and len(known.points) > 1) else base.points
    return replace(
        base,
        name_en=row.get("name_en") or base.name_en,
        name_zh=row.get("name_zh") or base.name_zh,
        length=layout.length,
        format=row["format"],
        unit=row.get("unit", base.unit),
        scale=fields[0].scale,
        signed=bool(signed),
        point=point,
        points=points,
        layout=layout,
    )


def _fields(text: str, *, signed: bool) -> tuple[Field, ...] | None:
    fields = [field_of(part, signed=signed) for part in text.split(",")]
    return tuple(one for one in fields if one is not None) if all(fields) else None


def _rounds_of(known: Item | None, fields: tuple[Field, ...]) -> Layout:
    """A block keeps the number of its members."""
    if known is None or known.layout is None or known.is_record:
        return layout_of(fields)
    return layout_of(fields, known.layout.rounds_min, known.layout.rounds_max)


def _check_point(reader: _Reader, row: dict[str, Any], path: Path) -> None:
    point = row.get("point")
    if not point:
        return
    try:
        unit = quantity(point).unit
    except KeyError as error:
        reader.say((*path, "point"), str(error))
        return
    if row.get("unit", unit) != unit:
        reader.say((*path, "unit"), f"is {row['unit']!r}", f"{point} has {unit!r}")


def _identifier(what: str) -> tuple[dict[str, Any], _Check]:
    schema = {"description": what, "type": "string", "pattern": "^([0-9A-Fa-f]{4}){1,2}$"}
    return schema, lambda reader, value, path: reader.identifier(value, path)


_ITEM: _Keys = {
    "di": _identifier("The identifier, in quotes."),
    "format": _text("The digits of each member, as XXXX.XXXX; a block keeps its members."),
    "signed": _choice((True, False), "Whether the top bit is a sign; as the catalogue says."),
    "unit": _text("The unit of its numbers; as the catalogue says."),
    "point": _text("The quantity it is: a name of the table of quantities."),
    "name_en": _text("What it is, in English; needed where the catalogue does not know it."),
    "name_zh": _text("What it is, in Chinese; needed where the catalogue does not know it."),
}
_LOAD: _Keys = {
    "separators": _choice(
        ("all", "no_leading", "data_only"),
        "Which AA of empty classes stand in the reply for one class.",
    ),
    "year_first": _choice((True, False), "The time of a record is stored from the year on."),
    "count": _choice(("content", "whole"), "What the length byte of a record counts."),
    "all_di": _identifier("What asks for all classes, where it is not 060000xx."),
}
_TOP: _Keys = {
    "id": _text("The name of the profile."),
    "device": _text("Which meters it is for."),
    "protocol": _choice(tuple(_DIGITS), "The edition of DL/T 645 it speaks."),
    "wakeup": _whole(0, WAKEUP_MAX, "Bytes FE before each request (4)."),
    "pause_ms": _whole(0, PAUSE_MS_MAX, "Silence between a reply and the next request (30)."),
    "suffix": (
        {
            "description": "Bytes behind every frame, in hex, in quotes: 0D0A for some gateways.",
            "type": "string",
            "pattern": "^([0-9A-Fa-f]{2}){0,8}$",
        },
        _suffix,
    ),
    "tariffs": _whole(0, TARIFFS_MAX, "How many tariffs a block holds besides the total (4)."),
    "data_max": _whole(16, DATA_BYTES_MAX, "Bytes of data in one reply frame (200)."),
    "blocks": _choice((True, False), "Whether blocks are asked for (true)."),
    "refuses": (
        {
            "description": "Identifiers it is known to refuse, in quotes.",
            "type": "array",
            "items": _identifier("")[0],
        },
        _refused,
    ),
    "follow_up": _choice(
        get_args(FollowUp),
        "How further frames are asked for (numbered); whole: the first request's data again.",
    ),
    "signs": _choice(
        get_args(Signs),
        "status_words: power and current have no sign, the status words tell the direction.",
    ),
    "items": (
        {
            "description": "Identifiers with another layout, or that only this model has.",
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["di", "format"],
                "properties": {key: schema for key, (schema, _) in _ITEM.items()},
            },
        },
        _items,
    ),
    "load_records": (
        {
            "description": "How it writes load records.",
            "type": "object",
            "additionalProperties": False,
            "properties": {key: schema for key, (schema, _) in _LOAD.items()},
        },
        _load,
    ),
}
