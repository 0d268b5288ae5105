"""Brings what a meter kept into the journal, for stretches of time that the journal does not have.

A fill is one stretch of one meter's load records of one class. It asks for what the journal lacks,
hands births over as they come, and keeps no notes of its own: what is committed is not asked for
again, whoever was killed in the middle. A hole that the meter named is written down as an event
(`history_gap`) and is not asked for each time either.

Values take the way of live ones: judged, born, told on the streams. They are judged by what is
known on both sides of them.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial

from headend.acquisition.between import (
    Neighbours,
    due_instants,
    judge_between,
    nearest_due,
    unknown_stretches,
)
from headend.acquisition.clock_jumps import FLAG as JUMPED
from headend.acquisition.meter_reader import AFTER_HELD, REGISTER_DIGITS
from headend.acquisition.rejudge import rollover_event
from headend.acquisition.workbench import (
    Progress,
    Workbench,
    history_of,
)
from headend.bus import Priority
from headend.domain.clock import iso
from headend.domain.due import DueKey
from headend.domain.errors import ConfigError
from headend.domain.exchange import Exchange
from headend.domain.meter import Event, Meter
from headend.domain.reading import Reading, Side, Source, Status, Verdict
from headend.drivers.dlt645_load import NOT_RECORDED, LoadGap, LoadRow, LoadWalk
from headend.journal import Birth, Owed
from headend.journal.history import point_history
from headend.vee import Base, Candidate, Judgement
from protocols.dlt645.load_profile import class_of_point
from protocols.quantities import quantity

log = logging.getLogger(__name__)

LOAD_STORE = "load_records"
RECORD_CHECKSUM = "record_checksum"
TOLD_LATER = "rollover_told_later"
ONE = Decimal(1)
# Without a sign of their own these tell no direction.
_DIRECTED = ("active_power_", "reactive_power_", "power_factor_", "current_")


class PastValues:
    """Values of one meter's past on their way to births: judged, and given the due they serve."""

    def __init__(
        self,
        bench: Workbench,
        meter: Meter,
        good: Mapping[str, Iterable[Base]],
        owed: Iterable[Owed],
    ) -> None:
        self._bench = bench
        self._meter = meter
        self._place = bench.place(meter)
        self._neighbours = {
            point: Neighbours(bases, self._place, meter.id, point) for point, bases in good.items()
        }
        self._owed: dict[str, dict[int, Owed]] = {}
        self._tolerance: dict[str, dict[int, int]] = {}
        self._served: dict[str, set[int]] = {}
        self._told: list[Event] = []
        self._rolled_from: Base | None = None
        for one in owed:
            point, due_ms = one.key.point, one.key.due_ms
            tolerance_ms = bench.tolerance_ms(meter, point, due_ms)
            if one.key.meter == meter.id and tolerance_ms is not None:
                self._owed.setdefault(point, {})[due_ms] = one
                self._tolerance.setdefault(point, {})[due_ms] = tolerance_ms

    def reading(
        self,
        point: str,
        value: Decimal | None,
        time_ms: int,
        exchange: Exchange,
        *,
        flags: Sequence[str] = (),
        half_interval_ms: int,
    ) -> Reading:
        """One value of the past as it is born. None is no value: `null`, and serves nothing."""
        meter = self._meter
        ratio = self._place.ratio_at(time_ms)
        multiplier = meter.multiplier if ratio is None else ratio.multiplier
        found = Judgement(Verdict.OK)
        if value is not None:
            found = self._judged(point, value, time_ms, multiplier)
        doubt = self._bench.reader.doubts.get(meter.id)
        if doubt is not None and value is not None:
            # Another meter may be telling of its own past.
            flags = (*flags, doubt.flag)
            found = replace(found, verdict=Verdict.HELD, rolled_over=False)
        verdict = found.verdict
        if flags and verdict is Verdict.OK:
            verdict = Verdict.SUSPECT
        due_ms = None
        if value is not None:
            served = self._served.setdefault(point, set())
            owed = self._tolerance.get(point, {})
            due_ms = nearest_due(time_ms, owed, served, half_interval_ms=half_interval_ms)
            if due_ms is not None:
                served.add(due_ms)
        window_end_ms = None if due_ms is None else self._owed[point][due_ms].window_end_ms
        reading = Reading(
            meter=meter.id,
            service_point=meter.service_point,
            point=point,
            value=value,
            unit=quantity(point).unit,
            time_ms=time_ms,
            received_ms=exchange.received_ms,
            due_ms=due_ms,
            status=Status.NULL if value is None else Status.ACTUAL,
            verdict=verdict,
            flags=tuple(sorted({*found.flags, *flags, *self._jumped(time_ms, half_interval_ms)})),
            multiplier=multiplier,
            side=Side.SECONDARY,
            late=window_end_ms is not None and exchange.received_ms > window_end_ms,
            source=Source.BACKFILL,
            exchange=exchange,
        )
        if found.rolled_over and self._rolled_from is not None:
            width = {"digits": REGISTER_DIGITS}
            self._told.append(rollover_event(reading, self._rolled_from, width))
        return reading

    def _jumped(self, time_ms: int, half_interval_ms: int) -> tuple[str, ...]:
        """The mark of a record whose interval the meter's clock was set in."""
        first_ms, jumps = time_ms - 2 * half_interval_ms, self._bench.reader.jumps
        return (JUMPED,) if jumps.touches(self._meter.id, first_ms, time_ms) else ()

    def take_told(self) -> tuple[Event, ...]:
        """The rollovers seen since this was last asked: they are born with their readings."""
        told, self._told = tuple(self._told), []
        return told

    def serves(self, time_ms: int, *, half_interval_ms: int) -> bool:
        """Whether a value of an instant would serve something that is owed."""
        return any(
            nearest_due(time_ms, owed, (), half_interval_ms=half_interval_ms) is not None
            for owed in self._tolerance.values()
        )

    def left_within(self, from_ms: int, to_ms: int) -> list[DueKey]:
        """What is owed in a stretch and was not served."""
        return [
            one.key
            for point, owed in self._owed.items()
            for due_ms, one in owed.items()
            if from_ms <= due_ms < to_ms and due_ms not in self._served.get(point, ())
        ]

    def _judged(self, point: str, value: Decimal, time_ms: int, multiplier: Decimal) -> Judgement:
        kind = quantity(point).kind
        is_register = kind == "register"
        new = Candidate(
            point=point,
            kind=kind,
            unit=quantity(point).unit,
            value=value,
            time_ms=time_ms,
            multiplier=multiplier,
            capacity_kw=self._meter.capacity_kw,
            digits=REGISTER_DIGITS,
            count=ONE.scaleb(int(value.as_tuple().exponent)) if is_register else ONE,
            clock_offset_s=self._bench.reader.clock_offset_s(self._meter.id),
        )
        if not is_register:
            found = judge_between(self._bench.rules, new, None, None)
            # It cannot be read again at another moment: what is out of range is suspect.
            held = found.verdict is Verdict.HELD
            return Judgement(Verdict.SUSPECT, found.flags, found.reason) if held else found
        around = self._neighbours.get(point)
        before = None if around is None else around.before(time_ms)
        after = None if around is None else around.after(time_ms)
        found = judge_between(self._bench.rules, new, before, after)
        self._rolled_from = before
        if found.rolled_over and after is not None:
            # That the register wrapped has been told with the later one. Told twice it would be
            # energy out of nothing.
            flags = tuple(sorted({*found.flags, TOLD_LATER}))
            return Judgement(Verdict.HELD, flags, "its register wrapped before a later good one")
        anchor = self._bench.reader.anchor(self._meter.id, point)
        if after is None and anchor is not None and value >= anchor:
            # What goes on from a register that nobody has decided on is as unbelievable as it.
            flags = tuple(sorted({*found.flags, AFTER_HELD}))
            return Judgement(Verdict.HELD, flags, "goes on from a register that is held")
        if found.verdict is Verdict.OK and around is not None:
            around.add(value, time_ms)
            self._bench.reader.goes_on(self._meter.id, point, Base(value, time_ms))
        return found


class LoadFill:
    """One stretch of one meter's load records of a class: `step` until `is_done`.

    `points` are of that class. `again`: what the meter has said not to have is asked for all the
    same. `owed`: due points without a reading that may be served; None = looked for. `only_owed`:
    nothing else is asked for.
    """

    def __init__(
        self,
        bench: Workbench,
        meter: Meter,
        number: int,
        points: Sequence[str],
        from_ms: int,
        to_ms: int,
        *,
        again: bool = False,
        owed: Sequence[Owed] | None = None,
        only_owed: bool = False,
    ) -> None:
        self.meter = meter
        self.number = number
        self.points = tuple(points)
        self.progress = Progress()
        self.store = f"{LOAD_STORE}_{number}"
        self._bench = bench
        self._from_ms = max(from_ms, bench.hung_since_ms(meter))
        self._to_ms = to_ms
        self._again = again
        self._owed = owed
        self._only_owed = only_owed
        self._walk: LoadWalk | None = None
        self._values: PastValues | None = None
        self._interval_ms = 0
        self._gap: LoadGap | None = None

    @property
    def is_done(self) -> bool:
        """Everything of the stretch is known, or named as a gap."""
        if self.progress.ended is not None:
            return True
        return self._walk is not None and self._walk.is_done and self._gap is None

    async def step(
        self, *, priority: Priority = Priority.BACKFILL, deadline: float | None = None
    ) -> None:
        """One question to the meter; what it brought is committed when this returns.

        BusError, Refused or BadReply when it could not be asked: then it can be made again.
        JournalError when it could not be kept: then the fill has to be begun anew.
        """
        async with self._bench.reader.turn(self.meter.id):
            if not self._bench.registry.holds(self.meter):
                self.progress.ended = "configuration_changed"
                return
            if self._walk is None:
                self._walk = await self._begin(priority, deadline)
            if not self._walk.is_done:
                self.progress.steps += 1
                brought = await self._walk.step(priority=priority, deadline=deadline)
                await self._keep(brought.rows, brought.gaps)
            if self._walk.is_done:
                await self._end_gap()

    async def _begin(self, priority: Priority, deadline: float | None) -> LoadWalk:
        bench, meter = self._bench, self.meter
        session = history_of(bench.open_session(meter))
        if session is None or session.load.is_without:
            msg = f"meter {meter.id} ({meter.protocol}) keeps no load records that can be read"
            raise ConfigError(msg, hint="only meters of DL/T 645-2007 have them")
        if not session.load.has_directions:
            self.points = tuple(p for p in self.points if not p.startswith(_DIRECTED))
        interval_s = await session.load.interval_s(
            self.number, priority=priority, deadline=deadline
        )
        self._interval_ms = interval_s * 1000
        found = await bench.journal.look(
            partial(
                point_history,
                meter=meter.id,
                points=self.points,
                from_ms=self._from_ms,
                to_ms=self._to_ms,
            )
        )
        owed = self._owed
        if owed is None:
            owed = await bench.owed(meter, self._from_ms, self._to_ms)
        good = {
            point: [Base(base.value, base.time_ms) for base in history.good]
            for point, history in found.items()
        }
        values = self._values = PastValues(bench, meter, good, owed)
        half_ms = self._interval_ms // 2
        stretches = unknown_stretches(
            self._from_ms,
            self._to_ms,
            interval_s,
            bench.zone,
            known=[found[point].instants for point in self.points] or [()],
            holes=[] if self._again else bench.gaps.of(meter.id, self.store, self.points),
            wanted=lambda at: not self._only_owed or values.serves(at, half_interval_ms=half_ms),
        )
        due = due_instants(self._from_ms, self._to_ms, interval_s, bench.zone)
        there = set.intersection(*(set(found[p].instants) for p in self.points), set(due))
        self.progress.known = len(there)
        return session.load_walk(self.number, stretches, interval_s=interval_s)

    async def _keep(self, rows: Sequence[LoadRow], gaps: Sequence[LoadGap]) -> None:
        births = [self._birth(row) for row in rows]
        if births:
            appended = await self._bench.journal.append_many(births)
            new = [one.new for birth in appended for one in birth]
            self.progress.records += len(rows)
            self.progress.born += sum(new)
            readings = [reading for birth in births for reading in birth.readings]
            self.progress.held += sum(
                is_new and reading.verdict is Verdict.HELD
                for is_new, reading in zip(new, readings, strict=True)
            )
        told = sorted([*((row.time_ms, None) for row in rows), *((g.from_ms, g) for g in gaps)],
                      key=lambda pair: pair[0])  # fmt: skip
        for _at_ms, gap in told:
            if gap is None:
                await self._end_gap()
            else:
                await self._gap_goes_on(gap)

    def _birth(self, row: LoadRow) -> Birth:
        assert self._values is not None
        flags = (RECORD_CHECKSUM,) if "checksum" in row.flags else ()
        readings = [
            self._values.reading(
                one.point,
                one.value if isinstance(one.value, Decimal) else None,
                row.time_ms,
                row.exchange,
                flags=flags,
                half_interval_ms=self._interval_ms // 2,
            )
            for one in row.values
            if one.point in self.points
        ]
        return Birth(tuple(readings), self._values.take_told())

    async def _gap_goes_on(self, gap: LoadGap) -> None:
        open_gap = self._gap
        if open_gap is not None and (
            gap.reason != open_gap.reason or gap.from_ms > open_gap.to_ms + self._interval_ms
        ):
            await self._end_gap()
            open_gap = None
        start_ms = gap.from_ms if open_gap is None else open_gap.from_ms
        self._gap = LoadGap(start_ms, gap.to_ms, gap.reason)

    async def _end_gap(self) -> None:
        """A hole has come to its end: tell it once."""
        gap, self._gap = self._gap, None
        if gap is None:
            return
        assert self._values is not None
        self.progress.gaps.append(gap)
        if gap.reason == NOT_RECORDED:
            return  # it may still come
        log.info(
            "meter=%s store=%s from=%s to=%s reason=%s: the meter has nothing",
            self.meter.id, self.store, iso(gap.from_ms), iso(gap.to_ms), gap.reason,
        )  # fmt: skip
        await self._bench.name_gap(self.meter, self.store, self.points, gap)
        left = self._values.left_within(gap.from_ms, gap.to_ms)
        await self._bench.journal.due_failed_many([(key, gap.reason) for key in left])


def classes_of(points: Iterable[str]) -> dict[int, list[str]]:
    """The load record classes that hold these points, each with those it holds."""
    found: dict[int, list[str]] = {}
    for point in points:
        number = class_of_point(point)
        if number is not None:
            found.setdefault(number, []).append(point)
    return found
