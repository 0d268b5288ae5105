"""Registers of one device in as few requests as its map and its refusals allow.

What a device refuses is learned: a block is cut until the culprit stands alone, and a register
that is refused alone counts as absent. Only what is refused twice, with some time in between, is
learned for good: in between the cuts hold on trial. Silence, damage and business teach nothing.
What is absent is asked for again now and then, and at once when a person
asks: a device that was starting up, or got other firmware, is found out.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from headend.bus.request import Priority
from headend.domain.clock import Clock
from headend.domain.errors import Busy, HeadendError, Refused
from headend.domain.exchange import Exchange
from headend.drivers.modbus_ask import Asker, Talk, refusal_code
from headend.drivers.modbus_values import RAW_PREFIX
from headend.drivers.unasked import end_of_the_talk, not_asked
from protocols.errors import ProtocolError
from protocols.modbus.learned import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Learned
from protocols.modbus.line_cost import Line
from protocols.modbus.planner import Block, Plan, halves, plan, plan_blocks
from protocols.modbus.register import DeviceProfile, Register, Span

log = logging.getLogger(__name__)

ABSENT_AFTER_S = 60.0  # between the two refusals that make a register absent
ASK_AGAIN_S = 3600.0  # for a register that is absent
_TEACHES = frozenset({ILLEGAL_ADDRESS, ILLEGAL_VALUE})
_PLANS_KEPT = 32
_DOUBTS_KEPT = 512


@dataclass(slots=True)
class Got:
    """What came of one request, for each of its registers."""

    block: Block
    words: tuple[int, ...]
    error: Exception | None
    trail: list[Exchange]


class BlockReader:
    """Owner of what is known of one device's refusals (`learned`)."""

    def __init__(
        self,
        asker: Asker,
        profile: DeviceProfile,
        *,
        line: Line | None,
        learned: Learned,
        clock: Clock,
    ) -> None:
        self._asker = asker
        self._profile = profile
        self._line = line
        self._learned = learned
        self._trial = learned  # with what was refused once
        self._trial_since: float | None = None
        self._clock = clock
        self._plans: dict[tuple[Register, ...], Plan] = {}
        self._refused_at: dict[Span, float] = {}  # once
        self._asked_at: dict[Span, float] = {}  # absent ones, the last time
        self._since = clock.monotonic()

    @property
    def learned(self) -> Learned:
        """What the device has shown so far."""
        return self._learned

    def plan(self, registers: Iterable[Register]) -> Plan:
        """The requests for these registers by what is known now."""
        wanted = tuple(registers)
        known = self._plans.get(wanted)
        if known is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            known = plan(self._profile, wanted, line=self._line, learned=self._trial)
            self._plans[wanted] = known
        return known

    async def read(self, registers: Sequence[Register], talk: Talk) -> list[Got]:
        """Every register once. Errors are in what came, never raised."""
        self._end_trial()
        wanted = self.plan(registers)
        waiting = deque(wanted.blocks)
        found: list[Got] = []
        for register in wanted.absent:
            if self._may_ask(register, talk):
                waiting.extend(plan_blocks(self._profile, [register], line=self._line))
            else:
                found.append(self._known_absent(register))
        end: HeadendError | None = None
        while waiting:
            block = waiting.popleft()
            if end is not None:
                found.append(Got(block, (), end, []))
                continue
            got = await self._take(block, talk)
            parts = () if got.error is None else tuple(self._parts(block, got.error))
            if parts:
                waiting.extendleft(reversed(parts))
                continue
            found.append(got)
            end = _end(got.error)
        return found

    async def _take(self, block: Block, talk: Talk) -> Got:
        trail: list[Exchange] = []
        try:
            words = await self._asker.ask(block.span, talk, trail)
        except (HeadendError, ProtocolError) as error:
            return Got(block, (), error, trail)
        if self._learned.absent:
            self._there_after_all(block)
        self._refused_at.pop(block.span, None)
        return Got(block, words, None, trail)

    def _parts(self, block: Block, error: Exception) -> Iterator[Block]:
        """The requests that take the place of a refused one; nothing when it stays refused."""
        code = refusal_code(error)
        if code not in _TEACHES:
            return
        registers = block.registers
        if any(one.point.startswith(RAW_PREFIX) for one in registers):
            # What a person tries out says nothing of what the plans read.
            if len(registers) > 1:
                yield from halves(block)
            return
        if len({one.first for one in registers}) == 1:
            self._refused_alone(block, code)
            return
        if self._refused_before(block.span):
            self._learn(lambda known: known.refused(block.span, registers, code))
        else:
            self._trial = self._trial.refused(block.span, registers, code)
            self._trial_since = self._trial_since or self._clock.monotonic()
            self._plans.clear()
        parts = plan_blocks(self._profile, registers, line=self._line, learned=self._trial)
        yield from halves(block) if parts == (block,) else parts

    def _refused_before(self, span: Span) -> bool:
        """Whether it was refused before, long enough ago to mean it."""
        now = self._clock.monotonic()
        if len(self._refused_at) > _DOUBTS_KEPT:
            self._refused_at.clear()
        if now - self._refused_at.setdefault(span, now) < ABSENT_AFTER_S:
            return False
        del self._refused_at[span]
        return True

    def _end_trial(self) -> None:
        """Try once more what was refused once."""
        since = self._trial_since
        if since is not None and self._clock.monotonic() - since >= ABSENT_AFTER_S:
            self._trial, self._trial_since = self._learned, None
            self._plans.clear()

    def _refused_alone(self, block: Block, code: int) -> None:
        span = block.span
        if any(self._learned.lacks(one) for one in block.registers):
            self._asked_at[span] = self._clock.monotonic()
            return
        if not self._refused_before(span):
            return
        self._asked_at[span] = self._clock.monotonic()

        def absent(known: Learned) -> Learned:
            found = known.refused(span, block.registers, code)
            # It was this register, then, and not the number of them.
            return replace(found, count_max=None) if code == ILLEGAL_VALUE else found

        self._learn(absent)
        points = ", ".join(one.point for one in block.registers)
        log.warning(
            "unit=%d registers=%d:%d:%d refused twice, no longer read: %s",
            self._asker.unit, span.function, span.address, span.count, points,
        )  # fmt: skip

    def _there_after_all(self, block: Block) -> None:
        """What was answered is not absent, whatever was learned of it."""
        span = block.span

        def without(known: Learned) -> Learned:
            stay = tuple(one for one in known.absent if not _overlap(one, span))
            return replace(known, absent=stay) if len(stay) < len(known.absent) else known

        self._learn(without)

    def _may_ask(self, register: Register, talk: Talk) -> bool:
        if talk.priority is Priority.ON_DEMAND:
            return True
        asked_at = self._asked_at.get(_span_of(register), self._since)
        return self._clock.monotonic() - asked_at >= ASK_AGAIN_S

    def _known_absent(self, register: Register) -> Got:
        span = _span_of(register)
        error = Refused(
            f"unit {self._asker.unit} has refused {register.point} before; it is asked again later",
            reasons=("illegal_data_address",),
        )
        block = Block(span.function, span.address, span.count, (register,))
        return Got(block, (), error, [])

    def _learn(self, change: Callable[[Learned], Learned]) -> None:
        learned, trial = change(self._learned), change(self._trial)
        if (learned, trial) != (self._learned, self._trial):
            self._learned, self._trial = learned, trial
            self._plans.clear()


def _span_of(register: Register) -> Span:
    return Span(register.function, register.first, register.behind - register.first)


def _overlap(one: Span, two: Span) -> bool:
    return (
        one.function == two.function
        and one.address < two.address + two.count
        and two.address < one.address + one.count
    )


def _end(error: Exception | None) -> HeadendError | None:
    """The error of all that is not asked any more; None when the next block may be asked."""
    if isinstance(error, Busy):
        return Busy(f"not asked: {error}", reasons=error.reasons)
    gone = None if error is None else end_of_the_talk(error)
    return None if gone is None else not_asked(gone)
