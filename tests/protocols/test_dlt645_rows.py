"""Every row of the catalogues of both editions: decoded, built again, declared, named."""

import csv
import re
from importlib.resources import files
from random import Random

import pytest
from dlt645_values import random_value

from protocols.dlt645.catalogue import Item, di_of, live_blocks, live_points, lookup
from protocols.dlt645.declared import decode_declared
from protocols.dlt645.formats import OperatorCode
from protocols.dlt645.items import decode, encode
from protocols.errors import BadContent, LocalProtocolError
from protocols.quantities import quantity


def rows(name: str) -> list[dict[str, str]]:
    text = files("protocols.dlt645").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


ROWS = rows("catalogue_2007.csv") + rows("catalogue_1997.csv")
ROWS_1997 = rows("catalogue_1997.csv")


def item_of(row: dict[str, str]) -> Item:
    """The item of the first identifier of a row."""
    found = lookup(re.sub(r"\[(..)-..\]", r"\1", row["di"]))
    assert found is not None
    return found


ITEMS = [item_of(row) for row in ROWS]
DECODABLE = [item for item in ITEMS if item.layout is not None]


def test_every_row_gives_back_what_was_put_into_it() -> None:
    random = Random(2007)
    for item in DECODABLE:
        layout = item.layout
        assert layout is not None
        for _ in range(3):
            rounds = random.randint(layout.rounds_min, min(layout.rounds_max, 5))
            values = tuple(random_value(field, random) for field in layout.fields * rounds)
            payload = encode(item, *values)
            assert decode(item, payload) == values, item.di
            assert decode_declared(item, payload) == values, item.di


def test_every_row_takes_random_bytes_as_the_declaration_does() -> None:
    random = Random(645)
    for item in DECODABLE:
        layout = item.layout
        assert layout is not None
        size = layout.round_bytes * layout.rounds_min
        for _ in range(3):
            payload = bytes(
                random.choice((random.randrange(256), int(f"{random.randrange(100):02d}", 16)))
                for _ in range(size)
            )
            assert outcome(decode, item, payload) == outcome(decode_declared, item, payload)


def outcome(reader: object, item: Item, payload: bytes) -> object:
    try:
        return reader(item, payload)  # type: ignore[operator]
    except BadContent:
        return "bad"


@pytest.mark.parametrize("filler", [0xFF, 0xEE])
def test_bytes_of_nothing_are_no_value_in_every_row(filler: int) -> None:
    for item in DECODABLE:
        layout = item.layout
        assert layout is not None
        payload = bytes((filler,)) * (layout.round_bytes * layout.rounds_min)
        for field, value in zip(layout.fields, decode(item, payload), strict=False):
            # Words and codes have no digits that could be none.
            assert value is None or field.kind in ("bits", "operator")


def test_every_row_has_its_names_in_both_languages() -> None:
    for row, item in zip(ROWS, ITEMS, strict=True):
        assert re.search("[\u4e00-\u9fff]", item.name_zh), row["di"]
        assert re.fullmatch("[ -~]+", item.name_en), row["di"]
        for field in item.layout.fields if item.is_record and item.layout else ():
            assert re.search("[\u4e00-\u9fff]", field.name_zh)
            assert re.fullmatch("[ -~]+", field.name_en)
            assert "{" not in field.name_zh + field.name_en


def test_a_record_says_what_each_of_its_members_is() -> None:
    record = lookup("03010102")
    assert record is not None
    assert record.layout is not None
    names = [field.name_en for field in record.layout.fields]
    assert len(names) == len(set(names)) == 39 - 2
    assert names[:3] == ["start", "end", "increment of active import total"]
    assert record.layout.length == 131
    counters = lookup("03010000")
    assert counters is not None
    assert counters.layout is not None
    assert [field.unit for field in counters.layout.fields] == ["times", "min"] * 3


def test_an_operator_code_shows_only_stars_and_is_given_back() -> None:
    record = lookup("03300301")
    assert record is not None
    payload = bytes.fromhex("555321241126" + "44332211" + "FFFFFFFF")
    _, code, cleared = decode(record, payload)
    assert isinstance(code, OperatorCode)
    assert (str(code), f"{code}", code.digits) == ("********", "********", "11223344")
    assert "11223344" not in repr(decode(record, payload))
    assert cleared == "FFFFFFFF"
    assert encode(record, *decode(record, payload)) == payload
    assert code != OperatorCode("11223345")
    assert code != "********"


@pytest.mark.parametrize(
    ("di", "payload", "value"),
    [
        ("04000A01", "55231124", "bad_date"),
        ("04000A01", "55232411", "11-24 23:55"),
        ("04000B01", "0001", "01 00"),
        ("04000B01", "9999", "99 99"),
        ("04030001", "0224112A", "bad_date"),
        ("04030001", "02241126", "26-11-24 02"),
        ("C510", "55232411", "11-24 23:55"),
        ("B010", "00000000", None),
        ("B010", "EEEEEEEE", None),
        ("C321", "020311", "11-03 02"),
        ("04000A01", "60232411", "bad_date"),
        ("04000A01", "55252411", "bad_date"),
        ("04000A01", "55233211", "bad_date"),
        ("04000A01", "55232413", "bad_date"),
    ],
)  # fmt: skip
def test_a_time_that_is_not_whole_is_a_text(di: str, payload: str, value: str | None) -> None:
    item = lookup(di)
    assert item is not None
    if value == "bad_date":
        with pytest.raises(BadContent) as caught:
            decode(item, bytes.fromhex(payload))
        assert caught.value.code in ("bad_date", "not_bcd")
        return
    assert decode(item, bytes.fromhex(payload)) == (value,)


def test_a_text_that_is_no_such_time_is_not_built() -> None:
    item = lookup("04000A01")
    assert item is not None
    for text in ("24-11 23:55", "11-24 2355", "", "xx-11 23:55", "11-24 23:55 01"):
        with pytest.raises(LocalProtocolError):
            encode(item, text)


def test_a_screen_names_an_identifier_and_perhaps_a_part() -> None:
    item = lookup("04040101")
    assert item is not None
    assert item.length is None
    assert decode(item, bytes.fromhex("00000100")) == ("00010000",)
    assert [str(v) for v in decode(item, bytes.fromhex("0000010001"))] == ["00010000", "1"]
    assert encode(item, "00010000") == bytes.fromhex("00000100")
    assert encode(item, *decode(item, bytes.fromhex("0000010001"))) == bytes.fromhex("0000010001")
    for payload in ("000001", "000001000102", ""):
        with pytest.raises(BadContent):
            decode(item, bytes.fromhex(payload))


# -- the 1997 edition


@pytest.mark.parametrize(
    ("point", "di"),
    [
        ("active_import_total", "9010"),
        ("active_import_t14", "901E"),
        ("active_export_t2", "9022"),
        ("reactive_import_total", "9110"),
        ("reactive_q1", "9130"),
        ("reactive_q4", "9140"),
        ("reactive_q2", "9150"),
        ("reactive_q3_t1", "9161"),
        ("demand_import_total", "A010"),
        ("demand_reactive_export_total", "A120"),
        ("voltage_b", "B612"),
        ("current_c", "B623"),
        ("voltage_ca", "B693"),
        ("date", "C010"),
        ("time", "C011"),
    ],
)
def test_a_point_has_its_identifier_in_the_old_edition(point: str, di: str) -> None:
    assert di_of(point, "dlt645-1997") == di
    item = lookup(di)
    assert item is not None
    assert (item.point, item.edition) == (point, "dlt645-1997")


def test_points_of_the_old_edition_have_their_units() -> None:
    points = live_points("dlt645-1997")
    assert len(set(points.values())) == len(points) > 140
    for point, di in points.items():
        item = lookup(di)
        assert item is not None
        assert quantity(point).unit == item.unit
        # Fewer decimals than in the new edition, never more.
        assert item.scale <= quantity(point).decimals


def test_the_old_edition_has_no_identifier_for_what_it_does_not_know() -> None:
    for point in ("frequency", "apparent_power_total", "clock"):
        with pytest.raises(KeyError, match="DL/T 645-1997"):
            di_of(point, "dlt645-1997")


def test_records_of_the_past_in_the_old_edition() -> None:
    for di, nth in (("9410", 1), ("981E", 2), ("A410", 1)):
        item = lookup(di)
        assert item is not None
        assert (item.point, item.snapshot, item.snapshot_nth) == (None, "settlement", nth)
    tariff = lookup("9412")
    assert tariff is not None
    assert tariff.name_en.endswith("tariff 2")
    assert tariff.name_zh.endswith("费率2电能")
    slot = lookup("C333")
    assert slot is not None
    assert (slot.name_zh, slot.name_en) == (
        "第1日时段表第3时段起始时间及费率号", "day table 1 slot 3: start and tariff",
    )  # fmt: skip


def test_no_identifier_of_the_old_edition_belongs_to_two_rows() -> None:
    seen: dict[str, str] = {}
    for row in ROWS_1997:
        found = re.fullmatch(r"(..)\[(..)-(..)\]", row["di"])
        dis = [row["di"]] if found is None else [
            f"{found[1]}{n:02X}" for n in range(int(found[2], 16), int(found[3], 16) + 1)
        ]  # fmt: skip
        for di in dis:
            assert di not in seen
            seen[di] = row["di"]
            assert lookup(di) is not None


def test_blocks_name_the_points_they_give() -> None:
    blocks = live_blocks()
    assert blocks["0201FF00"] == ("voltage_a", "voltage_b", "voltage_c")
    assert blocks["0001FF00"][:2] == ("active_import_total", "active_import_t1")
    assert len(blocks["0001FF00"]) == 64
    assert blocks["0101FF00"][1] == "demand_import_t1"
    assert "05060101" not in blocks
    assert live_blocks("dlt645-1997")["B61F"] == ("voltage_a", "voltage_b", "voltage_c")
    for edition in ("dlt645-2007", "dlt645-1997"):
        single = live_points(edition)
        for points in live_blocks(edition).values():
            assert all(quantity(point).name == point for point in points)
            assert points[0] in single
