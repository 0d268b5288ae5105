"""One Modbus device: points into as few requests as its profile allows, registers into values.

All points of one request share one exchange, and so one instant. What the device refuses, or has
no time for, is told as that; there is never a value in its place.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal

from headend.bus.request import BusPort, Priority
from headend.domain.clock import Clock
from headend.domain.errors import BadReply, NoAnswer
from headend.domain.exchange import Exchange
from headend.drivers.asking import Ask
from headend.drivers.modbus_ask import QUIET_CHARS, Asker, Talk
from headend.drivers.modbus_blocks import BlockReader, Got
from headend.drivers.modbus_check import MODELS_CHANGED, Notice, SelfCheck
from headend.drivers.modbus_memory import DeviceMemory
from headend.drivers.modbus_sunspec import find_chain, has_moved, heads_of
from headend.drivers.modbus_values import RAW_PREFIX, Place, place_of
from headend.drivers.result import PointResult
from headend.drivers.unasked import end_of_the_talk, not_asked
from protocols.errors import BadContent, LocalProtocolError
from protocols.modbus.decode import decode
from protocols.modbus.learned import Learned
from protocols.modbus.line_cost import Line
from protocols.modbus.master import reply_length
from protocols.modbus.planner import Block, plan_blocks
from protocols.modbus.profile import DeviceProfile, Register, UnknownPoint, raw_register
from protocols.modbus.sunspec import Chain, any_sunspec, sunspec_profile

__all__ = ["NO_PROFILE", "ModbusSession", "transaction_ids"]

TRANSACTIONS = 0x10000

NO_PROFILE = DeviceProfile(
    id="a device without a profile",
    device="",
    kind="meter",
    side="primary",
    registers_max=125,
    gaps="unknown",
    even_only=False,
    turnaround_ms=100,
)


def transaction_ids(first: int = 1) -> Iterator[int]:
    """Transaction ids for one connection: what shares it shares them, so that none meets twice."""
    return (number % TRANSACTIONS for number in itertools.count(first))


class ModbusSession:
    """Reads one device. Errors come per point, never raised.

    `profile`: the map of its registers; None = only raw registers can be read; `any_sunspec()` =
    its models are found by walking their chain at the first contact. `tcp`: Modbus TCP; otherwise
    RTU, on a line or as plain bytes over TCP. `ct`, `pt`: the transformers in front of a device of
    the secondary side. `timeout_s`: see `BusRequest`. `transactions`: the ids of the connection
    (`transaction_ids`), shared by all its sessions. `line`: what requests cost, for planning them.
    `memory`: what the device has shown before. `notice`: called with what a person should know of
    the device; with it the device is asked at first contact and daily which one it is, and what
    its transformers' ratios are.
    """

    def __init__(
        self,
        port: BusPort,
        unit: int,
        profile: DeviceProfile | None,
        *,
        tcp: bool,
        clock: Clock,
        ct: Decimal = Decimal(1),
        pt: Decimal = Decimal(1),
        attempts: int = 3,
        timeout_s: float | None = None,
        transactions: Iterator[int] | None = None,
        line: Line | None = None,
        memory: DeviceMemory | None = None,
        notice: Callable[[Notice], None] | None = None,
    ) -> None:
        self._unit = unit
        self._clock = clock
        self._ct, self._pt = ct, pt
        self._attempts = attempts
        self._line = line
        self._notice = notice
        self._memory = memory or DeviceMemory()
        told = NO_PROFILE if profile is None else profile
        self._walks = told is any_sunspec()
        self._asker = Asker(
            port,
            unit,
            clock=clock,
            quiet_s=told.turnaround_ms / 1000,
            after_open_s=told.connect_pause_ms / 1000,
            timeout_s=timeout_s,
            transactions=(transactions or transaction_ids()) if tcp else None,
        )
        self._chain: Chain | None = None
        self._use(told, self._memory.learned)
        if self._walks and self._memory.chain is not None:
            with suppress(LocalProtocolError):  # then it is walked again
                self._use_chain(self._memory.chain, self._memory.learned)

    @property
    def profile(self) -> DeviceProfile:
        """The map in use; of a SunSpec device that of the models it has, once they are known."""
        return self._profile

    @property
    def learned(self) -> DeviceMemory:
        """What the device has shown so far: worth keeping, and handing in as `memory`."""
        memory = self._memory
        if self._check is not None:
            memory = self._check.keep_in(memory)
        found = DeviceMemory(self._blocks.learned, self._chain, memory.told, memory.told_ms)
        if found != self._memory:
            self._memory = found
        return self._memory

    async def read(
        self,
        points: Sequence[str],
        *,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
        attempts: int | None = None,
    ) -> list[PointResult]:
        """Live values, one result a point, in order. Points: names of the profile, or `reg:4:72:2`.

        `deadline` is on the monotonic clock: nothing is sent after it.
        """
        talk = Talk(priority, deadline, attempts or self._attempts)
        if not all(point.startswith(RAW_PREFIX) for point in points):
            error = await self._know(talk)
            if error is not None:
                return [_failed(point, "", error, []) for point in points]
        results, moved = await self._read_points(points, talk)
        if not moved:
            return results
        error = await self._discover(talk, moved)
        if error is None:
            results, moved = await self._read_points(points, talk)
            if not moved:
                return results
            error = BadReply(f"unit {self._unit}: {moved}", code="models_changed")
        return [_failed(point, "", error, []) for point in points]

    def asks(
        self, points: Sequence[str], *, frozen: bool = False, parity_seen: bool | None = None
    ) -> list[Ask]:
        """What reading these points puts on the line, as far as is known now.

        A CRC guards a reply well enough to be read once, whatever the link sees; there is no
        freeze.
        """
        del frozen, parity_seen
        registers = [self._place(point).register for point in dict.fromkeys(points)]
        asks = []
        for block in self._blocks.plan(self._with_heads(registers)).blocks:
            request = self._asker.sample(block.span)
            asks.append(
                Ask(
                    f"{block.function}:{block.address}:{block.count}",
                    len(request.raw),
                    reply_length(request),
                    quiet_s=self._asker.quiet_s,
                    quiet_chars=QUIET_CHARS,
                    points=tuple(one.point for one in block.registers if one in registers),
                    unused=_unused(block),
                )
            )
        return asks

    async def read_frozen(
        self,
        points: Sequence[str],
        *,
        nth: int = 1,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
        attempts: int | None = None,
    ) -> list[PointResult]:
        """An error for each point: there is no daily freeze in Modbus."""
        del nth, priority, deadline, attempts
        error = LocalProtocolError(
            "a Modbus device keeps no daily freeze: read its live registers", code="no_freeze"
        )
        return [_failed(point, "", error, []) for point in points]

    # -- which device it is

    def _use(self, profile: DeviceProfile, learned: Learned) -> None:
        self._profile = profile
        self._places: dict[str, Place] = {}
        self._blocks = BlockReader(
            self._asker, profile, line=self._line, learned=learned, clock=self._clock
        )
        self._check: SelfCheck | None = None
        if self._notice is not None and not (self._walks and self._chain is None):
            self._check = SelfCheck(
                profile,
                self._memory,
                ct=self._ct,
                pt=self._pt,
                clock=self._clock,
                tell=self._notice,
            )

    def _use_chain(self, chain: Chain, learned: Learned) -> None:
        """LocalProtocolError when nothing that is known here is in the chain."""
        profile = sunspec_profile(chain)
        self._memory = self.learned
        self._chain = chain
        self._use(profile, learned)

    async def _know(self, talk: Talk) -> Exception | None:
        """What has to be known before a named point is read; why it is not."""
        if self._walks and self._chain is None:
            error = await self._discover(talk)
            if error is not None:
                return error
        if self._check is not None and self._check.is_due:
            return await self._look(self._check, talk)
        return None

    async def _discover(self, talk: Talk, moved: str = "") -> Exception | None:
        """Walk the device's models; why it is not known what it has.

        `moved`: how the device differs from what it had. What it refused then says nothing now.
        """
        before = self._chain
        chain, error = await find_chain(self._asker, talk)
        if chain is None:
            return error
        try:
            self._use_chain(chain, Learned())
        except LocalProtocolError as unknown:
            return BadReply(f"unit {self._unit}: {unknown}", code=unknown.code)
        if before is not None and before.models != chain.models and self._notice is not None:
            fields = {
                "reason": moved,
                "was": [one.id for one in before.models],
                "now": [one.id for one in chain.models],
            }
            self._notice(Notice(MODELS_CHANGED, None, fields))
        return None

    async def _look(self, check: SelfCheck, talk: Talk) -> Exception | None:
        """Ask which device it is. An error when nothing can be asked of it at the moment."""
        found = await self._blocks.read(check.registers, talk)
        end = next((got.error for got in found if _ends(got.error)), None)
        if end is None and check.differs(found):  # asked once more before it is believed
            again = await self._blocks.read(check.registers, talk)
            end = next((got.error for got in again if _ends(got.error)), None)
            if end is None and not _same(found, again):
                return None
        if end is not None:
            return not_asked(end) if (end := end_of_the_talk(end)) is not None else None
        check.take(found)
        return None

    # -- what is asked

    def _place(self, point: str) -> Place:
        known = self._places.get(point)
        if known is not None:
            return known
        if point.startswith(RAW_PREFIX):
            register = raw_register(point)
        else:
            try:
                register = self._profile.register(point)
            except UnknownPoint as error:
                raise LocalProtocolError(str(error), code="no_such_point") from error
        plan_blocks(self._profile, [register])  # one that no request can read is told now
        place = place_of(register, self._profile, ct=self._ct, pt=self._pt)
        if not point.startswith(RAW_PREFIX):
            self._places[point] = place
        return place

    def _with_heads(self, registers: Sequence[Register]) -> list[Register]:
        """With the heads of their models, where the device has models."""
        named = [one for one in registers if not one.point.startswith(RAW_PREFIX)]
        return [*registers, *(() if self._chain is None else heads_of(self._chain, named))]

    async def _read_points(
        self, points: Sequence[str], talk: Talk
    ) -> tuple[list[PointResult], str]:
        """The results, and how the device's models differ from what they were."""
        results: dict[str, PointResult] = {}
        places: dict[str, Place] = {}
        for point in dict.fromkeys(points):
            try:
                places[point] = self._place(point)
            except LocalProtocolError as error:
                results[point] = _failed(point, "", error, [])
        wanted = [place.register for place in places.values()]
        found = await self._blocks.read(self._with_heads(wanted), talk) if wanted else []
        if self._chain is not None:
            moved = has_moved(self._chain, found)
            if moved:
                return [], moved
        for got in found:
            for register in got.block.registers:
                place = places.get(register.point)
                if place is not None:
                    results[register.point] = self._result(place, got)
        return [results[point] for point in points], ""

    # -- what comes of it

    def _result(self, place: Place, got: Got) -> PointResult:
        register = place.register
        point = register.point
        if got.error is not None:
            return _failed(point, place.unit, got.error, got.trail)
        words = got.block.words_of(register, got.words)
        try:
            value = decode(register, words, ct=self._ct, pt=self._pt, apply_ratio=place.apply_ratio)
        except BadContent as error:
            bad = BadReply(f"unit {self._unit}, {point}: {error}", code=error.code)
            return _failed(point, place.unit, bad, got.trail)
        exchange = got.trail[-1]
        return PointResult(
            point=point,
            di=f"{RAW_PREFIX}{register.function}:{register.address}:{register.words}",
            value=value if isinstance(value, Decimal) else None,
            unit=place.unit,
            time_ms=exchange.midpoint_ms,
            exchange=exchange,
            attempts=exchange.attempt,
            error=None,
            texts=(value,) if isinstance(value, str) else (),
            exchanges=tuple(got.trail),
            footing=place.footing_of(words),
            doubt=None if self._check is None else self._check.doubt(register),
        )


def _ends(error: Exception | None) -> bool:
    """Whether nothing more is to be asked after it."""
    return error is not None and end_of_the_talk(error) is not None


def _same(one: Sequence[Got], two: Sequence[Got]) -> bool:
    """Whether two reads brought the same words."""
    return [(got.block.span, got.words) for got in one] == [
        (got.block.span, got.words) for got in two
    ]


def _unused(block: Block) -> int:
    """Words of it that nobody wants."""
    words = {at for one in block.registers for at in range(one.address, one.end)}
    words |= {one.scale_address for one in block.registers if one.scale_address is not None}
    return block.count - len(words)


def _failed(point: str, unit: str, error: Exception, trail: list[Exchange]) -> PointResult:
    last = trail[-1] if trail else None
    attempts = 0 if last is None else last.attempt
    if isinstance(error, NoAnswer):
        attempts, last = error.attempts, None
    return PointResult(
        point=point,
        di="",
        value=None,
        unit=unit,
        time_ms=None,
        exchange=last,
        attempts=attempts,
        error=error,
        exchanges=tuple(trail),
    )
