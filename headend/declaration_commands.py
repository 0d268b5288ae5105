"""Dated meter events by the daemon's local socket."""

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from headend.acquisition.declarations import Declared
from headend.acquisition.identity_watch import IdentityWatch
from headend.acquisition.meter_reader import MeterSession
from headend.api import ApiError, Command
from headend.commands import Parts
from headend.domain.clock import from_iso, iso
from headend.domain.meter import Meter, MeterExchange
from protocols.modbus.profile import DeviceProfile

log = logging.getLogger(__name__)

TEXT_CHARS_MAX = 128


class DeclarationDesk:
    """One for a daemon: what people declare, into its engine."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        parts.engine.declarations.profile_of = self._profile_of

    def watch(self, open_session: Callable[[Meter], MeterSession]) -> IdentityWatch:
        """What asks meters which they are; `open_session` must tell nobody what comes of it."""
        declarations = self._parts.engine.declarations
        for problem in declarations.registry.problems:
            about = {"about": (problem.meter, problem.key)}
            log.error("configuration: %s; %s", problem.message, problem.hint, extra=about)
        return IdentityWatch(
            declarations, declarations.reader, open_session, clock=self._parts.clock
        )

    def commands(self) -> dict[str, Command]:
        """`meter_exchange`, `meter_ratio`, `meter_reset`, and so on."""
        return {
            "meter_exchange": self._exchange,
            "meter_ratio": self._ratio,
            "meter_reset": self._reset,
            "meter_rollover": self._rollover,
            "meter_address": self._address,
            "meter_move": self._move,
            "meter_number": self._number,
            "meter_withdraw": self._withdraw,
        }

    def _profile_of(self, meter: Meter) -> DeviceProfile | None:
        profile = self._parts.config.profiles.get(meter.profile or "")
        return profile if isinstance(profile, DeviceProfile) else None

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        exchange = MeterExchange(
            at_ms=_instant(request),
            service_point="",
            old_meter=_word(request, "old_meter"),
            new_meter=_word(request, "new_meter"),
            new_address=str(request.get("new_address") or ""),
            old_final=_registers(request, "old_final"),
            new_initial=_registers(request, "new_initial"),
            **_who(request),
        )
        declared = await self._parts.engine.declarations.exchange(exchange)
        return _answer(declared) | {"readings": declared.withdrawn}

    async def _ratio(self, request: dict[str, Any]) -> dict[str, Any]:
        return _answer(
            await self._parts.engine.declarations.ratio(
                _word(request, "meter"),
                _instant(request),
                ct=_number(request, "ct"),
                pt=_number(request, "pt"),
                registers=_registers(request, "registers"),
                **_who(request),
            )
        )

    async def _reset(self, request: dict[str, Any]) -> dict[str, Any]:
        return _answer(
            await self._parts.engine.declarations.reset(
                _word(request, "meter"),
                _instant(request),
                before=_registers(request, "before"),
                after=_registers(request, "after"),
                **_who(request),
            )
        )

    async def _rollover(self, request: dict[str, Any]) -> dict[str, Any]:
        return _answer(
            await self._parts.engine.declarations.rollover(
                _word(request, "meter"),
                _instant(request),
                point=_word(request, "point"),
                digits=int(request["digits"]),
                **_who(request),
            )
        )

    async def _address(self, request: dict[str, Any]) -> dict[str, Any]:
        return _answer(
            await self._parts.engine.declarations.address(
                _word(request, "meter"),
                _instant(request),
                address=_word(request, "address"),
                **_who(request),
            )
        )

    async def _move(self, request: dict[str, Any]) -> dict[str, Any]:
        return _answer(
            await self._parts.engine.declarations.move(
                _word(request, "meter"),
                _instant(request),
                area=_word(request, "area"),
                **_who(request),
            )
        )

    async def _number(self, request: dict[str, Any]) -> dict[str, Any]:
        return _answer(
            await self._parts.engine.declarations.number(
                _word(request, "meter"),
                _instant(request),
                number=_word(request, "number"),
                **_who(request),
            )
        )

    async def _withdraw(self, request: dict[str, Any]) -> dict[str, Any]:
        declarations = self._parts.engine.declarations
        return _answer(await declarations.take_back(_word(request, "id"), **_who(request)))


def _answer(declared: Declared) -> dict[str, Any]:
    return {
        "event_id": declared.id,
        "event": declared.event.kind,
        "at": iso(declared.event.at_ms),
        "meter": declared.meter.id,
        "service_point": declared.meter.service_point,
        "withdrawn": declared.withdrawn,
        "born": declared.born,
    }


def _who(request: Mapping[str, Any]) -> dict[str, str]:
    return {"by": _word(request, "by"), "reason": _word(request, "reason")}


def _word(request: Mapping[str, Any], key: str) -> str:
    """A text that may stand in an event: people sign with it, and it is shown again."""
    value = request.get(key)
    if not isinstance(value, str) or not value.strip():
        msg = f"{key} is missing"
        raise ApiError(msg)
    if len(value) > TEXT_CHARS_MAX or not value.isprintable():
        msg = f"{key} must be a text of at most {TEXT_CHARS_MAX} printable characters"
        raise ApiError(msg)
    return value


def _instant(request: Mapping[str, Any]) -> int:
    try:
        return from_iso(str(request.get("at")))
    except ValueError:
        msg = f"at {request.get('at')!r} is not a time with an offset"
        raise ApiError(msg) from None


def _number(request: Mapping[str, Any], key: str) -> Decimal:
    return _decimal(key, request.get(key))


def _registers(request: Mapping[str, Any], key: str) -> dict[str, Decimal]:
    values = request.get(key)
    if not isinstance(values, Mapping):
        msg = f"{key} must give a value for each register"
        raise ApiError(msg)
    return {str(point): _decimal(f"{key} {point}", value) for point, value in values.items()}


def _decimal(key: str, text: object) -> Decimal:
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        msg = f"{key} {text!r} is not a number of 0 or more"
        raise ApiError(msg)
    return value
