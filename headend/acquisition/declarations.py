"""Dated meter events, declared while meters are read.

Each is checked against the meters' lives as they are known, written into the journal together with
everything it makes wrong, and only then in force. An event holds from its date, however late it is
declared; what has not happened yet is not declared. A wrong declaration is taken back by another
dated event, never removed.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from headend.acquisition.meter_reader import MeterReader
from headend.acquisition.plans import ReadPlan
from headend.acquisition.poller import Poller
from headend.acquisition.registry import FOR_EVER_MS, Registry, exchange_event
from headend.acquisition.rejudge import OTHER_METER, Means, Rejudge, take_back
from headend.config.meter_rules import address_problem
from headend.domain import alarms
from headend.domain.clock import Clock, iso
from headend.domain.errors import ConfigError
from headend.domain.lives import (
    ACCEPTED,
    ADDRESS,
    AREA,
    BEFORE_EVERYTHING_MS,
    CHANGED,
    DECLARED,
    EXCHANGE,
    FIRST,
    NUMBER,
    RATIO,
    RESET,
    ROLLOVER,
    TAKEN_BACK,
    Lives,
    Place,
    id_of,
)
from headend.domain.meter import Event, Meter, MeterExchange
from headend.journal import Journal
from headend.journal.rewrites import Rewrite, Rewritten
from headend.vee import Base, RuleSet
from protocols.modbus.profile import DeviceProfile
from protocols.quantities import quantity

log = logging.getLogger(__name__)

AHEAD_MS_MAX = 60_000  # a clock beside ours may be a little ahead
REGISTER_HELD = "register_held"
DIGITS_MAX = 12


@dataclass(frozen=True, slots=True)
class Declared:
    """What came of a declaration: the meter in force now, and the readings it changed."""

    event: Event
    meter: Meter
    withdrawn: int
    born: int

    @property
    def id(self) -> str:
        """The event's id: what it is taken back by."""
        return id_of(self.event)


@dataclass(slots=True)
class Declarations:
    """Takes dated events into the journal and into force, one at a time.

    `changing` is held by whatever changes which meters are in force. `profile_of`: the profile of a
    device that needs one.
    """

    journal: Journal
    registry: Registry
    plans: Mapping[str, ReadPlan]
    reader: MeterReader
    pollers: Mapping[str, Poller]
    clock: Clock
    rules: RuleSet
    changing: asyncio.Lock
    profile_of: Callable[[Meter], DeviceProfile | None] = lambda _meter: None

    # -- what can be declared

    async def exchange(self, exchange: MeterExchange) -> Declared:
        """The old meter left its service point and a new one came. ConfigError when it cannot be.

        Readings since then are the new meter's where it answers under the old address.
        """
        async with self.changing:
            old = self.registry.check_exchange(exchange)
            self._check_time(exchange.at_ms)
            self._check_registers(old, {"old_final": exchange.old_final})
            self._check_registers(old, {"new_initial": exchange.new_initial})
            await self._check_not_below(old, exchange.old_final, exchange.at_ms, "old_final")
            self._check_numbers(old, exchange.at_ms)
            whole = replace(
                exchange,
                service_point=old.service_point,
                new_address=exchange.new_address or old.address,
            )
            told = exchange_event(whole)
            fields = {**told.fields, "old_address": old.address, "declared_at": self._now()}
            return await self._apply(Event(EXCHANGE, exchange.at_ms, fields), old)

    async def ratio(
        self,
        meter_id: str,
        at_ms: int,
        *,
        ct: Decimal,
        pt: Decimal,
        registers: Mapping[str, Decimal],
        by: str,
        reason: str,
    ) -> Declared:
        """Other transformers since an instant. `registers`: what the meter showed then."""
        async with self.changing:
            meter, place = self._hung(meter_id, at_ms)
            profile = self.profile_of(meter)
            if profile is not None and profile.side == "primary":
                msg = f"{meter_id} gives primary values: its ratio is set in the device"
                raise ConfigError(msg, hint="declare nothing; correct the device")
            if ct <= 0 or pt <= 0:
                msg = f"ct {ct:f} and pt {pt:f} must be above 0"
                raise ConfigError(msg)
            self._check_registers(meter, {"register": registers})
            await self._check_not_below(meter, registers, at_ms, "register")
            before = place.ratio_at(at_ms)
            was_ct, was_pt = (meter.ct, meter.pt) if before is None else before
            if (was_ct, was_pt) == (ct, pt):
                msg = f"{meter_id}: ct {ct:f} and pt {pt:f} hold at that time already"
                raise ConfigError(msg, hint="headend meter events shows what was declared")
            fields = self._fields(meter, by, reason) | {
                "ct_before": f"{was_ct:f}",
                "pt_before": f"{was_pt:f}",
                "multiplier_before": f"{was_ct * was_pt:f}",
                "ct": f"{ct:f}",
                "pt": f"{pt:f}",
                "multiplier": f"{ct * pt:f}",
                "registers": _texts(registers),
            }
            return await self._apply(Event(RATIO, at_ms, fields), meter)

    async def reset(
        self,
        meter_id: str,
        at_ms: int,
        *,
        before: Mapping[str, Decimal],
        after: Mapping[str, Decimal],
        by: str,
        reason: str,
    ) -> Declared:
        """Registers were set to other values. `before`, `after`: of every one that was."""
        async with self.changing:
            meter, _place = self._hung(meter_id, at_ms)
            if not after or before.keys() != after.keys():
                odd = ", ".join(sorted(before.keys() ^ after.keys())) or "none is given"
                msg = f"a reset needs the value before and after of each register: {odd}"
                raise ConfigError(msg, hint="--before POINT=VALUE --after POINT=VALUE")
            for point in after:
                _check_register(point)
            await self._check_not_below(meter, before, at_ms, "before")
            fields = self._fields(meter, by, reason)
            fields |= {"before": _texts(before), "after": _texts(after)}
            return await self._apply(Event(RESET, at_ms, fields), meter)

    async def rollover(
        self, meter_id: str, at_ms: int, *, point: str, digits: int, by: str, reason: str
    ) -> Declared:
        """A register of so many digits began anew, though it could not be seen to."""
        async with self.changing:
            meter, place = self._hung(meter_id, at_ms)
            _check_register(point)
            if not 1 <= digits <= DIGITS_MAX:
                msg = f"{digits} digits: 1 to {DIGITS_MAX} are taken"
                raise ConfigError(msg)
            base = await self._good_before(meter, point, at_ms, place)
            fields = self._fields(meter, by, reason) | {"point": point, "digits": digits}
            if base is not None:
                if base.value >= Decimal(10) ** digits:
                    msg = f"{base.value} does not fit a register of {digits} digits"
                    raise ConfigError(msg)
                fields |= {"before": f"{base.value:f}", "before_at": iso(base.time_ms)}
            return await self._apply(Event(ROLLOVER, at_ms, fields), meter)

    async def address(
        self, meter_id: str, at_ms: int, *, address: str, by: str, reason: str
    ) -> Declared:
        """The same meter answers under another address since then."""
        async with self.changing:
            meter, place = self._hung(meter_id, at_ms)
            problem = address_problem(meter.protocol, address)
            if problem is not None:
                raise ConfigError(problem.message, hint=problem.hint)
            was = place.address_at(at_ms) or meter.address
            if was == address:
                msg = f"{meter_id} answers under {address} at that time already"
                raise ConfigError(msg)
            for other in self.registry.on_bus(meter.bus):
                if other.id != meter_id and other.address == address:
                    msg = f"{address} is the address of {other.id} on the same bus"
                    raise ConfigError(msg, hint="two meters with one address cannot be told apart")
            fields = self._fields(meter, by, reason) | {"address_before": was, "address": address}
            return await self._apply(Event(ADDRESS, at_ms, fields), meter)

    async def move(
        self, meter_id: str, at_ms: int, *, area: str | None, by: str, reason: str
    ) -> Declared:
        """The meter belongs to another area since then; its readings stay as they are."""
        async with self.changing:
            meter, place = self._hung(meter_id, at_ms)
            was = place.area_at(at_ms) if place.speaks_of_area else meter.area
            if was == area:
                msg = f"{meter_id} belongs to {area} at that time already"
                raise ConfigError(msg)
            fields = self._fields(meter, by, reason) | {"area_before": was, "area": area}
            return await self._apply(Event(AREA, at_ms, fields), meter)

    async def number(
        self, meter_id: str, at_ms: int, *, number: str, by: str, reason: str
    ) -> Declared:
        """It is the same meter, though it shows another number: what was held of it is let go."""
        async with self.changing:
            meter, place = self._hung(meter_id, at_ms)
            known = place.numbered(meter_id)
            if known is not None and known.number == number and known.doubted_since_ms is None:
                msg = f"{meter_id} is known by the number {number} already"
                raise ConfigError(msg)
            fields = self._fields(meter, by, reason) | {
                "number": number,
                "number_before": None if known is None else known.number,
                "state": ACCEPTED,
            }
            from_ms = None if known is None else known.doubted_since_ms
            return await self._apply(Event(NUMBER, at_ms, fields), meter, from_ms=from_ms)

    async def saw_number(self, event: Event, meter: Meter) -> Declared:
        """What a meter said of itself (`identity_watch`), an event of kind `meter_number`."""
        async with self.changing:
            place = self.registry.lives.place(meter.service_point, meter.id)
            known = place.numbered(meter.id)
            from_ms = None if known is None else known.doubted_since_ms
            return await self._apply(event, meter, from_ms=from_ms)

    async def take_back(self, event_id: str, *, by: str, reason: str) -> Declared:
        """A declaration was wrong: everything is as if it had not been made, and says so."""
        async with self.changing:
            told = await self.journal.meter_events()
            found = [e for e in told if id_of(e).startswith(event_id.lower()) and event_id]
            if len(found) != 1 or found[0].kind not in DECLARED:
                what = "several events begin" if len(found) > 1 else "no declared event begins"
                msg = f"{what} with {event_id}"
                raise ConfigError(msg, hint="headend meter events lists them")
            event = found[0]
            if self.registry.lives.is_taken_back(event):
                msg = f"{event.kind} {id_of(event)} is taken back already"
                raise ConfigError(msg)
            meter = self._meter_of(event)
            self._check_nothing_stands_on(event, meter)
            back = take_back(event, self.clock.now_ms(), by, reason)
            return await self._apply(back, meter)

    # -- checks

    def _check_time(self, at_ms: int) -> None:
        now_ms = self.clock.now_ms()
        if at_ms > now_ms + AHEAD_MS_MAX:
            msg = f"{iso(at_ms)} has not come yet (it is {iso(now_ms)})"
            raise ConfigError(msg, hint="declare it when it has happened")

    def _hung(self, meter_id: str, at_ms: int) -> tuple[Meter, Place]:
        """The meter, which must have hung at its place at that time."""
        self._check_time(at_ms)
        meter = self._known(meter_id)
        place = self.registry.lives.place(meter.service_point, meter_id)
        hung = place.meter_at(at_ms)
        if hung != meter_id:
            msg = f"meter {meter_id} did not hang at {meter.service_point} at {iso(at_ms)}: {hung}"
            raise ConfigError(msg, hint="name the meter that hung there at that time")
        return meter, place

    def _known(self, meter_id: str) -> Meter:
        """A meter in force, or one that has left, with what its place has in common."""
        try:
            return self.registry.get(meter_id)
        except KeyError:
            place = self.registry.lives.place_of(meter_id)
            hung = None if place is None else place.meter_at(FOR_EVER_MS)
            try:
                return replace(self.registry.get(str(hung)), id=meter_id)
            except KeyError:
                msg = f"there is no meter {meter_id}"
                raise ConfigError(msg, hint="name its asset id as the configuration has it") from (
                    None
                )

    def _meter_of(self, event: Event) -> Meter:
        fields = event.fields
        place = self.registry.lives.place(
            str(fields.get("service_point", "")), str(fields.get("meter", fields.get("new_meter")))
        )
        hung = place.meter_at(FOR_EVER_MS)
        try:
            return self.registry.get(str(hung))
        except KeyError:
            msg = f"meter {hung} is no longer configured"
            raise ConfigError(msg) from None

    def _check_nothing_stands_on(self, event: Event, meter: Meter) -> None:
        """An exchange is taken back only when nothing later speaks of the meter it brought."""
        if event.kind != EXCHANGE:
            return
        new = event.fields["new_meter"]
        place = self.registry.lives.place(meter.service_point, meter.id)
        for later in place.events:
            names = (later.fields.get("meter"), later.fields.get("old_meter"))
            by_person = later.kind in DECLARED and "by" in later.fields
            is_later = id_of(later) != id_of(event) and later.at_ms >= event.at_ms
            if by_person and is_later and new in names:
                msg = f"{later.kind} of {iso(later.at_ms)} speaks of {new}"
                raise ConfigError(msg, hint=f"take it back first: {id_of(later)}")

    def _check_registers(self, meter: Meter, given: Mapping[str, Mapping[str, Decimal]]) -> None:
        """Every register that is read there needs its value, or billing could not count on."""
        planned = {p for entry in self.plans[meter.plan].entries for p in entry.points}
        needed = {p for p in planned if quantity(p).kind == "register"}
        for option, registers in given.items():
            for point in registers:
                _check_register(point)
            missing = sorted(needed - registers.keys())
            if missing:
                raise ConfigError(
                    f"{option} lacks {', '.join(missing)}",
                    hint="give every register that is read there",
                )

    async def _check_not_below(
        self, meter: Meter, registers: Mapping[str, Decimal], at_ms: int, option: str
    ) -> None:
        """A register cannot have ended below what it showed before."""
        place = self.registry.lives.place(meter.service_point, meter.id)
        for point, value in registers.items():
            base = await self._good_before(meter, point, at_ms, place)
            if base is None or place.rollover(meter.id, point, base.time_ms, at_ms) is not None:
                continue
            if value < base.value and not place.had_begun_anew(meter.id, point, at_ms, value):
                msg = (
                    f"{option} {point}={value:f} is below {base.value:f}, which {meter.id} "
                    f"showed at {iso(base.time_ms)}"
                )
                raise ConfigError(msg, hint="if it has begun anew, declare that first: rollover")

    async def _good_before(self, meter: Meter, point: str, at_ms: int, place: Place) -> Base | None:
        """The last register before an instant that is believed, read or told by an event."""
        known = (await self.journal.last_good(meter.id, [point], at_ms)).get(point)
        start = place.starts(meter.id, point, at_ms - 1)
        if start is not None and (known is None or start.at_ms >= known.time_ms):
            return Base(start.value, start.at_ms)
        return None if known is None else Base(known.value, known.time_ms)

    def _check_numbers(self, old: Meter, at_ms: int) -> None:
        """An exchange lies where the number that was read of the meter allows it."""
        known = self.registry.lives.place(old.service_point, old.id).numbered(old.id)
        if known is None or known.doubted_since_ms is None:
            return
        if not known.doubted_since_ms <= at_ms <= known.at_ms:
            msg = (
                f"{old.id} showed its number {known.number} at {iso(known.doubted_since_ms)} and "
                f"{known.found} at {iso(known.at_ms)}: the exchange lies between"
            )
            raise ConfigError(msg, hint="correct --at")

    # -- into the journal, and into force

    def _now(self) -> str:
        return iso(self.clock.now_ms())

    def _fields(self, meter: Meter, by: str, reason: str) -> dict[str, Any]:
        return {
            "service_point": meter.service_point,
            "meter": meter.id,
            "by": by,
            "reason": reason,
            "declared_at": self._now(),
        }

    async def _apply(self, event: Event, meter: Meter, from_ms: int | None = None) -> Declared:
        """Journal, then registry, reader and pollers. `meter` is in force, or was.

        `from_ms`: from when on readings may be concerned; None = since the event.
        """
        since_ms = event.at_ms if from_ms is None else min(from_ms, event.at_ms)
        told = await self.journal.meter_events()
        then = self.registry.with_events([*told, event])
        before = self.registry.lives.place(meter.service_point, meter.id)
        after = then.lives.place(meter.service_point, meter.id)
        meters = before.meters | after.meters
        hung = str(before.meter_at(FOR_EVER_MS))
        rule: Rejudge | None = None

        def make_rule() -> Rejudge:
            nonlocal rule
            rule = Rejudge(before, after, self._means(meter, since_ms, event.kind))
            return rule

        cleared = await self._cleared(meters) if _moves_readings(event) else []
        events = [event, *cleared, *_asked_of_people(event)]
        change = Rewrite(
            events,
            meter.service_point,
            meters,
            since_ms,
            make_rule if _moves_readings(event) else None,
            owners=_spans(after, event) if _moves_meters(event) else (),
            areas=_areas(after, event) if _moves_areas(event) else (),
            revive=event.kind == TAKEN_BACK,
        )
        async with AsyncExitStack() as turns:
            for name in sorted(meters):
                await turns.enter_async_context(self.reader.turn(name))
            done = await self.journal.rewrite(change)
            self.registry.become(then)
            await self._rebase(meters, after, rule)
            await self._tell_held(cleared, rule)
        now = self._told(event, meter, hung, done)
        return Declared(event, now, done.withdrawn, done.born)

    def _means(self, meter: Meter, from_ms: int, kind: str) -> Means:
        profile = self.profile_of(meter)
        ratios = None
        if profile is not None:
            ratios = {p: r.ratio for p, r in profile.registers.items()}
        return Means(self.rules, meter, from_ms, self.clock.now_ms(), kind, ratios)

    async def _cleared(self, meters: frozenset[str]) -> list[Event]:
        """What was asked of a person is answered: held registers of these meters."""
        told = await self.journal.meter_events(alarms.KINDS)
        now_ms = self.clock.now_ms()
        return [
            Event(alarms.CLEARED, now_ms, {**one.fields, "ended_by": "declared"})
            for one in alarms.standing(told)
            if one.name in (REGISTER_HELD, OTHER_METER) and one.fields.get("meter") in meters
        ]

    async def _tell_held(self, cleared: Sequence[Event], rule: Rejudge | None) -> None:
        """A register that is still not believable is still asked about."""
        for event in cleared:
            key = (str(event.fields["meter"]), str(event.fields.get("point")))
            if rule is not None and key in rule.held:
                fields = {k: v for k, v in event.fields.items() if k != "ended_by"}
                again = Event(alarms.RAISED, self.clock.now_ms(), fields)
                await self.journal.append_event(again)

    async def _rebase(self, meters: frozenset[str], place: Place, rule: Rejudge | None) -> None:
        """What the next values of these meters are judged by."""
        known = await self.journal.bases()
        for name in sorted(meters):
            try:
                self.registry.get(name)
            except KeyError:
                self.reader.left(name)
                continue
            if rule is None:
                continue
            bases = {
                point: Base(base.value, base.time_ms)
                for (meter, point), base in known.items()
                if meter == name
            }
            self.reader.came(name, _by_events(place, name, bases))
            self.reader.hold({key: v for key, v in rule.held.items() if key[0] == name})

    def _told(self, event: Event, meter: Meter, hung: str, done: Rewritten) -> Meter:
        """Pollers go on with the meter that hangs there now."""
        place = self.registry.lives.place(meter.service_point, meter.id)
        now = self.registry.get(str(place.meter_at(FOR_EVER_MS)))
        if now.id != hung and now.bus in self.pollers:
            self.pollers[now.bus].replaced(hung, now.id)
        # The first number of each meter is no news for a person; what changes readings is.
        level = logging.WARNING if done.withdrawn or done.born else logging.INFO
        log.log(
            level, "meter=%s event=%s at=%s withdrawn=%d born=%d",
            now.id, event.kind, iso(event.at_ms), done.withdrawn, done.born,
        )  # fmt: skip
        return now


def bases_by_events(
    bases: Mapping[tuple[str, str], Base], lives: Lives, meters: Sequence[Meter]
) -> dict[tuple[str, str], Base]:
    """The last good registers, corrected by what was declared since: for a start."""
    found = dict(bases)
    for meter in meters:
        place = lives.place(meter.service_point, meter.id)
        if place.told:
            own = {point: base for (name, point), base in bases.items() if name == meter.id}
            for point in own:
                del found[meter.id, point]
            corrected = _by_events(place, meter.id, own)
            found |= {(meter.id, point): base for point, base in corrected.items()}
    return found


def _by_events(place: Place, meter: str, bases: Mapping[str, Base]) -> dict[str, Base]:
    """A meter's last good registers, or what events tell it went on from since.

    None is known of a register that was said to have begun anew.
    """
    found = dict(bases)
    for point in place.points_told(meter):
        start = place.starts(meter, point, FOR_EVER_MS)
        known = found.get(point)
        if start is not None and (known is None or start.at_ms >= known.time_ms):
            found[point] = known = Base(start.value, start.at_ms)
        since_ms = BEFORE_EVERYTHING_MS if known is None else known.time_ms
        if place.declared_rollover(meter, point, since_ms, FOR_EVER_MS) is not None:
            found.pop(point, None)
    return found


def _asked_of_people(event: Event) -> list[Event]:
    """Another number than the known one: what is billed of the meter waits for an answer."""
    if event.kind != NUMBER or event.fields["state"] != CHANGED:
        return []
    names = ("meter", "service_point", "number", "number_before", "since")
    fields = {name: event.fields[name] for name in names}
    return [Event(alarms.RAISED, event.at_ms, {"alarm": OTHER_METER, **fields})]


def _moves_readings(event: Event) -> bool:
    first_look = event.kind == NUMBER and event.fields["state"] in (FIRST, CHANGED)
    return event.kind != AREA and not first_look


def _moves_meters(event: Event) -> bool:
    return event.kind == EXCHANGE or event.fields.get("of_kind") == EXCHANGE


def _moves_areas(event: Event) -> bool:
    return event.kind == AREA or event.fields.get("of_kind") == AREA


def _spans(place: Place, event: Event) -> list[tuple[int, str]]:
    """From when on which meter owes what is due, as far as the event changes it."""
    spans = place.spans()
    at = place.meter_at(event.at_ms)
    first = [] if at is None else [(event.at_ms, at)]
    return first + [span for span in spans if span[0] > event.at_ms]


def _areas(place: Place, event: Event) -> list[tuple[int, str | None]]:
    later = [e.at_ms for e in place.events if e.kind == AREA and e.at_ms > event.at_ms]
    return [(at_ms, place.area_at(at_ms)) for at_ms in (event.at_ms, *later)]


def _texts(registers: Mapping[str, Decimal]) -> dict[str, str]:
    return {point: format(value, "f") for point, value in registers.items()}


def _check_register(point: str) -> None:
    try:
        kind = quantity(point).kind
    except KeyError as error:
        msg = f"there is no point named {point}"
        raise ConfigError(msg, hint=str(error.args[0])) from None
    if kind != "register":
        msg = f"{point} is no register"
        raise ConfigError(msg, hint="for example active_import_total")
