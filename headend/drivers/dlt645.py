"""One DL/T 645-2007 meter: a request an item, in order; a value or a named error for each point.

It believes what the codec believes, and adds what needs more than one reply: the second read where
a damaged byte cannot be seen, the freeze with its time before and after, the clock across midnight.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from headend.bus.request import BusPort, BusRequest, Priority
from headend.domain.clock import to_ms
from headend.domain.errors import (
    BadReply,
    BusError,
    HeadendError,
    NoAnswer,
    Refused,
)
from headend.domain.exchange import Exchange
from headend.drivers.result import PointResult
from headend.drivers.second_read import CAPACITY_KW_DEFAULT, READS_MAX, confirms
from headend.drivers.targets import (
    CLOCK,
    READ_TWICE_KINDS,
    TIME_DI,
    Target,
    target_of,
    value_text,
)
from headend.drivers.unasked import end_of_the_talk, not_asked
from protocols.dlt645.catalogue import FrozenMember, freeze_di, freeze_time_di, lookup
from protocols.dlt645.formats import MeterTime, Value
from protocols.dlt645.frame import DELIMITER, WAKE_UP
from protocols.dlt645.master import (
    ReadRequest,
    match,
    read_request,
    reply_length,
    reply_payload,
)
from protocols.errors import ErrorReply, LocalProtocolError, ProtocolError, RemoteProtocolError
from protocols.framing import Match
from protocols.quantities import quantity

# What the meter says the same way however often it is asked.
_SAME_AGAIN = frozenset({"edition_1997", "follow_up_not_supported", "no_value"})

_NEAR_MIDNIGHT_S = 300

FREEZE_ROUNDS_MAX = 2
_QUESTIONS_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Ask:
    """How the requests of one call are made."""

    priority: Priority
    deadline: float | None
    attempts: int


_Trail = list[Exchange]  # every exchange made for one point, in order


class _Question(NamedTuple):
    """What asking for one item takes, worked out once."""

    request: ReadRequest
    payload: bytes  # what goes out, wake-up bytes included
    match: Callable[[bytes], Match]
    reply_bytes: int
    decode: Callable[[bytes], tuple[Value, ...]] | None  # None: the payload is shown as hex


class _Read(NamedTuple):
    """One good reply, decoded."""

    members: tuple[Value, ...]
    exchange: Exchange


class Dlt645Session:
    """Reads one meter. Stateless between calls but for the requests, which are built once and
    kept; errors come per point, never raised.

    `capacity_kw` bounds what the meter's own registers can count (before transformers); None =
    100 kW. `wakeup`: FE bytes before each request. `timeout_s`: see `BusRequest`.
    """

    def __init__(
        self,
        port: BusPort,
        address: str,
        *,
        zone: ZoneInfo,
        capacity_kw: Decimal | None = None,
        wakeup: int = 4,
        attempts: int = 3,
        timeout_s: float | None = None,
    ) -> None:
        self._port = port
        self._address = address
        self._zone = zone
        self._capacity_kw = CAPACITY_KW_DEFAULT if capacity_kw is None else capacity_kw
        self._wakeup = WAKE_UP * wakeup
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._questions: dict[str, _Question] = {}

    async def read(
        self,
        points: Sequence[str],
        *,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
        attempts: int | None = None,
        twice: frozenset[str] | None = None,
    ) -> list[PointResult]:
        """Live values, one result a point, in order.

        `twice`: the points that are read twice where the link cannot see parity; None = registers
        and demands. `deadline` is on the monotonic clock: nothing is sent after it.
        """
        ask = _Ask(priority, deadline, attempts or self._attempts)
        results: list[PointResult] = []
        gone: BusError | None = None
        for point in points:
            trail: _Trail = []
            try:
                if gone is not None:
                    raise not_asked(gone)
                target = target_of(point)
                if point == CLOCK:
                    results.append(await self._read_clock(target, ask, trail))
                    continue
                wanted_twice = target.kind in READ_TWICE_KINDS if twice is None else point in twice
                members, exchange = await self._believed(target, ask, trail, twice=wanted_twice)
                time_ms = exchange.midpoint_ms
                results.append(self._result(target, members, exchange, trail, time_ms))
            except (HeadendError, ProtocolError) as error:
                results.append(_failed(point, error, trail))
                gone = gone or end_of_the_talk(error)
        return results

    async def read_frozen(
        self,
        points: Sequence[str],
        *,
        nth: int = 1,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
        attempts: int | None = None,
    ) -> list[PointResult]:
        """Values of the `nth` last daily freeze (1 = the newest), stamped with its own time.

        The freeze's time is read before and after the values: the meter counts its freezes from
        the newest, so a freeze that happens in between would move every number. Where parity is
        unseen each item is read until two replies in a row are equal.
        """
        ask = _Ask(priority, deadline, attempts or self._attempts)
        found: list[tuple[str, FrozenMember | LocalProtocolError]] = [
            (point, _frozen_place(point, nth)) for point in points
        ]
        for _ in range(FREEZE_ROUNDS_MAX):
            results = await self._read_freeze(found, nth, ask)
            if results is not None:
                return results
        moved = BadReply(
            f"meter {self._address} made a new freeze each time one was read", code="freeze_moved"
        )
        return [_failed(point, moved, []) for point in points]

    # -- live points

    def _result(
        self,
        target: Target,
        members: tuple[Value, ...],
        exchange: Exchange,
        trail: _Trail,
        time_ms: int,
    ) -> PointResult:
        first = members[0] if members else None
        single = len(members) == 1
        number = first if isinstance(first, Decimal) else None
        occurred_ms = None
        if len(members) == 2 and isinstance(members[1], MeterTime):
            # A maximum demand with the time it occurred is one value.
            single = True
            occurred_ms = to_ms(members[1].at(self._zone))
        if number is not None and single:
            text = str(number)
            texts: tuple[str | None, ...] = (format(number, "f") if "E" in text else text,)
        else:
            texts = tuple(value_text(member, self._zone) for member in members)
        return PointResult(
            target.point,
            target.di,
            number if single else None,
            target.unit,
            time_ms,
            exchange,
            exchange.attempt,
            None,  # error
            None,  # meter_time_ms
            occurred_ms,
            texts[:1] if single else texts,
            tuple(trail),
        )

    async def _read_clock(self, target: Target, ask: _Ask, trail: _Trail) -> PointResult:
        """Date and time are two items; near midnight the date is read again after the time."""
        day = _date(await self._ask_again(target.di, ask, trail))
        read = await self._ask_again(TIME_DI, ask, trail)
        shown = _time(read)
        seconds = shown.hour * 3600 + shown.minute * 60 + shown.second
        if seconds < _NEAR_MIDNIGHT_S or seconds >= 86_400 - _NEAR_MIDNIGHT_S:
            after = _date(await self._ask_again(target.di, ask, trail))
            # The date turned between the two: a time before midnight still belongs to the first.
            day = after if seconds < _NEAR_MIDNIGHT_S else day
        when = dt.datetime.combine(day, shown, tzinfo=self._zone)
        return PointResult(
            point=target.point,
            di=TIME_DI,
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

    # -- the daily freeze

    async def _read_freeze(
        self,
        found: Sequence[tuple[str, FrozenMember | LocalProtocolError]],
        nth: int,
        ask: _Ask,
    ) -> list[PointResult] | None:
        """One round; None when the meter made a new freeze meanwhile."""
        places = dict.fromkeys(p.di for _, p in found if isinstance(p, FrozenMember))
        trails: dict[str, _Trail] = {di: [] for di in places}
        reads: dict[str, _Read | Exception] = {}
        time_trail: _Trail = []
        try:
            time_ms = await self._freeze_time(nth, ask, time_trail) if places else 0
            gone: BusError | None = None
            for di in places:
                try:
                    if gone is not None:
                        raise not_asked(gone)
                    target = Target(di, di, lookup(di), "", "register", frozen=True)
                    reads[di] = await self._believed(target, ask, trails[di], twice=True)
                except (HeadendError, ProtocolError) as error:
                    reads[di] = error
                    gone = gone or end_of_the_talk(error)
            if any(isinstance(read, _Read) for read in reads.values()):
                time_after_ms = await self._freeze_time(nth, ask, time_trail)
                if time_after_ms != time_ms:
                    return None
        except (HeadendError, ProtocolError) as error:
            reads = dict.fromkeys(places, error)
            time_ms = 0
        return [self._frozen_result(p, at, reads, trails, time_ms) for p, at in found]

    async def _freeze_time(self, nth: int, ask: _Ask, trail: _Trail) -> int:
        message = f"meter {self._address} has no daily freeze number {nth}"
        try:
            read = await self._ask_again(freeze_time_di(nth), ask, trail)
        except BadReply as error:
            if error.code == "no_value":
                raise BadReply(message, code="no_freeze") from error
            raise
        when = read.members[0]
        if not isinstance(when, MeterTime):
            raise BadReply(message, code="no_freeze")
        return to_ms(when.at(self._zone))

    def _frozen_result(
        self,
        point: str,
        place: FrozenMember | LocalProtocolError,
        reads: dict[str, _Read | Exception],
        trails: dict[str, _Trail],
        time_ms: int,
    ) -> PointResult:
        if isinstance(place, LocalProtocolError):
            return _failed(point, place, [])
        trail, read = trails[place.di], reads[place.di]
        if isinstance(read, Exception):
            return _failed(point, read, trail)
        if place.index >= len(read.members):
            message = f"the freeze of meter {self._address} holds no {point}"
            return _failed(point, BadReply(message, code="not_in_freeze"), trail)
        known = quantity(point)
        members = read.members[place.index : place.index + (2 if known.kind == "demand" else 1)]
        target = Target(point, place.di, None, known.unit, known.kind, frozen=True)
        return self._result(target, members, read.exchange, trail, time_ms)

    # -- one item

    async def _believed(self, target: Target, ask: _Ask, trail: _Trail, *, twice: bool) -> _Read:
        """One good reply; where parity is unseen and `twice`, one that its predecessor confirms."""
        before: _Read | None = None
        for _ in range(READS_MAX):
            try:
                read = await self._ask(target.di, ask, trail)
            except BadReply as error:
                # A damaged digit may show in the content: as good as a read that disagrees.
                if self._final(error) or len(trail) >= READS_MAX:
                    raise
                before = None
                continue
            # Known for sure only now: the port may have been opened by this very request.
            if self._port.parity_seen or not twice:
                return read
            if before is not None and self._confirms(target, before, read):
                return read
            before = read
        message = (
            f"{READS_MAX} reads of {target.point} of meter {self._address} disagree: "
            "the line damages bytes unseen"
        )
        raise BadReply(message, code="reads_disagree")

    def _final(self, error: BadReply) -> bool:
        """Asking again would give the same: no damage can have come unseen, or it is no damage."""
        return self._port.parity_seen or error.code in _SAME_AGAIN

    def _confirms(self, target: Target, first: _Read, second: _Read) -> bool:
        return confirms(
            first.members,
            second.members,
            counts_up=target.counts_up,
            capacity_kw=self._capacity_kw,
            elapsed_ms=second.exchange.midpoint_ms - first.exchange.midpoint_ms,
        )

    async def _ask_again(self, di: str, ask: _Ask, trail: _Trail) -> _Read:
        """Ask until the content is possible, where damaged digits can come unseen."""
        for left in reversed(range(READS_MAX)):
            try:
                return await self._ask(di, ask, trail)
            except BadReply as error:
                if self._final(error) or not left:
                    raise
        raise AssertionError

    async def _ask(self, di: str, ask: _Ask, trail: _Trail) -> _Read:
        """Ask for one item once (the bus repeats silence and damage).

        Refused, BadReply, or what the bus raises.
        """
        question = self._questions.get(di) or self._question(di)
        exchange = await self._port.exchange(
            BusRequest(
                self._address,
                question.payload,
                DELIMITER,
                question.match,
                question.reply_bytes,
                ask.priority,
                ask.attempts,
                self._timeout_s,
                ask.deadline,
            )
        )
        trail.append(exchange)
        assert exchange.reply is not None
        payload = b""
        try:
            payload = reply_payload(question.request, exchange.reply)
            if question.decode is None:
                return _Read((payload.hex().upper(),), exchange)
            return _Read(question.decode(payload), exchange)
        except ErrorReply as error:
            raise Refused(str(error), reasons=error.reasons) from error
        except RemoteProtocolError as error:
            message = f"meter {self._address}, {di}: {error}"
            # Some makes fill what they do not have with zeros, dates too: there is no such date.
            empty = error.code in ("bad_date", "bad_time") and not any(payload)
            raise BadReply(message, code="no_value" if empty else error.code) from error

    def _question(self, di: str) -> _Question:
        request = read_request(self._address, di)
        item = lookup(di)
        question = _Question(
            request,
            self._wakeup + request.raw,
            partial(match, request),
            reply_length(di),
            None if item is None or item.layout is None else item.layout.decode,
        )
        if len(self._questions) >= _QUESTIONS_KEPT:
            self._questions.clear()
        self._questions[di] = question
        return question


def _date(read: _Read) -> dt.date:
    value = read.members[0]
    if not isinstance(value, dt.date):
        raise _no_clock()
    return value


def _time(read: _Read) -> dt.time:
    value = read.members[0]
    if not isinstance(value, dt.time):
        raise _no_clock()
    return value


def _no_clock() -> BadReply:
    return BadReply("the meter's clock has no value", code="no_value")


def _frozen_place(point: str, nth: int) -> FrozenMember | LocalProtocolError:
    try:
        quantity(point)
        return freeze_di(point, nth)
    except KeyError as error:
        message = str(error.args[0]) if type(error) is KeyError else str(error)
        return LocalProtocolError(message, code="no_such_point")


def _failed(point: str, error: Exception, trail: _Trail) -> PointResult:
    last = trail[-1] if trail else None
    if isinstance(error, NoAnswer):
        attempts, last = error.attempts, None
    else:
        attempts = 0 if last is None else last.attempt
    return PointResult(
        point=point,
        di="",
        value=None,
        unit=_unit(point),
        time_ms=None,
        exchange=last,
        attempts=attempts,
        error=error,
        exchanges=tuple(trail),
    )


def _unit(point: str) -> str:
    try:
        return target_of(point).unit
    except LocalProtocolError:
        return ""
