"""The load records of one DL/T 645 meter, a stretch of time at a time: what it kept, and its holes.

A walk goes over stretches of time with one request a step, so that whoever walks can keep what came
before the next step, let others onto the line, and begin again where it stopped. Nothing between
the two ends of a step is left untold: an instant has its record, or lies in a gap with a reason.

What makes do differently: how many records a reply holds (the number asked for is a wish), whether
a request for an instant without a record is refused, answered with nothing, or answered with the
next record there is, whether one class can be asked for alone. None of it has to be known before.
"""

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from headend.bus.request import Priority
from headend.domain.clock import to_ms
from headend.domain.due import day_bounds_ms, local_day
from headend.domain.errors import BadReply, Refused
from headend.domain.exchange import Exchange
from headend.drivers.dlt645_item import Ask, ItemReader, Trail
from headend.drivers.second_read import READS_MAX
from protocols.dlt645.fields import MeterTime
from protocols.dlt645.learned import NO_DATA
from protocols.dlt645.load_profile import (
    ALL_CLASSES,
    LoadRecord,
    LoadValue,
    Which,
    decode_records,
    interval_di,
    load_request,
    record_bytes,
)
from protocols.dlt645.master import DI_BYTES
from protocols.dlt645.profile import MeterProfile
from protocols.errors import BadContent, LocalProtocolError

INTERVAL_S_DEFAULT = 900
EMPTY_STEPS_MAX = 8  # where nobody knows how far the records reach
BILLED_CLASSES = frozenset({4, 5, 6})  # registers and demands: read twice where parity is unseen
MINUTE_MS = 60_000
# Why there is no record of an instant.
NO_RECORD = "no_record"  # a hole between records that are there
BEFORE_MEMORY = "before_memory"  # older than the oldest record the meter holds
NOT_RECORDED = "not_recorded"  # newer than its newest one
NO_PROFILE = "no_profile"  # it keeps no records of this class
BAD_RECORD = "bad_record"  # the meter calls it damaged, or its digits are impossible
CLASS_OFF = "class_off"  # a record without this class

Stretch = tuple[int, int]
"""From (inclusive) and to (exclusive), UTC milliseconds."""


class LoadRow(NamedTuple):
    """One record: the instant its meter's clock gave it, and the values of the class.

    `flags`: what is odd about it (see `LoadRecord`); `exchange`: where its bytes came from.
    """

    time_ms: int
    values: tuple[LoadValue, ...]
    flags: tuple[str, ...]
    exchange: Exchange


class LoadGap(NamedTuple):
    """Instants from `from_ms` to before `to_ms` have no record, and why."""

    from_ms: int
    to_ms: int
    reason: str


class LoadStep(NamedTuple):
    """What one step brought, each in order of time."""

    rows: tuple[LoadRow, ...]
    gaps: tuple[LoadGap, ...]


class LoadReader:
    """The load records of one meter, and what it has shown of how it gives them."""

    def __init__(
        self,
        item: ItemReader,
        address: str,
        profile: MeterProfile,
        zone: ZoneInfo,
        *,
        attempts: int,
    ) -> None:
        self.zone = zone
        self._item = item
        self._attempts = attempts
        self._address = address
        self._profile = profile
        self._intervals: dict[int, int] = {}
        self._only_together: set[int] = set()  # classes that it gives with all the others alone
        self._year_first = profile.load.year_first

    @property
    def is_without(self) -> bool:
        """Meters of the old edition have no such records."""
        return self._profile.edition != "dlt645-2007"

    @property
    def has_directions(self) -> bool:
        """Whether power and current come with their sign."""
        return self._profile.signs == "sign_bit"

    def ask(self, priority: Priority, deadline: float | None) -> Ask:
        """How a request is made."""
        return Ask(priority, deadline, self._attempts)

    async def interval_s(
        self,
        number: int,
        *,
        priority: Priority = Priority.BACKFILL,
        deadline: float | None = None,
        default: int = INTERVAL_S_DEFAULT,
    ) -> int:
        """Seconds between two records of a class, as the meter is set; asked once.

        `default` where the meter does not say, or says what divides no day. BusError when it could
        not be asked.
        """
        if number not in self._intervals:
            minutes = 0
            try:
                ask = self.ask(priority, deadline)
                read = await self._item.ask_again(interval_di(number), ask, [])
                minutes = int(str(read.members[0])) if read.members[0] is not None else 0
            except (Refused, BadReply, ValueError):
                minutes = 0
            valid = 1 <= minutes <= 1440 and 1440 % minutes == 0
            self._intervals[number] = minutes * 60 if valid else 0
        return self._intervals[number] or default

    def count_max(self, number: int) -> int:
        """How many records of a class fit one reply, as the meter gives them."""
        asked = ALL_CLASSES if number in self._only_together else number
        return max(1, (self._profile.data_max - DI_BYTES) // record_bytes(asked))

    async def end(self, number: int, which: Which, ask: Ask) -> int | None:
        """The instant of the earliest or latest record. None: the meter does not say.

        A meter that refuses one class alone is asked for all of them from then on.
        """
        records, exchange = await self.records(number, which, 1, None, ask)
        if not records and number not in self._only_together:
            together, exchange = await self.records(
                number, which, 1, None, ask, as_asked=ALL_CLASSES
            )
            if any(number in record.classes for record in together):
                self._only_together.add(number)
                records = together
        if which == "latest" and exchange is not None:
            records = self._in_order(records, number, exchange)
        times = [self.instant(record) for record in records]
        found = [time_ms for time_ms in times if time_ms is not None]
        return found[0] if found else None

    async def records(
        self,
        number: int,
        which: Which,
        count: int,
        at_ms: int | None,
        ask: Ask,
        *,
        as_asked: int | None = None,
    ) -> tuple[list[LoadRecord], Exchange | None]:
        """The records of one reply; none when the meter says that there are none.

        BadReply(`bad_record`) when they cannot be cut. Where parity is unseen, and they hold what
        is billed, asked until two replies in a row are equal.
        """
        asked = as_asked
        if asked is None:
            asked = ALL_CLASSES if number in self._only_together else number
        time = None if at_ms is None else meter_time(at_ms, self.zone)
        di = self._profile.load_all_di if asked == ALL_CLASSES else None
        request = load_request(self._address, asked, which=which, count=count, time=time, di=di)
        twice = number in BILLED_CLASSES
        before: bytes | None = None
        trail: Trail = []
        for _ in range(READS_MAX):
            try:
                payload, exchange = await self._item.records(request, ask, trail)
            except Refused as error:
                if NO_DATA in error.reasons:
                    return [], None
                raise
            is_final = self._item.parity_seen or payload == before
            if is_final or not twice:
                try:
                    return self._cut(payload, asked), exchange
                except BadReply:
                    if is_final:
                        raise  # else a damaged byte may have come unseen
            before = payload
        msg = (
            f"{READS_MAX} reads of load records of meter {self._address} disagree: the line "
            "damages bytes unseen"
        )
        raise BadReply(msg, code="reads_disagree")

    def _cut(self, payload: bytes, asked: int) -> list[LoadRecord]:
        try:
            return decode_records(payload, asked, year_first=self._year_first)
        except BadContent as error:
            raise BadReply(f"meter {self._address}: {error}", code=BAD_RECORD) from error

    def _in_order(
        self, records: list[LoadRecord], number: int, exchange: Exchange
    ) -> list[LoadRecord]:
        """The latest record, with its time's bytes in the order that is nearer to now.

        In the morning hours both orders can be a time, and one of them is years away.
        """
        now_ms = exchange.received_ms
        asked = ALL_CLASSES if number in self._only_together else number
        raw = b"".join(record.raw for record in records)
        others = decode_records(raw, asked, year_first=not self._year_first)
        if self._away_ms(others, now_ms) < self._away_ms(records, now_ms):
            self._year_first = not self._year_first
            return others
        return records

    def _away_ms(self, records: Sequence[LoadRecord], now_ms: int) -> int:
        times = [self.instant(record) for record in records]
        return min((abs(now_ms - at) for at in times if at is not None), default=now_ms)

    def instant(self, record: LoadRecord) -> int | None:
        """When a record is of, by its meter's clock; None when it does not say."""
        return None if record.time is None else to_ms(record.time.at(self.zone))


class LoadWalk:
    """One way through stretches of time, oldest first: `step` until `is_done`.

    A step that raised (the meter is silent, the line is gone) has changed nothing and can be made
    again. `stretches` are in order and do not overlap.
    """

    def __init__(
        self,
        reader: LoadReader,
        number: int,
        stretches: Sequence[Stretch],
        *,
        interval_s: int,
    ) -> None:
        self._reader = reader
        self._number = number
        self._interval_ms = interval_s * 1000
        self._left = [stretch for stretch in stretches if stretch[0] < stretch[1]]
        self._count = 0
        self._one_at_a_time = False  # for now: the last reply for several was nothing, or damaged
        self._several_gave_none = False
        self._is_begun = False
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._empty_steps = 0
        self._rows = 0

    @property
    def is_done(self) -> bool:
        """Everything is told."""
        return not self._left

    async def step(
        self, *, priority: Priority = Priority.BACKFILL, deadline: float | None = None
    ) -> LoadStep:
        """Ask once and go on behind what is told now. It may bring nothing yet.

        BusError, Refused or BadReply when it could not be asked.
        """
        assert self._left
        ask = self._reader.ask(priority, deadline)
        if not self._is_begun:
            await self._begin(ask)
        start_ms, end_ms = self._left[0]
        at_ms = next_instant(start_ms, self._interval_ms, self._reader.zone)
        known = self._outside(at_ms, start_ms, end_ms)
        if known is not None:
            self._told(known.to_ms)
            return LoadStep((), (known,))
        return await self._ask_at(at_ms, ask)

    async def _ask_at(self, at_ms: int, ask: Ask) -> LoadStep:
        start_ms, end_ms = self._left[0]
        most = 1 if self._one_at_a_time else self._count
        wish = min(most, max(1, -(-(end_ms - at_ms) // self._interval_ms)))
        try:
            records, exchange = await self._reader.records(self._number, "from", wish, at_ms, ask)
        except BadReply as error:
            if error.code != BAD_RECORD:
                raise
            if wish > 1:  # the others may be good
                self._one_at_a_time = True
                return LoadStep((), ())
            return self._gap(start_ms, self._after(at_ms, end_ms), BAD_RECORD)
        usable = self._usable(records, at_ms)
        if not usable and wish > 1:
            # Is there none of this instant, or does it give one at a time only?
            self._one_at_a_time = self._several_gave_none = True
            return LoadStep((), ())
        if not usable:
            self._several_gave_none = False
            self._empty_steps += 1
            return self._gap(start_ms, self._after(at_ms, end_ms), NO_RECORD)
        if self._several_gave_none:
            self._count = 1
        self._one_at_a_time = self._several_gave_none = False
        self._empty_steps = 0
        return self._take(usable, exchange, start_ms, end_ms)

    async def _begin(self, ask: Ask) -> None:
        """How far the records reach."""
        if self._reader.is_without:
            msg = "a meter of the 1997 edition has no load records"
            raise LocalProtocolError(msg, code=NO_PROFILE)
        self._last_ms = await self._reader.end(self._number, "latest", ask)
        if self._last_ms is not None:
            self._first_ms = await self._reader.end(self._number, "earliest", ask)
        self._count = self._reader.count_max(self._number)
        self._is_begun = True

    def _outside(self, at_ms: int, start_ms: int, end_ms: int) -> LoadGap | None:
        """The part of a stretch that needs no question."""
        if at_ms >= end_ms:
            return LoadGap(start_ms, end_ms, NO_RECORD)
        if self._first_ms is not None and at_ms < self._first_ms:
            return LoadGap(start_ms, min(end_ms, self._first_ms), BEFORE_MEMORY)
        if self._last_ms is not None and at_ms > self._last_ms:
            return LoadGap(start_ms, end_ms, NOT_RECORDED)
        if self._last_ms is None and self._empty_steps >= EMPTY_STEPS_MAX:
            return LoadGap(start_ms, end_ms, NO_RECORD if self._rows else NO_PROFILE)
        return None

    def _take(
        self,
        usable: Sequence[tuple[int, LoadRecord]],
        exchange: Exchange | None,
        start_ms: int,
        end_ms: int,
    ) -> LoadStep:
        """The records of a reply, and what is missing before and between them."""
        assert exchange is not None
        rows: list[LoadRow] = []
        gaps: list[LoadGap] = []
        through_ms = start_ms
        for time_ms, record in usable:
            until_ms = min(time_ms, end_ms)
            due_ms = next_instant(through_ms, self._interval_ms, self._reader.zone)
            if through_ms <= due_ms < until_ms:
                gaps.append(LoadGap(through_ms, until_ms, NO_RECORD))
            if time_ms >= end_ms:
                through_ms = end_ms
                break
            through_ms = self._after(time_ms, end_ms)
            values = record.classes.get(self._number, ())
            if values:
                rows.append(LoadRow(time_ms, values, record.flags, exchange))
            else:
                why = BAD_RECORD if record.is_suspect else CLASS_OFF
                gaps.append(LoadGap(time_ms, through_ms, why))
        self._rows += len(rows)
        self._told(through_ms)
        return LoadStep(tuple(rows), tuple(gaps))

    def _usable(self, records: Sequence[LoadRecord], at_ms: int) -> list[tuple[int, LoadRecord]]:
        """Records with a time, not before the one asked for, each instant once, in order."""
        found: dict[int, LoadRecord] = {}
        for record in records:
            time_ms = self._reader.instant(record)
            if time_ms is not None and time_ms >= at_ms:
                found.setdefault(time_ms, record)
        return sorted(found.items(), key=lambda pair: pair[0])

    def _gap(self, from_ms: int, to_ms: int, reason: str) -> LoadStep:
        self._told(to_ms)
        return LoadStep((), (LoadGap(from_ms, to_ms, reason),))

    def _after(self, time_ms: int, end_ms: int) -> int:
        return min(end_ms, next_instant(time_ms + 1, self._interval_ms, self._reader.zone))

    def _told(self, through_ms: int) -> None:
        """Everything before `through_ms` is told."""
        start_ms, end_ms = self._left[0]
        assert through_ms > start_ms
        if through_ms >= end_ms:
            del self._left[0]
        else:
            self._left[0] = (through_ms, end_ms)


def next_instant(from_ms: int, interval_ms: int, zone: ZoneInfo) -> int:
    """The first instant from `from_ms` on at which a record is due, counted from local midnight."""
    day_start_ms, day_end_ms = day_bounds_ms(local_day(from_ms, zone), zone)
    at_ms = day_start_ms - (day_start_ms - from_ms) // interval_ms * interval_ms
    return min(at_ms, day_end_ms)


def meter_time(time_ms: int, zone: ZoneInfo) -> MeterTime:
    """An instant as a meter's clock shows it, to the minute."""
    local = dt.datetime.fromtimestamp(time_ms // 1000, tz=zone)
    return MeterTime(local.date(), dt.time(local.hour, local.minute))
