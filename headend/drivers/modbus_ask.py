"""One request of Modbus to one device, with what its exceptions ask for.

A device that has no time is given some; one that failed is asked once more; everything else that
it says instead of registers is told as what it is. Only reads are made here: the codec builds no
other request.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from headend.bus.request import BusPort, BusRequest, Late, Priority
from headend.domain.clock import Clock
from headend.domain.errors import BadReply, Busy, Refused
from headend.domain.exchange import Exchange
from protocols.errors import BadContent, ErrorReply
from protocols.framing import Match
from protocols.modbus.master import (
    ReadRequest,
    delimiter_for,
    match,
    read_request,
    reply_length,
    reply_registers,
)
from protocols.modbus.register import Span

DEVICE_FAILURE = 4
ACKNOWLEDGE, BUSY = 5, 6
GATEWAY_NO_PATH, GATEWAY_NO_ANSWER = 0x0A, 0x0B

_LATER = frozenset({ACKNOWLEDGE, BUSY})
_UNREACHED = frozenset({GATEWAY_NO_PATH, GATEWAY_NO_ANSWER})

# A device that is busy is asked again after these, all blocks of one call together; a bus has
# other devices.
BUSY_WAITS_S = (0.5, 1.0, 2.0)
QUIET_CHARS = 3.5  # between two frames of a serial line


@dataclass(slots=True)
class Talk:
    """How the requests of one call are made, and what is left of its patience."""

    priority: Priority
    deadline: float | None
    attempts: int
    busy_waits: list[float] = field(default_factory=lambda: list(BUSY_WAITS_S))


class Asker:
    """Asks one unit over one port. `transactions` None: RTU framing, on a line or over TCP.

    `quiet_s`: silence that the device needs before a request. `after_open_s`, `timeout_s`: see
    `BusRequest`.
    """

    def __init__(
        self,
        port: BusPort,
        unit: int,
        *,
        clock: Clock,
        quiet_s: float,
        after_open_s: float = 0.0,
        timeout_s: float | None,
        transactions: Iterator[int] | None,
    ) -> None:
        self.unit = unit
        self.quiet_s = quiet_s
        self._after_open_s = after_open_s
        self._port = port
        self._device = f"unit {unit}"
        self._clock = clock
        self._timeout_s = timeout_s
        self._transactions = transactions
        self._late = Late.ANONYMOUS if transactions is None else Late.NUMBERED

    def sample(self, span: Span) -> ReadRequest:
        """A request as it would go out; it takes no transaction."""
        number = None if self._transactions is None else 0
        return read_request(self.unit, span.function, span.address, span.count, transaction=number)

    async def ask(self, span: Span, talk: Talk, trail: list[Exchange]) -> tuple[int, ...]:
        """The registers. Refused, Busy, BadReply, or what the bus raises.

        `trail` gets every exchange that was made.
        """
        failures_left = 1
        while True:
            exchange, request = await self._exchange(span, talk)
            trail.append(exchange)
            assert exchange.reply is not None
            try:
                return reply_registers(request, exchange.reply)
            except ErrorReply as error:
                if error.error_byte in _LATER:
                    await self._wait_busy(talk, error)
                elif error.error_byte == DEVICE_FAILURE and failures_left:
                    failures_left -= 1
                else:
                    raise Refused(str(error), reasons=error.reasons) from error
            except BadContent as error:
                raise BadReply(str(error), code=error.code) from error

    async def _wait_busy(self, talk: Talk, error: ErrorReply) -> None:
        """Give a busy device time; Busy when there is none left."""
        wait_s = talk.busy_waits.pop(0) if talk.busy_waits else None
        deadline = talk.deadline
        if wait_s is None or (deadline is not None and self._clock.monotonic() + wait_s > deadline):
            raise Busy(f"{error}; it is asked again later", reasons=error.reasons) from error
        await asyncio.sleep(wait_s)

    async def _exchange(self, span: Span, talk: Talk) -> tuple[Exchange, ReadRequest]:
        number = None if self._transactions is None else next(self._transactions)
        request = read_request(
            self.unit, span.function, span.address, span.count, transaction=number
        )
        exchange = await self._port.exchange(
            BusRequest(
                device=self._device,
                payload=request.raw,
                delimiter=delimiter_for(request),
                match=partial(_match, request),
                reply_bytes=reply_length(request),
                priority=talk.priority,
                attempts=talk.attempts,
                timeout_s=self._timeout_s,
                deadline=talk.deadline,
                quiet_s=self.quiet_s,
                quiet_chars=QUIET_CHARS,
                late=self._late,
                after_open_s=self._after_open_s,
            )
        )
        return exchange, request


def refusal_code(error: BaseException) -> int | None:
    """The exception's number behind a `Refused`; None for every other error."""
    cause = error.__cause__
    return cause.error_byte if isinstance(cause, ErrorReply) else None


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
