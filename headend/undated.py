"""The daemon while its own clock is not believed: meters are read, nothing is dated.

One supervised task, `run`: it tells, waits until the clock can be believed, and then has everything
begun that needs a date. Commands that would put a date on something are refused meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from headend.acquisition.waiting_room import WaitingRoom
from headend.api import ApiError, Command
from headend.commands import Parts
from headend.domain.alarms import KINDS, standing
from headend.domain.meter import Event
from headend.machine_clock import OwnClock

log = logging.getLogger(__name__)

ALARM = "clock_untrusted"
LOOK_S = 1.0
# What works without a date, and what ends the waiting.
WITHOUT_A_DATE = frozenset({"status", "read", "clock_trust", "feed_replay", "timeseries_replay"})
REASONS = {
    "not_synchronised": "no time service has set this machine's clock since it was started",
    "went_back": "this machine's clock shows an earlier time than the journal was written at",
    "not_set": "this machine's clock has not been set",
}


class Undated:
    """`begin` and `begin_rest` start everything that needs a date; `begin` can be repeated."""

    def __init__(
        self,
        parts: Parts,
        begin: Callable[[], Awaitable[None]],
        begin_rest: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._begin = begin
        self._begin_rest = begin_rest
        self._has_begun = False
        self._is_over = False

    @property
    def waits(self) -> bool:
        """Whether the clock is not believed."""
        own = self._parts.own_clock
        return own is not None and own.distrusted is not None

    def start(self) -> None:
        """Read every bus, and wait for the time."""
        supervisor, room = self._parts.supervisor, self._parts.waiting
        assert room is not None
        for name in self._parts.buses:
            supervisor.start(f"wait:{name}", partial(room.run, name))
        supervisor.start("own-clock", self.run)

    async def run(self) -> None:
        """Until the clock is believed and everything has begun; then for ever, idle."""
        if not self._is_over:
            own, room = self._parts.own_clock, self._parts.waiting
            assert own is not None
            assert room is not None
            await self._tell(own)
            while own.look() is not None:  # noqa: ASYNC110 - nobody tells us, we have to look
                await asyncio.sleep(LOOK_S)
            await self._believe(own, room)
            if not self._has_begun:
                await self._begin()
                self._has_begun = True
                own.has_begun()  # before anything that was begun takes a step
            await self.over()
            self._begin_rest()
            self._is_over = True
        await asyncio.Event().wait()

    async def over(self) -> None:
        """The clock is believed: an alarm that stands, of an earlier life too, is over."""
        own = self._parts.own_clock
        if own is None or (since_ms := await self._standing_since()) is None:
            return
        # Events are told in the order of their instants: it is over after it has begun, even when
        # the right time is earlier than the one that was gone on with.
        at_ms = max(self._parts.clock.now_ms(), since_ms + 1)
        await self._append("alarm_cleared", {"alarm": ALARM, "reason": own.why_believed}, at_ms)

    async def _believe(self, own: OwnClock, room: WaitingRoom) -> None:
        """Nothing is on its way to a meter while the time moves."""
        await room.rest()
        for name in list(self._parts.buses):
            await self._parts.supervisor.remove(f"wait:{name}")
        if own.clock.is_held:
            why, moved_s = own.why_believed, own.believe()
            self._parts.outages.clock_is_known()
            log.warning("the clock is believed: %s; time moves by %+.1f s", why, moved_s)

    async def _tell(self, own: OwnClock) -> None:
        reason = own.distrusted
        if reason is None or await self._standing_since() is not None:
            return
        log.error("alarm=%s reason=%s: %s", ALARM, reason, REASONS[reason])
        fields = {"alarm": ALARM, "reason": reason, "message": REASONS[reason]}
        await self._append("alarm", fields, self._parts.clock.now_ms())

    async def _standing_since(self) -> int | None:
        told = await self._parts.journal.meter_events(KINDS)
        return next((alarm.since_ms for alarm in standing(told) if alarm.name == ALARM), None)

    async def _append(self, kind: str, fields: dict[str, Any], at_ms: int) -> None:
        await self._parts.journal.append_event(Event(kind, at_ms, fields))


def trust_command(parts: Parts) -> dict[str, Command]:
    """`clock_trust`: a person says that this machine's clock is right."""

    async def clock_trust(request: dict[str, Any]) -> dict[str, Any]:
        by, own = str(request.get("by", "")).strip(), parts.own_clock
        if not by:
            msg = "who says so?"
            raise ApiError(msg)
        was = None if own is None else own.distrusted
        if own is not None and was is not None:
            log.warning("the clock is to be believed: %s says so", by)
            own.vouch(by)
        return {"schema": "clock_trust/1", "trusted": True, "was": was}

    return {"clock_trust": clock_trust}


def guarded(parts: Parts, offered: Mapping[str, Command]) -> dict[str, Command]:
    """The commands, refusing what needs a date while there is none."""

    def guard(name: str, command: Command) -> Command:
        async def guarded_command(request: dict[str, Any]) -> dict[str, Any]:
            own = parts.own_clock
            if own is not None and own.distrusted is not None:
                msg = (
                    f"{REASONS[own.distrusted]}: nothing can be dated yet. `headend clock trust` "
                    "says that the clock is right"
                )
                raise ApiError(msg, code="not_allowed")
            return await command(request)

        return command if name in WITHOUT_A_DATE else guarded_command

    return {name: guard(name, command) for name, command in offered.items()}
