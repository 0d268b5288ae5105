"""Closes daily due points from the registers that a meter freezes by itself, with their own time.

A meter counts its records from the newest, so which number holds an instant is guessed from the day
and corrected by the time that the record bears. One that lies between two neighbours and is not
there was never made; one behind the last that is there is no longer held. A record that is made
meanwhile moves every number up: nothing is concluded from an older record that was read first.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial

from headend.acquisition.backfill import PastValues
from headend.acquisition.meter_reader import failure_reason
from headend.acquisition.workbench import Progress, Workbench, history_of
from headend.bus import Priority
from headend.domain.clock import to_datetime
from headend.domain.due import local_day
from headend.domain.errors import BadReply, BusError, ConfigError, PolicyError, Refused
from headend.domain.meter import Meter
from headend.domain.reading import Verdict
from headend.drivers import PointResult
from headend.drivers.dlt645_load import BEFORE_MEMORY, NO_RECORD, LoadGap
from headend.journal import Birth, Owed, PointHistory
from headend.journal.history import point_history
from headend.vee import Base
from protocols.dlt645.catalogue import DAILY_FREEZE
from protocols.dlt645.learned import NO_DATA

log = logging.getLogger(__name__)

MONTHLY_FREEZE = "step_freeze"  # where most meters keep the last moment of each month
NO_FREEZES = "no_freezes"  # the meter has none of this kind
NOT_FROZEN = "not_in_freeze"  # it freezes, and this point is not in it
DAY_MS = 86_400_000
TRIES_MAX = 16  # reads for one due instant
_NOT_THERE = frozenset({"no_freeze", "no_value"})


class FreezeFill:
    """The daily due points of one meter from one kind of frozen record: `step` until `is_done`.

    `owed`: due points without a reading, of lines that are daily.
    """

    def __init__(
        self, bench: Workbench, meter: Meter, owed: Sequence[Owed], *, kind: str = DAILY_FREEZE
    ) -> None:
        self.meter = meter
        self.kind = kind
        self.points = tuple(dict.fromkeys(one.key.point for one in owed))
        self.progress = Progress()
        self._bench = bench
        self._owed = tuple(owed)
        since_ms = bench.hung_since_ms(meter)
        self._wanted = sorted({one.key.due_ms for one in owed if one.key.due_ms >= since_ms})
        self._tolerance_ms = {
            one.key.due_ms: bench.tolerance_ms(meter, one.key.point, one.key.due_ms) or 0
            for one in owed
        }
        self._values: PastValues | None = None
        self._seen: dict[int, int] = {}  # number of a record: its time
        self._absent_from: int | None = None  # from this number on there is none
        self._read_at: dict[int, int] = {}  # number of a record: the step it was read at last
        self._tries = 0

    @property
    def is_done(self) -> bool:
        """Every due instant is served, or named as a gap, or was tried often enough."""
        return self.progress.ended is not None or not self._wanted

    async def step(
        self, *, priority: Priority = Priority.BACKFILL, deadline: float | None = None
    ) -> None:
        """Read one record; what it brought is committed when this returns.

        BusError when the meter could not be asked: then it can be made again. JournalError when
        it could not be kept: then the fill has to be begun anew.
        """
        async with self._bench.reader.turn(self.meter.id):
            if not self._bench.registry.holds(self.meter):
                self.progress.ended = "configuration_changed"
                return None
            if self._values is None:
                self._values = await self._begin()
                if not self._wanted:
                    return None
            due_ms = self._wanted[0]
            nth = self._number(due_ms)
            if nth is None:
                return await self._not_there(due_ms)
            self.progress.steps += 1
            self._tries += 1
            self._read_at[nth] = self.progress.steps
            session = history_of(self._bench.open_session(self.meter))
            if session is None:
                msg = f"meter {self.meter.id} ({self.meter.protocol}) has no frozen registers"
                raise ConfigError(msg, hint="only meters of DL/T 645-2007 have them")
            results = await session.read_frozen(
                self.points, nth=nth, kind=self.kind, priority=priority, deadline=deadline
            )
            await self._keep(due_ms, nth, results)
        return None

    async def _begin(self) -> PastValues:
        first_ms, end_ms = self._wanted[0], self._wanted[-1] + DAY_MS
        found = await self._bench.journal.look(
            partial(
                point_history,
                meter=self.meter.id,
                points=self.points,
                from_ms=first_ms,
                to_ms=end_ms,
            )
        )
        # What is held, or has no value, is known: asked again it would say the same.
        self._wanted = [due_ms for due_ms in self._wanted if not self._is_known(due_ms, found)]
        good = {
            point: [Base(base.value, base.time_ms) for base in history.good]
            for point, history in found.items()
        }
        return PastValues(self._bench, self.meter, good, self._owed)

    def _is_known(self, due_ms: int, found: Mapping[str, PointHistory]) -> bool:
        tolerance_ms = self._tolerance_ms[due_ms]
        return all(
            any(abs(at - due_ms) <= tolerance_ms for at in history.instants)
            for history in found.values()
        )

    # -- which record

    def _number(self, due_ms: int) -> int | None:
        """The record to read next for a due instant; None when it is known not to be there."""
        newer = [n for n, time_ms in self._seen.items() if time_ms > due_ms]
        older = [n for n, time_ms in self._seen.items() if time_ms <= due_ms]
        first = max(newer, default=0) + 1
        end = min(older, default=self._absent_from or (1 << 30))  # not read any more
        if first >= end or self._tries >= TRIES_MAX:
            return None
        if self._seen:
            near = min(self._seen, key=lambda n: abs(self._seen[n] - due_ms))
            guess = near + self._apart(due_ms, self._seen[near])
        else:
            guess = 1 + self._apart(due_ms, self._bench.clock.now_ms())
        if self._absent_from is not None and guess >= self._absent_from:
            guess = (first - 1 + self._absent_from) // 2  # the edge of what it holds
        return min(max(guess, first), end - 1)

    def _apart(self, due_ms: int, other_ms: int) -> int:
        """By how many records of this kind an instant is older than another."""
        zone = self._bench.zone
        due, other = local_day(due_ms, zone), local_day(other_ms, zone)
        if self.kind == MONTHLY_FREEZE:
            return _months(other) - _months(due)
        return (other - due).days

    # -- what came of it

    async def _keep(self, due_ms: int, nth: int, results: Sequence[PointResult]) -> None:
        for result in results:
            if isinstance(result.error, BusError | PolicyError):
                raise result.error
        time_ms = next((r.time_ms for r in results if r.error is None), None)
        if time_ms is None:
            return await self._nothing_came(due_ms, nth, results)
        self._check_order(nth, time_ms)
        self._seen[nth] = time_ms
        served_ms = next(
            (at for at in self._wanted if abs(at - time_ms) <= self._tolerance_ms[at]), None
        )
        if served_ms is None:
            return None
        await self._bear(results, time_ms)
        await self._left_out(served_ms, results)
        self._wanted.remove(served_ms)
        self._tries = 0
        return None

    def _check_order(self, nth: int, time_ms: int) -> None:
        """A new record moves every number: what was seen before counts no more."""
        for number, seen_ms in self._seen.items():
            if (number < nth) != (seen_ms > time_ms) and number != nth:
                self._seen.clear()
                self._absent_from = None
                return
        if self._seen.get(nth, time_ms) != time_ms:
            self._seen.clear()
            self._absent_from = None

    async def _bear(self, results: Sequence[PointResult], time_ms: int) -> None:
        assert self._values is not None
        readings = [
            self._values.reading(
                result.point, result.value, time_ms, result.exchange, half_interval_ms=DAY_MS // 2
            )
            for result in results
            if result.error is None
            and result.exchange is not None
            and (result.value is not None or not any(result.texts))
        ]
        if not readings:
            return
        (appended,) = await self._bench.journal.append_many(
            [Birth(tuple(readings), self._values.take_told())]
        )
        self.progress.records += 1
        self.progress.born += sum(one.new for one in appended)
        self.progress.held += sum(
            one.new and reading.verdict is Verdict.HELD
            for one, reading in zip(appended, readings, strict=True)
        )

    async def _left_out(self, due_ms: int, results: Sequence[PointResult]) -> None:
        """Points that this record does not hold, or that the meter refuses."""
        assert self._values is not None
        for result in results:
            error = result.error
            if error is None:
                continue
            final = isinstance(error, Refused) and NO_DATA in error.reasons
            final = final or (isinstance(error, BadReply) and error.code == NOT_FROZEN)
            reason = NOT_FROZEN if final else failure_reason(error)
            left = self._values.left_within(due_ms, due_ms + 1)
            keys = [(key, reason) for key in left if key.point == result.point]
            if final:
                await self._name(LoadGap(due_ms, due_ms + 1, reason), [result.point])
            await self._bench.journal.due_failed_many(keys)

    async def _nothing_came(self, due_ms: int, nth: int, results: Sequence[PointResult]) -> None:
        errors = [result.error for result in results if result.error is not None]
        if any(_says_none(error) for error in errors):
            self._absent_from = nth if self._absent_from is None else min(nth, self._absent_from)
            if nth == 1:
                await self._all_gone(NO_FREEZES)
            return
        # It could be read and not be believed; another time it may be.
        await self._give_up(due_ms, failure_reason(errors[0]))

    async def _not_there(self, due_ms: int) -> None:
        newer = [time_ms for time_ms in self._seen.values() if time_ms > due_ms]
        older = [time_ms for time_ms in self._seen.values() if time_ms <= due_ms]
        if self._tries < TRIES_MAX and self._may_have_moved(due_ms):
            return
        if self._tries >= TRIES_MAX and not (newer and older):
            await self._give_up(due_ms, "not_found")
        elif not older and newer:
            first_ms = min(newer)
            gone = [at for at in self._wanted if at < first_ms]
            await self._gone(LoadGap(due_ms, first_ms, BEFORE_MEMORY), gone)
        elif newer:
            await self._gone(LoadGap(due_ms, due_ms + 1, NO_RECORD), [due_ms])
        else:
            # Newer than the newest: its clock may not have come to it.
            await self._give_up(due_ms, "not_recorded")

    def _may_have_moved(self, due_ms: int) -> bool:
        """The older one of the two around an instant was read first: it is read again."""
        newer = max((n for n, time_ms in self._seen.items() if time_ms > due_ms), default=None)
        if newer is None:
            return False
        older = min((n for n, at in self._seen.items() if at <= due_ms), default=self._absent_from)
        if older is None or self._read_at[older] > self._read_at[newer]:
            return False
        if self._seen.pop(older, None) is None:
            self._absent_from = None
        return True

    async def _all_gone(self, reason: str) -> None:
        gap = LoadGap(self._wanted[0], self._wanted[-1] + 1, reason)
        await self._gone(gap, list(self._wanted))

    async def _gone(self, gap: LoadGap, instants: Sequence[int]) -> None:
        """These due instants will never be had from here."""
        assert self._values is not None
        self.progress.gaps.append(gap)
        await self._name(gap, self.points)
        left = [key for at in instants for key in self._values.left_within(at, at + 1)]
        await self._bench.journal.due_failed_many([(key, gap.reason) for key in left])
        self._wanted = [at for at in self._wanted if at not in instants]
        self._tries = 0

    async def _name(self, gap: LoadGap, points: Sequence[str]) -> None:
        log.info(
            "meter=%s store=%s from=%s to=%s reason=%s: the meter has nothing",
            self.meter.id, self.kind, to_datetime(gap.from_ms), to_datetime(gap.to_ms), gap.reason,
        )  # fmt: skip
        await self._bench.name_gap(self.meter, self.kind, points, gap)

    async def _give_up(self, due_ms: int, reason: str) -> None:
        """Not this time."""
        assert self._values is not None
        left = self._values.left_within(due_ms, due_ms + 1)
        await self._bench.journal.due_failed_many([(key, reason) for key in left])
        self._wanted.remove(due_ms)
        self._tries = 0


def _says_none(error: Exception) -> bool:
    """The meter says that there is no such record."""
    if isinstance(error, Refused):
        return NO_DATA in error.reasons
    return isinstance(error, BadReply) and error.code in _NOT_THERE


def _months(day: date) -> int:
    return day.year * 12 + day.month
