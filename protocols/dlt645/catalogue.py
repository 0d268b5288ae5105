"""What each data identifier of DL/T 645 is: the tables of both editions, looked up.

An identifier of eight hex digits is of the 2007 edition, one of four of the 1997 edition.

A row may stand for a range (`0001[05-3F]00`); `lookup` gives the item of one identifier. Columns:
`format` is what `formats.make_layout` reads, or `record:NAME` of `records_2007.csv`, where each
member has a name of its own; `point` names the members (templates: `{tariff}` is the tariff the
identifier names, `{k}` counts on from 1); `snapshot` says which record of the past the item belongs
to (empty = live, `kind:n` = always the n-th last); with `verified` 0 the layout was not seen in a
source that can be relied on. A table is read when an identifier of its edition is first looked up.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files

from protocols.dlt645.fields import Field, field_of
from protocols.dlt645.formats import TARIFFS_MAX, Layout, layout_of, make_layout
from protocols.dlt645.functions import Edition

DAILY_FREEZE = "daily_freeze"
FREEZE_TIME = "freeze_time"
DIGITS_2007, DIGITS_1997 = 8, 4
_LOOKUPS_KEPT = 4096
_RECORD = "record:"
_NAME_OF: dict[Edition, str] = {
    "dlt645-2007": "DL/T 645-2007",
    "dlt645-1997": "DL/T 645-1997",
}
_SETTLEMENT = "settlement"


@dataclass(frozen=True, slots=True)
class Item:
    """One data identifier. `di` is hex digits, high byte first, as people write it: eight of the
    2007 edition, four of the 1997 edition.

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

    @property
    def edition(self) -> Edition:
        """The edition that has this identifier."""
        return "dlt645-2007" if len(self.di) == DIGITS_2007 else "dlt645-1997"

    @property
    def is_record(self) -> bool:
        """Whether its members have names of their own (`layout.fields`)."""
        return self.format.startswith(_RECORD)

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
    ranges: tuple[range, ...]  # of the bytes of the identifier
    text: dict[str, str]

    def covers(self, di: str) -> bool:
        """Whether the row speaks of this identifier."""
        return all(
            int(di[2 * at : 2 * at + 2], 16) in values for at, values in enumerate(self.ranges)
        )


def lookup(di: str) -> Item | None:
    """The item of an identifier of eight or four hex digits; None when the catalogue has none."""
    return _lookup(di)


def di_of(point: str, edition: Edition = "dlt645-2007") -> str:
    """The identifier of the live register of a point; KeyError naming the nearest point."""
    try:
        return _live_points(edition)[point]
    except KeyError:
        raise _unknown(point, _live_points(edition), edition) from None


def live_points(edition: Edition = "dlt645-2007") -> dict[str, str]:
    """Every point with a live register of its own, and its identifier."""
    return dict(_live_points(edition))


@cache
def live_blocks(edition: Edition = "dlt645-2007") -> dict[str, tuple[str, ...]]:
    """Every identifier that gives several live points in one reply, and their names.

    Of a block whose number of tariffs is the meter's choice those of all tariffs there can be.
    """
    found: dict[str, tuple[str, ...]] = {}
    for row in _all_rows(edition):
        names = row.text["point"].split()
        if len(names) < 2 or row.text["snapshot"] or "[" in row.text["di"]:
            continue
        item = lookup(row.text["di"])
        if item is None or item.layout is None:
            continue
        layout = item.layout
        numbers = sum(field.kind == "number" for field in layout.fields) * layout.rounds_max
        points = (item.point_at(index) for index in range(numbers))
        found[item.di] = tuple(point for point in points if point is not None)
    return found


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
        raise _unknown(point, places, "dlt645-2007")
    prefix, number, _ = places[key]
    di = f"{prefix}{nth:02X}"
    item = lookup(di) if 1 <= nth <= 0xFF else None
    if item is None or item.layout is None or tariff > TARIFFS_MAX:
        msg = f"there is no {kind} number {nth} of {point}"
        raise KeyError(msg)
    if key != point:
        number += tariff - 1
    return FrozenMember(di, item.layout.number_position(number))


def _unknown(point: str, known: Iterable[str], edition: Edition) -> KeyError:
    near = get_close_matches(point, known, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return KeyError(f"{_NAME_OF[edition]} has no identifier for the point {point!r}{hint}")


def _split_tariff(point: str) -> tuple[str, int]:
    """`active_import_t3` -> (`active_import_t{k}`, 3)."""
    found = re.fullmatch(r"(.*_t)([1-9][0-9]?)", point)
    return (found[1] + "{k}", int(found[2])) if found else (point, 0)


@cache
def _rows(digits: int) -> tuple[dict[str, _Row], dict[str, tuple[_Row, ...]]]:
    """Of the edition with so many digits: exact rows by identifier, ranges by how they begin."""
    exact: dict[str, _Row] = {}
    ranges: dict[str, list[_Row]] = {}
    for line in _table("catalogue_2007.csv" if digits == DIGITS_2007 else "catalogue_1997.csv"):
        di = line["di"]
        row = _Row(_ranges(di), line)
        if "[" in di:
            ranges.setdefault(_beginning(di), []).append(row)
        else:
            exact[di] = row
    return exact, {first: tuple(rows) for first, rows in ranges.items()}


def _beginning(di: str) -> str:
    """What every identifier of a range row begins with, of its first two bytes."""
    return di[: di.index("[")][:4] if "[" in di[:4] else di[:4]


def _table(name: str) -> Iterator[dict[str, str]]:
    text = files("protocols.dlt645").joinpath(name).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _all_rows(edition: Edition) -> Iterator[_Row]:
    exact, ranges = _rows(DIGITS_2007 if edition == "dlt645-2007" else DIGITS_1997)
    yield from exact.values()
    for rows in ranges.values():
        yield from rows


@cache
def _record_layouts() -> dict[str, Layout]:
    """The layouts of `records_2007.csv`, by name."""
    fields: dict[str, list[Field]] = {}
    for line in _table("records_2007.csv"):
        plain = field_of(line["format"], signed=line["signed"] == "1")
        if plain is None:
            msg = f"records_2007.csv: {line['format']} of {line['record']} is no format"
            raise ValueError(msg)
        fields.setdefault(line["record"], []).extend(
            replace(
                plain,
                name_en=line["name_en"].replace("{n}", str(n)),
                name_zh=line["name_zh"].replace("{n}", str(n)),
                unit=line["unit"],
            )
            for n in range(1, int(line["times"] or 1) + 1)
        )
    return {name: layout_of(tuple(members)) for name, members in fields.items()}


def _ranges(di: str) -> tuple[range, ...]:
    """The values of each byte of a row's identifier; `[05-3F]` stands for a range of them."""
    found = re.findall(r"\[(..)-(..)\]|(..)", di)
    return tuple(
        range(int(first or one, 16), int(last or one, 16) + 1) for first, last, one in found
    )


@lru_cache(maxsize=_LOOKUPS_KEPT)
def _lookup(di: str) -> Item | None:
    if not re.fullmatch(r"([0-9A-Fa-f]{4}){1,2}", di):
        return None
    di = di.upper()
    exact, ranges = _rows(len(di))
    row = exact.get(di)
    if row is not None:
        return _item(di, row)
    for beginning in (di[:4], di[:2]):
        for candidate in ranges.get(beginning, ()):
            if candidate.covers(di):
                return _item(di, candidate)
    return None


def _item(di: str, row: _Row) -> Item:
    text = row.text
    scale, signed = int(text["scale"]), text["signed"] == "1"
    layout, length = _layout_and_length(text, signed=signed)
    tariff = str(_tariff(di))
    points = tuple(name.replace("{tariff}", tariff) for name in text["point"].split())
    snapshot, nth = _snapshot(di, text["snapshot"])
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
        snapshot_nth=nth,
        verified=text["verified"] == "1",
        block_members=text["block_members"],
        points=points,
        layout=layout,
    )


def _layout_and_length(text: dict[str, str], *, signed: bool) -> tuple[Layout | None, int | None]:
    length = int(text["length"]) if text["length"].isdigit() else None
    if text["format"].startswith(_RECORD):
        record = _record_layouts()[text["format"].removeprefix(_RECORD)]
        if record.length != length:
            msg = f"{text['di']} has {length} bytes, its record {record.length}"
            raise ValueError(msg)
        return record, length
    layout = _layout(text["format"], text["length"], signed)
    return layout, length if layout is None else layout.length


@cache
def _layout(text: str, length: str, signed: bool) -> Layout | None:
    """Items of one format share their layout."""
    return make_layout(text, length, signed=signed)


def _snapshot(di: str, text: str) -> tuple[str | None, int | None]:
    """The kind of record of the past, and which; the last byte of a settlement 00 is now."""
    kind, _, fixed = text.partition(":")
    nth = int(fixed) if fixed else int(di[-2:], 16)
    if not kind or (kind == _SETTLEMENT and nth == 0):
        return None, None
    return kind, nth


def _tariff(di: str) -> int:
    """The tariff that an energy or demand identifier names."""
    return int(di[4:6], 16) if len(di) == DIGITS_2007 else int(di[3], 16)


def _one_name(name: str, row: _Row, di: str) -> str:
    """The name of a range row, said of one identifier: `tariffs 5..63` -> `tariff 7`."""
    text = row.text["di"]
    if text == di:
        return name
    if len(di) == DIGITS_1997:
        number = int(di[3], 16)
        name = re.sub(r"\b(tariff|slot|zone|holiday) n\b", rf"\1 {number}", name)
        return re.sub("费率1~14|第n", lambda found: f"{found[0][:-1].rstrip('1~')}{number}", name)
    di1, di0 = int(di[4:6], 16), int(di[6:8], 16)
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
def _live_points(edition: Edition) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in _all_rows(edition):
        names = row.text["point"].split()
        if len(names) != 1 or row.text["snapshot"] not in ("", _SETTLEMENT):
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
    is_2007 = len(re.sub(r"\[(..)-..\]", r"\1", di)) == DIGITS_2007
    if is_2007 and not di.endswith(("00", "[00-0C]")):
        return []
    di = di.replace("[00-0C]", "00")
    found = re.fullmatch(r"(.*)\[(..)-(..)\](.*)", di)
    if found is None:
        return [di]
    if "[" in found[1]:
        return []
    first, last = int(found[2], 16), int(found[3], 16)
    return [f"{found[1]}{value:02X}{found[4]}" for value in range(first, last + 1)]


@cache
def _snapshot_points(kind: str) -> dict[str, tuple[str, int, bool]]:
    """Point (template) -> first six digits of its item, member index, counted by tariff."""
    found: dict[str, tuple[str, int, bool]] = {}
    for row in _all_rows("dlt645-2007"):
        if row.text["snapshot"] != kind or "[" in row.text["di"][:6]:
            continue
        for index, name in enumerate(row.text["point"].split()):
            if "{tariff}" not in name:
                found.setdefault(name, (row.text["di"][:6], index, "{k}" in name))
    return found
