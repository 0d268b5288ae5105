"""Meters as the head-end knows them, and the dated events of their lives."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter on one bus.

    `id` is the asset id (the key of its readings); `address` the text the protocol uses (twelve
    digits for 645, the unit number for Modbus). `capacity_kw` bounds what can flow through the
    connection in either direction (phases x volts x amps); None = the plan's default.
    """

    id: str
    service_point: str
    bus: str
    protocol: str
    address: str
    plan: str
    area: str | None = None
    ct: Decimal = Decimal(1)
    pt: Decimal = Decimal(1)
    profile: str | None = None
    capacity_kw: Decimal | None = None

    @property
    def multiplier(self) -> Decimal:
        """CT x PT: what a secondary value is multiplied by."""
        return self.ct * self.pt


@dataclass(frozen=True, slots=True)
class Event:
    """Something dated that is not a reading: an exchange, a rollover, an alarm.

    `at_ms`: when it holds from (not when it was told). `fields` are the event's own, JSON-ready
    (money and energy as text). Kinds: contract §3.
    """

    kind: str
    at_ms: int
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeterExchange:
    """The old meter left a service point and a new one came, at one instant.

    `old_final` / `new_initial`: point name -> register value, as read off both meters.
    """

    at_ms: int
    service_point: str
    old_meter: str
    new_meter: str
    new_address: str
    old_final: dict[str, Decimal]
    new_initial: dict[str, Decimal]
    by: str
    reason: str
