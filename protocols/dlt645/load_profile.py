"""Load records (06xxxxxx): what is asked, the records of a reply, and the meter's side of both.

A record is `A0 A0 | n | time | class 1 AA class 2 AA .. class 6 AA | sum | E5`. A class that is off
is empty and keeps its AA. Makes differ, so a record is cut by the fixed lengths of its classes and
by nothing else: n is counted in several ways and is not used; AA may be data, and in the reply for
one class some meters leave the AA of the empty classes before it out; some count the sum in another
way, so that a wrong one makes a record suspect and loses nothing; some store the year first. Which
make does what is in the flags of a record and in `LoadShape` for the meter's side.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from protocols.bcd import bytes_of, digits_of
from protocols.checksum import sum8
from protocols.dlt645.fields import Field, MeterTime, Value, field_of
from protocols.dlt645.frame import DATA_BYTES_USUAL_MAX, build
from protocols.dlt645.master import DI_BYTES, READ, ReadRequest, di_bytes
from protocols.errors import BadContent, LocalProtocolError

ALL_CLASSES = 0
CLASSES = (1, 2, 3, 4, 5, 6)
COUNT_MAX = 99
Which = Literal["earliest", "from", "latest"]

_WHICH: dict[Which, int] = {"earliest": 0, "from": 1, "latest": 2}
_START, _BAD_START, _SEPARATOR, _END = b"\xa0\xa0", b"\xe0\xe0", 0xAA, 0xE5
_HEAD_BYTES = 8  # start, n, time
_TIME_AT, _TIME_BYTES = 3, 5


def _fields(*parts: tuple[str, str, str, bool]) -> tuple[tuple[str, str, Field], ...]:
    found = []
    for point, unit, form, signed in parts:
        one = field_of(form, signed=signed)
        assert one is not None
        found.append((point, unit, one))
    return tuple(found)


_PHASES, _WITH_TOTAL = ("a", "b", "c"), ("total", "a", "b", "c")
# What each class holds: point, unit, field.
_MEMBERS: dict[int, tuple[tuple[str, str, Field], ...]] = {
    1: _fields(
        *((f"voltage_{p}", "V", "XXX.X", False) for p in _PHASES),
        *((f"current_{p}", "A", "XXX.XXX", True) for p in _PHASES),
        ("frequency", "Hz", "XX.XX", False),
    ),
    2: _fields(
        *((f"active_power_{p}", "kW", "XX.XXXX", True) for p in _WITH_TOTAL),
        *((f"reactive_power_{p}", "kvar", "XX.XXXX", True) for p in _WITH_TOTAL),
    ),
    3: _fields(*((f"power_factor_{p}", "", "X.XXX", True) for p in _WITH_TOTAL)),
    4: _fields(
        ("active_import_total", "kWh", "XXXXXX.XX", False),
        ("active_export_total", "kWh", "XXXXXX.XX", False),
        ("reactive_import_total", "kvarh", "XXXXXX.XX", True),
        ("reactive_export_total", "kvarh", "XXXXXX.XX", True),
    ),
    5: _fields(*((f"reactive_q{q}", "kvarh", "XXXXXX.XX", False) for q in (1, 2, 3, 4))),
    6: _fields(("di:02800004", "kW", "XX.XXXX", True), ("di:02800005", "kvar", "XX.XXXX", True)),
}
CLASS_BYTES = {number: sum(f.width for *_, f in rows) for number, rows in _MEMBERS.items()}
CLASS_POINTS = {number: tuple(point for point, *_ in rows) for number, rows in _MEMBERS.items()}


@dataclass(frozen=True, slots=True)
class LoadValue:
    """One value of a record. `value` None = the meter has none.

    `point`: the name of the quantity; `di:` and its identifier where it has none.
    """

    point: str
    unit: str
    value: Value


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """What a meter kept of one instant.

    `time`: as the meter's clock said; None when no order of its bytes is a time. `classes`: the
    values of each class that is in it. `flags`: `bad` (the meter itself says so: there are no
    values then), `checksum` (the sum does not fit), `year_first`, `no_time`, `no_separators` (the
    AA of empty classes are left out), `not_bcd` (a class with impossible digits, left out). A
    record with flags other than `year_first` and `no_separators` is suspect. `raw`: its bytes.
    """

    time: MeterTime | None
    classes: dict[int, tuple[LoadValue, ...]]
    flags: tuple[str, ...] = ()
    raw: bytes = field(default=b"", repr=False)

    @property
    def is_bad(self) -> bool:
        """The meter itself says that this record is damaged."""
        return "bad" in self.flags

    @property
    def is_suspect(self) -> bool:
        """Something in it is not as it should be; the values may still be right."""
        return bool(set(self.flags) - {"year_first", "no_separators"})


@dataclass(frozen=True, slots=True)
class LoadShape:
    """How a make writes its records: the meter's side, and what a profile of a meter says.

    `separators`: `all`; in the reply for one class also `no_leading` (the AA of the empty classes
    before it are left out) or `data_only` (those behind it too). `year_first`: the time is stored
    from the year on. `count`: what n counts, the bytes from the time to the last AA, or the whole
    record.
    """

    separators: Literal["all", "no_leading", "data_only"] = "all"
    year_first: bool = False
    count: Literal["content", "whole"] = "content"


# -- asking


def load_di(number: int, which: Which) -> str:
    """The identifier of the records of one class (1 to 6), or of all classes (0)."""
    if number not in (ALL_CLASSES, *CLASSES):
        raise LocalProtocolError(f"there is no load record class {number}", code="out_of_range")
    return f"06{number:02X}00{_WHICH[which]:02X}"


def class_of(di: str) -> int | None:
    """The class that an identifier asks for, 0 = all; None when it asks for no load records.

    060000FF asks for all in some provinces.
    """
    if len(di) != 8 or not di.startswith("06") or di[4:6] != "00":
        return None
    number = int(di[2:4], 16)
    fits = int(di[6:], 16) in _WHICH.values() or di == "060000FF"
    return number if fits and number in (ALL_CLASSES, *CLASSES) else None


def class_of_point(point: str) -> int | None:
    """The class whose records hold a point; None when none does."""
    return next((number for number, points in CLASS_POINTS.items() if point in points), None)


def interval_di(number: int) -> str:
    """The identifier of the minutes between two records of a class (1 to 6)."""
    if number not in CLASSES:
        raise LocalProtocolError(f"there is no load record class {number}", code="out_of_range")
    return f"04000A{number + 1:02X}"


def load_request(
    address: str,
    number: int,
    *,
    which: Which = "from",
    count: int = 1,
    time: MeterTime | None = None,
    di: str | None = None,
) -> ReadRequest:
    """The request for `count` records of a class: the earliest, the latest, or from `time` on.

    `di` stands in for the standard's identifier. LocalProtocolError when they do not belong
    together.
    """
    if not 1 <= count <= COUNT_MAX:
        raise LocalProtocolError(f"{count} records cannot be asked for", code="out_of_range")
    if (time is not None) != (which == "from"):
        raise LocalProtocolError("a time goes with records from a time on", code="bad_request")
    di = di or load_di(number, which)
    data = di_bytes(di) + bytes_of(f"{count:02d}")
    if time is not None:
        data += _time_bytes(time, year_first=False)
    address = address.upper()
    return ReadRequest(address, di, build(address, READ, data))


def count_in_one_frame(number: int) -> int:
    """How many records of a class fit a reply that does not go on in further frames."""
    return max(1, (DATA_BYTES_USUAL_MAX - DI_BYTES) // record_bytes(number))


def record_bytes(number: int) -> int:
    """Bytes of one record of a class, or of all classes, with all its separators."""
    content = sum(CLASS_BYTES.values()) if number == ALL_CLASSES else CLASS_BYTES[number]
    return _HEAD_BYTES + content + len(CLASSES) + 2


def _time_bytes(time: MeterTime, *, year_first: bool) -> bytes:
    """mm hh DD MM YY as they go out."""
    year = time.date.year - 2000
    if not 0 <= year <= 99:
        raise LocalProtocolError(f"year {time.date.year} has no two digits", code="out_of_range")
    pairs = (year, time.date.month, time.date.day, time.time.hour, time.time.minute)
    raw = bytes_of("".join(f"{pair:02d}" for pair in pairs))
    return raw[::-1] if year_first else raw


# -- reading


def decode_records(payload: bytes, number: int, *, year_first: bool = False) -> list[LoadRecord]:
    """The records in a payload (without identifier), as asked for class `number`, 0 = all.

    `year_first`: the order of a time's bytes that is tried first; in the morning hours both can
    be a time. An empty payload is no record. BadContent(`bad_record`) with the offset of the first
    record that cannot be cut: what is not understood is never shown as a value.
    """
    records: list[LoadRecord] = []
    at = 0
    while at < len(payload):
        record = _record(payload, at, number, year_first=year_first)
        records.append(record)
        at += len(record.raw)
    return records


def _record(payload: bytes, at: int, number: int, *, year_first: bool) -> LoadRecord:
    start = payload[at : at + 2]
    if start not in (_START, _BAD_START) or len(payload) < at + _HEAD_BYTES:
        raise _bad_record(payload, at, "begins with neither A0 A0 nor E0 E0")
    body = at + _HEAD_BYTES
    cuts = _cuts_of_all(payload, body) if number == ALL_CLASSES else _cuts_of_one(number)
    for pieces, size in cuts:
        if _fits(payload, body, pieces, size):
            sum_at = body + size
            sum_fits = sum8(payload[at:sum_at]) == payload[sum_at]
            raw = payload[at : sum_at + 2]
            is_bad = start == _BAD_START
            return _read_record(
                raw, pieces, sum_fits=sum_fits, is_bad=is_bad, year_first=year_first
            )
    raise _bad_record(payload, at, f"is no record of class {number}")


def _bad_record(payload: bytes, at: int, what: str) -> BadContent:
    return BadContent(
        f"the load record at byte {at} {what}", code="bad_record", raw=payload, offset=at
    )


Cut = tuple[list[tuple[int, int]], int]  # (class, place) of each class, and the bytes of all


def _cuts_of_one(number: int) -> list[Cut]:
    """The ways a record with one class is written, the usual one first."""
    before, size = number - 1, CLASS_BYTES[number]
    behind = len(CLASSES) - before
    return [
        ([(number, before)], before + size + behind),
        ([(number, 0)], size + behind),  # the AA before it are left out
        ([(number, 0)], size + 1),  # those behind it too
        ([(number, 0)], size),
    ]


def _cuts_of_all(payload: bytes, body: int) -> list[Cut]:
    """The one way: a class stands there whole, or its AA alone. No number begins with AA."""
    pieces: list[tuple[int, int]] = []
    place = 0
    for number in CLASSES:
        if payload[body + place : body + place + 1] != bytes((_SEPARATOR,)):
            pieces.append((number, place))
            place += CLASS_BYTES[number]
        place += 1
    return [(pieces, place)]


def _fits(payload: bytes, body: int, pieces: list[tuple[int, int]], size: int) -> bool:
    """Whether AA stands where no class is, the end at the end, and the next record behind it."""
    end_at = body + size + 1
    if len(payload) <= end_at or payload[end_at] != _END:
        return False
    behind = payload[end_at + 1 : end_at + 3]
    if behind not in (b"", _START, _BAD_START):
        return False
    taken = {place + at for number, place in pieces for at in range(CLASS_BYTES[number])}
    return all(payload[body + at] == _SEPARATOR for at in range(size) if at not in taken)


def _read_record(
    raw: bytes,
    pieces: list[tuple[int, int]],
    *,
    sum_fits: bool,
    is_bad: bool,
    year_first: bool,
) -> LoadRecord:
    flags: list[str] = []
    time, is_year_first = _time(raw[_TIME_AT : _TIME_AT + _TIME_BYTES], year_first=year_first)
    if is_year_first:
        flags.append("year_first")
    if time is None:
        flags.append("no_time")
    if not sum_fits:
        flags.append("checksum")
    separators = len(raw) - _HEAD_BYTES - 2 - sum(CLASS_BYTES[number] for number, _ in pieces)
    if separators < len(CLASSES):
        flags.append("no_separators")
    if is_bad:
        return LoadRecord(time, {}, (*flags, "bad"), raw)
    classes: dict[int, tuple[LoadValue, ...]] = {}
    for number, place in pieces:
        try:
            classes[number] = _values(number, raw[_HEAD_BYTES + place :])
        except BadContent:
            flags.append("not_bcd")
    return LoadRecord(time, classes, tuple(flags), raw)


def _values(number: int, raw: bytes) -> tuple[LoadValue, ...]:
    values: list[LoadValue] = []
    at = 0
    for point, unit, one in _MEMBERS[number]:
        values.append(LoadValue(point, unit, one.decode(raw[at : at + one.width])))
        at += one.width
    return tuple(values)


def _time(raw: bytes, *, year_first: bool) -> tuple[MeterTime | None, bool]:
    """The time, and whether its bytes begin with the year."""
    for is_year_first in (year_first, not year_first):
        digits = digits_of(raw[::-1] if is_year_first else raw)
        if digits is None:
            continue
        year, month, day, hour, minute = (int(digits[at : at + 2]) for at in range(0, 10, 2))
        try:
            return MeterTime(dt.date(2000 + year, month, day), dt.time(hour, minute)), is_year_first
        except ValueError:
            continue
    return None, False


# -- the meter's side


def encode_record(
    time: MeterTime,
    classes: dict[int, Sequence[Value]],
    *,
    number: int = ALL_CLASSES,
    shape: LoadShape | None = None,
    bad: bool = False,
) -> bytes:
    """A record with these classes, as a reply for class `number` (0 = all) holds it.

    A class that is not given is off. LocalProtocolError when a value does not fit.
    """
    shape = shape or LoadShape()
    content = b""
    leading = True
    for one in CLASSES:
        values = classes.get(one) if number in (ALL_CLASSES, one) else None
        if values is None:
            content += b"" if _left_out(number, shape, leading=leading) else bytes((_SEPARATOR,))
            continue
        leading = False
        members = _MEMBERS[one]
        if len(values) != len(members):
            raise LocalProtocolError(
                f"class {one} has {len(members)} values, not {len(values)}", code="value_count"
            )
        content += b"".join(f.encode(v) for (*_, f), v in zip(members, values, strict=True))
        content += bytes((_SEPARATOR,))
    moment = _time_bytes(time, year_first=shape.year_first)
    size = len(moment) + len(content) + (0 if shape.count == "content" else 5)
    record = (_BAD_START if bad else _START) + bytes((size & 0xFF,)) + moment + content
    return record + bytes((sum8(record), _END))


def _left_out(number: int, shape: LoadShape, *, leading: bool) -> bool:
    """Whether the AA of an empty class is left out."""
    if number == ALL_CLASSES or shape.separators == "all":
        return False
    return leading or shape.separators == "data_only"


# -- what is missing


def times_between(start: MeterTime, end: MeterTime, minutes: int) -> list[MeterTime]:
    """The instants at which records are due, from `start` to before `end`, by the meter's clock.

    They are multiples of the interval counted from midnight. LocalProtocolError when the interval
    divides no day.
    """
    if minutes < 1 or 1440 % minutes:
        raise LocalProtocolError(f"{minutes} minutes divide no day", code="out_of_range")
    first = -(-_minute(start) // minutes) * minutes
    return [_at_minute(minute) for minute in range(first, _minute(end), minutes)]


def _minute(time: MeterTime) -> int:
    """Minutes of the meter's calendar; a started one counts whole."""
    started = 1 if time.time.second or time.time.microsecond else 0
    return time.date.toordinal() * 1440 + time.time.hour * 60 + time.time.minute + started


def _at_minute(minute: int) -> MeterTime:
    day, rest = divmod(minute, 1440)
    return MeterTime(dt.date.fromordinal(day), dt.time(*divmod(rest, 60)))


def missing_times(due: Iterable[MeterTime], records: Iterable[LoadRecord]) -> list[MeterTime]:
    """Those of `due` of which no record came that can be used, in order.

    A record that its meter calls bad is none. What is not there when everything was asked for is a
    hole in the meter.
    """
    there = {record.time for record in records if not record.is_bad}
    return [time for time in due if time not in there]
