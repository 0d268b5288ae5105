"""The lives of meters, from the dated events that people and the head-end have declared. Pure.

A place is where one meter hangs at a time: a service point, and the meters that exchanges led there
one after the other. Everything is decided by the date an event holds from, never by the order in
which events were declared or arrived. What somebody has taken back holds no more, but it is still
known: what was told as the state before an event is how a place began.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from headend.domain.clock import from_iso
from headend.domain.identity import event_id
from headend.domain.meter import Event

_T = TypeVar("_T")

EXCHANGE = "meter_exchange"
RATIO = "ratio_change"
ROLLOVER = "rollover"
RESET = "reset"
ADDRESS = "address_change"
AREA = "area_move"
NUMBER = "meter_number"
TAKEN_BACK = "event_withdrawn"

METER_EVENTS = (EXCHANGE, RATIO, ROLLOVER, RESET, ADDRESS, AREA, NUMBER, TAKEN_BACK)
DECLARED = (EXCHANGE, RATIO, ROLLOVER, RESET, ADDRESS, AREA)  # what a person may declare

BEFORE_EVERYTHING_MS = -(2**62)

# What an event of kind `meter_number` says of the number that a meter shows of itself: it was read
# for the first time; another one was read, so another meter may hang there; the known one is back;
# a person says that the meter is the same.
FIRST, CHANGED, SAME, ACCEPTED = "first", "changed", "same", "accepted"


def id_of(event: Event) -> str:
    """The id of an event: the same at both ends of the feed."""
    return event_id(event.kind, event.at_ms, event.fields)


def effective(events: Iterable[Event]) -> list[Event]:
    """Those that nobody has taken back, by their date, then in the order given."""
    told = list(events)
    gone = {e.fields.get("of") for e in told if e.kind == TAKEN_BACK}
    kept = [e for e in told if e.kind != TAKEN_BACK and (not gone or id_of(e) not in gone)]
    return sorted(kept, key=lambda e: e.at_ms)


class Ratio(NamedTuple):
    """The transformers in front of a meter."""

    ct: Decimal
    pt: Decimal

    @property
    def multiplier(self) -> Decimal:
        """What a secondary value is multiplied by."""
        return self.ct * self.pt


class Numbered(NamedTuple):
    """What is known of a meter's own number. `doubted_since_ms`: None, or the last instant at which
    it was this one: another meter may have answered since then.
    """

    number: str
    found: str
    doubted_since_ms: int | None
    at_ms: int


class Start(NamedTuple):
    """A register that an event tells: the meter counted on from it."""

    at_ms: int
    value: Decimal


def number(text: object) -> Decimal | None:
    """A number as an event carries it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


@dataclass(frozen=True)
class Place:
    """One service point's meters, one after the other. `events`: in force, by date."""

    service_point: str
    meters: frozenset[str]
    events: tuple[Event, ...]
    told: tuple[Event, ...]  # with those taken back, in the order they were declared

    @cached_property
    def exchanges(self) -> tuple[Event, ...]:
        """The exchanges in force, by date."""
        return tuple(e for e in self.events if e.kind == EXCHANGE)

    @cached_property
    def first(self) -> str | None:
        """The meter that hung here before every exchange; None when none is in force or told."""
        known = self.exchanges or tuple(e for e in self.told if e.kind == EXCHANGE)
        if known:
            return str(min(known, key=lambda e: e.at_ms).fields["old_meter"])
        return next(iter(self.meters)) if len(self.meters) == 1 else None

    def meter_at(self, time_ms: int) -> str | None:
        """The meter that hangs here at an instant; at an exchange the new one."""
        hung = self.first
        for event in self.exchanges:
            if event.at_ms <= time_ms:
                hung = str(event.fields["new_meter"])
        return hung

    def spans(self) -> list[tuple[int, str]]:
        """From when on which meter; the first from the beginning of time."""
        if self.first is None:
            return []
        later = [(e.at_ms, str(e.fields["new_meter"])) for e in self.exchanges]
        return [(BEFORE_EVERYTHING_MS, self.first), *later]

    def ratio_at(self, time_ms: int) -> Ratio | None:
        """The transformers at an instant; None when no event ever spoke of them."""
        return self._held(RATIO, time_ms, _ratio, _ratio_before)

    def area_at(self, time_ms: int) -> str | None:
        """The area; None when no event ever spoke of it."""
        return self._held(AREA, time_ms, itemgetter("area"), itemgetter("area_before"))

    @cached_property
    def speaks_of_area(self) -> bool:
        """Whether any event spoke of the area."""
        return any(e.kind == AREA for e in self.told)

    def address_at(self, time_ms: int) -> str | None:
        """The bus address of the meter that hangs here; None when it is not known."""
        found, since_ms = None, BEFORE_EVERYTHING_MS
        for event in self.events:
            if event.at_ms > time_ms:
                break
            if event.kind == EXCHANGE:
                found, since_ms = event.fields.get("new_address") or found, event.at_ms
            elif event.kind == ADDRESS and event.at_ms >= since_ms:
                found = event.fields["address"]
        if found is not None:
            return str(found)
        return self._address_before()

    def starts(self, meter: str, point: str, time_ms: int) -> Start | None:
        """The newest register that an event up to an instant tells of a meter."""
        found = None
        for event in self.events:
            if event.at_ms > time_ms:
                break
            value = start_of(event, meter, point)
            if value is not None:
                found = Start(event.at_ms, value)
        return found

    def had_begun_anew(self, meter: str, point: str, time_ms: int, value: Decimal) -> bool:
        """Whether a register is below what it showed before because it has begun anew by then.

        So it was noticed later, by a reading behind this one.
        """
        return any(wrapped_by(event, meter, point, time_ms, value) for event in self.events)

    def numbered(self, meter: str) -> Numbered | None:
        """The number that a meter is known by; None when it was never read."""
        for event in reversed(self.events):
            fields = event.fields
            if event.kind != NUMBER or fields.get("meter") != meter:
                continue
            if fields["state"] != CHANGED:
                return Numbered(fields["number"], fields["number"], None, event.at_ms)
            since_ms = from_iso(fields["since"])
            return Numbered(fields["number_before"], fields["number"], since_ms, event.at_ms)
        return None

    def points_told(self, meter: str) -> set[str]:
        """The registers that events tell something of."""
        found: set[str] = set()
        for event in self.events:
            found |= _registers(event, meter, ends=False).keys()
            if event.kind == ROLLOVER and event.fields.get("meter") == meter:
                found.add(str(event.fields.get("point")))
        return found

    def declared_rollover(
        self, meter: str, point: str, after_ms: int, until_ms: int
    ) -> Event | None:
        """A rollover that a person declared, after one instant and up to another."""
        return self.rollover(meter, point, after_ms, until_ms, by_person=True)

    def rollover(
        self, meter: str, point: str, after_ms: int, until_ms: int, *, by_person: bool = False
    ) -> Event | None:
        """A rollover after one instant and up to another, declared or noticed."""
        for event in self.events:
            fields = event.fields
            if (
                event.kind == ROLLOVER
                and ("by" in fields or not by_person)
                and (fields.get("meter"), fields.get("point")) == (meter, point)
                and after_ms < event.at_ms <= until_ms
            ):
                return event
        return None

    def _held(
        self,
        kind: str,
        time_ms: int,
        after: Callable[[Mapping[str, Any]], _T],
        before: Callable[[Mapping[str, Any]], _T],
    ) -> _T | None:
        found = [e for e in self.events if e.kind == kind and e.at_ms <= time_ms]
        if found:
            return after(found[-1].fields)
        first = next((e for e in self.told if e.kind == kind), None)
        return None if first is None else before(first.fields)

    def _address_before(self) -> str | None:
        """Where the first meter of all answered, as the event that was declared first tells it."""
        for event in self.told:
            name = {EXCHANGE: "old_address", ADDRESS: "address_before"}.get(event.kind)
            if name is None:
                continue
            whose = event.fields.get("old_meter", event.fields.get("meter"))
            found = event.fields.get(name)
            if whose == self.first and found is not None:
                return str(found)
        return None


class Lives:
    """Every place that an event speaks of."""

    def __init__(self, events: Iterable[Event]) -> None:
        told = sorted(events, key=declared_ms)
        by_point: dict[str, list[Event]] = {}
        for event in told:
            by_point.setdefault(str(event.fields.get("service_point", "")), []).append(event)
        self._gone = {e.fields.get("of") for e in told if e.kind == TAKEN_BACK}
        self._places: dict[tuple[str, str], Place] = {}
        for service_point, of_point in by_point.items():
            for place in self._of_point(service_point, of_point):
                for meter in place.meters:
                    self._places[service_point, meter] = place

    def place(self, service_point: str, meter: str) -> Place:
        """The place of a meter; one of its own when no event speaks of it."""
        known = self._places.get((service_point, meter))
        return known or Place(service_point, frozenset({meter}), (), ())

    def place_of(self, meter: str) -> Place | None:
        """Where a meter hangs or has hung; the newest place when there are several."""
        found = [p for (_point, name), p in self._places.items() if name == meter]
        return max(found, key=lambda p: max(map(declared_ms, p.told)), default=None)

    def is_taken_back(self, event: Event) -> bool:
        """Whether somebody has taken this event back."""
        return id_of(event) in self._gone

    def _of_point(self, service_point: str, told: list[Event]) -> list[Place]:
        groups: list[set[str]] = []
        for event in told:
            names = meters_of(event)
            touching = [group for group in groups if group & names]
            groups = [group for group in groups if not group & names]
            groups.append(names.union(*touching))
        places = []
        for group in groups:
            own = [e for e in told if meters_of(e) & group]
            kept = [e for e in own if e.kind != TAKEN_BACK and not self.is_taken_back(e)]
            in_force = tuple(sorted(kept, key=lambda e: (e.at_ms, order_within(e, kept))))
            places.append(Place(service_point, frozenset(group), in_force, tuple(own)))
        return places


def meters_of(event: Event) -> set[str]:
    """The meters that an event speaks of."""
    names = (event.fields.get(key) for key in ("meter", "old_meter", "new_meter"))
    return {str(name) for name in names if name}


def order_within(event: Event, others: Iterable[Event]) -> int:
    """Of several events of one instant: what concerns the old meter, the exchange, the new meter.

    Of one meter: its transformers before its reset, unless the reset's register is what they began
    with.
    """
    if event.kind == EXCHANGE:
        return 2
    same = [e for e in others if e.at_ms == event.at_ms]
    came = any(e.kind == EXCHANGE and e.fields["new_meter"] == event.fields.get("meter")
               for e in same)  # fmt: skip
    late = event.kind == RESET and any(e.kind == RATIO for e in same)
    return (3 if came else 0) + (1 if late else 0)


def declared_ms(event: Event) -> int:
    """When an event was declared; one that does not say, when it holds from."""
    text = event.fields.get("declared_at")
    return from_iso(text) if isinstance(text, str) else event.at_ms


def wrapped_by(event: Event, meter: str, point: str, time_ms: int, value: Decimal) -> bool:
    """Whether a rollover lies before a register that is inside the span it was noticed in."""
    fields = event.fields
    if event.kind != ROLLOVER or (fields.get("meter"), fields.get("point")) != (meter, point):
        return False
    before, since = number(fields.get("before")), fields.get("before_at")
    if before is None or not isinstance(since, str):
        return False
    return from_iso(since) < time_ms <= event.at_ms and value < before


def start_of(event: Event, meter: str, point: str) -> Decimal | None:
    """The register that a meter goes on from after an event; None when it tells none."""
    return number(_registers(event, meter, ends=False).get(point))


def end_of(event: Event, meter: str, point: str) -> Decimal | None:
    """The register that a meter had come to before an event; None when it tells none."""
    return number(_registers(event, meter, ends=True).get(point))


def _registers(event: Event, meter: str, *, ends: bool) -> Mapping[str, Any]:
    fields = event.fields
    if event.kind == EXCHANGE:
        whose, name = ("old_meter", "old_final") if ends else ("new_meter", "new_initial")
    elif event.kind == RESET:
        whose, name = "meter", "before" if ends else "after"
    elif event.kind == RATIO:
        whose, name = "meter", "registers"
    else:
        return {}
    found = fields.get(name)
    return found if fields.get(whose) == meter and isinstance(found, Mapping) else {}


def _ratio(fields: Mapping[str, Any]) -> Ratio:
    return Ratio(Decimal(fields["ct"]), Decimal(fields["pt"]))


def _ratio_before(fields: Mapping[str, Any]) -> Ratio:
    return Ratio(Decimal(fields["ct_before"]), Decimal(fields["pt_before"]))
