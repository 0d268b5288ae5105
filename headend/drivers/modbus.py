"""One Modbus device: points into as few requests as its profile allows, registers into values.

All points of one request share one exchange, and so one instant. What the device refuses, or has
no time for, is told as that; there is never a value in its place.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial

from headend.bus.request import BusPort, BusRequest, Late, Priority
from headend.domain.clock import Clock
from headend.domain.errors import BadReply, Busy, HeadendError, NoAnswer, Refused
from headend.domain.exchange import Exchange
from headend.drivers.asking import Ask
from headend.drivers.modbus_values import RAW_PREFIX, Place, place_of
from headend.drivers.result import PointResult
from headend.drivers.unasked import end_of_the_talk, not_asked
from protocols.errors import BadContent, ErrorReply, LocalProtocolError, ProtocolError
from protocols.framing import Match
from protocols.modbus.decode import decode
from protocols.modbus.master import (
    ReadRequest,
    delimiter_for,
    match,
    read_request,
    reply_length,
    reply_registers,
)
from protocols.modbus.planner import Block, halves, plan_blocks
from protocols.modbus.profile import DeviceProfile, Register, UnknownPoint, raw_register

__all__ = ["NO_PROFILE", "ModbusSession", "transaction_ids"]

ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE = 2, 3, 4
ACKNOWLEDGE, BUSY = 5, 6
GATEWAY_NO_PATH, GATEWAY_NO_ANSWER = 0x0A, 0x0B

_SPLIT = frozenset({ILLEGAL_ADDRESS, ILLEGAL_VALUE})
_LATER = frozenset({ACKNOWLEDGE, BUSY})
_UNREACHED = frozenset({GATEWAY_NO_PATH, GATEWAY_NO_ANSWER})

# A device that is busy is asked again after these, all blocks of one call together; a bus has
# other devices.
BUSY_WAITS_S = (0.5, 1.0, 2.0)
QUIET_CHARS = 3.5  # between two frames of a serial line
TRANSACTIONS = 0x10000
_PLANS_KEPT = 32

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


@dataclass(slots=True)
class _Ask:
    """How the requests of one call are made, and what is left of its patience."""

    priority: Priority
    deadline: float | None
    attempts: int
    busy_waits: list[float] = field(default_factory=lambda: list(BUSY_WAITS_S))


@dataclass(slots=True)
class _Got:
    """What came of one block, for each of its registers."""

    block: Block
    words: tuple[int, ...]
    error: Exception | None
    trail: list[Exchange]


class ModbusSession:
    """Reads one device. Errors come per point, never raised.

    `tcp`: Modbus TCP; otherwise RTU, on a line or as plain bytes over TCP. `ct`, `pt`: the
    transformers in front of a device of the secondary side. `timeout_s`: see `BusRequest`.
    `transactions`: the ids of the connection (`transaction_ids`), shared by all its sessions.
    Kept between calls: which requests read which points, since a device may refuse a whole block
    for one register that it lacks.
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
    ) -> None:
        self._port = port
        self._unit = unit
        self._profile = NO_PROFILE if profile is None else profile
        self._clock = clock
        self._ct, self._pt = ct, pt
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._transactions = (transactions or transaction_ids()) if tcp else None
        self._late = Late.NUMBERED if tcp else Late.ANONYMOUS
        self._places: dict[str, Place] = {}
        self._plans: dict[tuple[Register, ...], tuple[Block, ...]] = {}

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
        ask = _Ask(priority, deadline, attempts or self._attempts)
        results: dict[str, PointResult] = {}
        places: dict[str, Place] = {}
        for point in dict.fromkeys(points):
            try:
                places[point] = self._place(point)
            except LocalProtocolError as error:
                results[point] = _failed(point, "", error, [])
        for got in await self._read_all([p.register for p in places.values()], ask):
            for register in got.block.registers:
                place = places[register.point]
                results[register.point] = self._result(place, got)
        return [results[point] for point in points]

    def asks(
        self, points: Sequence[str], *, frozen: bool = False, parity_seen: bool | None = None
    ) -> list[Ask]:
        """What reading these points puts on the line, as far as is known now.

        A CRC guards a reply well enough to be read once, whatever the link sees; there is no
        freeze.
        """
        del frozen, parity_seen
        registers = tuple(self._place(point).register for point in dict.fromkeys(points))
        asks = []
        for block in self._plans.get(registers) or plan_blocks(self._profile, registers):
            request = read_request(
                self._unit,
                block.function,
                block.address,
                block.count,
                transaction=None if self._transactions is None else 0,
            )
            asks.append(
                Ask(
                    f"{block.function}:{block.address}:{block.count}",
                    len(request.raw),
                    reply_length(request),
                    quiet_s=self._profile.turnaround_ms / 1000,
                    quiet_chars=QUIET_CHARS,
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

    async def _read_all(self, registers: Sequence[Register], ask: _Ask) -> list[_Got]:
        """Every register once, in as many requests as it takes."""
        wanted = tuple(registers)
        blocks = self._plans.get(wanted)
        if blocks is None:
            blocks = plan_blocks(self._profile, wanted)
        found: list[_Got] = []
        end: HeadendError | None = None
        for block in blocks:
            if end is not None:
                found.append(_Got(block, (), end, []))
                continue
            for got in await self._take(block, ask):
                found.append(got)
                end = end or _end(got.error)
        if len(self._plans) >= _PLANS_KEPT:
            self._plans.clear()
        self._plans[wanted] = tuple(got.block for got in found)
        return found

    async def _take(self, block: Block, ask: _Ask) -> list[_Got]:
        """One block; one that is refused for what it touches is halved until the culprit is found.

        The halves are what is asked for from then on.
        """
        trail: list[Exchange] = []
        try:
            return [_Got(block, await self._ask(block, ask, trail), None, trail)]
        except Refused as error:
            cause = error.__cause__
            code = cause.error_byte if isinstance(cause, ErrorReply) else None
            if code not in _SPLIT or len(block.registers) == 1:
                return [_Got(block, (), error, trail)]
        except (HeadendError, ProtocolError) as error:
            return [_Got(block, (), error, trail)]
        found: list[_Got] = []
        end: HeadendError | None = None
        for half in halves(block):
            if end is not None:
                found.append(_Got(half, (), end, []))
                continue
            for got in await self._take(half, ask):
                found.append(got)
                end = end or _end(got.error)
        return found

    async def _ask(self, block: Block, ask: _Ask, trail: list[Exchange]) -> tuple[int, ...]:
        """The registers of a block. Refused, Busy, BadReply, or what the bus raises."""
        failures_left = 1
        while True:
            exchange, request = await self._exchange(block, ask)
            trail.append(exchange)
            assert exchange.reply is not None
            try:
                return reply_registers(request, exchange.reply)
            except ErrorReply as error:
                if error.error_byte in _LATER:
                    await self._wait_busy(ask, error)
                elif error.error_byte == DEVICE_FAILURE and failures_left:
                    failures_left -= 1
                else:
                    raise Refused(str(error), reasons=error.reasons) from error
            except BadContent as error:
                raise BadReply(str(error), code=error.code) from error

    async def _wait_busy(self, ask: _Ask, error: ErrorReply) -> None:
        """Give a busy device time; Busy when there is none left."""
        wait_s = ask.busy_waits.pop(0) if ask.busy_waits else None
        deadline = ask.deadline
        if wait_s is None or (deadline is not None and self._clock.monotonic() + wait_s > deadline):
            raise Busy(f"{error}; it is asked again later", reasons=error.reasons) from error
        await asyncio.sleep(wait_s)

    async def _exchange(self, block: Block, ask: _Ask) -> tuple[Exchange, ReadRequest]:
        transaction = None if self._transactions is None else next(self._transactions)
        request = read_request(
            self._unit, block.function, block.address, block.count, transaction=transaction
        )
        exchange = await self._port.exchange(
            BusRequest(
                device=f"unit {self._unit}",
                payload=request.raw,
                delimiter=delimiter_for(request),
                match=partial(_match, request),
                reply_bytes=reply_length(request),
                priority=ask.priority,
                attempts=ask.attempts,
                timeout_s=self._timeout_s,
                deadline=ask.deadline,
                quiet_s=self._profile.turnaround_ms / 1000,
                quiet_chars=QUIET_CHARS,
                late=self._late,
            )
        )
        return exchange, request

    # -- what comes of it

    def _result(self, place: Place, got: _Got) -> PointResult:
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
        )


def _match(request: ReadRequest, raw: bytes) -> Match:
    """As the codec's; a gateway that speaks for a device it does not reach is told apart."""
    found = match(request, raw)
    if found is not Match.REFUSAL:
        return found
    try:
        reply_registers(request, raw)
    except ErrorReply as error:
        return Match.UNREACHED if error.error_byte in _UNREACHED else found
    return found


def _end(error: Exception | None) -> HeadendError | None:
    """The error of all that is not asked any more; None when the next block may be asked."""
    if isinstance(error, Busy):
        return Busy(f"not asked: {error}", reasons=error.reasons)
    gone = None if error is None else end_of_the_talk(error)
    return None if gone is None else not_asked(gone)


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
