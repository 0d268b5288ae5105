"""One identifier of one DL/T 645 meter: asked, put together from its frames, believed or not.

It believes what the codec believes, and adds what needs more than one reply: follow-up frames, and
the second read where a damaged byte cannot be seen. What a meter refuses is remembered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from headend.bus.request import BusPort, BusRequest, Priority
from headend.domain.errors import BadReply, Refused
from headend.domain.exchange import Exchange
from headend.drivers.second_read import READS_MAX, confirms
from protocols.dlt645.fields import Value
from protocols.dlt645.frame import DATA_BYTES_MAX, DELIMITER, OVERHEAD_BYTES, WAKE_UP
from protocols.dlt645.learned import Learned
from protocols.dlt645.master import (
    SEQUENCE_MAX,
    ReadRequest,
    follow_up,
    match,
    read_request,
    reply_length,
    reply_part,
)
from protocols.dlt645.profile import MeterProfile
from protocols.errors import BadContent, ErrorReply, RemoteProtocolError
from protocols.framing import Match

# What the meter says the same way however often it is asked.
SAME_AGAIN = frozenset(
    {"edition_1997", "edition_2007", "follow_up_not_supported", "no_value", "endless"}
)
_QUESTIONS_KEPT = 64

Trail = list[Exchange]  # every exchange made for one point, in order


@dataclass(frozen=True, slots=True)
class Ask:
    """How the requests of one call are made."""

    priority: Priority
    deadline: float | None
    attempts: int


class _Question(NamedTuple):
    """What asking for one item takes, worked out once."""

    request: ReadRequest
    payload: bytes  # what goes out, wake-up bytes included
    match: Callable[[bytes], Match]
    reply_bytes: int
    decode: Callable[[bytes], tuple[Value, ...]] | None  # None: the payload is shown as hex
    teaches: bool = False  # its length says how many tariffs the meter has


class Read(NamedTuple):
    """One good reply, decoded. `exchange`: of several frames one that holds them all."""

    members: tuple[Value, ...]
    exchange: Exchange


class ItemReader:
    """Asks one meter. `learned` is what it has shown so far; read it after every call.

    `wakeup`: FE bytes before each request. `timeout_s`: see `BusRequest`.
    """

    def __init__(
        self,
        port: BusPort,
        address: str,
        profile: MeterProfile,
        *,
        wakeup: int,
        capacity_kw: Decimal,
        timeout_s: float | None,
        learned: Learned,
    ) -> None:
        self.learned = learned
        self._port = port
        self._address = address
        self._profile = profile
        self._wakeup = WAKE_UP * wakeup
        self._quiet_s = profile.pause_ms / 1000
        self._capacity_kw = capacity_kw
        self._timeout_s = timeout_s
        self._questions: dict[str, _Question] = {}

    @property
    def parity_seen(self) -> bool:
        """Damaged bytes are marked by the medium; known for sure once the port is open."""
        return self._port.parity_seen

    async def believed(
        self, di: str, ask: Ask, trail: Trail, *, twice: bool, counts_up: bool, named: str
    ) -> Read:
        """One good reply; where parity is unseen and `twice`, one that its predecessor confirms.

        `counts_up`: what it holds may grow between two reads. `named`: what it is called in errors.
        """
        before: Read | None = None
        tries = 0
        for _ in range(READS_MAX):
            tries += 1
            try:
                read = await self.ask(di, ask, trail)
            except BadReply as error:
                # A damaged digit may show in the content: as good as a read that disagrees.
                if self._is_final(error) or tries >= READS_MAX:
                    raise
                before = None
                continue
            # Known for sure only now: the port may have been opened by this very request.
            if self._port.parity_seen or not twice:
                return read
            if before is not None and self._confirms(before, read, counts_up=counts_up):
                return read
            before = read
        message = (
            f"{READS_MAX} reads of {named} of meter {self._address} disagree: "
            "the line damages bytes unseen"
        )
        raise BadReply(message, code="reads_disagree")

    async def ask_again(self, di: str, ask: Ask, trail: Trail) -> Read:
        """Ask until the content is possible, where damaged digits can come unseen."""
        for left in reversed(range(READS_MAX)):
            try:
                return await self.ask(di, ask, trail)
            except BadReply as error:
                if self._is_final(error) or not left:
                    raise
        raise AssertionError

    async def ask(self, di: str, ask: Ask, trail: Trail) -> Read:
        """Ask for one item once (the bus repeats silence and damage).

        Refused, BadReply, or what the bus raises.
        """
        question = self._questions.get(di) or self._question(di)
        exchange = await self._send(question, ask, trail)
        assert exchange.reply is not None
        payload = b""
        try:
            part = reply_part(question.request, exchange.reply)
            payload = part.payload
            if part.more:
                payload, exchange = await self._go_on(question, exchange, payload, ask, trail)
            if question.teaches or self.learned.refusals:
                self.learned = self.learned.after_reply(di, len(payload))
            if question.decode is None:
                return Read((payload.hex().upper(),), exchange)
            return Read(question.decode(payload), exchange)
        except ErrorReply as error:
            self.learned = self.learned.after_refusal(di, error)
            raise Refused(str(error), reasons=error.reasons) from error
        except RemoteProtocolError as error:
            message = f"meter {self._address}, {di}: {error}"
            # Some makes fill what they do not have with zeros, dates too: there is no such date.
            empty = error.code in ("bad_date", "bad_time") and not any(payload)
            raise BadReply(message, code="no_value" if empty else error.code) from error

    async def records(self, request: ReadRequest, ask: Ask, trail: Trail) -> tuple[bytes, Exchange]:
        """The payload of a request with parameters (load records); raises as `ask`."""
        question = self._asking(request, OVERHEAD_BYTES + self._profile.data_max, None)
        exchange = await self._send(question, ask, trail)
        assert exchange.reply is not None
        try:
            part = reply_part(request, exchange.reply)
            if not part.more:
                return part.payload, exchange
            return await self._go_on(question, exchange, part.payload, ask, trail)
        except ErrorReply as error:
            raise Refused(str(error), reasons=error.reasons) from error
        except RemoteProtocolError as error:
            message = f"meter {self._address}, {request.di}: {error}"
            raise BadReply(message, code=error.code) from error

    async def _go_on(
        self, question: _Question, first: Exchange, payload: bytes, ask: Ask, trail: Trail
    ) -> tuple[bytes, Exchange]:
        """The further frames of an item, and one exchange that holds the bytes of all of them.

        The frame that is missing is asked for again, never the whole: BadContent when it cannot be
        had, because a part is no value.
        """
        if self._profile.follow_up == "never":
            msg = f"meter {self._address} goes on in frames that its profile says it cannot send"
            raise BadContent(msg, code="follow_up_not_supported")
        parts, replies, requests = [payload], [first.reply or b""], [first.request]
        last = first
        for sequence in range(1, SEQUENCE_MAX + 1):
            whole = self._profile.follow_up == "whole"
            request = follow_up(question.request, sequence, whole=whole)
            question = self._asking(request, OVERHEAD_BYTES + DATA_BYTES_MAX, None)
            last = await self._send(question, ask, trail)
            assert last.reply is not None
            part = reply_part(request, last.reply)
            parts.append(part.payload)
            replies.append(last.reply)
            requests.append(last.request)
            if not part.more:
                whole_exchange = Exchange(
                    last.bus, last.device, b"".join(requests), b"".join(replies), first.sent_ms,
                    last.received_ms, float(last.received_ms - first.sent_ms), last.attempt,
                    last.outcome,
                )  # fmt: skip
                return b"".join(parts), whole_exchange
        msg = f"{question.request.di} does not end after {SEQUENCE_MAX} frames"
        raise BadContent(msg, code="endless")

    async def _send(self, question: _Question, ask: Ask, trail: Trail) -> Exchange:
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
                self._quiet_s,
            )
        )
        trail.append(exchange)
        return exchange

    def _is_final(self, error: BadReply) -> bool:
        """Asking again would give the same: no damage can have come unseen, or it is no damage."""
        return self._port.parity_seen or error.code in SAME_AGAIN

    def _confirms(self, first: Read, second: Read, *, counts_up: bool) -> bool:
        return confirms(
            first.members,
            second.members,
            counts_up=counts_up,
            capacity_kw=self._capacity_kw,
            elapsed_ms=second.exchange.midpoint_ms - first.exchange.midpoint_ms,
        )

    def _question(self, di: str) -> _Question:
        item = self._profile.item(di)
        layout = None if item is None else item.layout
        if layout is not None and layout.length is not None:
            reply_bytes = OVERHEAD_BYTES + len(di) // 2 + layout.length
        else:
            reply_bytes = reply_length(di)
        question = self._asking(
            read_request(self._address, di), reply_bytes, None if layout is None else layout.decode
        )
        if layout is not None and layout.length is None:
            question = question._replace(teaches=True)
        if len(self._questions) >= _QUESTIONS_KEPT:
            self._questions.clear()
        self._questions[di] = question
        return question

    def _asking(
        self,
        request: ReadRequest,
        reply_bytes: int,
        decode: Callable[[bytes], tuple[Value, ...]] | None,
    ) -> _Question:
        return _Question(
            request,
            self._wakeup + request.raw + self._profile.suffix,
            partial(match, request),
            reply_bytes,
            decode,
        )
