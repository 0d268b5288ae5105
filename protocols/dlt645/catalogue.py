"""What each data identifier of DL/T 645-2007 is: the table `catalogue_2007.csv`, looked up.

A row may stand for a range (`0001[05-3F]00`); `lookup` gives the item of one identifier. Columns:
`point` names the members (templates: `{tariff}` is the tariff the identifier names, `{k}` counts
on from 1), `snapshot` says which record of the past the item belongs to (empty = live), with
`verified` 0 the layout was not seen in a source that can be relied on.
"""

import csv
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files

from protocols.dlt645.formats import TARIFFS_MAX, Layout, make_layout

DAILY_FREEZE = "daily_freeze"
FREEZE_TIME = "freeze_time"
_LOOKUPS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Item:
    """One data identifier. `di` is eight hex digits, high byte first, as people write it.

    `length`: payload bytes, None when the meter decides (blocks with any number of tariffs).
    `unit` and `scale` are those of the numbers in it; `units` of each of its members in one round.
    `point` is the name of the single live quantity it holds, None for blocks, records of the past
    and what has no name. `snapshot` names the kind of record of the past (`settlement`,
    `daily_freeze`, ...) and `snapshot_nth` which one, counted from the last. `layout` None = known
    by name only, its payload is not decoded.
    """

    di: str
    name_zh: str
    name_en: str
    length: int | None
    format: str
    unit: str
    scale: int
    signed: bool
    access: str
    point: str | None
    snapshot: str | None
    snapshot_nth: int | None
    verified: bool
    block_members: str
    points: tuple[str, ...] = ()
    layout: Layout | None = field(default=None, repr=False, compare=False)

    def point_at(self, index: int) -> str | None:
        """The quantity of the numeric member `index` (members without a number not counted)."""
        if index < len(self.points) and "{k}" not in self.points[index]:
            return self.points[index]
        if self.points and "{k}" in self.points[-1]:
            return self.points[-1].replace("{k}", str(index - len(self.points) + 2))
        return None


@dataclass(frozen=True, slots=True)
class FrozenMember:
    """Where a quantity stands in a frozen record: entry `index` of what `decode` gives of `di`."""

    di: str
    index: int


@dataclass(frozen=True, slots=True)
class _Row:
    ranges: tuple[range, ...]  # of the four bytes of the identifier
    text: dict[str, str]

    def covers(self, di: str) -> bool:
        """Whether the row speaks of this identifier."""
        return all(
            int(di[at : at + 2], 16) in values
            for at, values in zip((0, 2, 4, 6), self.ranges, strict=True)
        )


def lookup(di: str) -> Item | None:
    """The item of an identifier of eight hex digits; None when the catalogue has none."""
    return _lookup(di)


def di_of(point: str) -> str:
    """The identifier of the live register of a point; KeyError naming the nearest point."""
    try:
        return _live_points()[point]
    except KeyError:
        raise _unknown(point, _live_points()) from None


def live_points() -> dict[str, str]:
    """Every point with a live register of its own, and its identifier."""
    return dict(_live_points())


def freeze_time_di(nth: int = 1, kind: str = DAILY_FREEZE) -> str:
    """The identifier of the time of the `nth` last record of a kind (1 = the newest)."""
    return freeze_di(FREEZE_TIME, nth, kind).di


def freeze_di(point: str, nth: int = 1, kind: str = DAILY_FREEZE) -> FrozenMember:
    """Where a point stands in the `nth` last record of a kind; KeyError when it does not.

    The number is always counted back from now: read the record's own time together with it.
    """
    places = _snapshot_points(kind)
    name, tariff = _split_tariff(point)
    key = point if point in places else name
    if key not in places or (key != point and not places[key][2]):
        raise _unknown(point, places)
    prefix, number, _ = places[key]
    di = f"{prefix}{nth:02X}"
    item = lookup(di) if 1 <= nth <= 0xFF else None
    if item is None or item.layout is None or tariff > TARIFFS_MAX:
        msg = f"there is no {kind} number {nth} of {point}"
        raise KeyError(msg)
    if key != point:
        number += tariff - 1
    return FrozenMember(di, item.layout.number_position(number))


def _unknown(point: str, known: "dict[str, str] | dict[str, tuple[str, int, bool]]") -> KeyError:
    near = get_close_matches(point, known, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return KeyError(f"DL/T 645-2007 has no identifier for the point {point!r}{hint}")


def _split_tariff(point: str) -> tuple[str, int]:
    """`active_import_t3` -> (`active_import_t{k}`, 3)."""
    found = re.fullmatch(r"(.*_t)([1-9][0-9]?)", point)
    return (found[1] + "{k}", int(found[2])) if found else (point, 0)


@cache
def _rows() -> tuple[dict[str, _Row], dict[str, tuple[_Row, ...]]]:
    """Exact rows by identifier, and range rows by their first byte."""
    exact: dict[str, _Row] = {}
    ranges: dict[str, list[_Row]] = {}
    text = files("protocols.dlt645").joinpath("catalogue_2007.csv").read_text(encoding="utf-8")
    for line in csv.DictReader(text.splitlines()):
        di = line["di"]
        row = _Row(_ranges(di), line)
        if "[" in di:
            ranges.setdefault(di[:2], []).append(row)
        else:
            exact[di] = row
    return exact, {first: tuple(rows) for first, rows in ranges.items()}


def _ranges(di: str) -> tuple[range, ...]:
    """The values of each byte of a row's identifier; `[05-3F]` stands for a range of them."""
    found = re.findall(r"\[(..)-(..)\]|(..)", di)
    return tuple(
        range(int(first or one, 16), int(last or one, 16) + 1) for first, last, one in found
    )


@lru_cache(maxsize=_LOOKUPS_KEPT)
def _lookup(di: str) -> Item | None:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}", di):
        return None
    di = di.upper()
    exact, ranges = _rows()
    row = exact.get(di)
    if row is not None:
        return _item(di, row)
    for candidate in ranges.get(di[:2], ()):
        if candidate.covers(di):
            return _item(di, candidate)
    return None


def _item(di: str, row: _Row) -> Item:
    text = row.text
    scale, signed = int(text["scale"]), text["signed"] == "1"
    layout = make_layout(text["format"], text["length"], signed=signed)
    length = int(text["length"]) if text["length"].isdigit() else None
    if layout is not None:
        length = layout.length
    tariff = str(int(di[4:6], 16))
    points = tuple(name.replace("{tariff}", tariff) for name in text["point"].split())
    nth = int(di[6:8], 16)
    snapshot = text["snapshot"] or None
    if snapshot == "settlement" and nth == 0:
        snapshot = None
    single = len(points) == 1 and snapshot is None and (layout is None or layout.rounds_max == 1)
    return Item(
        di=di,
        name_zh=_one_name(text["name_zh"], row, di),
        name_en=_one_name(text["name_en"], row, di),
        length=length,
        format=text["format"],
        unit=text["unit"],
        scale=scale,
        signed=signed,
        access=text["access"],
        point=points[0] if single else None,
        snapshot=snapshot,
        snapshot_nth=nth if snapshot else None,
        verified=text["verified"] == "1",
        block_members=text["block_members"],
        points=points,
        layout=layout,
    )


def _one_name(name: str, row: _Row, di: str) -> str:
    """The name of a range row, said of one identifier: `tariffs 5..63` -> `tariff 7`."""
    di1, di0 = int(di[4:6], 16), int(di[6:8], 16)
    text = row.text["di"]
    if text == di:
        return name
    if text[4:5] == "[":
        name = re.sub(r"tariffs? (?:n|5\.\.63)", f"tariff {di1}", name)
        name = re.sub("费率(?:5~63)?(?=电能|最大)", f"费率{di1}", name)
    name = re.sub(r"settlement 1\.\.12", f"settlement {di0}", name)
    name = re.sub(r"上1~12结算日", f"上{di0}结算日", name)
    name = re.sub(r"n-th last", _nth_last(di0), name)
    name = name.replace("上n次", f"上{di0}次")
    if di0 == 0:
        name = name.replace(", current/settlement", ", current")
    else:
        name = name.replace(", current/settlement", f", previous settlement {di0}")
    return name


def _nth_last(nth: int) -> str:
    if nth == 1:
        return "last"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(nth % 10 if nth % 100 not in (11, 12, 13) else 0, "th")
    return f"{nth}{ending} last"


@cache
def _live_points() -> dict[str, str]:
    found: dict[str, str] = {}
    exact, ranges = _rows()
    for row in [*exact.values(), *(row for rows in ranges.values() for row in rows)]:
        names = row.text["point"].split()
        if len(names) != 1 or row.text["snapshot"] not in ("", "settlement"):
            continue
        for di in _live_identifiers(row.text["di"]):
            item = lookup(di)
            if item is not None and item.point is not None:
                found[item.point] = di
    return found


def _live_identifiers(di: str) -> list[str]:
    """The identifiers of a row that speak of now: DI0 = 00, or a value of 02 and 04."""
    if "[" not in di:
        return [di]
    if not di.endswith(("00", "[00-0C]")):
        return []
    di = di.replace("[00-0C]", "00")
    found = re.fullmatch(r"(....)\[(..)-(..)\](..)", di)
    if found is None:
        return [di] if "[" not in di else []
    first, last = int(found[2], 16), int(found[3], 16)
    return [f"{found[1]}{value:02X}{found[4]}" for value in range(first, last + 1)]


@cache
def _snapshot_points(kind: str) -> dict[str, tuple[str, int, bool]]:
    """Point (template) -> first six digits of its item, member index, counted by tariff."""
    found: dict[str, tuple[str, int, bool]] = {}
    exact, ranges = _rows()
    for row in [*exact.values(), *(row for rows in ranges.values() for row in rows)]:
        if row.text["snapshot"] != kind or "[" in row.text["di"][:6]:
            continue
        for index, name in enumerate(row.text["point"].split()):
            if "{tariff}" not in name:
                found.setdefault(name, (row.text["di"][:6], index, "{k}" in name))
    return found
