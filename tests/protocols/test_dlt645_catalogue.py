"""The catalogue of identifiers, and its agreement with the table of quantities."""

import csv
import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dlt645.catalogue import (
    FREEZE_TIME,
    FrozenMember,
    di_of,
    freeze_di,
    freeze_time_di,
    live_points,
    lookup,
)
from protocols.quantities import quantity

TEXT = files("protocols.dlt645").joinpath("catalogue_2007.csv").read_text(encoding="utf-8")
ROWS = list(csv.DictReader(TEXT.splitlines()))

# Load records have their own decoder; of the others the layout is the maker's or the province's.
NOT_DECODED = {"", "A0A0..E5", "block", "security 03H"}


def ends(di: str) -> list[str]:
    """The first and the last identifier of a row."""
    return [re.sub(r"\[(..)-(..)\]", group, di) for group in (r"\1", r"\2")]


def test_every_row_is_found_at_both_ends_of_its_range() -> None:
    assert len(ROWS) == 788
    for row in ROWS:
        for di in ends(row["di"]):
            item = lookup(di)
            assert item is not None, di
            assert (item.di, item.format, item.unit) == (di, row["format"], row["unit"])
            assert item.signed == (row["signed"] == "1")


def test_every_layout_is_known_or_named_here_as_unknown() -> None:
    for row in ROWS:
        item = lookup(ends(row["di"])[0])
        assert item is not None
        assert (item.layout is None) == (row["format"] in NOT_DECODED), row["di"]
        if item.layout is not None and row["length"].isdigit():
            assert item.length == int(row["length"])
        if item.layout is not None and ("*(" in row["length"] or ".." in row["length"]):
            assert item.length is None


def test_no_identifier_belongs_to_two_rows() -> None:
    seen: dict[str, str] = {}
    for row in ROWS:
        for di in ends(row["di"]):
            item = lookup(di)
            assert item is not None
            assert seen.setdefault(di, row["name_en"]) == row["name_en"]


@pytest.mark.parametrize(
    "di", ["00014000", "0001FE00", "FF010000", "", "0001", "0001000g", "0001000000"]
)
def test_what_is_not_in_the_catalogue_is_not_found(di: str) -> None:
    assert lookup(di) is None


@given(st.text(max_size=10))
def test_looking_up_never_breaks(di: str) -> None:
    item = lookup(di)
    assert item is None or item.di == di.upper()


def test_a_range_row_speaks_of_the_one_identifier() -> None:
    seventh = lookup("00010700")
    assert seventh is not None
    assert seventh.point == "active_import_t7"
    assert seventh.name_en.endswith("tariff 7")
    assert "费率7" in seventh.name_zh
    past = lookup("00010B03")
    assert past is not None
    assert (past.point, past.snapshot, past.snapshot_nth) == (None, "settlement", 3)
    assert past.name_en == "forward active (import) energy tariff 11 at previous settlement 3"
    assert past.name_zh == "(上3结算日)正向有功费率11电能"
    frozen = lookup("05060102")
    assert frozen is not None
    assert (frozen.snapshot, frozen.snapshot_nth) == ("daily_freeze", 2)
    assert frozen.name_en == "daily freeze 2nd last: forward active energy"


def test_the_sign_comes_from_the_table() -> None:
    signed = {di: item.signed for di in ("00000000", "00010000", "00020000", "02020100",
              "02030000", "02060000", "02010100", "02800002", "05060101", "05060301")
              if (item := lookup(di)) is not None}  # fmt: skip
    assert signed == {
        "00000000": True,
        "00010000": False,
        "00020000": False,
        "02020100": True,
        "02030000": True,
        "02060000": True,
        "02010100": False,
        "02800002": False,
        "05060101": False,
        "05060301": True,
    }


@pytest.mark.parametrize(
    ("point", "di"),
    [
        ("active_import_total", "00010000"),
        ("active_import_t1", "00010100"),
        ("active_import_t63", "00013F00"),
        ("active_export_total", "00020000"),
        ("active_export_t4", "00020400"),
        ("active_combined_total", "00000000"),
        ("reactive_import_total", "00030000"),
        ("reactive_export_total", "00040000"),
        ("reactive_q1", "00050000"),
        ("reactive_q4_t2", "00080200"),
        ("voltage_a", "02010100"),
        ("voltage_c", "02010300"),
        ("current_b", "02020200"),
        ("current_n", "02800001"),
        ("active_power_total", "02030000"),
        ("active_power_c", "02030300"),
        ("reactive_power_total", "02040000"),
        ("apparent_power_a", "02050100"),
        ("power_factor_total", "02060000"),
        ("frequency", "02800002"),
        ("demand_import_total", "01010000"),
        ("demand_export_t2", "01020200"),
        ("demand_import_a", "01150000"),
        ("active_import_b", "00290000"),
        ("date", "04000101"),
        ("time", "04000102"),
        ("clock", "0400010C"),
    ],
)
def test_a_point_has_its_identifier(point: str, di: str) -> None:
    assert di_of(point) == di
    item = lookup(di)
    assert item is not None
    assert item.point == point


def test_points_and_identifiers_belong_together_one_to_one() -> None:
    points = live_points()
    assert len(set(points.values())) == len(points)
    for point, di in points.items():
        item = lookup(di)
        assert item is not None
        assert item.point == point
        assert item.layout is not None
        assert not item.snapshot
        known = quantity(point)
        assert (known.unit, known.decimals) == (item.unit, item.scale)


def test_every_name_of_a_block_is_a_quantity() -> None:
    for row in ROWS:
        for di in ends(row["di"]):
            item = lookup(di)
            assert item is not None
            for index in range(len(item.points) + 1):
                point = item.point_at(index)
                assert point is None or quantity(point).name == point


def test_a_block_counts_its_tariffs_on() -> None:
    block = lookup("0001FF00")
    assert block is not None
    assert [block.point_at(n) for n in (0, 1, 2, 63)] == [
        "active_import_total",
        "active_import_t1",
        "active_import_t2",
        "active_import_t63",
    ]
    voltages = lookup("0201FF00")
    assert voltages is not None
    assert [voltages.point_at(n) for n in range(4)] == ["voltage_a", "voltage_b", "voltage_c", None]


def test_a_point_without_identifier_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="active_import_total"):
        di_of("active_imprt_total")
    with pytest.raises(KeyError, match="no identifier"):
        di_of("freeze_time")


@pytest.mark.parametrize(
    ("point", "nth", "di", "index"),
    [
        (FREEZE_TIME, 1, "05060001", 0),
        ("active_import_total", 1, "05060101", 0),
        ("active_import_t1", 1, "05060101", 1),
        ("active_import_t63", 1, "05060101", 63),
        ("active_export_total", 62, "0506023E", 0),
        ("active_export_t2", 3, "05060203", 2),
        ("reactive_q2", 1, "05060601", 0),
        ("demand_import_total", 1, "05060901", 0),
        ("demand_import_t1", 1, "05060901", 2),  # each demand has its time behind it
        ("active_power_b", 1, "05061001", 2),
        ("reactive_power_total", 1, "05061001", 4),
    ],
)
def test_a_frozen_point_has_its_place(point: str, nth: int, di: str, index: int) -> None:
    assert freeze_di(point, nth) == FrozenMember(di, index)
    item = lookup(di)
    assert item is not None
    assert item.snapshot == "daily_freeze"


def test_the_time_of_a_freeze_goes_with_it() -> None:
    assert freeze_time_di() == "05060001"
    assert freeze_time_di(12, "timed_freeze") == "0500000C"
    assert freeze_di("active_import_total", 1, "hourly_freeze") == FrozenMember("05040101", 0)


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("voltage_a", 1),
        ("active_import_total", 0),
        ("active_import_total", 63),
        ("active_import_total", -1),
        ("active_import_total", 256),
        ("active_import_t64", 1),
        ("nothing", 1),
    ],
)
def test_what_is_not_frozen_is_an_error(point: str, nth: int) -> None:
    with pytest.raises(KeyError):
        freeze_di(point, nth)
