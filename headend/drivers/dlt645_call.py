"""One call for live values of a DL/T 645 meter: planned reads, single items, the clock."""

import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Protocol

from headend.bus.request import Priority
from headend.domain.clock import to_ms
from headend.domain.errors import BadReply, BusError, HeadendError, Refused
from headend.drivers.dlt645_item import Ask, ItemReader, Read, Trail
from headend.drivers.dlt645_results import failed, no_such_point, refused_before, result_of
from headend.drivers.result import PointResult
from headend.drivers.targets import CLOCK, CLOCK_DIS, READ_TWICE_KINDS, Target, target_of
from headend.drivers.unasked import end_of_the_talk, not_asked
from protocols.dlt645.learned import NO_DATA
from protocols.dlt645.planner import Plan
from protocols.dlt645.planner import Read as PlannedRead
from protocols.dlt645.profile import MeterProfile
from protocols.dlt645.status import signed_by_status, words_of_directions
from protocols.errors import ProtocolError
from protocols.quantities import quantity

_NEAR_MIDNIGHT_S = 300


class PlanFor(Protocol):
    """Gives the reads for points; `anew`: also for what was refused as not there."""

    def __call__(self, points: Sequence[str], *, anew: bool = False) -> Plan:
        """The plan."""
        ...


class LiveCall:
    """One call for live values: what has been found out so far.

    `plan` gives the reads for points.
    """

    def __init__(
        self,
        item: ItemReader,
        address: str,
        profile: MeterProfile,
        zone: dt.tzinfo,
        plan: PlanFor,
        ask: Ask,
        twice: frozenset[str] | None,
    ) -> None:
        self.results: dict[str, PointResult] = {}
        self._item = item
        self._address = address
        self._profile = profile
        self._zone = zone
        self._plan = plan
        self._ask = ask
        self._twice = twice
        self._gone: BusError | None = None
        self._words: dict[str, str] = {}

    async def named(self, points: Sequence[str]) -> None:
        """Points by their names, in as few reads as is cheapest.

        A block that is refused is read singly at once, and so is a point that a block was too short
        for; a person's question asks again for what was refused before.
        """
        anew = self._ask.priority is Priority.ON_DEMAND
        plan = self._plan(points, anew=anew)
        for point in plan.unknown:
            self._fail(point, no_such_point(point, self._profile), [])
        for point in plan.absent:
            self._fail(point, refused_before(self._address, point), [])
        if self._profile.signs == "status_words":
            await self._directions(points)
        waiting = list(plan.reads)
        while waiting:
            read = waiting.pop(0)
            left = await self._one(read)
            if left:
                waiting += self._singles(left)

    def _singles(self, points: Iterable[str]) -> list[PlannedRead]:
        """A read for each of some points that a block did not give."""
        reads = [self._plan([point], anew=True).reads for point in points]
        return [read for one in reads for read in one]

    async def _one(self, planned: PlannedRead) -> list[str]:
        """One planned read; the points that have to be read singly."""
        points = list(planned.places)
        trail: Trail = []
        try:
            if self._gone is not None:
                raise not_asked(self._gone)
            read = await self._item.believed(
                planned.di,
                self._ask,
                trail,
                twice=any(self._wants_twice(point) for point in points),
                counts_up=all(quantity(point).kind == "register" for point in points),
                named=points[0],
            )
        except Refused as error:
            if NO_DATA in error.reasons and len(points) > 1:
                return points
            for point in points:
                self._fail(point, error, trail)
            return []
        except (HeadendError, ProtocolError) as error:
            if len(points) > 1 and isinstance(error, BadReply):
                return points  # a member that is impossible is no reason to lose the others
            self._gone = self._gone or end_of_the_talk(error)
            for point in points:
                self._fail(point, error, trail)
            return []
        return self._take(planned, read, trail)

    def _take(self, planned: PlannedRead, read: Read, trail: Trail) -> list[str]:
        missing = []
        time_ms = read.exchange.midpoint_ms
        for point, at in planned.places.items():
            target = target_of(point, self._profile)
            if at >= len(read.members):
                if len(planned.places) > 1 or target.di != planned.di:
                    missing.append(point)
                else:
                    message = f"the reply of meter {self._address} holds no {point}"
                    self._fail(point, BadReply(message, code="short_data"), trail)
                continue
            members = read.members[at : at + (2 if target.kind == "demand" else 1)]
            if self._profile.signs == "status_words" and isinstance(members[0], Decimal):
                signed = signed_by_status(point, members[0], self._words)
                if signed is None:
                    message = f"nothing tells the direction of {point} of meter {self._address}"
                    self._fail(point, BadReply(message, code="no_direction"), trail)
                    continue
                members = (signed, *members[1:])
            self.results[point] = result_of(target, members, read, trail, time_ms, self._zone)
        return missing

    async def _directions(self, points: Sequence[str]) -> None:
        """The status words that tell the direction of values without a sign."""
        for di in words_of_directions(points):
            try:
                read = await self._item.ask_again(di, self._ask, [])
            except (HeadendError, ProtocolError) as error:
                self._gone = self._gone or end_of_the_talk(error)
                return
            if isinstance(read.members[0], str):
                self._words[di] = read.members[0]

    async def single(self, point: str) -> None:
        """The clock, or a raw identifier."""
        trail: Trail = []
        try:
            if self._gone is not None:
                raise not_asked(self._gone)
            target = target_of(point, self._profile)
            if point == CLOCK:
                self.results[point] = await self._clock(target, trail)
                return
            read = await self._item.believed(
                target.di,
                self._ask,
                trail,
                twice=target.kind in READ_TWICE_KINDS
                if self._twice is None
                else point in self._twice,
                counts_up=target.counts_up,
                named=point,
            )
            time_ms = read.exchange.midpoint_ms
            self.results[point] = result_of(target, read.members, read, trail, time_ms, self._zone)
        except (HeadendError, ProtocolError) as error:
            self._fail(point, error, trail)
            self._gone = self._gone or end_of_the_talk(error)

    async def _clock(self, target: Target, trail: Trail) -> PointResult:
        """Date and time are two items; near midnight the date is read again after the time."""
        date_di, time_di = CLOCK_DIS[self._profile.edition]
        day = _date(await self._item.ask_again(date_di, self._ask, trail))
        read = await self._item.ask_again(time_di, self._ask, trail)
        shown = _time(read)
        seconds = shown.hour * 3600 + shown.minute * 60 + shown.second
        if seconds < _NEAR_MIDNIGHT_S or seconds >= 86_400 - _NEAR_MIDNIGHT_S:
            after = _date(await self._item.ask_again(date_di, self._ask, trail))
            # The date turned between the two: a time before midnight still belongs to the first.
            day = after if seconds < _NEAR_MIDNIGHT_S else day
        when = dt.datetime.combine(day, shown, tzinfo=self._zone)
        return PointResult(
            point=target.point,
            di=time_di,
            value=None,
            unit=target.unit,
            time_ms=read.exchange.midpoint_ms,
            exchange=read.exchange,
            attempts=read.exchange.attempt,
            error=None,
            meter_time_ms=to_ms(when),
            texts=(when.isoformat(),),
            exchanges=tuple(trail),
        )

    def _wants_twice(self, point: str) -> bool:
        if self._twice is not None:
            return point in self._twice
        return quantity(point).kind in READ_TWICE_KINDS

    def _fail(self, point: str, error: Exception, trail: Trail) -> None:
        self.results[point] = failed(point, error, trail, self._profile)


def _date(read: Read) -> dt.date:
    value = read.members[0]
    if not isinstance(value, dt.date):
        raise _no_clock()
    return value


def _time(read: Read) -> dt.time:
    value = read.members[0]
    if not isinstance(value, dt.time):
        raise _no_clock()
    return value


def _no_clock() -> BadReply:
    return BadReply("the meter's clock has no value", code="no_value")
