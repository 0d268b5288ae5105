"""Setting meters' clocks: measured twice, written down, sent once, read back.

A write is never repeated: nobody knows whether the one that got no answer was taken, and the time
in it grows old. What became of it is what the clock shows afterwards, whatever the meter answered.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from headend.bus.request import BusPort, BusRequest, Priority
from headend.config.sections.control import ControlSection
from headend.control.audit import Audit, Intent
from headend.control.clock_policy import Measured, Verdict, agreed, forbidden, measured, verdict
from headend.control.gate import PASSWORD_REFUSED, Gate, Job
from headend.control.password import Password, read_password
from headend.domain.clock import Clock, iso, to_datetime
from headend.domain.errors import BadReply, BusError, HeadendError, NoAnswer, PolicyError
from headend.domain.meter import Event, Meter
from headend.drivers.result import PointResult
from protocols.dlt645 import clock as frames
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import BROADCAST, DELIMITER, OVERHEAD_BYTES, WAKE_UP
from protocols.errors import ErrorReply, RemoteProtocolError
from protocols.framing import Match

LOOKS = 2  # at a clock, before anything is decided
ANSWER_WAIT_S = 60.0  # in the queue of the bus
BROADCAST_ECHO_S = 0.3
BROADCAST_MAX_S = 300.0  # meters pass over more in silence
DIFFERENCE_DONE_MS = 2000  # read back: a clock that was set shows at most this, and its uncertainty
PROTOCOL = "dlt645-2007"
# Where the secrets of a write begin in the frame: after 68H, address, 68H, C, L and the identifier.
_SECRET_FROM, _SECRET_BYTES = 14, 8

LEFT, SET, NOT_SET, TICKET = "left", "set", "not_set", "ticket"
REFUSED, NO_ANSWER, UNREADABLE, STOPPED = "refused", "no_answer", "unreadable", "stopped"


class ClockSession(Protocol):
    """What a meter's session offers here."""

    async def read(
        self, points: Sequence[str], *, priority: Priority, deadline: float | None
    ) -> list[PointResult]:
        """As `Dlt645Session.read`."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A meter, and how it is reached. `char_s`: seconds a byte takes on its line."""

    meter: Meter
    session: ClockSession
    port: BusPort
    wakeup: int
    char_s: float


@dataclass(frozen=True, slots=True)
class ClockOutcome:
    """What became of one meter's clock. `before`, `after`: None where it could not be read."""

    meter: str
    outcome: str
    message: str
    before: Measured | None = None
    after: Measured | None = None


class ClockControl:
    """One for a head-end. `told` makes an event durable."""

    def __init__(
        self,
        section: ControlSection,
        password_file: Path | None,
        audit_file: Path,
        *,
        clock: Clock,
        zone: ZoneInfo,
        told: Callable[[Event], Awaitable[object]],
    ) -> None:
        self._section = section
        self._policy = section.clock
        self._password_file = password_file
        self._audit_file = audit_file
        self._clock = clock
        self._zone = zone
        self._told = told
        self._opened: tuple[Audit, Gate] | None = None
        self._turn = asyncio.Lock()  # one thing is done at a time

    async def look(self, place: Place) -> Measured:
        """The clock of one meter, looked at twice. PolicyError, or what reading raises."""
        return agreed([await self._look(place) for _ in range(LOOKS)])

    async def set(
        self, places: Sequence[Place], *, by: str, reason: str, however_small: bool = False
    ) -> list[ClockOutcome]:
        """Set the clocks of these meters, one after the other; one outcome each, in order.

        PolicyError, before anything is sent, when control is off, or who and why are not said; a
        FileFault when there is no password. When enough meters have refused the password the rest
        are `stopped`.
        """
        async with self._turn:
            audit, gate = await self._open(by, reason)
            if self._password_file is None:
                msg = "there is no password to set a clock with: control.password_file names it"
                raise PolicyError(msg)
            password = await asyncio.to_thread(read_password, self._password_file)
            job, outcomes = gate.job(), []
            for place in places:
                try:
                    job.go_on()
                    gate.admit_password(place.meter.id, password.of)
                    look = await self.look(place)
                    kept = self._leave(place, look, however_small=however_small)
                except PolicyError as error:
                    outcomes.append(ClockOutcome(place.meter.id, STOPPED, str(error)))
                    continue
                except HeadendError as error:
                    outcomes.append(ClockOutcome(place.meter.id, UNREADABLE, str(error)))
                    continue
                if kept is not None:
                    outcomes.append(kept)
                    continue
                write = _Write(self, audit, gate, job, place, look, password, by, reason)
                outcomes.append(await write.run())
            return outcomes

    async def broadcast(
        self, places: Sequence[Place], *, by: str, reason: str
    ) -> list[ClockOutcome]:
        """Give all meters of one line the time, and look what each made of it.

        They answer nothing, and pass over it when they are more than five minutes out, were set
        that day already, or near midnight and settlements: `not_set` then. Nothing is sent when no
        clock needs it. PolicyError as `set`.
        """
        async with self._turn:
            audit, _gate = await self._open(by, reason)
            before = {place.meter.id: await self._try_look(place) for place in places}
            looks = [look for look in before.values() if look is not None]
            now_ms = self._clock.now_ms()
            for offset_ms in (0, *(look.offset_ms for look in looks)):
                why = forbidden(now_ms, offset_ms, self._policy, self._zone)
                if why is not None and abs(offset_ms) <= BROADCAST_MAX_S * 1000:
                    raise PolicyError(why)
            if all(verdict(look, self._policy) is Verdict.LEAVE for look in looks):
                return [
                    ClockOutcome(meter, LEFT if look else UNREADABLE, "nothing was sent", look)
                    for meter, look in before.items()
                ]
            intent = await asyncio.to_thread(
                audit.begin,
                at=iso(now_ms),
                action="clock_broadcast",
                subject=places[0].port.name,
                by=by,
                reason=reason,
                details={"meters": [place.meter.id for place in places]},
            )
            ended = "interrupted"
            try:
                await self._send_to_all(places[0])
                outcomes = [await self._after(p, before[p.meter.id], by, reason) for p in places]
                ended = "sent"
            finally:
                await _ended(audit, intent, iso(self._clock.now_ms()), ended, {})
            return outcomes

    # -- before

    async def _open(self, by: str, reason: str) -> tuple[Audit, Gate]:
        """The record and the gate; nothing is touched on the disk while control is off."""
        if self._opened is None:
            section = self._section
            shut = Gate(enabled=section.enabled, refusals_max=section.refusals_max, lines=())
            shut.admit(by=by, reason=reason)
            audit = await asyncio.to_thread(Audit, self._audit_file)
            lines = await asyncio.to_thread(lambda: list(audit.lines()))
            self._opened = (
                audit,
                Gate(enabled=section.enabled, refusals_max=section.refusals_max, lines=lines),
            )
        self._opened[1].admit(by=by, reason=reason)
        return self._opened

    async def _look(self, place: Place) -> Measured:
        deadline = self._clock.monotonic() + ANSWER_WAIT_S
        (result,) = await place.session.read(
            ["clock"], priority=Priority.ON_DEMAND, deadline=deadline
        )
        if isinstance(result.error, HeadendError):
            raise result.error
        if result.meter_time_ms is None or result.time_ms is None or result.exchange is None:
            msg = f"meter {place.meter.id} shows no time"
            raise BadReply(msg, code="no_value")
        return measured(result.meter_time_ms, result.time_ms, result.exchange.took_ms)

    async def _try_look(self, place: Place) -> Measured | None:
        try:
            return await self.look(place)
        except HeadendError:
            return None

    def _leave(self, place: Place, look: Measured, *, however_small: bool) -> ClockOutcome | None:
        """The outcome of a clock that is not to be set; PolicyError for one that may not be now."""
        meter = place.meter
        if meter.protocol != PROTOCOL:
            msg = f"clocks of {meter.protocol} meters are not set"
            raise PolicyError(msg)
        off = f"{look.offset_ms / 1000:+.1f} s"
        match verdict(look, self._policy):
            case Verdict.TICKET:
                message = (
                    f"{off} is more than {self._policy.ticket_s:g} s: something else is wrong with "
                    "this meter, somebody has to look (control.clock.ticket_s)"
                )
                return ClockOutcome(meter.id, TICKET, message, look)
            case Verdict.LEAVE if not however_small:
                return ClockOutcome(meter.id, LEFT, f"{off} is left alone", look)
        why = forbidden(self._clock.now_ms(), look.offset_ms, self._policy, self._zone)
        if why is not None:
            raise PolicyError(why)
        return None

    # -- sending

    def moment(self, ahead_s: float) -> MeterTime:
        """What a meter is to show `ahead_s` from now, to the nearest second."""
        at_ms = round((self._clock.now_ms() + ahead_s * 1000) / 1000) * 1000
        local = to_datetime(at_ms).astimezone(self._zone)
        return MeterTime(local.date(), local.time())

    async def _send_to_all(self, place: Place) -> None:
        def now() -> BusRequest:
            length = place.wakeup + OVERHEAD_BYTES + 6
            raw = frames.clock_to_all(self.moment(length * place.char_s))
            return BusRequest(
                device=BROADCAST,
                payload=WAKE_UP * place.wakeup + raw,
                delimiter=DELIMITER,
                match=lambda _raw: Match.UNSOLICITED,
                reply_bytes=0,
                priority=Priority.ON_DEMAND,
                attempts=1,
                timeout_s=BROADCAST_ECHO_S,
                deadline=self._clock.monotonic() + ANSWER_WAIT_S,
                at_sending=now,
            )

        with contextlib.suppress(NoAnswer):  # as it should be
            await place.port.exchange(now())

    async def _after(
        self, place: Place, before: Measured | None, by: str, reason: str
    ) -> ClockOutcome:
        after = await self._try_look(place)
        meter = place.meter
        if after is None:
            message = "its clock cannot be read: nobody knows"
            return ClockOutcome(meter.id, UNREADABLE, message, before)
        if before is None or abs(after.offset_ms - before.offset_ms) < 1000:
            done = verdict(after, self._policy) is Verdict.LEAVE
            message = "it was right already" if done else "the meter passed over it"
            return ClockOutcome(meter.id, LEFT if done else NOT_SET, message, before, after)
        await self.jumped(meter, before, after, by, reason)
        done = is_right(after)
        message = "set" if done else f"it now shows {after.offset_ms / 1000:+.1f} s"
        return ClockOutcome(meter.id, SET if done else NOT_SET, message, before, after)

    async def jumped(
        self, meter: Meter, before: Measured, after: Measured, by: str, reason: str
    ) -> None:
        """Tell that the meter's time is another one from now on."""
        fields = {
            "meter": meter.id,
            "service_point": meter.service_point,
            "before_s": f"{before.offset_ms / 1000:.1f}",
            "after_s": f"{after.offset_ms / 1000:.1f}",
            "by": by,
            "reason": reason,
        }
        await self._told(Event("clock_jump", after.at_ms, fields))

    def at(self) -> str:
        """Now, for the record."""
        return iso(self._clock.now_ms())

    def deadline(self) -> float:
        """Nothing is sent after it."""
        return self._clock.monotonic() + ANSWER_WAIT_S

    @property
    def operator(self) -> str:
        """What meters note as who did it."""
        return self._section.operator


def is_right(look: Measured) -> bool:
    """A clock that was set a moment ago."""
    return abs(look.offset_ms) <= DIFFERENCE_DONE_MS + look.uncertainty_ms


@dataclass(slots=True)
class _Write:
    """One meter's clock, set with a password."""

    control: ClockControl
    audit: Audit
    gate: Gate
    job: Job
    place: Place
    look: Measured
    password: Password
    by: str
    reason: str

    async def run(self) -> ClockOutcome:
        """Write down, send, read back, write down how it ended."""
        place, control = self.place, self.control
        intent = await asyncio.to_thread(
            self.audit.begin,
            at=control.at(),
            action="clock_set",
            subject=place.meter.id,
            by=self.by,
            reason=self.reason,
            details={
                "bus": place.port.name,
                "address": place.meter.address,
                "offset_s": self.look.offset_ms / 1000,
                "uncertainty_s": self.look.uncertainty_ms / 1000,
            },
        )
        outcome = ClockOutcome(place.meter.id, "interrupted", "nobody knows", self.look)
        try:
            outcome = await self._send()
        finally:
            details: dict[str, object] = {"message": outcome.message}
            if outcome.outcome == PASSWORD_REFUSED:
                details["password_of"] = self.password.of
            if outcome.after is not None:
                details["after_s"] = outcome.after.offset_ms / 1000
            await _ended(self.audit, intent, control.at(), outcome.outcome, details)
        return outcome

    async def _send(self) -> ClockOutcome:
        meter, before = self.place.meter, self.look
        said = ""
        try:
            for di in self._items():
                await self._write(di)
        except ErrorReply as error:
            if "password" in error.reasons:
                self.job.refused()
                self.gate.was_refused(meter.id, self.password.of)
                return ClockOutcome(meter.id, PASSWORD_REFUSED, str(error), before)
            said = str(error)
        except (BusError, RemoteProtocolError) as error:
            said = str(error)  # it may have been taken all the same
        try:
            after = await self.control.look(self.place)
        except HeadendError as error:
            message = said or f"it cannot be read back: {error}"
            return ClockOutcome(meter.id, NO_ANSWER, message, before)
        if abs(after.offset_ms - before.offset_ms) >= 1000:
            await self.control.jumped(meter, before, after, self.by, self.reason)
        if is_right(after):
            return ClockOutcome(meter.id, SET, said or "set", before, after)
        message = said or f"it still shows {after.offset_ms / 1000:+.1f} s"
        return ClockOutcome(meter.id, REFUSED if said else NOT_SET, message, before, after)

    def _items(self) -> tuple[str, ...]:
        """The date is written only when it is wrong; never near midnight, so it cannot turn."""
        shown = self.control.moment(self.look.offset_ms / 1000)
        right = self.control.moment(0)
        return (frames.TIME,) if shown.date == right.date else (frames.DATE, frames.TIME)

    async def _write(self, di: str) -> None:
        """Send one item once. ErrorReply for a refusal, a BusError for silence."""
        sent: list[frames.ClockWrite] = []

        def now() -> BusRequest:
            request = self._request(di, 0.0)
            length = self.place.wakeup + len(request.raw)
            request = self._request(di, length * self.place.char_s)
            sent[:] = [request]
            payload = WAKE_UP * self.place.wakeup + request.raw
            return BusRequest(
                device=self.place.meter.address,
                payload=payload,
                delimiter=DELIMITER,
                match=partial(frames.match_write, request),
                reply_bytes=OVERHEAD_BYTES,
                priority=Priority.ON_DEMAND,
                attempts=1,
                deadline=self.control.deadline(),
                at_sending=now,
                recorded=blotted(payload, self.place.wakeup),
            )

        exchange = await self.place.port.exchange(now())
        assert exchange.reply is not None
        frames.check_written(sent[0], exchange.reply)

    def _request(self, di: str, ahead_s: float) -> frames.ClockWrite:
        when = self.control.moment(ahead_s)
        return frames.write_clock(
            self.place.meter.address,
            di,
            when.date if di == frames.DATE else when.time,
            password=frames.Password(self.password.level, self.password.digits),
            operator=self.control.operator,
        )


def blotted(payload: bytes, wakeup: int) -> bytes:
    """A write as records show it: password, operator and check byte are zeros.

    The check byte is a sum: with everything else known it would give the password's away.
    """
    shown = bytearray(payload)
    start = wakeup + _SECRET_FROM
    shown[start : start + _SECRET_BYTES] = bytes(_SECRET_BYTES)
    shown[-2] = 0
    return bytes(shown)


async def _ended(
    audit: Audit, intent: Intent, at: str, outcome: str, details: dict[str, object]
) -> None:
    """Write the outcome down even when whoever waits for it has gone."""
    await asyncio.shield(
        asyncio.to_thread(audit.end, intent, at=at, outcome=outcome, details=details)
    )
