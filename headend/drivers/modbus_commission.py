"""Looking at a device of which it is not yet known how it is to be read. Reads only.

What comes is kept byte by byte, because what is wrong shows in just those bytes that no driver
takes: the frame of another framing, an echo, another unit. What they mean `protocols` says.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from headend.bus.request import BusPort, BusRequest, Late, Priority
from headend.domain.errors import BusError, NoAnswer
from headend.domain.exchange import Exchange, Outcome
from headend.drivers.modbus_ask import QUIET_CHARS
from protocols.errors import BadContent, ErrorReply, ProtocolError
from protocols.modbus.commissioning import Evidence, Finding, diagnose, neighbours, other_framing
from protocols.modbus.decode import decode
from protocols.modbus.line_cost import Line
from protocols.modbus.master import (
    ReadRequest,
    delimiter_for,
    match,
    read_request,
    reply_length,
    reply_registers,
)
from protocols.modbus.planner import plan_blocks
from protocols.modbus.plausible import TELLING, is_plausible
from protocols.modbus.power_check import power_factor_found
from protocols.modbus.ratio import RATIO_POINTS
from protocols.modbus.register import DeviceProfile, Register, Span
from protocols.modbus.skeleton import DumpRun
from protocols.modbus.sunspec import Chain, Walk
from protocols.quantities import known_quantity

# What is looked at beside what every grid gives away: it shows a ratio that is missing.
_POWER_POINTS = (
    "active_power_total", "power_factor_total", "current_a", "current_b", "current_c",
)  # fmt: skip
# Findings that say that no frame came which could be looked into.
NO_FRAME = frozenset({"silent", "rtu_over_tcp", "modbus_tcp", "echo", "wrong_unit", "noise"})
_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE = 1, 2, 3
# After these another block may tell more; a device that is busy, or not reached, tells nothing.
_GO_ON = frozenset({None, _ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE})
_TRANSACTIONS = 0x10000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one read. `data`: every byte; `words` None: no registers; `code`: exception."""

    request: ReadRequest
    data: bytes
    words: tuple[int, ...] | None
    code: int | None


class Probe:
    """Asks one unit. Hand `saw` to the bus as its observer: the bytes come from there."""

    def __init__(
        self,
        unit: int,
        *,
        tcp: bool,
        network: bool,
        attempts: int = 2,
        timeout_s: float | None = None,
        quiet_s: float = 0.1,
    ) -> None:
        """`tcp`: Modbus TCP. `network`: bytes go over TCP, so the other framing can be tried."""
        self.unit = unit
        self.network = network
        self._tcp = tcp
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._quiet_s = quiet_s
        self._transaction = 0
        self._seen: list[Exchange] = []
        self._port: BusPort | None = None
        self._connect_anew: Callable[[], Awaitable[None]] | None = None

    def use(self, port: BusPort, connect_anew: Callable[[], Awaitable[None]] | None = None) -> None:
        """Where to ask. `connect_anew`: drops the connection, so that the next question begins one.

        A server that has met bytes of the other framing may wait for their end for ever.
        """
        self._port = port
        self._connect_anew = connect_anew

    def saw(self, exchange: Exchange) -> None:
        """The bus has made an attempt."""
        self._seen.append(exchange)

    async def ask(self, span: Span) -> Answer:
        """Read. BusError when the port is not there; silence is an answer of no bytes."""
        transaction = None
        if self._tcp:
            self._transaction = transaction = (self._transaction + 1) % _TRANSACTIONS
        return await self._send(
            read_request(
                self.unit, span.function, span.address, span.count, transaction=transaction
            )
        )

    async def ask_otherwise(self, request: ReadRequest) -> Answer:
        """The same read once in the other framing, over a new connection."""
        if self._connect_anew is not None:
            await self._connect_anew()
        return await self._send(other_framing(request), attempts=1)

    async def _send(self, request: ReadRequest, attempts: int | None = None) -> Answer:
        assert self._port is not None
        self._seen.clear()
        exchange = None
        try:
            exchange = await self._port.exchange(
                BusRequest(
                    device=f"unit {self.unit}",
                    payload=request.raw,
                    delimiter=delimiter_for(request),
                    match=lambda raw: match(request, raw),
                    reply_bytes=reply_length(request),
                    priority=Priority.ON_DEMAND,
                    attempts=attempts or self._attempts,
                    timeout_s=self._timeout_s,
                    quiet_s=self._quiet_s,
                    quiet_chars=QUIET_CHARS,
                    late=Late.ANONYMOUS if request.transaction is None else Late.NUMBERED,
                )
            )
        except NoAnswer:
            data = next((one.stray for one in reversed(self._seen) if one.stray), b"")
            if any(one.outcome is Outcome.ECHO_ONLY for one in self._seen):
                data = data or request.raw
            return Answer(request, data, None, None)
        assert exchange.reply is not None
        data = exchange.stray + exchange.reply
        try:
            return Answer(request, data, reply_registers(request, exchange.reply), None)
        except ErrorReply as error:
            return Answer(request, data, None, error.error_byte)
        except BadContent:
            return Answer(request, data, None, None)


@dataclass(slots=True)
class Diagnosis:
    """`answers`: every read that was made. `values`: what was read, as the profile has it."""

    answers: list[Answer] = field(default_factory=list)
    values: dict[str, Decimal | str | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, found: Iterable[Finding]) -> None:
        """One finding a code: what a second block says of the same is its further evidence."""
        for one in found:
            at = next((i for i, known in enumerate(self.findings) if _alike(known, one)), None)
            if at is None:
                self.findings.append(one)
            else:
                known = self.findings[at]
                more = tuple(e for e in one.evidence if e not in known.evidence)
                self.findings[at] = Finding(
                    known.code, known.message, known.advice, known.evidence + more
                )

    @property
    def no_frame(self) -> bool:
        """Nothing came that could be looked into."""
        return any(one.code in NO_FRAME for one in self.findings)

    @property
    def tells_nothing(self) -> bool:
        """The device is not reached, or has no time: whatever it is asked, it says the same."""
        return any(one.code not in _GO_ON for one in self.answers)

    @property
    def plausible(self) -> int:
        """How many values came that few other maps would make of the same registers by chance."""
        return sum(
            bool(value) and is_plausible(point, value) is True
            for point, value in self.values.items()
            if point in TELLING and isinstance(value, Decimal)
        )


def _alike(one: Finding, two: Finding) -> bool:
    return (one.code, one.advice) == (two.code, two.advice)


def looked_at(profile: DeviceProfile) -> list[Register]:
    """The registers of a map that show whether it is the right one."""
    wanted = (*sorted(TELLING), *_POWER_POINTS, *RATIO_POINTS)
    return [profile.registers[point] for point in wanted if point in profile.registers]


async def diagnose_device(
    probe: Probe, profile: DeviceProfile, *, ct: Decimal = Decimal(1), pt: Decimal = Decimal(1)
) -> Diagnosis:
    """Read what shows how a device is to be read, and say what is wrong with the profile or line.

    BusError when the port is not there.
    """
    told = Diagnosis()
    registers = looked_at(profile) or list(profile.registers.values())[:4]
    for block in plan_blocks(profile, registers, line=Line.tcp()):
        address, count = neighbours(profile, block)
        answer = await probe.ask(Span(block.function, address, count))
        if answer.code in (_ILLEGAL_ADDRESS, _ILLEGAL_VALUE) and count > block.count:
            answer = await probe.ask(block.span)  # its neighbours need not be there
        told.answers.append(answer)
        if answer.words is None and answer.code is None and probe.network:
            other = await probe.ask_otherwise(answer.request)
            if other.words is not None or other.code is not None:
                answer = Answer(answer.request, other.data, None, None)
        if answer.words is not None:
            told.values |= _values(profile, answer)
        got = answer.data if answer.words is None else answer.words
        told.add(diagnose(profile, answer.request, got, ct=ct, pt=pt))
        if told.no_frame or answer.code not in _GO_ON:
            break
    _compare_power(told)
    return told


async def find_models(probe: Probe) -> Chain | None:
    """The models of a SunSpec device; None when it has none, or does not answer."""
    walk = Walk()
    while (span := walk.ask) is not None:
        answer = await probe.ask(span)
        if answer.words is not None:
            walk.take(answer.words)
        elif answer.code is not None:
            walk.refuse(answer.code)
        else:
            walk.give_up()
    assert walk.chain is not None
    return walk.chain if walk.chain.models else None


def _values(profile: DeviceProfile, answer: Answer) -> dict[str, Decimal | str | None]:
    """The values of all registers of the map that came whole, without any ratio."""
    found: dict[str, Decimal | str | None] = {}
    first, words = answer.request.address, answer.words or ()
    for register in profile.registers.values():
        held = range(register.first - first, register.behind - first)
        if register.function != answer.request.function or held[0] < 0 or held[-1] >= len(words):
            continue
        own = words[register.address - first : register.end - first]
        if register.scale_address is not None:
            own = (*own, words[register.scale_address - first])
        try:
            found[register.point] = decode(register, own, apply_ratio=False)
        except ProtocolError:
            continue
    return found


def _compare_power(told: Diagnosis) -> None:
    """Power beside voltages and currents, where they came in several reads."""
    if told.findings:
        return
    numbers = {p: v if isinstance(v, Decimal) else None for p, v in told.values.items()}
    times = power_factor_found(numbers)
    if times is not None:
        power = numbers["active_power_total"]
        told.add(
            [
                Finding(
                    "ct_ratio",
                    f"power is {times:.3g} times what voltages and currents give: a transformer's "
                    "ratio is missing, or applied twice",
                    "compare ct and pt of the meter, and the side of the profile, with the display",
                    (Evidence("active_power_total", f"{power:f}", f"/ {times:.3g}"),),
                )
            ]
        )


def unit_of(point: str) -> str:
    """The unit of a point; empty for one that has none."""
    known = known_quantity(point)
    return "" if known is None else known.unit


# -- dumps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """Registers that came, or (`words` None) that the device refuses."""

    span: Span
    words: tuple[int, ...] | None


async def dump(probe: Probe, function: int, spans: Iterable[Span]) -> AsyncIterator[Stretch]:
    """Read registers one stretch after the other; what is refused is halved until it is known.

    NoAnswer when the device falls silent; BusError when the port is gone.
    """
    for span in spans:
        waiting = [span]
        while waiting:
            one = waiting.pop(0)
            answer = await probe.ask(one)
            if answer.words is not None:
                yield Stretch(one, answer.words)
            elif answer.code is None:
                raise NoAnswer(
                    f"unit {probe.unit} does not answer for function {function}, registers "
                    f"{one.address} to {one.address + one.count - 1}",
                    bus="", waited_ms=0.0, attempts=1, diagnosis="silence",
                )  # fmt: skip
            elif answer.code in (_ILLEGAL_ADDRESS, _ILLEGAL_VALUE) and one.count > 1:
                half = one.count // 2
                waiting[:0] = [
                    Span(function, one.address, half),
                    Span(function, one.address + half, one.count - half),
                ]
            else:
                yield Stretch(one, None)


def stretches(function: int, first: int, last: int, count: int) -> Iterator[Span]:
    """Requests for the registers from `first` to `last`, at most `count` at a time."""
    for address in range(first, last + 1, count):
        yield Span(function, address, min(count, last + 1 - address))


def runs_of(found: Iterable[Stretch]) -> list[DumpRun]:
    """What came, put together where it lies side by side."""
    runs: list[DumpRun] = []
    for one in found:
        if one.words is None:
            continue
        last = runs[-1] if runs else None
        side_by_side = (
            last is not None
            and last.function == one.span.function
            and last.address + len(last.words) == one.span.address
        )
        if side_by_side and last is not None:
            runs[-1] = DumpRun(last.function, last.address, last.words + one.words)
        else:
            runs.append(DumpRun(one.span.function, one.span.address, one.words))
    return runs


__all__ = [
    "Answer",
    "BusError",
    "Diagnosis",
    "Probe",
    "Stretch",
    "diagnose_device",
    "dump",
    "find_models",
    "looked_at",
    "runs_of",
    "stretches",
    "unit_of",
]
