"""Meters' clocks by the daemon's local socket: looked at, and set where control allows it."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from headend.acquisition.clock_watch import HISTORY_MS, ClockWatch
from headend.acquisition.meter_clocks import Policy, policy_of
from headend.api import ApiError, Command
from headend.commands import Parts
from headend.config.meter_rules import DLT645
from headend.config.secret_files import FileFault
from headend.control.audit import AuditError
from headend.control.clock import STOPPED, ClockControl, ClockOutcome, Place
from headend.control.clock_policy import Measured, forbidden, verdict
from headend.domain import alarms
from headend.domain.errors import HeadendError, PolicyError
from headend.domain.meter import Event, Meter
from headend.drivers.configured import ConfiguredSessions
from headend.drivers.dlt645 import Dlt645Session
from headend.planning import line_facts

AUDIT_FILE = "control_audit.jsonl"
BY_POLICY = "headend"  # who sets a clock when its plan or model says so
METERS_MAX = 1000


class ClockDesk:
    """One for a daemon: a control that remembers what was refused."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._control: ClockControl | None = None

    def commands(self) -> dict[str, Command]:
        """`clock_read`, `clock_set`, `clock_broadcast`."""
        return {
            "clock_read": self._read,
            "clock_set": self._set,
            "clock_broadcast": self._broadcast,
        }

    async def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        control = self._control_of()
        results = []
        for place in self._places(request):
            try:
                look = await control.look(place)
            except HeadendError as error:
                results.append(outcome_json(ClockOutcome(place.meter.id, "unreadable", str(error))))
                continue
            kind = verdict(look, self._parts.config.control.clock).value
            results.append(outcome_json(ClockOutcome(place.meter.id, kind, "", look)))
        return {"results": results}

    async def _set(self, request: dict[str, Any]) -> dict[str, Any]:
        small = bool(request.get("however_small"))
        places = self._places(request)

        async def work(control: ClockControl, by: str, reason: str) -> list[ClockOutcome]:
            return await control.set(places, by=by, reason=reason, however_small=small)

        return await self._work(request, work)

    async def _broadcast(self, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request["bus"])
        parts = self._parts
        if name not in parts.buses:
            msg = f"there is no bus {name}"
            raise ApiError(msg)
        ids = [m.id for m in parts.registry.on_bus(name) if m.protocol in DLT645]
        if not ids:
            msg = f"no DL/T 645 meter hangs on bus {name}"
            raise ApiError(msg)
        places = self._places({"meters": ids})

        async def work(control: ClockControl, by: str, reason: str) -> list[ClockOutcome]:
            return await control.broadcast(places, by=by, reason=reason)

        return await self._work(request, work)

    async def _work(
        self,
        request: dict[str, Any],
        work: Callable[[ClockControl, str, str], Awaitable[Iterable[ClockOutcome]]],
    ) -> dict[str, Any]:
        """What the control makes of it. ApiError when it is not allowed."""
        by, reason = str(request.get("by", "")), str(request.get("reason", ""))
        try:
            outcomes = await work(self._control_of(), by, reason)
        except (PolicyError, FileFault) as error:
            raise ApiError(str(error), code="not_allowed") from error
        return {"results": [outcome_json(outcome) for outcome in outcomes]}

    def _control_of(self) -> ClockControl:
        if self._control is None:
            parts = self._parts
            section = parts.config.control
            file = section.password_file
            self._control = ClockControl(
                section,
                None if file is None else parts.config.file(file),
                parts.config.data_path / AUDIT_FILE,
                clock=parts.clock,
                zone=parts.config.zone,
                told=self._told,
            )
        return self._control

    async def _told(self, event: Event) -> int:
        """Keep that a clock was set; what its meter stamped around it is marked from now on."""
        number = await self._parts.journal.append_event(event)
        self._parts.engine.clock_jumped(event)
        return number

    async def watch(self) -> ClockWatch:
        """Measures clocks by itself; what an earlier life has measured is taken up."""
        parts, control = self._parts, self._parts.config.control
        watch = ClockWatch(
            parts.journal,
            parts.clock,
            meters=parts.registry.all,
            holds=parts.registry.holds,
            turn=parts.engine.turn,
            open_session=parts.engine.open_session,
            policy=self._policy,
            section=control.clock,
            set_clock=self._set_one if control.enabled and control.password_file else None,
            guarded=lambda offset_ms: forbidden(
                parts.clock.now_ms(), offset_ms, control.clock, parts.config.zone
            ),
            known=parts.engine.clock_known,
            jumped=parts.engine.clock_jumped,
        )
        from_ms = parts.clock.now_ms() - HISTORY_MS
        watch.restore(
            await parts.journal.clock_history(from_ms),
            await parts.journal.meter_events(alarms.KINDS),
        )
        for event in await parts.journal.meter_events(("clock_jump",)):
            if event.at_ms >= from_ms:
                parts.engine.clock_jumped(event)
        return watch

    def _policy(self, meter: Meter) -> Policy:
        plan = self._parts.config.plans.get(meter.plan)
        return policy_of(
            meter, None if plan is None else plan.clock, self._parts.config.control.clock
        )

    async def _set_one(self, meter: Meter, reason: str) -> ClockOutcome:
        """One clock, as its policy wants it; an outcome whatever happens."""
        try:
            (outcome,) = await self._control_of().set(
                self._places({"meters": [meter.id]}), by=BY_POLICY, reason=reason
            )
        except (PolicyError, FileFault, AuditError, ApiError) as error:
            return ClockOutcome(meter.id, STOPPED, str(error))
        return outcome

    def _places(self, request: dict[str, Any]) -> list[Place]:
        parts = self._parts
        ids = [str(meter) for meter in request["meters"]]
        if not 0 < len(ids) <= METERS_MAX:
            msg = f"one to {METERS_MAX} meters"
            raise ApiError(msg)
        sessions = ConfiguredSessions(parts.config, parts.buses, clock=parts.clock)
        places = []
        for meter_id in ids:
            try:
                meter = parts.registry.get(meter_id)
            except KeyError:
                msg = f"there is no meter {meter_id} in force"
                raise ApiError(msg) from None
            session = sessions(meter)
            if not isinstance(session, Dlt645Session):
                msg = f"meter {meter_id} is no DL/T 645 meter: it has no clock that is known here"
                raise ApiError(msg)
            section = parts.config.buses[meter.bus]
            char_s = line_facts(section, {}).char_s
            places.append(Place(meter, session, parts.buses[meter.bus], section.wakeup, char_s))
        return places


def outcome_json(outcome: ClockOutcome) -> dict[str, Any]:
    """One meter's clock as `clock/1`. An offset is positive when the clock is fast; seconds."""
    return {
        "schema": "clock/1",
        "meter": outcome.meter,
        "outcome": outcome.outcome,
        "message": outcome.message,
        "before": _look_json(outcome.before),
        "after": _look_json(outcome.after),
    }


def _look_json(look: Measured | None) -> dict[str, Any] | None:
    if look is None:
        return None
    return {
        "offset_s": f"{look.offset_ms / 1000:.1f}",
        "uncertainty_s": f"{look.uncertainty_ms / 1000:.1f}",
    }
