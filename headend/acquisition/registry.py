"""Which meter hangs where, today: the configuration corrected by the dated meter events.

An exchange that was declared holds at once and after every restart, whether or not the
configuration file has been brought up to date: a configured meter that has been exchanged is
replaced by its successor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from headend.config.meter_rules import address_problem
from headend.domain.errors import ConfigError
from headend.domain.meter import Event, Meter, MeterExchange

EXCHANGE_KIND = "meter_exchange"


def exchange_event(exchange: MeterExchange) -> Event:
    """The feed's event of an exchange (register values as text, exactly as read)."""
    return Event(
        EXCHANGE_KIND,
        exchange.at_ms,
        {
            "service_point": exchange.service_point,
            "old_meter": exchange.old_meter,
            "new_meter": exchange.new_meter,
            "new_address": exchange.new_address,
            "old_final": {point: format(v, "f") for point, v in exchange.old_final.items()},
            "new_initial": {point: format(v, "f") for point, v in exchange.new_initial.items()},
            "by": exchange.by,
            "reason": exchange.reason,
        },
    )


def exchange_of(event: Event) -> MeterExchange:
    """The exchange an event tells of; KeyError or ValueError when it is not one."""
    if event.kind != EXCHANGE_KIND:
        msg = f"a {event.kind} event is no meter exchange"
        raise ValueError(msg)
    fields = event.fields
    return MeterExchange(
        at_ms=event.at_ms,
        service_point=str(fields["service_point"]),
        old_meter=str(fields["old_meter"]),
        new_meter=str(fields["new_meter"]),
        new_address=str(fields["new_address"]),
        old_final={p: Decimal(v) for p, v in fields["old_final"].items()},
        new_initial={p: Decimal(v) for p, v in fields["new_initial"].items()},
        by=str(fields.get("by", "")),
        reason=str(fields.get("reason", "")),
    )


class Registry:
    """The meters in force. Changed only by `exchange` and `become`."""

    def __init__(self, meters: Iterable[Meter], events: Sequence[Event]) -> None:
        self._meters = {meter.id: meter for meter in meters}
        for event in sorted(events, key=lambda e: e.at_ms):
            if event.kind == EXCHANGE_KIND:
                exchange = exchange_of(event)
                if exchange.old_meter in self._meters:
                    self.exchange(exchange)

    def get(self, meter_id: str) -> Meter:
        """The meter of this asset id; KeyError when there is none in force."""
        return self._meters[meter_id]

    def all(self) -> list[Meter]:
        """Every meter in force, in the configuration's order."""
        return list(self._meters.values())

    def holds(self, meter: Meter) -> bool:
        """Whether this meter is in force exactly as it is described here."""
        known = self._meters.get(meter.id)
        return known is meter or known == meter

    def become(self, other: "Registry") -> None:
        """Hold what another one holds: the configuration has changed."""
        self._meters = {meter.id: meter for meter in other.all()}

    def on_bus(self, bus: str) -> list[Meter]:
        """The meters of one bus."""
        return [meter for meter in self._meters.values() if meter.bus == bus]

    def check_exchange(self, exchange: MeterExchange) -> Meter:
        """The meter that leaves; ConfigError when the exchange cannot be."""
        old = self._meters.get(exchange.old_meter)
        if old is None:
            msg = f"meter {exchange.old_meter} is not in force"
            raise ConfigError(msg, hint="name the meter that hangs there now")
        if exchange.new_meter == exchange.old_meter:
            msg = f"{exchange.new_meter} cannot come where it leaves"
            raise ConfigError(msg, hint="the new meter needs an asset id of its own")
        problem = address_problem(old.protocol, exchange.new_address or old.address)
        if problem is not None:
            raise ConfigError(problem.message, hint=problem.hint)
        taken = self._meters.get(exchange.new_meter)
        if taken is not None and taken.service_point != old.service_point:
            msg = f"meter {exchange.new_meter} hangs elsewhere already"
            raise ConfigError(msg, hint="the new meter needs an asset id of its own")
        return old

    def exchange(self, exchange: MeterExchange) -> Meter:
        """Replace the old meter by the new one, in its place; the new meter is returned."""
        old = self._meters[exchange.old_meter]
        new = self._meters.get(exchange.new_meter) or replace(
            old, id=exchange.new_meter, address=exchange.new_address or old.address
        )
        kept: dict[str, Meter] = {}
        for meter in self._meters.values():
            if meter.id == old.id:
                kept[new.id] = new
            elif meter.id != new.id:
                kept[meter.id] = meter
        self._meters = kept
        return new
