"""The arbiter of one port: owns it, reopens it, and lets one conversation at a time onto it.

`run` is the one task that touches the link. Those who ask wait on a future; nothing is started
for a request, and a byte that comes in costs one call.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from headend.bus import failures
from headend.bus.attempt import Attempt
from headend.bus.between import Between
from headend.bus.devices import DeviceBook
from headend.bus.queue import Pending, RequestQueue
from headend.bus.recorder import Recorder
from headend.bus.request import BusRequest, Late, Priority
from headend.bus.settings import BusSettings
from headend.bus.statistics import BusState, BusStatistics
from headend.bus.timing import allowed_s, silence_after
from headend.bus.waiter import Waiter
from headend.domain.clock import Clock
from headend.domain.errors import BusError, NoAnswer, PortBusy, PortGone
from headend.domain.exchange import Exchange, Outcome
from headend.transport import Link, Returning

log = logging.getLogger(__name__)

STEP_S_MAX = 5.0  # an idle bus, or one without its port, takes a step at least this often
PRESENT_POLL_S = 0.25  # how soon a device path that comes back is noticed

_ANSWERS = frozenset({Outcome.REPLY, Outcome.REFUSED})


class Bus:
    """One half-duplex medium.

    Before each request the line is quiet for the gap (or longer, as the request says), after a
    time-out for longer still, by what a late reply could be taken for (`Late`). Bytes that come
    outside an attempt are stray: they are counted, go into the `stray` of the next attempt, and
    are never an answer. Silence, damage, incomplete and foreign frames are repeated up to the
    request's attempts within its deadline; refusals are returned and never repeated. Between two
    attempts a more urgent request may go first.

    A device that is silent for `dead_after` requests is probed slowly (see `devices`): requests
    for it fail at once with NoAnswer, diagnosis `dead_waiting`, attempts 0, unless a probe is
    due. A person's request (ON_DEMAND) is always sent; every probe is one attempt. Behind a gateway
    (`Late.NUMBERED`) a device gets one attempt as soon as one request brought nothing but silence.

    While the port is absent requests fail at once with PortGone; before the first try to open it
    they wait. `observer` is called once for every attempt that reached the port, before the caller
    goes on. If it raises, the event loop's exception handler reports it, it is counted, and the
    bus works on.

    A caller that is cancelled while its request waits leaves nothing behind; while it is on the
    wire the attempt is finished, recorded as it ended and not repeated.
    """

    def __init__(
        self,
        name: str,
        link: Link,
        settings: BusSettings,
        *,
        clock: Clock,
        observer: Callable[[Exchange], None],
    ) -> None:
        self.name = name
        self._link = link
        self._settings = settings
        self._clock = clock
        self._recorder = Recorder(name, observer)
        self._queue = RequestQueue(settings.queue_max)
        self._devices = DeviceBook(settings)
        self._numbers = 0
        self._state = BusState.STOPPED
        self._down: BusError | None = None  # why the port is not there, once that is known
        self._loop: asyncio.AbstractEventLoop | None = None
        # the attempt on the wire
        self._attempt: Attempt | None = None
        self._last_byte_ms = 0
        self._timer: asyncio.TimerHandle | None = None
        # what the task waits for
        self._waiter = Waiter()
        self._idle = False
        # the line
        self._lost: Exception | None = None
        self._clear_at = 0.0
        self._quiet_s = settings.gap_ms / 1000
        self._line_at = 0.0  # the last byte on the line, theirs or ours
        self._opened_at = 0.0
        self._silent_in_row = 0
        self._between = bytearray()
        self._hide_between = False  # they may be an echo of a password
        self._worked = False  # an answer came since the port was opened
        # counters
        self._counts: Counter[str] = Counter()
        self._bytes_received = 0
        self._marked_bytes = 0
        self._busy_s = 0.0
        self._first_run_at: float | None = None
        self._after: Between | None = None  # what comes while nobody waits for an answer

    @property
    def parity_seen(self) -> bool:
        """The medium marks damaged bytes; known for sure once the port is open."""
        return self._link.parity_seen

    def change(self, settings: BusSettings) -> None:
        """Go on by other settings, from the next attempt on. The port stays open."""
        self._settings = settings
        self._queue.size_max = settings.queue_max
        self._devices.change(settings, 0.0 if self._loop is None else self._loop.time())

    def retire(self) -> None:
        """This bus will never run again: whoever still asks is told at once, and not left waiting.

        To be called before the task of `run` is stopped for good.
        """
        self._down = failures.stopped(self.name)

    async def run(self) -> None:
        """Own the port until cancelled: open it, work the queue, open it again when it was lost."""
        self._loop = asyncio.get_running_loop()
        if self._first_run_at is None:
            self._first_run_at = self._loop.time()
        self._state, self._down = BusState.OPENING, None
        backoff_s = self._settings.reopen_first_s
        try:
            while True:
                opened_at = await self._open(backoff_s)
                try:
                    await self._work()
                finally:
                    await self._link.close()
                self._port_down(self._was_lost())
                lived_s = self._loop.time() - opened_at
                if self._worked or lived_s > self._settings.reopen_max_s:
                    backoff_s = self._settings.reopen_first_s
                else:  # it opens and breaks at once: no faster than a port that is not there
                    backoff_s = min(backoff_s * 2, self._settings.reopen_max_s)
                    await self._absent(backoff_s)
        finally:
            self._disarm()
            self._waiter.rest()
            self._state = BusState.STOPPED
            for pending in self._queue.drain():
                self._fail(pending, failures.stopped(self.name))

    async def exchange(self, request: BusRequest) -> Exchange:
        """Ask and wait for the answer: an Exchange with outcome REPLY or REFUSED.

        NoAnswer (with a diagnosis), PortGone, DeadlinePassed (nothing was sent), QueueFull.
        ValueError for a request that asks for nothing or is never to be sent.
        """
        if not request.payload or request.attempts < 1:
            msg = f"a request needs bytes and at least one attempt: {request!r}"
            raise ValueError(msg)
        loop = asyncio.get_running_loop()
        self._admit(request, loop.time())
        self._numbers += 1
        pending = Pending(
            request.priority, self._numbers, request, loop.create_future(), loop.time()
        )
        self._queue.push(pending)
        if self._idle:
            self._waiter.wake()
        expiry: asyncio.TimerHandle | None = None
        if request.deadline is not None:
            left_s = request.deadline - self._clock.monotonic()
            expiry = loop.call_later(left_s, self._expire, pending)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._queue.discard(pending)
            raise
        finally:
            if expiry is not None:
                expiry.cancel()

    def hurry(self, device: str) -> AbstractContextManager[None]:
        """Inside it every request for a device counts as ON_DEMAND: somebody waits for it."""
        return self._queue.hurry(device)

    def statistics(self) -> BusStatistics:
        """A snapshot of the counters."""
        now = 0.0 if self._loop is None else self._loop.time()
        counts = self._counts
        return BusStatistics(
            state=self._state,
            exchanges=sum(self._recorder.outcomes.values()),
            outcomes=dict(self._recorder.outcomes),
            answered=counts["answered"],
            failed=counts["failed"],
            refused_full=counts["refused_full"],
            deadline_passed=counts["deadline_passed"],
            dead_waiting=counts["dead_waiting"],
            stray_bytes=self._recorder.stray_bytes,
            observer_failures=self._recorder.observer_failures,
            opens=counts["opens"],
            queue_len=len(self._queue),
            steps=counts["steps"],
            busy_s=self._busy_s,
            elapsed_s=0.0 if self._first_run_at is None else now - self._first_run_at,
            dead_s=self._devices.dead_s,
            devices=self._devices.statistics(now),
            bytes_sent=self._recorder.bytes_sent,
            bytes_received=self._bytes_received,
            marked_bytes=self._marked_bytes,
            noise=dict(self._recorder.noise),
            frames=dict(self._recorder.frames),
            latency=self._recorder.latency.snapshot(),
        )

    # -- what the link calls

    def bytes_received(self, data: bytes, bad: Sequence[int]) -> None:
        """Bytes from the link: part of the attempt on the wire, or stray."""
        assert self._loop is not None
        now = self._loop.time()
        self._bytes_received += len(data)
        if bad:
            self._marked_bytes += len(bad)
        attempt = self._attempt
        if attempt is None or attempt.outcome is not None:
            self._recorder.stray_bytes += len(data)
            if self._after is not None:
                self._recorder.frames.update(self._after.feed(data, bad))
            room = 0 if self._hide_between else self._settings.stray_max - len(self._between)
            self._between += data[: max(0, room)]
            self._line_at = now
            self._clear_at = max(self._clear_at, now + self._quiet_s)
            return
        self._last_byte_ms = self._clock.now_ms()
        if attempt.feed(data, bad, now):
            self._waiter.wake()
            return
        timer = self._timer
        if timer is None or timer.when() > now + attempt.idle_s:
            check_at = attempt.check_at()
            if timer is None or timer.when() > check_at:
                self._arm(check_at)

    def link_lost(self, reason: Exception | None) -> None:
        """The link says that the port is gone."""
        self._lost = reason or EOFError("the other side hung up")
        if self._attempt is not None and self._attempt.outcome is None:
            self._attempt.abort(Outcome.PORT_GONE)
        self._waiter.wake()

    # -- the port

    async def _open(self, backoff_s: float) -> float:
        """Try until the port is open. Returns when it was opened."""
        assert self._loop is not None
        while True:
            self._counts["steps"] += 1
            self._lost = None
            try:
                await self._link.open(self)
            except (PortGone, PortBusy) as error:
                self._port_down(error)
            else:
                break
            await self._absent(backoff_s)
            backoff_s = min(backoff_s * 2, self._settings.reopen_max_s)
        now = self._loop.time()
        settings = self._settings
        # What was asked before the port was lost may still be answered.
        again = self._counts["opens"] > 0
        self._quiet_s = (settings.silence_after_timeout_ms if again else settings.gap_ms) / 1000
        self._clear_at = max(self._clear_at, now + self._quiet_s)
        self._opened_at = now
        self._silent_in_row = 0
        self._counts["opens"] += 1
        self._worked = False
        level = logging.INFO if self._state is BusState.OPENING else logging.WARNING
        about = {"about": self.name}
        log.log(level, "bus=%s link=%s state=open", self.name, self._link.name, extra=about)
        self._state, self._down = BusState.OPEN, None
        return now

    async def _absent(self, backoff_s: float) -> None:
        """Wait before the next try; a device path that comes back ends the wait."""
        assert self._loop is not None
        returning = self._link if isinstance(self._link, Returning) else None
        was_there = returning is not None and returning.present()
        until = self._loop.time() + backoff_s
        while (now := self._loop.time()) < until:
            self._counts["steps"] += 1
            step_s = STEP_S_MAX if returning is None else PRESENT_POLL_S
            await asyncio.sleep(min(step_s, until - now))
            if returning is not None:
                is_there = returning.present()
                if is_there and not was_there:
                    return
                was_there = is_there

    def _port_down(self, error: BusError) -> None:
        state = BusState.BUSY if isinstance(error, PortBusy) else BusState.GONE
        level = logging.DEBUG if state is self._state else logging.WARNING
        link, about = self._link.name, {"about": (self.name, state)}
        log.log(level, "bus=%s link=%s state=%s: %s", self.name, link, state, error, extra=about)
        was_open = self._state is BusState.OPEN
        self._state = state
        if was_open:
            return  # one try to open it again before those who wait are told
        self._down = error
        for pending in self._queue.drain():
            self._fail(pending, failures.gone(self.name, str(error), error))

    def _was_lost(self) -> PortGone:
        return failures.gone(self.name, f"{self._link.name} was lost: {self._lost}")

    # -- the queue

    def _admit(self, request: BusRequest, now: float) -> None:
        """Refuse what cannot be served, before it takes a place in the queue."""
        if self._down is not None:
            raise failures.gone(self.name, str(self._down), self._down)
        if request.deadline is not None and self._clock.monotonic() >= request.deadline:
            self._counts["deadline_passed"] += 1
            raise failures.too_late(self.name, request)
        if self._must_wait(request, now):
            raise self._dead_waiting(request.device, now)
        if self._queue.is_full(request.priority):
            self._counts["refused_full"] += 1
            raise failures.queue_full(self.name, len(self._queue))

    def _must_wait(self, request: BusRequest, now: float) -> bool:
        return request.priority != Priority.ON_DEMAND and not self._devices.may_probe(
            request.device, now
        )

    def _dead_waiting(self, device: str, now: float) -> NoAnswer:
        self._counts["dead_waiting"] += 1
        return failures.dead_waiting(self.name, device, self._devices.wait_s(device, now))

    def _expire(self, pending: Pending) -> None:
        """The deadline of a request has come while its caller waits."""
        if not self._queue.discard(pending):
            return  # on the wire: that attempt is the last one
        if pending.attempts:
            self._give_up(pending)
        else:
            self._counts["deadline_passed"] += 1
            self._fail(pending, failures.too_late(self.name, pending.request))

    def _take(self, first: Pending) -> Pending | None:
        """The next request that may be sent; those that may not are answered on the way.

        `first`: the one the line was waited for; None when another one is next that has to wait.
        """
        assert self._loop is not None
        now = self._loop.time()
        while self._queue:
            pending = self._queue.pop()
            request = pending.request
            if pending.future.done():
                continue
            if request.deadline is not None and self._clock.monotonic() >= request.deadline:
                self._queue.push(pending)
                self._expire(pending)
            elif not pending.attempts and self._must_wait(request, now):
                self._fail(pending, self._dead_waiting(request.device, now))
            elif pending is not first and self._ready_at(request) > now:
                self._queue.push(pending)  # the line was waited for on behalf of another
                return None
            else:
                return pending
        return None

    # -- the work

    async def _work(self) -> None:
        """Serve the queue until the port is lost."""
        assert self._loop is not None
        while self._lost is None:
            self._counts["steps"] += 1
            if not self._queue:
                self._idle = True
                await self._waiter.wait_until(self._loop.time() + STEP_S_MAX)
                self._idle = False
                continue
            first = await self._quiet()
            pending = None if first is None else self._take(first)
            if pending is not None:
                await self._serve(pending)

    async def _quiet(self) -> Pending | None:
        """Wait until the line has been quiet long enough for who is next, or for too long.

        Returns who is next, still in the queue; None when the port is lost or nobody waits.
        """
        assert self._loop is not None
        latest: float | None = None
        while self._lost is None and self._queue:
            first = self._queue.first
            now, ready_at = self._loop.time(), self._ready_at(first.request)
            if latest is None:
                latest = max(ready_at, now + self._settings.quiet_wait_max_ms / 1000)
            until = min(ready_at, latest)
            if now >= until:
                return first
            await self._waiter.wait_until(until)
        return None

    def _ready_at(self, request: BusRequest) -> float:
        """When the line has been quiet long enough for a request, if nothing more is heard."""
        quiet_s = max(request.quiet_s, request.quiet_chars * self._link.char_s)
        ready_at = max(
            self._clear_at, self._line_at + quiet_s, self._opened_at + request.after_open_s
        )
        if request.late is Late.ANONYMOUS:
            # Whoever had the port before may have asked something that is still to be answered.
            silence_s = self._settings.silence_after_timeout_ms / 1000
            ready_at = max(ready_at, self._opened_at + silence_s)
        return ready_at

    async def _serve(self, pending: Pending) -> None:
        """One attempt of one request, and what follows from how it ended."""
        exchange: Exchange | None = None
        try:
            exchange = await self._attempt_once(pending)
        finally:
            if exchange is None:  # the bus is stopped, or broken: nobody is left waiting
                self._fail(pending, failures.stopped(self.name))
        outcome = exchange.outcome
        if outcome in _ANSWERS:
            self._worked = True
            self._counts["answered"] += 1
            if not pending.future.done():
                pending.future.set_result(exchange)
            return
        if outcome is Outcome.PORT_GONE:
            self._fail(pending, self._was_lost())
            return
        self._worked |= outcome is Outcome.UNREACHED
        pending.outcomes.append(outcome)
        request = pending.request
        if (
            pending.future.done()  # the caller has gone away
            or pending.attempts >= request.attempts
            or self._devices.is_dead(request.device)
            or (request.late is Late.NUMBERED and self._devices.is_doubtful(request.device))
            or (request.deadline is not None and self._clock.monotonic() >= request.deadline)
        ):
            self._give_up(pending)
        else:
            self._queue.push(pending)

    def _give_up(self, pending: Pending) -> None:
        """No further attempt: the caller is told, the device is charged."""
        assert self._loop is not None
        now = self._loop.time()
        device, outcomes = pending.request.device, pending.outcomes
        self._counts["failed"] += 1
        self._devices.failed(device, frozenset(outcomes), now)
        waited_ms = (now - pending.entered_at) * 1000
        self._fail(pending, failures.no_answer(self.name, device, outcomes, waited_ms))

    async def _attempt_once(self, pending: Pending) -> Exchange:
        """Send, wait for the end of the attempt, record it."""
        loop = self._loop
        assert loop is not None
        if pending.request.at_sending is not None:
            pending.request = pending.request.at_sending()
        request, settings, link = pending.request, self._settings, self._link
        if self._after is not None:
            self._recorder.frames.update(self._after.end())
        self._after = Between(request)
        pending.attempts += 1
        char_s = link.char_s
        sent_ms, sent_at = self._clock.now_ms(), loop.time()
        asked_at = sent_at + len(request.payload) * char_s
        attempt = Attempt(
            request,
            ends_at=sent_at + allowed_s(request, settings, char_s),
            idle_s=settings.inter_byte_ms / 1000,
            idle_ends=char_s > 0,
            stray_before=bytes(self._between),
            stray_max=settings.stray_max,
        )
        self._between.clear()
        self._hide_between = request.recorded is not None
        self._attempt = attempt
        try:
            self._send(attempt, request.payload)
            while attempt.outcome is None:
                await self._waiter.wait()
        finally:
            self._attempt = None  # the timer stays: the next attempt's is hardly ever sooner
            if attempt.outcome is None:
                attempt.abort(Outcome.CANCELLED)
            received_ms, ended_at = self._clock.now_ms(), loop.time()
            if attempt.outcome in _ANSWERS:  # the stamp is the byte's, not that of waking up
                assert attempt.last_byte_at is not None
                received_ms, ended_at = self._last_byte_ms, attempt.last_byte_at
            exchange = self._recorder.record(
                pending,
                attempt,
                loop,
                sent_ms=sent_ms,
                received_ms=received_ms,
                took_s=ended_at - sent_at,
            )
            self._line_after(attempt, pending, sent_at, asked_at)
        return exchange

    def _send(self, attempt: Attempt, payload: bytes) -> None:
        try:
            self._link.write(payload)
        except PortGone as error:
            self._lost = error
            attempt.abort(Outcome.PORT_GONE)
            return
        self._arm(attempt.ends_at)

    def _line_after(
        self, attempt: Attempt, pending: Pending, sent_at: float, asked_at: float
    ) -> None:
        """When the line is free again, and who pays for the time."""
        assert self._loop is not None
        assert attempt.outcome is not None
        now = self._loop.time()
        outcome, last_byte_at = attempt.outcome, attempt.last_byte_at
        self._line_at = max(self._line_at, asked_at, last_byte_at or asked_at)
        self._quiet_s, clear_at = silence_after(
            attempt, pending, self._settings, asked_at=asked_at, now=now
        )
        self._clear_at = max(self._clear_at, clear_at)
        self._busy_s += now - sent_at
        line_s = max(now, self._clear_at) - sent_at
        self._devices.attempted(pending.request.device, outcome, now, line_s)
        self._queue.served(pending.priority, line_s)
        self._silent_in_row = self._silent_in_row + 1 if outcome is Outcome.SILENCE else 0
        drop_after = self._settings.drop_after_silent
        if drop_after and self._silent_in_row >= drop_after and self._lost is None:
            msg = f"not one byte came after {self._silent_in_row} requests"
            self._lost = EOFError(msg)

    @staticmethod
    def _fail(pending: Pending, error: BusError) -> None:
        if not pending.future.done():
            pending.future.set_exception(error)

    # -- the timer of the attempt

    def _arm(self, when: float) -> None:
        """Look at `when`; the timer of an attempt before may look sooner, and then go on to it."""
        assert self._loop is not None
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._check)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """The timer of the attempt: has it ended, or when is the next look due."""
        assert self._loop is not None
        self._timer = None
        attempt = self._attempt
        if attempt is None or attempt.outcome is not None:
            return
        again = attempt.check(self._loop.time())
        if again is None:
            self._waiter.wake()
        else:
            self._arm(again)
