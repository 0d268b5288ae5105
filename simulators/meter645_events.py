"""What happened to a simulated meter, as its event records tell it: counts, times, and the rest.

A record is filled by the names of its members: what stands in it is the truth of the instants it
speaks of. Events come from the settings (a voltage lost, a cover opened), from spans without power,
and from what was done to the meter (its clock set, parameters written).
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from protocols.dlt645.catalogue import Item
from protocols.dlt645.fields import Field, OperatorCode
from protocols.dlt645.formats import MeterTime, Value
from simulators.meter645_clock import MeterClock, meter_time

RECORDS_KEPT = 10
# Name of an event: the first four digits of its identifiers, and whether it has a phase.
KINDS: Mapping[str, tuple[str, bool]] = {
    "loss_of_voltage": ("0301", True),
    "undervoltage": ("0302", True),
    "overvoltage": ("0303", True),
    "phase_failure": ("0304", True),
    "all_phases_lost": ("0305", False),
    "auxiliary_supply_lost": ("0306", False),
    "voltage_sequence": ("0307", False),
    "current_sequence": ("0308", False),
    "voltage_unbalance": ("0309", False),
    "current_unbalance": ("030A", False),
    "loss_of_current": ("030B", True),
    "overcurrent": ("030C", True),
    "current_interrupted": ("030D", True),
    "flow_reversed": ("030E", True),
    "overload": ("030F", True),
    "power_down": ("0311", False),
    "meter_cover_open": ("03300D", False),
    "terminal_cover_open": ("03300E", False),
}
# The bit of status words 4 to 6 (of phase a to c) that stands while an event of a phase lasts.
PHASE_BITS = {
    "loss_of_voltage": 0,
    "undervoltage": 1,
    "overvoltage": 2,
    "loss_of_current": 3,
    "overcurrent": 4,
    "overload": 5,
    "flow_reversed": 6,
    "phase_failure": 7,
    "current_interrupted": 8,
}
# The bit of status word 7 that stands while an event of the whole meter lasts.
METER_BITS = {
    "voltage_sequence": 0,
    "current_sequence": 1,
    "voltage_unbalance": 2,
    "current_unbalance": 3,
    "auxiliary_supply_lost": 4,
    "power_down": 5,
    "meter_cover_open": 9,
    "terminal_cover_open": 10,
}
_WORDS = {
    "active import": "active_import",
    "active export": "active_export",
    "combined reactive 1": "reactive_import",
    "combined reactive 2": "reactive_export",
    "reactive quadrant 1": "reactive_q1",
    "reactive quadrant 2": "reactive_q2",
    "reactive quadrant 3": "reactive_q3",
    "reactive quadrant 4": "reactive_q4",
    "voltage": "voltage",
    "current": "current",
    "active power": "active_power",
    "reactive power": "reactive_power",
    "power factor": "power_factor",
}
ValueAt = Callable[[str, int], Decimal | None]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that lasted from `from_ms` to before `until_ms` of wall time.

    `until_ms` None: it still does. `kind` is one of `KINDS`; `phase`: 1 to 3 where there is one.
    """

    kind: str
    from_ms: int
    until_ms: int | None = None
    phase: int = 0

    def __post_init__(self) -> None:
        """Refuse what no meter could record."""
        if self.kind not in KINDS:
            msg = f"no event is called {self.kind!r}; there are {', '.join(KINDS)}"
            raise ValueError(msg)
        if KINDS[self.kind][1] != (self.phase in (1, 2, 3)):
            msg = f"{self.kind} is of {'a phase, 1 to 3' if not self.phase else 'no phase'}"
            raise ValueError(msg)

    def lasts(self, at_ms: int) -> bool:
        """Whether it is going on."""
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


@dataclass(slots=True)
class Done:
    """What was done to the meter, of one kind: how often, and the latest records."""

    count: int = 0
    records: deque[tuple[Value, ...]] = field(default_factory=lambda: deque(maxlen=RECORDS_KEPT))


class EventLog:
    """The event records of one meter. `value_at(point, wall ms)`: its registers and values."""

    def __init__(self, events: Iterable[Event], value_at: ValueAt) -> None:
        self._events = sorted(events, key=lambda event: event.from_ms)
        self._value_at = value_at
        self._done: dict[str, Done] = {}
        self._cleared: dict[str, int] = {}  # when, by the beginning of the identifiers

    # --- what is done to the meter ---

    def note(self, prefix: str, *values: Value) -> None:
        """Keep a record of something done: `prefix` the first six digits of its identifiers."""
        done = self._done.setdefault(prefix, Done())
        done.count += 1
        done.records.append(values)

    def note_programming(self, now: Value, operator: str, dis: Sequence[str]) -> None:
        """Parameters were written."""
        written = [*dis[:10], *["FFFFFFFF"] * (10 - len(dis[:10]))]
        self.note("033000", now, OperatorCode(operator), *written)

    def clear(self, at_ms: int, prefix: str = "") -> None:
        """Forget what happened, all or what has identifiers that begin so; what was done stays."""
        self._cleared[prefix] = at_ms

    # --- what is read ---

    def lasting(self, kind: str, at_ms: int, phase: int = 0) -> bool:
        """Whether an event of a kind is going on."""
        return any(
            event.kind == kind and event.phase == phase and event.lasts(at_ms)
            for event in self._events
        )

    def values(self, item: Item, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        """The values of an event item; None when there is no such record."""
        di = item.di
        nth = int(di[6:], 16)
        done = self._done.get(di[:6], Done())
        if di.startswith("0330") and di[4:6] not in ("0D", "0E"):
            if not nth:
                return (Decimal(done.count),)
            return done.records[-nth] if nth <= len(done.records) else None
        if di in ("1D000001", "1E000001"):
            return (Decimal(self._done.get(f"{di[:2]}0001", Done()).count),)
        if di.startswith(("1D0001", "1E0001")):
            return done.records[-nth] if 0 < nth <= len(done.records) else None
        kind = next((k for k, (prefix, _) in KINDS.items() if di.startswith(prefix)), None)
        if kind is None:
            return None
        if nth:
            return self._record(item, kind, nth, clock, at_ms)
        return self._counters(item, kind, at_ms)

    def values_1997(self, di: str, clock: MeterClock, at_ms: int) -> tuple[Value, ...] | None:
        """The values of a 1997 identifier: what was done, and phases that failed."""
        done = {"B210": "033000", "B212": "033000", "B211": "033002", "B213": "033002"}
        if di in done:
            found = self._done.get(done[di], Done())
            if di in ("B212", "B213"):
                return (Decimal(found.count),)
            return (_minute(found.records[-1][0]),) if found.records else (None,)
        if di == "B214":
            return (Decimal(0),)
        phases = [int(di[3])] if di[3] in "123" else [1, 2, 3]
        events = [e for phase in phases for e in self._of("phase_failure", phase, at_ms)]
        match di[:3]:
            case "B31":
                return (Decimal(len(events)),)
            case "B32":
                lasted = (min(e.until_ms or at_ms, at_ms) - e.from_ms for e in events)
                return (Decimal(sum(ms // 60_000 for ms in lasted)),)
        latest = max(events, key=lambda event: event.from_ms, default=None)
        if latest is None:
            return (None,)
        when = latest.from_ms if di == "B330" else latest.until_ms
        return (None if when is None else _minute(meter_time(clock.local_ms(when))),)

    def _of(self, kind: str, phase: int, at_ms: int) -> list[Event]:
        prefix = f"{KINDS[kind][0]}{phase:02X}"[:6]
        cleared_ms = max((at for p, at in self._cleared.items() if prefix.startswith(p)), default=0)
        return [
            event
            for event in self._events
            if event.kind == kind and event.phase == phase and cleared_ms < event.from_ms <= at_ms
        ]

    def _counters(self, item: Item, kind: str, at_ms: int) -> tuple[Value, ...] | None:
        """How often, and for the records that have it how many minutes; by phase, or once."""
        assert item.layout is not None
        count = len(item.layout.fields) * item.layout.rounds_min
        phases = (1, 2, 3) if KINDS[kind][1] else (0,)
        found: list[Value] = []
        for phase in phases:
            events = self._of(kind, phase, at_ms)
            lasted = sum((min(e.until_ms or at_ms, at_ms) - e.from_ms) // 60_000 for e in events)
            found += [Decimal(len(events)), Decimal(lasted)]
        return tuple(found[:count]) if count <= len(found) else None

    def _record(
        self, item: Item, kind: str, nth: int, clock: MeterClock, at_ms: int
    ) -> tuple[Value, ...] | None:
        events = self._of(kind, int(item.di[4:6], 16) if KINDS[kind][1] else 0, at_ms)
        if nth > len(events) or item.layout is None:
            return None
        event = events[-nth]
        ended = event.until_ms if event.until_ms is not None and event.until_ms <= at_ms else None
        return tuple(
            self._member(one, event.from_ms, ended, clock, at_ms) for one in item.layout.fields
        )

    def _member(
        self, one: Field, from_ms: int, until_ms: int | None, clock: MeterClock, at_ms: int
    ) -> Value:
        """What a member of a record says, by its name."""
        name = one.name_en
        if name in ("start", "end"):
            when = from_ms if name == "start" else until_ms
            return None if when is None else meter_time(clock.local_ms(when))
        if found := re.fullmatch(r"increment of (.+)", name):
            before = self._named(found[1], from_ms)
            after = self._named(found[1], at_ms if until_ms is None else until_ms)
            return None if before is None or after is None else max(after - before, before * 0)
        if found := re.fullmatch(r"(.+) (?:at the start|before)", name):
            return self._named(found[1], from_ms)
        if found := re.fullmatch(r"(.+) after", name):
            return None if until_ms is None else self._named(found[1], until_ms)
        return None

    def _named(self, words: str, at_ms: int) -> Decimal | None:
        found = re.fullmatch(r"(.+?) (?:of phase ([ABC])|(total))", words)
        if found is None or found[1] not in _WORDS:
            return None
        base = _WORDS[found[1]]
        if found[2]:
            return self._value_at(f"{base}_{found[2].lower()}", at_ms)
        return self._value_at(base if base.startswith("reactive_q") else f"{base}_total", at_ms)


def _minute(time: Value) -> str:
    """A time without its year and seconds, as the 1997 edition has it."""
    assert isinstance(time, MeterTime)
    return f"{time.date:%m-%d} {time.time:%H:%M}"
