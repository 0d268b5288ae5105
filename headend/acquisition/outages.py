"""Which outage explains that a meter is not read: one alarm for a cause.

A state machine without I/O. It is told what became of reads and of ports, and a step, now and then,
gives the events that are to be written. Nothing in here asks for the time.

One cause for every meter that fails, the widest first:

- `mass_silence`: buses with a large share of all meters were lost at about the same time;
- `bus_down`: the port is absent, or most of the meters that were answering a moment ago have failed
  and nobody has answered since;
- `meter_refuses`, `meter_silent`: this one, while its bus lives;
- `alarms_held_back`: more of the latter are due than are told in a minute.

While a bus is down, or looks like it, nothing is said about its meters. One that was silent before
keeps its alarm until it answers. When the bus is back, a meter that stays silent has a fresh period
before it gets its own.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from headend.acquisition.outage_state import (
    BUS_DOWN,
    HELD_BACK,
    MASS_SILENCE,
    METER_REFUSES,
    METER_SILENT,
    NEVER_S,
    PORT,
    BusFacts,
    Failures,
    MeterFacts,
    OutageSettings,
    Seen,
    Standing,
)
from headend.domain.alarms import CLEARED, RAISED, StandingAlarm, standing
from headend.domain.clock import iso
from headend.domain.meter import Event

MINUTE_S = 60.0
BUSES_TOLD_MAX = 256
GONE = "no longer configured"
OURS = frozenset({BUS_DOWN, MASS_SILENCE, METER_SILENT, METER_REFUSES, HELD_BACK})


class Outages:
    """`topology` first, then `restore`; then what is seen, and steps."""

    def __init__(self, settings: OutageSettings | None = None) -> None:
        self.settings = settings or OutageSettings()
        self._buses: dict[str, BusFacts] = {}
        self._meters: dict[str, MeterFacts] = {}
        self._order = 0
        self._events: list[Event] = []
        self._now_s = 0.0
        self._now_ms = 0
        self._mass: Standing | None = None
        self._members: set[str] = set()
        self._raised_at: deque[float] = deque()  # of single meters, within a minute
        self._held_back: Standing | None = None
        self._waiting: set[str] = set()
        self._orphans: list[tuple[StandingAlarm, str]] = []

    # -- what is there

    def topology(self, buses: Mapping[str, Sequence[str]]) -> None:
        """Which meters hang on which bus now. What has gone takes its alarms with it."""
        for name in [name for name in self._buses if name not in buses]:
            bus = self._buses.pop(name)
            self._members.discard(name)
            if bus.standing is not None and bus.standing.told:
                self._orphan(BUS_DOWN, {"bus": name})
        wanted = {meter: bus for bus, meters in buses.items() for meter in meters}
        for known in list(self._meters.values()):
            if wanted.get(known.id) != known.bus:
                del self._meters[known.id]
                if known.standing is not None:
                    about = {"meter": known.id, "bus": known.bus}
                    self._orphan(known.standing.name, about)
        for name, ids in buses.items():
            bus = self._buses.setdefault(name, BusFacts(name))
            if [meter.id for meter in bus.meters] != list(ids):
                bus.meters = [self._meters.setdefault(one, MeterFacts(one, name)) for one in ids]

    def restore(self, events: Iterable[Event], now_s: float) -> None:
        """Take up what an earlier life raised: the journal's alarms and clearings, in order."""
        for alarm in standing(events):
            if alarm.name not in OURS:
                continue
            again = Standing(
                alarm.name, str(alarm.fields.get("reason", "")), self.settings.clear_s, NEVER_S
            )
            if alarm.name == HELD_BACK:
                self._held_back = again
            elif alarm.name == MASS_SILENCE:
                again.onset_s = now_s  # what is found lost in the first moments belongs to it
                self._mass = again
                self._members = set(alarm.fields.get("buses", ())) & self._buses.keys()
            elif alarm.name == BUS_DOWN:
                self._restore_bus(alarm, again)
            else:
                self._restore_meter(alarm, again)
        reason = "" if self._mass is None else self._mass.reason
        for name in self._members:
            bus = self._buses[name]
            if bus.standing is None:
                bus.standing = self._silently(reason, NEVER_S)

    def _restore_bus(self, alarm: StandingAlarm, again: Standing) -> None:
        bus = self._buses.get(str(alarm.fields.get("bus")))
        if bus is None:
            self._orphans.append((alarm, GONE))
            return
        bus.standing = again
        bus.failures = Failures(0, alarm.since_ms, alarm.since_ms)

    def _restore_meter(self, alarm: StandingAlarm, again: Standing) -> None:
        meter = self._meters.get(str(alarm.fields.get("meter")))
        if meter is None or meter.bus != alarm.fields.get("bus", meter.bus):
            self._orphans.append((alarm, GONE))
            return
        meter.standing, meter.failing = again, True
        meter.last = Seen.REFUSED if alarm.name == METER_REFUSES else Seen.NO_ANSWER
        meter.failures = Failures(0, alarm.since_ms, alarm.since_ms)

    # -- what is seen

    def saw(self, meter_id: str, seen: Seen, why: str, now_s: float, now_ms: int) -> None:
        """What one read of a meter showed. Meters that are not known are passed over."""
        meter = self._meters.get(meter_id)
        if meter is None:
            return
        self._order += 1
        self._buses[meter.bus].saw(seen, why, now_ms, self._order)
        if seen is not Seen.NO_PORT:
            meter.saw(seen, why, now_s, now_ms, self._order)

    def port(self, bus: str, opens: int, detail: str, now_s: float, *, is_there: bool) -> None:
        """Whether the port of a bus is open; `opens`: how often it has been opened."""
        known = self._buses.get(bus)
        if known is not None:
            known.port(opens, detail, now_s, self.settings.settle_s, is_there=is_there)

    # -- what follows

    def step(self, now_s: float, now_ms: int) -> list[Event]:
        """Decide; the events to be written, in order. Call it every few seconds."""
        self._now_s, self._now_ms = now_s, now_ms
        self._events = []
        self._bury()
        for bus in self._buses.values():
            bus.judge(self.settings)
        self._find_mass()
        for bus in self._buses.values():
            self._step_bus(bus)
        self._end_mass()
        self._waiting = set()
        for meter in self._meters.values():
            self._step_meter(meter)
        self._step_held_back()
        return self._events

    def cause_of(self, meter_id: str) -> str | None:
        """Name and subject of the one alarm that explains why a meter fails; None: none (yet)."""
        meter = self._meters[meter_id]
        bus = self._buses[meter.bus]
        if bus.name in self._members:
            return MASS_SILENCE
        if bus.standing is not None:
            return f"{BUS_DOWN} {bus.name}"
        if meter.standing is not None:
            return f"{meter.standing.name} {meter.id}"
        return HELD_BACK if meter_id in self._waiting else None

    def failing(self) -> dict[str, int]:
        """How many meters of each bus have no good answer, by their last read."""
        return {
            name: sum(meter.failing for meter in bus.meters) for name, bus in self._buses.items()
        }

    # -- a bus

    def _step_bus(self, bus: BusFacts) -> None:
        stands, now_s = bus.standing, self._now_s
        if stands is None:
            since_s = bus.bad_since_s
            if since_s is not None and now_s - since_s >= self._patience(bus):
                clear_s = bus.temper.begins(now_s, self.settings)
                bus.standing = Standing(BUS_DOWN, bus.bad_reason, clear_s, since_s)
                self._bus_bad(bus, bus.standing)
                self._say_bus_down(bus)
            return
        bad_since_s = bus.bad_since_s if stands.told else bus.dead_since_s
        if bad_since_s is not None:
            self._bus_bad(bus, stands)
        elif (
            bus.heard_order > stands.bad_order
            or (stands.reason == PORT and bus.open_since_s is not None)
        ) and stands.good(now_s):
            self._bus_well(bus, stands)

    def _patience(self, bus: BusFacts) -> float:
        is_port = bus.bad_reason == PORT
        return self.settings.port_s if is_port else self.settings.bus_silent_s

    def _bus_bad(self, bus: BusFacts, stands: Standing) -> None:
        stands.bad(self._order)
        stands.reason = bus.bad_reason if bus.bad_since_s is not None else stands.reason
        for meter in bus.meters:
            if meter.standing is not None:
                meter.standing.good_since_s = None  # nothing is known of it now

    def _bus_well(self, bus: BusFacts, stands: Standing) -> None:
        if stands.told:
            self._clear(BUS_DOWN, {"bus": bus.name}, stands, bus.failures)
        self._release(bus)

    def _release(self, bus: BusFacts) -> None:
        """It is back: what of it stays silent has a fresh period."""
        bus.standing = None
        bus.temper.ended_s = self._now_s
        bus.failures = Failures()
        self._members.discard(bus.name)
        for meter in bus.meters:
            if meter.standing is None:
                meter.fresh(self._now_s)

    def _say_bus_down(self, bus: BusFacts) -> None:
        assert bus.standing is not None
        reason = bus.standing.reason
        what = "its port is not there" if reason == PORT else "no meter answers that is asked"
        fields: dict[str, object] = {
            "bus": bus.name,
            "reason": reason,
            "detail": bus.detail,
            "meters": len(bus.meters),
            "message": f"bus {bus.name}: {what}; {len(bus.meters)} meters are not read",
        }
        self._raise(BUS_DOWN, fields, bus.failures)

    # -- many buses

    def _find_mass(self) -> None:
        settings = self.settings
        if self._mass is not None:
            until_s = self._mass.onset_s + settings.together_s
            for bus in self._buses.values():
                if bus.standing is None and _lost_by(bus, until_s):
                    self._join(bus)
            return
        together = self._together()
        if len(together) < settings.mass_buses or not any(
            self._now_s - _onset(bus) >= self._patience(bus) for bus in together
        ):
            return
        if self._share(together) < settings.mass_share:
            return
        onset_s = min(_onset(bus) for bus in together)
        reasons = {bus.bad_reason for bus in together}
        reason = reasons.pop() if len(reasons) == 1 else "mixed"
        self._mass = Standing(MASS_SILENCE, reason, settings.clear_s, onset_s)
        for bus in together:
            self._join(bus)
        names = sorted(bus.name for bus in together)
        meters = sum(len(bus.meters) for bus in together)
        message = (
            f"{len(names)} of {len(self._buses)} buses with {meters} of {len(self._meters)} meters "
            "were lost at about the same time"
        )
        fields: dict[str, object] = {
            "buses": names[:BUSES_TOLD_MAX],
            "bus_count": len(names),
            "reason": reason,
            "meters": meters,
            "message": message,
        }
        self._raise(MASS_SILENCE, fields, _sum(bus.failures for bus in together))

    def _join(self, bus: BusFacts) -> None:
        self._members.add(bus.name)
        if bus.standing is None:
            assert bus.dead_since_s is not None
            bus.standing = self._silently(bus.bad_reason, bus.dead_since_s)
            bus.standing.clear_s = bus.temper.begins(self._now_s, self.settings)

    def _silently(self, reason: str, onset_s: float) -> Standing:
        return Standing(BUS_DOWN, reason, self.settings.clear_s, onset_s, told=False)

    def _together(self) -> list[BusFacts]:
        """The buses lost within together_s of each other that have the most meters."""
        lost = sorted(
            (
                bus
                for bus in self._buses.values()
                if bus.dead_since_s is not None and _onset(bus) > NEVER_S
            ),
            key=_onset,
        )
        best: list[BusFacts] = []
        most = first = meters = 0
        for last, bus in enumerate(lost):
            meters += len(bus.meters)
            while _onset(bus) - _onset(lost[first]) > self.settings.together_s:
                meters -= len(lost[first].meters)
                first += 1
            if meters > most:
                most, best = meters, lost[first : last + 1]
        return best

    def _share(self, buses: Iterable[BusFacts]) -> float:
        return sum(len(bus.meters) for bus in buses) / max(1, len(self._meters))

    def _end_mass(self) -> None:
        """Over when it is no longer many: who is still lost then has an alarm of its own."""
        if self._mass is None:
            return
        left = [self._buses[name] for name in sorted(self._members)]
        if left and self._share(left) >= self.settings.mass_share / 2:
            return
        self._clear(MASS_SILENCE, {}, self._mass, _sum(bus.failures for bus in left))
        self._mass = None
        self._members = set()
        for bus in left:
            if bus.standing is None or bus.standing.told:
                continue
            if bus.bad_since_s is not None:
                bus.standing.told = True
                self._say_bus_down(bus)
            elif bus.dead_since_s is not None:
                bus.standing = None  # its one meter has been silent all the while
            else:
                self._release(bus)

    # -- a meter

    def _step_meter(self, meter: MeterFacts) -> None:
        bus, stands = self._buses[meter.bus], meter.standing
        if bus.covers:
            return
        due = meter.due(self._now_s, self.settings)
        if stands is not None:
            if not meter.failing:
                if stands.good(self._now_s):
                    self._meter_clear(meter, stands)
                    meter.temper.ended_s = self._now_s
                    meter.failures = Failures()
            elif due not in (None, stands.name) and self._may_raise():
                self._meter_clear(meter, stands, reason=f"it is {due} now")
                self._meter_raise(meter, str(due))
        elif due is not None:
            if self._may_raise():
                self._meter_raise(meter, due)
            else:
                self._waiting.add(meter.id)

    def _may_raise(self) -> bool:
        raised = self._raised_at
        while raised and self._now_s - raised[0] >= MINUTE_S:
            raised.popleft()
        return len(raised) < self.settings.per_minute

    def _meter_raise(self, meter: MeterFacts, name: str) -> None:
        self._raised_at.append(self._now_s)
        clear_s = meter.temper.begins(self._now_s, self.settings)
        meter.standing = Standing(name, meter.why, clear_s, meter.failing_s)
        what = "refuses every read" if name == METER_REFUSES else "gives no good answer"
        fields: dict[str, object] = {
            "meter": meter.id,
            "bus": meter.bus,
            "reason": meter.why,
            "message": f"meter {meter.id} on bus {meter.bus} {what} ({meter.why}) while others do",
        }
        self._raise(name, fields, meter.failures)

    def _meter_clear(self, meter: MeterFacts, stands: Standing, reason: str = "") -> None:
        about = {"meter": meter.id, "bus": meter.bus}
        self._clear(stands.name, about, stands, meter.failures, reason)
        meter.standing = None

    def _step_held_back(self) -> None:
        stands, waiting = self._held_back, len(self._waiting)
        if stands is None:
            if waiting:
                self._held_back = Standing(HELD_BACK, "", self.settings.clear_s, self._now_s)
                limit = self.settings.per_minute
                message = f"{waiting} more meters give no good answer; {limit} a minute are told"
                self._raise(HELD_BACK, {"meters": waiting, "message": message}, Failures())
        elif waiting:
            stands.bad(self._order)
        elif stands.good(self._now_s):
            self._held_back = None
            self._clear(HELD_BACK, {}, stands, Failures())

    # -- events

    def _raise(self, name: str, fields: Mapping[str, object], failures: Failures) -> None:
        first_at = {"first_at": iso(failures.first_ms)} if failures.count else {}
        told = {"alarm": name, **fields, **first_at}
        self._events.append(Event(RAISED, self._now_ms, told))

    def _clear(
        self,
        name: str,
        about: Mapping[str, object],
        stands: Standing,
        failures: Failures,
        reason: str = "",
    ) -> None:
        fields: dict[str, object] = {"alarm": name, **about}
        if reason:
            fields["reason"] = reason
        fields |= {"count": failures.count, "flaps": stands.flaps}
        if failures.first_ms:
            fields |= {"first_at": iso(failures.first_ms), "last_at": iso(failures.last_ms)}
        self._events.append(Event(CLEARED, self._now_ms, fields))

    def _orphan(self, name: str, about: dict[str, str]) -> None:
        alarm = StandingAlarm(name, "warning", "", 0, about)
        self._orphans.append((alarm, GONE))

    def _bury(self) -> None:
        """Alarms whose subject is not there any more."""
        for alarm, reason in self._orphans:
            about = {key: alarm.fields[key] for key in ("bus", "meter") if key in alarm.fields}
            fields = {"alarm": alarm.name, **about, "reason": reason}
            self._events.append(Event(CLEARED, self._now_ms, fields))
        self._orphans = []


def _onset(bus: BusFacts) -> float:
    """When it was lost; of one that an earlier life told of, nobody knows."""
    if bus.standing is not None and bus.standing.told:
        return bus.standing.onset_s
    return NEVER_S if bus.dead_since_s is None else bus.dead_since_s


def _lost_by(bus: BusFacts, until_s: float) -> bool:
    return bus.dead_since_s is not None and bus.dead_since_s <= until_s


def _sum(many: Iterable[Failures]) -> Failures:
    """The failures of several."""
    some = [one for one in many if one.first_ms]
    if not some:
        return Failures()
    return Failures(
        sum(one.count for one in some),
        min(one.first_ms for one in some),
        max(one.last_ms for one in some),
    )
