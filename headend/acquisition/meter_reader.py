"""Reads points of one meter, judges every value, and has the journal bear what was read.

This is where a held value is read again. It never becomes the base that later values are judged
by; the second read decides:

- the second read is believable: it counts, and the first one ends as `fail`, flag `contradicted`;
- a register that stays unbelievable is confirmed: both stay held, an alarm is raised once, and a
  person decides (for example by declaring a meter exchange). Later values that go on from the
  held ones stay held, however much time makes them look possible;
- an instantaneous value that stays out of range is published as `suspect`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Protocol

from headend.acquisition.clock_jumps import FLAG as JUMPED
from headend.acquisition.clock_jumps import ClockJumps
from headend.acquisition.rejudge import rollover_event
from headend.bus import Priority
from headend.domain.clock import Clock, iso
from headend.domain.due import DueKey
from headend.domain.errors import (
    BadReply,
    Busy,
    DeadlinePassed,
    JournalError,
    NoAnswer,
    PortGone,
    QueueFull,
    Refused,
)
from headend.domain.meter import Event, Meter
from headend.domain.reading import Reading, Side, Source, Status, Verdict
from headend.drivers import Doubt, PointResult
from headend.journal import Birth, Journal
from headend.vee import Base, Candidate, Judgement, RuleSet, judge
from protocols.quantities import quantity

log = logging.getLogger(__name__)

AFTER_HELD = "after_held"
NOT_HERE = "not_here_then"  # the meter kept it, of a time when it hung elsewhere
REGISTER_HELD = "register_held"
REGISTER_DIGITS = 6
ONE = Decimal(1)

# A member of an Enum costs as much as three lookups of a global.
_ACTUAL, _SECONDARY, _HELD = Status.ACTUAL, Side.SECONDARY, Verdict.HELD


class MeterSession(Protocol):
    """One meter on its bus: what the drivers offer."""

    async def read(
        self,
        points: Sequence[str],
        *,
        priority: Priority = ...,
        deadline: float | None = None,
    ) -> list[PointResult]:
        """Live values."""
        ...

    async def read_frozen(
        self,
        points: Sequence[str],
        *,
        nth: int = 1,
        priority: Priority = ...,
        deadline: float | None = None,
    ) -> list[PointResult]:
        """Values the meter froze by itself, with the time it says it froze them."""
        ...


@dataclass(frozen=True, slots=True)
class Due:
    """The due instant a read may serve."""

    due_ms: int
    tolerance_ms: int
    window_end_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """One point to read, for a due instant or for somebody who asked (None)."""

    point: str
    due: Due | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of one wanted point. `reading` None = nothing was born, `reason` says why.

    `events`: what it told (a rollover), to be born with it.
    """

    wanted: Wanted
    result: PointResult | None
    reading: Reading | None
    reason: str | None = None
    events: tuple[Event, ...] = ()

    @property
    def settled(self) -> bool:
        """The due instant has its reading."""
        return (
            self.reading is not None
            and self.reading.due_ms is not None
            and self.reading.verdict is not Verdict.HELD
        )


def failure_reason(error: Exception) -> str:
    """The due point's reason for an error: a small fixed vocabulary for reports."""
    match error:
        case NoAnswer():
            return f"no_answer:{error.diagnosis}"
        case PortGone():
            return "port_gone"
        case Busy():
            return "busy"
        case Refused():
            return "refused:" + ",".join(error.reasons)
        case BadReply():
            return f"bad_reply:{error.code}"
        case DeadlinePassed() | QueueFull():
            return "overrun"
        case _:
            return type(error).__name__.lower()


class MeterReader:
    """Reads, judges and hands over; owner of the bases and of what is known of clocks."""

    def __init__(
        self,
        journal: Journal,
        open_session: Callable[[Meter], MeterSession],
        *,
        clock: Clock,
        rules: RuleSet,
        bases: Mapping[tuple[str, str], Base],
        alarm: Callable[[str, dict[str, object]], Awaitable[None]],
        held: Mapping[tuple[str, str], Decimal] | None = None,
        in_force: Callable[[Meter], bool] = lambda _meter: True,
        multiplier_at: Callable[[Meter, int], Decimal] = lambda meter, _ms: meter.multiplier,
        hung_at: Callable[[Meter, int], bool] = lambda _meter, _ms: True,
    ) -> None:
        self._journal = journal
        self._open_session = open_session
        self._clock = clock
        self._rules = rules
        self._bases = dict(bases)
        self._alarm = alarm
        self._in_force = in_force
        self._multiplier_at = multiplier_at
        self._hung_at = hung_at
        self._anchors = dict(held or {})  # confirmed held registers, (meter, point) -> value
        self._clock_offset_s: dict[str, float] = {}
        self.jumps = ClockJumps()
        self._turns: dict[str, asyncio.Lock] = {}
        self._left: set[str] = set()
        self.doubts: dict[str, Doubt] = {}  # meters whose every value is doubted, and why

    def last_good(self, meter: str, point: str) -> Base | None:
        """The last good value of a register, as it shows it, with its instant; at hand."""
        return self._bases.get((meter, point))

    def know_clock(self, meter: str, offset_s: float) -> None:
        """How far off a meter's clock is; positive = fast."""
        self._clock_offset_s[meter] = offset_s

    def has_registers(self, meter: str) -> bool:
        """Whether any register of a meter is known: what is billed stands on it."""
        return any(name == meter for name, _point in self._bases)

    def turn(self, meter: str) -> asyncio.Lock:
        """Held while a meter is read, and while it is exchanged: a read is before or after."""
        turn = self._turns.get(meter)
        if turn is None:
            turn = self._turns[meter] = asyncio.Lock()
        return turn

    @property
    def held(self) -> frozenset[tuple[str, str]]:
        """Meter and point of every register that is held until somebody decides."""
        return frozenset(self._anchors)

    def anchor(self, meter: str, point: str) -> Decimal | None:
        """The value at which a register is held until somebody decides; None: it is not."""
        return self._anchors.get((meter, point))

    def clock_offset_s(self, meter: str) -> float | None:
        """By how much a meter's clock was ahead when it was last read; None: it was not."""
        return self._clock_offset_s.get(meter)

    def goes_on(self, meter: str, point: str, base: Base) -> None:
        """A good register that did not come through here; it counts when it is newer."""
        known = self._bases.get((meter, point))
        if known is None or base.time_ms > known.time_ms:
            self._bases[meter, point] = base

    def left(self, meter: str) -> None:
        """This meter no longer hangs there: nothing more is read under its name."""
        self._left.add(meter)
        self._rebase(meter, {})

    def came(self, meter: str, bases: Mapping[str, Base]) -> None:
        """This meter hangs there now, and its registers began like this."""
        self._left.discard(meter)
        self._rebase(meter, bases)

    def hold(self, held: Mapping[tuple[str, str], Decimal]) -> None:
        """These registers stay held at their value until somebody decides."""
        self._anchors.update(held)

    def _rebase(self, meter: str, bases: Mapping[str, Base]) -> None:
        for store in (self._bases, self._anchors):
            for key in [k for k in store if k[0] == meter]:
                del store[key]
        for point, base in bases.items():
            self._bases[meter, point] = base

    async def read(
        self,
        meter: Meter,
        wanted: Sequence[Wanted],
        *,
        priority: Priority,
        frozen: bool = False,
        deadline: float | None = None,
        source: Source = Source.PLANNED,
    ) -> list[Taken]:
        """Read the wanted points of one meter, in order; one outcome each.

        Returns when everything that was born is committed. JournalError when it could not be.
        """
        async with self.turn(meter.id):
            if meter.id in self._left:
                return [Taken(want, None, None, "exchanged") for want in wanted]
            if not self._in_force(meter):  # while we waited for our turn
                return [Taken(want, None, None, "configuration_changed") for want in wanted]
            return await self._read(meter, wanted, priority, deadline, source, frozen=frozen)

    async def _read(
        self,
        meter: Meter,
        wanted: Sequence[Wanted],
        priority: Priority,
        deadline: float | None,
        source: Source,
        *,
        frozen: bool,
    ) -> list[Taken]:
        session = self._open_session(meter)
        points = [w.point for w in wanted]
        read = session.read_frozen if frozen else session.read
        results = await read(points, priority=priority, deadline=deadline)
        doubt = self.doubts.get(meter.id)
        if doubt is not None:
            results = [replace(r, doubt=doubt) if r.error is None else r for r in results]
        known = {point: self._bases.get((meter.id, point)) for point in points}
        taken: list[Taken] = []
        births: list[Birth] = []
        for want, result in zip(wanted, results, strict=True):
            if result.error is not None:
                taken.append(Taken(want, result, None, failure_reason(result.error)))
                continue
            if frozen and result.time_ms is not None and not self._hung_at(meter, result.time_ms):
                taken.append(Taken(want, result, None, NOT_HERE))
                continue
            doubted = result.doubt is not None and result.value is not None
            usual = (self._doubted if doubted else self._believed)(meter, want, result, source)
            if usual is not None:
                taken.append(usual)
                assert usual.reading is not None
                births.append(Birth((usual.reading,)))
                continue
            outcome = await self._judge(meter, session, want, result, priority, source)
            taken.append(outcome[-1])
            births.extend(Birth((t.reading,), t.events) for t in outcome if t.reading is not None)
        if frozen:
            births = _born_together(births)
        try:
            if births:
                await self._journal.append_many(births)
        except JournalError:
            self._forget_unkept(meter.id, known)
            raise
        return taken

    def _forget_unkept(self, meter: str, before: Mapping[str, Base | None]) -> None:
        """What was not kept is nothing to judge by."""
        for point, base in before.items():
            if base is not None:
                self._bases[meter, point] = base
            else:
                self._bases.pop((meter, point), None)

    def _doubted(self, meter: Meter, want: Wanted, result: PointResult, source: Source) -> Taken:
        """A value that its own device speaks against: not read again, and nothing is built on it.

        What goes to a bill is held where the doubt is sure; everything else is suspect.
        """
        doubt = result.doubt
        assert doubt is not None
        found = self._judgement(meter, result)
        bills = quantity(want.point).kind in ("register", "demand")
        holds = found.verdict is _HELD or (doubt.holds and bills)
        flags = tuple(sorted({*found.flags, doubt.flag}))
        judged = Judgement(_HELD if holds else Verdict.SUSPECT, flags, found.reason or doubt.reason)
        reading = self._reading(meter, want, result, judged, source)
        return Taken(want, result, reading, "held" if holds else None)

    async def judge_past(self, meter: Meter, want: Wanted, result: PointResult) -> Taken:
        """Judge what was read a while ago, as it is taken now; the caller has it born.

        It cannot be read again: what would have to be stays held.
        """
        doubted = result.doubt is not None and result.value is not None
        usual = (self._doubted if doubted else self._believed)(meter, want, result, Source.PLANNED)
        if usual is not None:
            return usual
        past = _Past(meter.bus)
        return (await self._judge(meter, past, want, result, Priority.DUE, Source.PLANNED))[-1]

    def _believed(
        self, meter: Meter, want: Wanted, result: PointResult, source: Source
    ) -> Taken | None:
        """The usual outcome: a number that is not held. None = `_judge` has to look closer."""
        if result.value is None:
            return None
        found = self._judgement(meter, result)
        if self._anchors:
            found = self._after_held(meter, result, found)
        if found.verdict is _HELD or found.rolled_over:
            return None
        reading = self._reading(meter, want, result, found, source)
        self._build_on(meter, reading, found)
        return Taken(want, result, reading)

    async def _judge(
        self,
        meter: Meter,
        session: MeterSession,
        want: Wanted,
        result: PointResult,
        priority: Priority,
        source: Source,
    ) -> list[Taken]:
        """Readings in the order they are to be born; the last one is the point's outcome."""
        told = result
        if result.value is None and result.meter_time_ms is not None:
            # A clock is kept as the seconds since 1970 that it shows, and told as it said it.
            result = replace(result, value=Decimal(result.meter_time_ms // 1000))
        if result.value is None and any(result.texts):
            return [Taken(want, result, None, "not_a_number")]
        if result.value is None:
            reading = self._reading(meter, want, result, Judgement(Verdict.OK), source)
            null = replace(reading, status=Status.NULL, due_ms=None)
            return [Taken(want, result, null, "no_value")]
        first = self._after_held(meter, result, self._judgement(meter, result))
        one = Taken(want, told, self._reading(meter, want, result, first, source))
        if first.verdict is not Verdict.HELD and not first.rolled_over:
            return [self._accept(meter, one, first)]
        # A register that begins anew is rarer than a meter that says nonsense once: that too is
        # read again before it is believed.
        log.warning(
            "bus=%s meter=%s point=%s held flags=%s: %s",
            meter.bus, meter.id, want.point, ",".join(first.flags), first.reason,
        )  # fmt: skip
        if AFTER_HELD in first.flags:
            return [replace(one, reason="held")]
        return await self._read_again(meter, session, one, first, priority, source)

    async def _read_again(
        self,
        meter: Meter,
        session: MeterSession,
        one: Taken,
        first: Judgement,
        priority: Priority,
        source: Source,
    ) -> list[Taken]:
        """What a second read makes of a value that is hard to believe."""
        want = one.wanted
        (again,) = await session.read([want.point], priority=priority)
        if again.error is not None or again.value is None:
            return [_held(one)]
        second = self._judgement(meter, again)
        if first.rolled_over and second.rolled_over:
            return [self._accept(meter, one, first)]
        two = Taken(want, again, self._reading(meter, want, again, second, source))
        if second.verdict is not Verdict.HELD:
            self._anchors.pop((meter.id, want.point), None)
            one = _held(one)
            contradicted = _decided(one, Verdict.FAIL, "contradicted")
            return [one, contradicted, self._accept(meter, two, second)]
        if quantity(want.point).kind == "register":
            await self._confirm(meter, again, second)
            return [_held(one), replace(two, reason="held")]
        return [one, _decided(one, Verdict.SUSPECT), _decided(two, Verdict.SUSPECT)]

    def _after_held(self, meter: Meter, result: PointResult, found: Judgement) -> Judgement:
        """A value that goes on from a register that rose too fast is as unbelievable as that one.

        Time alone would make it look possible. One that fell back and has come up to the last good
        value again is judged by that.
        """
        key = (meter.id, result.point)
        anchor, base = self._anchors.get(key), self._bases.get(key)
        assert result.value is not None
        fell = base is not None and anchor is not None and anchor < base.value
        if anchor is None or result.value < anchor or (fell and found.verdict is not Verdict.HELD):
            return found
        flags = tuple(sorted({*found.flags, AFTER_HELD}))
        why = found.reason or f"goes on from {anchor} {result.unit}, which nobody has decided on"
        return Judgement(Verdict.HELD, flags, why)

    async def _confirm(self, meter: Meter, result: PointResult, found: Judgement) -> None:
        assert result.value is not None
        key = (meter.id, result.point)
        known = key in self._anchors
        self._anchors[key] = result.value
        if known:
            return
        base = self._bases.get(key)
        await self._alarm(
            REGISTER_HELD,
            {
                "meter": meter.id,
                "service_point": meter.service_point,
                "point": result.point,
                "value": format(result.value, "f"),
                "last_good": None if base is None else format(base.value, "f"),
                "last_good_at": None if base is None else iso(base.time_ms),
                "flags": list(found.flags),
                "reason": found.reason,
            },
        )

    def _accept(self, meter: Meter, taken: Taken, found: Judgement) -> Taken:
        reading = taken.reading
        assert reading is not None
        base = self._bases.get((meter.id, reading.point))
        if self._build_on(meter, reading, found) and found.rolled_over:
            assert base is not None
            return replace(taken, events=(rollover_event(reading, base, _wrapped(taken)),))
        return taken

    def _build_on(self, meter: Meter, reading: Reading, found: Judgement) -> bool:
        """A good register is what the next value is judged by. Whether it is a good register."""
        assert reading.value is not None
        if found.verdict is not Verdict.OK or quantity(reading.point).kind != "register":
            return False
        key = (meter.id, reading.point)
        base = self._bases.get(key)
        if base is None or reading.time_ms >= base.time_ms:
            self._bases[key] = Base(reading.value, reading.time_ms)
            if self._anchors:
                self._anchors.pop(key, None)  # a believable value has followed
        return True

    def _judgement(self, meter: Meter, result: PointResult) -> Judgement:
        assert result.value is not None
        assert result.time_ms is not None
        if result.meter_time_ms is not None:
            offset_ms = result.meter_time_ms - result.time_ms
            self._clock_offset_s[meter.id] = offset_ms / 1000
        point, value, footing = result.point, result.value, result.footing
        known = quantity(point)
        is_register = known.kind == "register"
        # By position, here and in `_reading`: names would double what making one costs.
        new = Candidate(
            point,
            known.kind,
            result.unit,
            value,
            result.time_ms,
            meter.multiplier if footing is None else footing.multiplier,
            meter.capacity_kw,
            REGISTER_DIGITS,
            (_count(value) if footing is None else footing.count) if is_register else ONE,
            self._clock_offset_s.get(meter.id) if is_register else None,
            None if footing is None else footing.limit,
            ONE if footing is None else footing.applied,
        )
        base = self._bases.get((meter.id, point)) if is_register else None
        return judge(self._rules, new, base)

    def _reading(
        self, meter: Meter, want: Wanted, result: PointResult, found: Judgement, source: Source
    ) -> Reading:
        time_ms, footing = result.time_ms, result.footing
        assert time_ms is not None
        exchange = result.exchange
        received_ms = self._clock.now_ms() if exchange is None else exchange.received_ms
        due = want.due
        due_ms = None
        if due is not None and abs(time_ms - due.due_ms) <= due.tolerance_ms:
            due_ms = due.due_ms
        flags = found.flags
        # What the meter stamped itself, long before we asked.
        is_its_own = exchange is not None and time_ms < exchange.sent_ms
        if is_its_own and self.jumps and self.jumps.touches(meter.id, time_ms, time_ms):
            flags = tuple(sorted({*flags, JUMPED}))
        return Reading(
            meter.id,
            meter.service_point,
            result.point,
            result.value,
            result.unit,
            time_ms,
            received_ms,
            None,  # interval_s
            due_ms,
            _ACTUAL,
            found.verdict,
            flags,
            self._multiplier_at(meter, time_ms) if footing is None else footing.multiplier,
            _SECONDARY if footing is None else footing.side,
            due is not None and due_ms is not None and received_ms > due.window_end_ms,
            False,  # noqa: FBT003 - final
            source,
            result.meter_time_ms,
            exchange,
        )


class _Past:
    """The session of a reading whose meter can no longer be asked for the same instant."""

    def __init__(self, bus: str) -> None:
        self._bus = bus

    async def read(self, points: Sequence[str], **_how: object) -> list[PointResult]:
        """Nothing, for every point."""
        error = DeadlinePassed("the instant is over", bus=self._bus)
        return [PointResult(p, "", None, "", None, None, 0, error) for p in points]

    async def read_frozen(self, points: Sequence[str], **_how: object) -> list[PointResult]:
        """Nothing, for every point."""
        return await self.read(points)


def _count(value: Decimal) -> Decimal:
    """One step of the last digit of a number."""
    text = str(value)
    if "E" in text:
        return ONE.scaleb(int(value.as_tuple().exponent))
    point = text.find(".")
    return _step(len(text) - point - 1 if point >= 0 else 0)


@lru_cache(maxsize=64)
def _step(decimals: int) -> Decimal:
    return ONE.scaleb(-decimals)


def _wrapped(taken: Taken) -> dict[str, object]:
    """How far a register counts, as the event of its rollover tells it: by digits, or up to."""
    footing = None if taken.result is None else taken.result.footing
    if footing is None:
        return {"digits": REGISTER_DIGITS}
    return {"limit": format(footing.limit, "f")}


def _held(taken: Taken) -> Taken:
    assert taken.reading is not None
    reading = replace(taken.reading, verdict=Verdict.HELD)
    return replace(taken, reading=reading, reason="held")


def _decided(taken: Taken, verdict: Verdict, flag: str | None = None) -> Taken:
    assert taken.reading is not None
    flags = taken.reading.flags if flag is None else tuple(sorted({*taken.reading.flags, flag}))
    due_ms = None if verdict is Verdict.FAIL else taken.reading.due_ms
    reading = replace(taken.reading, verdict=verdict, flags=flags, due_ms=due_ms)
    return replace(taken, reading=reading)


def _born_together(births: Sequence[Birth]) -> list[Birth]:
    """One birth for each run of readings of one instant: they travel as one freeze record."""
    together: list[Birth] = []
    for birth in births:
        last = together[-1] if together else None
        if last is not None and last.readings[-1].time_ms == birth.readings[0].time_ms:
            together[-1] = Birth(last.readings + birth.readings, last.events + birth.events)
        else:
            together.append(birth)
    return together


def failed_keys(meter: Meter, taken: Sequence[Taken]) -> list[tuple[DueKey, str]]:
    """The due points that are still open after a read, with the reason."""
    return [
        (DueKey(meter.id, t.wanted.point, t.wanted.due.due_ms), t.reason or "outside_tolerance")
        for t in taken
        if t.wanted.due is not None and not t.settled
    ]


__all__ = [
    "Due",
    "JournalError",
    "MeterReader",
    "MeterSession",
    "Taken",
    "Wanted",
    "failed_keys",
    "failure_reason",
]
