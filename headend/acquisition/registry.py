"""Which meter hangs where, today: the configuration corrected by the dated meter events.

What was declared holds at once and after every restart, whether or not the configuration file has
been brought up to date. A file that says something that was never declared contradicts: what was
declared holds, and `problems` names it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from headend.config.meter_rules import address_problem
from headend.domain.clock import iso
from headend.domain.errors import ConfigError
from headend.domain.lives import ADDRESS, AREA, EXCHANGE, RATIO, Lives, Place, Ratio
from headend.domain.meter import Event, Meter, MeterExchange

EXCHANGE_KIND = EXCHANGE
FOR_EVER_MS = 2**62


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


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of a meter that the file says and that nobody declared. `key`: of its entry."""

    meter: str
    key: str
    message: str
    hint: str


class Registry:
    """The meters in force. Changed only by `exchange` and `become`."""

    def __init__(self, meters: Iterable[Meter], events: Sequence[Event]) -> None:
        self.configured = tuple(meters)
        self.events = tuple(events)
        self.lives = Lives(events)
        self.problems: tuple[Problem, ...] = ()
        self._meters: dict[str, Meter] = {}
        self._work_out()

    def _work_out(self) -> None:
        file = {(m.service_point, m.id): m for m in self.configured}
        problems: list[Problem] = []
        in_force: dict[str, Meter] = {}
        for entry in self.configured:
            place = self.lives.place(entry.service_point, entry.id)
            hung = place.meter_at(FOR_EVER_MS)
            if hung is None or not place.told:
                in_force.setdefault(entry.id, entry)
                continue
            own = file.get((entry.service_point, hung))
            if hung in in_force:
                continue  # the old and the new one both stand in the file
            meter = own or replace(
                entry, id=hung, address=place.address_at(FOR_EVER_MS) or entry.address
            )
            found, said = _corrected(meter, place)
            in_force[hung] = found
            problems += said
        self._meters, self.problems = in_force, tuple(problems)

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

    def multiplier_at(self, meter: Meter, time_ms: int) -> Decimal:
        """What a meter's own values of an instant are multiplied by: not always as today."""
        place = self.lives.place(meter.service_point, meter.id)
        ratio = place.ratio_at(time_ms) if place.told else None
        return meter.multiplier if ratio is None else ratio.multiplier

    def hung_at(self, meter: Meter, time_ms: int) -> bool:
        """Whether a meter hung at its place then: what it kept of before is not of here."""
        place = self.lives.place(meter.service_point, meter.id)
        return not place.exchanges or place.meter_at(time_ms) == meter.id

    def become(self, other: "Registry") -> None:
        """Hold what another one holds: the configuration, or what was declared, has changed."""
        self.configured, self.events, self.lives = other.configured, other.events, other.lives
        self.problems = other.problems
        self._meters = {meter.id: meter for meter in other.all()}

    def with_events(self, events: Sequence[Event]) -> "Registry":
        """What would be in force with these events, and no others."""
        return Registry(self.configured, events)

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
        last = self.lives.place(old.service_point, old.id).exchanges[-1:]
        if last and last[0].at_ms >= exchange.at_ms:
            msg = f"meter {old.id} came at {iso(last[0].at_ms)}, it cannot have left before"
            raise ConfigError(msg, hint="take that exchange back first: headend meter events")
        return old

    def exchange(self, exchange: MeterExchange) -> Meter:
        """Replace the old meter by the new one, in its place; the new meter is returned."""
        old = self._meters[exchange.old_meter]
        told = replace(
            exchange,
            service_point=old.service_point,
            new_address=exchange.new_address or old.address,
        )
        self.become(self.with_events([*self.events, exchange_event(told)]))
        return self._meters[exchange.new_meter]


def _corrected(meter: Meter, place: Place) -> tuple[Meter, list[Problem]]:
    """A meter as it was declared, and what its entry in the file says otherwise."""
    problems: list[Problem] = []
    addresses = set(_told_addresses(meter.id, place))
    if addresses:
        now = place.address_at(FOR_EVER_MS)
        assert now is not None
        if meter.address not in addresses:
            problems.append(_problem(meter, "address", meter.address, now, "address"))
        meter = replace(meter, address=now)
    ratio = place.ratio_at(FOR_EVER_MS)
    if ratio is not None:
        told = set(_told_ratios(place))
        for key, mine, now_it_is in (("ct", meter.ct, ratio.ct), ("pt", meter.pt, ratio.pt)):
            if mine not in {getattr(one, key) for one in told}:
                problems.append(_problem(meter, key, f"{mine:f}", f"{now_it_is:f}", "ratio"))
        meter = replace(meter, ct=ratio.ct, pt=ratio.pt)
    if place.speaks_of_area:
        area = place.area_at(FOR_EVER_MS)
        areas = {e.fields[k] for e in place.told if e.kind == AREA for k in ("area", "area_before")}
        if meter.area not in areas:
            problems.append(_problem(meter, "area", meter.area, area, "move"))
        meter = replace(meter, area=area)
    return meter, problems


def _told_addresses(meter: str, place: Place) -> Iterator[str]:
    for event in place.told:
        fields = event.fields
        if event.kind == EXCHANGE:
            for whose, key in (("old_meter", "old_address"), ("new_meter", "new_address")):
                if fields.get(whose) == meter and fields.get(key):
                    yield str(fields[key])
        elif event.kind == ADDRESS and fields.get("meter") == meter:
            yield str(fields["address_before"])
            yield str(fields["address"])


def _told_ratios(place: Place) -> Iterator[Ratio]:
    for event in place.told:
        if event.kind == RATIO:
            fields = event.fields
            yield Ratio(Decimal(fields["ct"]), Decimal(fields["pt"]))
            yield Ratio(Decimal(fields["ct_before"]), Decimal(fields["pt_before"]))


def _problem(meter: Meter, key: str, file: object, told: object, command: str) -> Problem:
    return Problem(
        meter.id,
        key,
        f"meter {meter.id}: {key} is {file} here, and {told} by what was declared",
        f"correct it here, or declare the change: headend meter {command}",
    )


def undeclared(
    before: Registry, then: Registry, has_readings: Callable[[str], bool]
) -> list[Problem]:
    """What another file would change that only a dated event may: readings stand on it already.

    Another ratio, or another meter at a service point, would hold from some unknown instant on.
    """
    problems = []
    gone = {m.service_point: m for m in before.all() if not _has(then, m.id)}
    for meter in then.all():
        old = _get(before, meter.id)
        if old is not None and has_readings(meter.id) and old.service_point == meter.service_point:
            for key in ("ct", "pt"):
                was, is_now = getattr(old, key), getattr(meter, key)
                if was != is_now:
                    message = (
                        f"meter {meter.id}: {key} was {was:f} and is {is_now:f} here, and no date "
                        "says since when"
                    )
                    hint = "leave it and declare the change: headend meter ratio"
                    problems.append(Problem(meter.id, key, message, hint))
        left = gone.get(meter.service_point)
        if old is None and left is not None and has_readings(left.id):
            message = (
                f"meter {meter.id} hangs at {meter.service_point} here, where {left.id} hung: no "
                "exchange was declared"
            )
            hint = f"declare it: headend meter exchange --old {left.id} --new {meter.id}"
            problems.append(Problem(meter.id, "id", message, hint))
    return problems


def _get(registry: Registry, meter: str) -> Meter | None:
    try:
        return registry.get(meter)
    except KeyError:
        return None


def _has(registry: Registry, meter: str) -> bool:
    return _get(registry, meter) is not None
