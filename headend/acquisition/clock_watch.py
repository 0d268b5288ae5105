"""Measures every meter's clock once a day and does what its plan or model says about it.

The lowest priority on the bus, one meter at a time, spread over the day: a few seconds a meter and
day. Each measurement is several looks at date and time; nothing is decided on one
measurement (`meter_clocks.py`). Setting is `control`'s: this only asks for it, and reports.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from headend.acquisition.meter_clocks import (
    AGAIN_MS,
    CONFIRMED,
    FAILED_MS,
    MeterClock,
    Policy,
    are_known,
    first_at,
    is_ours,
    next_at,
)
from headend.acquisition.meter_reader import MeterSession
from headend.bus import Priority
from headend.config.meter_rules import DLT645
from headend.config.sections.control import ClockControlSection
from headend.control.clock import LEFT, SET, ClockOutcome
from headend.control.clock_policy import Verdict, verdict
from headend.domain.clock import Clock, iso
from headend.domain.clock_offset import Measured, measured, narrowed
from headend.domain.errors import BadReply, HeadendError, JournalError
from headend.domain.meter import Event, Meter
from headend.journal import ClockMeasured
from protocols.errors import ProtocolError

log = logging.getLogger(__name__)

LOOKS = 3
BETWEEN_S = 1.37  # so that looks fall on different parts of a second
ANSWER_WAIT_S = 30.0
STEP_S = 60.0  # between two looks at whose time has come
HISTORY_MS = 60 * 86_400_000
WRONG = "meter_clock_wrong"
POINT = "clock"

Set = Callable[[Meter, str], Awaitable[ClockOutcome]]


class ClockJournal(Protocol):
    """What of the journal is used here."""

    async def clocks_measured(self, found: Sequence[tuple[str, ClockMeasured]]) -> None:
        """As `Journal.clocks_measured`."""
        ...

    async def append_event(self, event: Event) -> int:
        """As `Journal.append_event`."""
        ...


class ClockWatch:
    """One supervised task: `run`. `set_clock` asks control; None: control is off.

    `turn` is held while a meter is looked at; `holds` says whether it still hangs there. `known`
    hears every measurement and `jumped` every clock that was set, by whomever.
    """

    def __init__(
        self,
        journal: ClockJournal,
        clock: Clock,
        *,
        meters: Callable[[], Iterable[Meter]],
        holds: Callable[[Meter], bool],
        turn: Callable[[str], asyncio.Lock],
        open_session: Callable[[Meter], MeterSession],
        policy: Callable[[Meter], Policy],
        section: ClockControlSection,
        set_clock: Set | None,
        guarded: Callable[[int], str | None] = lambda _offset_ms: None,
        known: Callable[[str, float], None] = lambda _meter, _offset_s: None,
        jumped: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._meters = meters
        self._holds = holds
        self._turn = turn
        self._open_session = open_session
        self._policy = policy
        self._section = section
        self._set_clock = set_clock
        self._guarded = guarded
        self._known = known
        self._jumped = jumped
        self.clocks: dict[str, MeterClock] = {}
        self.measured = 0
        self.failed = 0
        self.set = 0
        self._wrong: set[str] = set()  # whose alarm stands

    def restore(
        self, history: Mapping[str, Sequence[ClockMeasured]], told: Iterable[Event]
    ) -> None:
        """Take up what an earlier life has measured and told."""
        now_ms = self._clock.now_ms()
        for meter, rows in history.items():
            began = max((n for n, row in enumerate(rows) if row.began), default=0)
            last_ms = rows[-1].at_ms if rows else None
            clock = MeterClock(meter, first_at(meter, last_ms, now_ms), list(rows[began:]))
            self.clocks[meter] = clock
            if clock.last is not None:
                clock.verdict = verdict(clock.last, self._section)
                self._known(meter, clock.last.offset_ms / 1000)
        for event in told:
            if event.fields.get("alarm") == WRONG:
                move = self._wrong.add if event.kind == "alarm" else self._wrong.discard
                move(str(event.fields["meter"]))

    async def run(self) -> None:
        """Measure whose time has come, for ever."""
        while True:
            if not await self.step():
                await asyncio.sleep(STEP_S)

    async def step(self) -> bool:
        """Measure the meter that is due longest; whether there was one.

        One after the other, of all buses: a few thousand meters take some hours of their day, and
        nothing runs beside that was not there before.
        """
        now_ms = self._clock.now_ms()
        meters = {m.id: m for m in self._meters() if m.protocol in DLT645}
        for name in meters:
            if name not in self.clocks:
                self.clocks[name] = MeterClock(name, first_at(name, None, now_ms))
        for gone in self.clocks.keys() - meters.keys():
            del self.clocks[gone]
        first = min(self.clocks.values(), key=lambda clock: clock.next_ms, default=None)
        if first is None or first.next_ms > now_ms:
            return False
        await self._one(meters[first.meter], first)
        return True

    async def _one(self, meter: Meter, clock: MeterClock) -> None:
        try:
            look = await self._look(meter)
        except (HeadendError, ProtocolError) as error:
            clock.failed(str(error), self._clock.now_ms())
            self.failed += 1
            return
        if look is None:  # it hangs there no more
            clock.next_ms = self._clock.now_ms() + FAILED_MS
            return
        self.measured += 1
        try:
            await self._take(meter, clock, look)
            await self._decide(meter, clock)
        except JournalError as error:
            log.warning("meter=%s clock not kept: %s", meter.id, error)
            clock.next_ms = self._clock.now_ms() + FAILED_MS

    # -- measuring

    async def _look(self, meter: Meter) -> Measured | None:
        """Several looks; raises what reading raises, BadReply when they contradict each other."""
        looks = []
        for number in range(LOOKS):
            if number:
                await asyncio.sleep(BETWEEN_S)
            async with self._turn(meter.id):
                if not self._holds(meter):
                    return None
                looks.append(await self._look_once(meter))
        found = narrowed(looks)
        if found is None:
            shown = ", ".join(f"{look.offset_ms / 1000:+.1f} s" for look in looks)
            msg = f"looks at the clock of {meter.id} contradict each other: {shown}"
            raise BadReply(msg, code="contradiction")
        return found

    async def _look_once(self, meter: Meter) -> Measured:
        deadline = self._clock.monotonic() + ANSWER_WAIT_S
        session = self._open_session(meter)
        (result,) = await session.read([POINT], priority=Priority.STATISTICS, deadline=deadline)
        if result.error is not None:
            raise result.error
        if result.meter_time_ms is None or result.time_ms is None or result.exchange is None:
            msg = f"meter {meter.id} shows no time"
            raise BadReply(msg, code="no_value")
        return measured(result.meter_time_ms, result.time_ms, result.exchange.took_ms)

    async def _take(self, meter: Meter, clock: MeterClock, look: Measured) -> None:
        before = clock.last
        row = clock.take(look, LOOKS)
        clock.next_ms = next_at(meter.id, look.at_ms)
        self._known(meter.id, look.offset_ms / 1000)
        await self._journal.clocks_measured([(meter.id, row)])
        if row.began and before is not None:
            clock.wrong_in_row = 0
            event = _seen_jump(meter, before, look)
            log.warning(
                "meter=%s its clock was set: offset_s=%s before=%s",
                meter.id, event.fields["after_s"], event.fields["before_s"],
            )  # fmt: skip
            await self._journal.append_event(event)
            self._jumped(event)

    # -- deciding

    async def _decide(self, meter: Meter, clock: MeterClock) -> None:
        found = clock.judge(self._section)
        policy = self._policy(meter)
        if found is Verdict.LEAVE:
            clock.message = ""
            await self._clear(meter)
            return
        if policy == "leave" and found is not Verdict.TICKET:
            return
        if clock.wrong_in_row < CONFIRMED:
            clock.next_ms = self._clock.now_ms() + AGAIN_MS
            return
        if policy == "sync" and found is Verdict.SYNC:
            await self._sync(meter, clock)
        else:
            await self._ticket(meter, clock, policy, "a person has to look at this clock")

    async def _sync(self, meter: Meter, clock: MeterClock) -> None:
        look = clock.last
        assert look is not None
        now_ms = self._clock.now_ms()
        others = [c for c in self.clocks.values() if c is not clock]
        if not are_known(others, now_ms):
            clock.message = "other meters are measured first, to tell whose clock is wrong"
            clock.next_ms = now_ms + AGAIN_MS
            return
        if is_ours(look.offset_ms, others, now_ms):
            reason = "most meters are off alike: it rather is the head-end's own clock"
            await self._ticket(meter, clock, "sync", reason)
            return
        if self._set_clock is None:
            await self._ticket(meter, clock, "sync", "control is off: nothing is set")
            return
        guard = self._guarded(look.offset_ms)
        if guard is not None:
            clock.message = guard
            clock.next_ms = now_ms + AGAIN_MS
            return
        reason = f"its clock is {look.offset_ms / 1000:+.1f} s off, as its plan or model wants it"
        outcome = await self._set_clock(meter, reason)
        clock.message = outcome.message
        log.warning(
            "meter=%s clock outcome=%s: %s", meter.id, outcome.outcome, outcome.message,
            extra={"about": meter.id},
        )  # fmt: skip
        if outcome.after is not None and outcome.outcome == SET:
            self.set += 1
            clock.wrong_in_row = 0
            row = clock.take(outcome.after, LOOKS - 1, was_set=True)
            clock.verdict = verdict(outcome.after, self._section)
            self._known(meter.id, outcome.after.offset_ms / 1000)
            await self._journal.clocks_measured([(meter.id, row)])
            await self._clear(meter)
            return
        if outcome.outcome == LEFT:  # looked at once more, it was right
            return
        await self._ticket(meter, clock, "sync", f"it could not be set: {outcome.message}")

    async def _ticket(self, meter: Meter, clock: MeterClock, policy: Policy, reason: str) -> None:
        clock.message = reason
        look = clock.last
        assert look is not None
        if meter.id in self._wrong:
            return
        trend = clock.drift
        fields = {
            "alarm": WRONG,
            "meter": meter.id,
            "service_point": meter.service_point,
            "offset_s": f"{look.offset_ms / 1000:.1f}",
            "uncertainty_s": f"{look.uncertainty_ms / 1000:.1f}",
            "drift_s_per_day": None if trend is None else f"{trend.ms_per_day / 1000:.2f}",
            "policy": policy,
            "message": f"its clock is {look.offset_ms / 1000:+.1f} s off: {reason}",
        }
        log.warning("alarm=%s meter=%s: %s", WRONG, meter.id, fields["message"])
        await self._journal.append_event(Event("alarm", self._clock.now_ms(), fields))
        self._wrong.add(meter.id)

    async def _clear(self, meter: Meter) -> None:
        if meter.id not in self._wrong:
            return
        fields = {"alarm": WRONG, "meter": meter.id, "service_point": meter.service_point}
        log.warning("alarm=%s cleared meter=%s", WRONG, meter.id)
        await self._journal.append_event(Event("alarm_cleared", self._clock.now_ms(), fields))
        self._wrong.discard(meter.id)


def _seen_jump(meter: Meter, before: Measured, now: Measured) -> Event:
    """Somebody else has set the clock, some time between two measurements."""
    fields = {
        "meter": meter.id,
        "service_point": meter.service_point,
        "since": iso(before.at_ms),
        "before_s": f"{before.offset_ms / 1000:.1f}",
        "after_s": f"{now.offset_ms / 1000:.1f}",
        "by": None,
        "reason": "seen by measuring: nobody here has set it",
    }
    return Event("clock_jump", now.at_ms, fields)
