"""What a reading is when the meters' lives are other ones than was believed. Pure.

The device that answered decides whose reading it is: readings move with it to the meter that hung
there by the events, or never were. Registers are judged again by what was right before them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal, Inexact, InvalidOperation

from headend.domain.clock import iso
from headend.domain.lives import (
    EXCHANGE,
    RATIO,
    ROLLOVER,
    TAKEN_BACK,
    Place,
    Ratio,
    end_of,
    id_of,
    wrapped_by,
)
from headend.domain.meter import Event, Meter
from headend.domain.reading import Reading, Side, Status, Verdict
from headend.journal.rewrites import LookUp
from headend.vee import Base, Candidate, Judgement, RuleSet, judge
from protocols.quantities import quantity

ONE = Decimal(1)
NO_LIMIT = Decimal("Infinity")
ROLLOVER_FLAG = "rollover"
AFTER_HELD = "after_held"
OTHER_METER = "meter_changed"

# What an earlier judgement of a register said; the rest of its flags tell of the reading itself.
JUDGED_FLAGS = frozenset(
    {"out_of_range", "too_fast", "backward", ROLLOVER_FLAG, AFTER_HELD, OTHER_METER}
)
# What a device says against its own values, and the event that answers it.
ANSWERED_BY = {RATIO: frozenset({"ratio"}), EXCHANGE: frozenset({"device_changed"})}
DOUBTS = frozenset().union(*ANSWERED_BY.values())
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_MODBUS = "modbus-"
HEADEND = "headend"  # who took an event back, when it was no person


def device_name(protocol: str, address: str) -> str:
    """How an attempt on a bus names who was asked."""
    return f"unit {address}" if protocol.startswith(_MODBUS) else address


@dataclass(frozen=True, slots=True)
class Means:
    """What readings are judged with.

    `meter`: in force before the event, for what all meters of the place share. `ratio_of`: what the
    device's profile multiplies each point with (`ct`, `pt`, `ct*pt`); None = a meter of the kind
    that shows everything on its own side. `kind`: the event's.
    """

    rules: RuleSet
    meter: Meter
    from_ms: int
    now_ms: int
    kind: str = ""
    ratio_of: Mapping[str, str | None] | None = None


@dataclass(slots=True)
class Rejudge:
    """A `journal.rewrites.Rule`: from the place as it was believed to the place as it is."""

    before: Place
    after: Place
    means: Means
    held: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    _look: LookUp | None = None
    _running: dict[tuple[str, str], Base | None] = field(default_factory=dict)
    _rolled: set[tuple[str, str, int]] = field(default_factory=set)
    _seen: set[tuple[object, object, int]] = field(default_factory=set)
    _begun: set[tuple[str, str, int]] = field(default_factory=set)
    _new: list[Event] = field(default_factory=list)

    def seed(self, before: LookUp) -> None:
        """How to find a register's last good value before the event."""
        self._look = before

    def __call__(self, reading: Reading) -> Reading | None:
        """The reading as it is; None when there was no such reading of any meter here."""
        self._seen.add((reading.meter, reading.point, reading.time_ms))
        meter = self._whose(reading)
        if meter is None or (reading.value is None and meter != reading.meter):
            return None
        found = self._in_ratio(replace(reading, meter=meter))
        if found is None or found.value is None or found.status is not Status.ACTUAL:
            return found
        answered = ANSWERED_BY.get(self.means.kind, frozenset())
        if found.verdict is Verdict.HELD and (DOUBTS - answered).intersection(found.flags):
            return found  # nobody has said anything to that
        found = replace(found, flags=tuple(f for f in found.flags if f not in answered))
        if quantity_kind(found.point) != "register":
            return self._undoubted(found, reading)
        return found if found.verdict is Verdict.FAIL else self._judged(found)

    def follow_up(self) -> Sequence[Event]:
        """Rollovers that were seen only now, and those that were none taken back."""
        wrong = []
        for event in self.after.events:
            fields = event.fields
            key = (fields.get("meter"), fields.get("point"), event.at_ms)
            automatic = event.kind == ROLLOVER and "by" not in fields
            was_seen = event.at_ms >= self.means.from_ms or key in self._seen
            if automatic and was_seen and key not in self._rolled:
                if self._stands_on(event):
                    continue
                wrong.append(
                    take_back(event, self.means.now_ms, HEADEND, "judged again: it was none")
                )
        return [*wrong, *self._new]

    def _stands_on(self, rollover: Event) -> bool:
        """A register that somebody declared says that it had begun anew by then."""
        meter, point = str(rollover.fields.get("meter")), str(rollover.fields.get("point"))
        for event in self.after.events:
            value = end_of(event, meter, point)
            if value is not None and wrapped_by(rollover, meter, point, event.at_ms, value):
                return True
        return False

    # -- whose reading it is

    def _whose(self, reading: Reading) -> str | None:
        """The meter that this was read of; None when it is no reading of this place."""
        owner = self.after.meter_at(reading.time_ms)
        if reading.status not in (Status.ACTUAL, Status.NULL):
            return owner  # a person's value is of the place
        here = self.after.meter_at(reading.received_ms)
        protocol = self.means.meter.protocol
        told = self.before.address_at(reading.received_ms)
        asked = None if told is None else device_name(protocol, told)
        if reading.exchange is not None:
            asked = reading.exchange.device
        now = self.after.address_at(reading.received_ms)
        if asked is None or now is None or asked == device_name(protocol, now):
            return owner if owner == here else None  # else of another life of the one that came
        if owner != here and owner is not None:
            ended = next(
                (e.at_ms for e in self.after.exchanges if e.fields["old_meter"] == owner), None
            )
            last = None if ended is None else self.after.address_at(ended - 1)
            if last is not None and asked == device_name(protocol, last):
                return owner  # it still answers, and tells of the time when it hung here
        return None

    # -- what it is multiplied with

    def _in_ratio(self, reading: Reading) -> Reading | None:
        ratio = self.after.ratio_at(reading.time_ms)
        if ratio is None or reading.value is None:
            return reading
        kinds = self.means.ratio_of
        kind = "ct*pt" if kinds is None else kinds.get(reading.point)
        if kind is None:
            return reading
        right = _factor(kind, ratio)
        if reading.side is Side.SECONDARY:
            return replace(reading, multiplier=right)
        if kinds is None:
            return reading
        was = self.before.ratio_at(reading.time_ms)
        meter = self.means.meter
        wrong = _factor(kind, was or Ratio(meter.ct, meter.pt))
        if wrong == right:
            return reading
        try:
            own = _EXACT.divide(reading.value, wrong)
            return replace(reading, value=_EXACT.multiply(own, right))
        except Inexact:
            return None  # what the device said is not known to the last digit: no value is made up

    # -- what is believed of it

    def _undoubted(self, reading: Reading, was: Reading) -> Reading:
        """A value that was doubted only because nobody knew which meter hung there."""
        if OTHER_METER not in reading.flags and reading.flags == was.flags:
            return reading
        flags = tuple(f for f in reading.flags if f != OTHER_METER)
        return replace(reading, verdict=Verdict.SUSPECT if flags else Verdict.OK, flags=flags)

    def _judged(self, reading: Reading) -> Reading:
        key = (reading.meter, reading.point)
        base = self._base(reading)
        found = self._judgement(reading, base)
        anchor = self.held.get(key)
        assert reading.value is not None
        fell = base is not None and anchor is not None and anchor < base.value
        goes_on = anchor is not None and reading.value >= anchor
        if goes_on and not (fell and found.verdict is not Verdict.HELD):
            found = Judgement(Verdict.HELD, tuple(sorted({*found.flags, AFTER_HELD})))
        own = {flag for flag in reading.flags if flag not in JUDGED_FLAGS}
        verdict = found.verdict
        if verdict is Verdict.OK and reading.verdict is Verdict.SUSPECT and own:
            verdict = Verdict.SUSPECT
        if verdict is Verdict.HELD:
            self.held[key] = reading.value
        elif verdict is Verdict.OK:
            self.held.pop(key, None)
            self._running[key] = Base(reading.value, reading.time_ms)
        flags = tuple(sorted(own | set(found.flags)))
        return replace(reading, verdict=verdict, flags=flags)

    def _base(self, reading: Reading) -> Base | None:
        key = (reading.meter, reading.point)
        if key not in self._running:
            assert self._look is not None
            known = self._look(*key)
            self._running[key] = None if known is None else Base(known.value, known.time_ms)
        base = self._running[key]
        start = self.after.starts(*key, reading.time_ms)
        if start is not None and (base is None or start.at_ms >= base.time_ms):
            if (*key, start.at_ms) not in self._begun:
                self._begun.add((*key, start.at_ms))
                self.held.pop(key, None)
            return Base(start.value, start.at_ms)
        return base

    def _judgement(self, reading: Reading, base: Base | None) -> Judgement:
        meter, point, time_ms = reading.meter, reading.point, reading.time_ms
        since_ms = self.means.from_ms - 1 if base is None else base.time_ms
        if self.after.declared_rollover(meter, point, since_ms, time_ms) is not None:
            return Judgement(Verdict.OK, (ROLLOVER_FLAG,))
        assert reading.value is not None
        has_profile = self.means.ratio_of is not None
        new = Candidate(
            point=point,
            kind="register",
            unit=reading.unit,
            value=reading.value,
            time_ms=time_ms,
            multiplier=reading.multiplier,
            capacity_kw=self.means.meter.capacity_kw,
            count=ONE.scaleb(int(reading.value.as_tuple().exponent)),
            # What fitted the device's register once fits it now.
            limit=NO_LIMIT if has_profile else None,
            applied=None if has_profile else ONE,
        )
        found = judge(self.means.rules, new, base)
        if found.rolled_over and self._was_none(meter, point, time_ms):
            why = "somebody said that it had not begun anew"
            return Judgement(Verdict.HELD, ("backward",), why)
        if found.rolled_over:
            assert base is not None
            self._rolled.add((meter, point, time_ms))
            if not any(
                e.kind == ROLLOVER
                and (e.fields.get("meter"), e.fields.get("point")) == (meter, point)
                and base.time_ms < e.at_ms <= time_ms
                for e in self.after.events
            ):
                self._new.append(rollover_event(reading, base, {"digits": new.digits}))
        return found

    def _was_none(self, meter: str, point: str, time_ms: int) -> bool:
        """A person took back the rollover that was noticed here."""
        gone = {
            e.fields["of"] for e in self.after.told
            if e.kind == TAKEN_BACK and e.fields["by"] != HEADEND
        }  # fmt: skip
        return any(
            e.kind == ROLLOVER
            and (e.fields.get("meter"), e.fields.get("point"), e.at_ms) == (meter, point, time_ms)
            and id_of(e) in gone
            for e in self.after.told
        )


def quantity_kind(point: str) -> str | None:
    """The kind of a point; None for one that the table does not know."""
    try:
        return quantity(point).kind
    except KeyError:
        return None


def rollover_event(reading: Reading, base: Base, width: Mapping[str, object]) -> Event:
    """A register that has begun anew between its last good value and a reading.

    `width`: how far it counts, `digits` or `limit`.
    """
    fields = {
        "meter": reading.meter,
        "service_point": reading.service_point,
        "point": reading.point,
        "before": format(base.value, "f"),
        "before_at": iso(base.time_ms),
        "after": None if reading.value is None else format(reading.value, "f"),
        **width,
    }
    return Event(ROLLOVER, reading.time_ms, fields)


def take_back(event: Event, now_ms: int, by: str, reason: str) -> Event:
    """The dated event that takes another one back; it holds from when that one held."""
    fields = {
        "service_point": event.fields.get("service_point", ""),
        "of": id_of(event),
        "of_kind": event.kind,
        "by": by,
        "reason": reason,
        "declared_at": iso(now_ms),
    }
    fields |= {k: event.fields[k] for k in ("meter", "old_meter", "new_meter") if k in event.fields}
    return Event(TAKEN_BACK, event.at_ms, fields)


def _factor(kind: str, ratio: Ratio) -> Decimal:
    return {"ct": ratio.ct, "pt": ratio.pt, "ct*pt": ratio.multiplier}[kind]
