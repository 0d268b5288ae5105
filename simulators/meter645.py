"""A DL/T 645-2007 meter: frames in, replies with their delays out. No I/O, no clock of its own.

It answers reads of what it measures, counts and has frozen at its midnights, says who it is, and
refuses what it does not have. To all else it is silent, as real meters are: broken frames, other
addresses, other directions, functions it does not know.
"""

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from protocols.dlt645.catalogue import DAILY_FREEZE, FREEZE_TIME, Item, lookup
from protocols.dlt645.formats import MeterTime, Value
from protocols.dlt645.frame import WAKE_UP, Frame645, parse
from protocols.dlt645.items import encode
from protocols.dlt645.meter import (
    addressed,
    asks_address,
    build_address_reply,
    build_refusal,
    build_reply,
    parse_read,
)
from protocols.dlt645.refusal import error_byte
from simulators.energy import DAY_MS
from simulators.faults import Asked, Fault, parse_fault, seeded
from simulators.measured import TARIFFS, Measured, Register
from simulators.wire import Transmission

FREEZES_KEPT = 62  # 0506xx01 .. 0506xx3E
_EPOCH = dt.date(1970, 1, 1)
_CLOCK_POINTS = frozenset({"date", "time", "clock"})
_NO_DATA = error_byte("no_data")


@dataclass(frozen=True, slots=True)
class Served:
    """One answer that carried values, as it leaves.

    `values` are what the bytes say, `true_values` what they should say (both as text, one a member;
    None = no value). `faults` names what acted. `sent` is False when the meter kept silent.
    """

    meter: str
    di: str
    points: tuple[str, ...]
    values: tuple[str | None, ...]
    true_values: tuple[str | None, ...]
    at_ms: int
    request: str
    raw: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def sent(self) -> bool:
        """Whether any bytes leave."""
        return bool(self.raw)


TruthLog = Callable[[Served], None]


@dataclass(slots=True)
class MeterClock:
    """A meter's own clock: local time at a fixed offset, wrong by an offset and a drift.

    Local time is counted in milliseconds since 1970-01-01 00:00 local. `drift_ppm` > 0 = fast.
    """

    utc_offset_min: int = 480
    error_ms: int = 0
    drift_ppm: int = 0
    set_at_ms: int = 0

    def local_ms(self, at_ms: int) -> int:
        """What the clock shows at a wall time."""
        drift = (at_ms - self.set_at_ms) * self.drift_ppm // 1_000_000
        return at_ms + self.utc_offset_min * 60_000 + self.error_ms + drift

    def wall_ms(self, local_ms: int) -> int:
        """The first millisecond of wall time at which the clock shows `local_ms` or later."""
        base = self.utc_offset_min * 60_000 + self.error_ms + self.set_at_ms
        guess = self.set_at_ms + (local_ms - base) * 1_000_000 // (1_000_000 + self.drift_ppm)
        while self.local_ms(guess) >= local_ms:
            guess -= 1
        while self.local_ms(guess) < local_ms:
            guess += 1
        return guess

    def set(self, at_ms: int, local_ms: int) -> None:
        """Show `local_ms` at `at_ms` and drift on from there."""
        self.set_at_ms = at_ms
        self.error_ms = local_ms - at_ms - self.utc_offset_min * 60_000


def meter_time(local_ms: int) -> MeterTime:
    """Date and time to the second, of a local millisecond count."""
    day, within = divmod(local_ms, DAY_MS)
    seconds = within // 1000
    time = dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60)
    return MeterTime(_EPOCH + dt.timedelta(days=day), time)


@dataclass(frozen=True, slots=True)
class Freeze:
    """A daily record: the meter's time it bears, and the wall time whose values it holds.

    `values` replaces the model's where a test wants others.
    """

    time: MeterTime
    at_ms: int
    values: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """How one meter behaves towards the line.

    `reply_delay_ms` (Td) plus up to `reply_jitter_ms`; `wakeup`: FE bytes before a reply (0..4);
    `empty_freeze`: what a daily record that does not exist looks like.
    """

    address: str
    reply_delay_ms: int = 100
    reply_jitter_ms: int = 0
    wakeup: int = 0
    empty_freeze: Literal["refuse", "ff"] = "refuse"
    seed: int = 0


class Meter645:
    """One meter. `clock` gives wall time in milliseconds; everything it says follows from that.

    `truth_log` is called with every answer that carries values before the answer is given out: what
    a reader ever got stands there first.
    """

    def __init__(
        self,
        settings: MeterSettings,
        measured: Measured,
        *,
        clock: Callable[[], int],
        meter_clock: MeterClock | None = None,
        truth_log: TruthLog | None = None,
    ) -> None:
        self.settings = settings
        self.measured = measured
        self.clock = clock
        self.meter_clock = meter_clock or MeterClock(set_at_ms=measured.model.timeline.origin_ms)
        self.truth_log = truth_log
        self.faults: list[Fault] = []
        self._rng = seeded(settings.seed)
        self._freezes: deque[Freeze] = deque(maxlen=FREEZES_KEPT)  # newest first
        self._frozen_through = measured.model.timeline.origin_ms

    @property
    def address(self) -> str:
        """Twelve digits, high first."""
        return self.settings.address

    # --- truth and control --------------------------------------------------------------------

    def truth(self, at_ms: int, points: Iterable[str] | None = None) -> dict[str, Register]:
        """Registers at a wall time, exact and as shown: those asked for that it has, or all."""
        found: dict[str, Register] = {}
        for point in self.measured.register_points() if points is None else points:
            register = self.measured.register(point, at_ms)
            if register is not None:
                found[point] = register
        return found

    def freezes(self, at_ms: int | None = None) -> tuple[Freeze, ...]:
        """The daily records the meter holds at a wall time not before the latest, newest first."""
        self._take_freezes(self.clock() if at_ms is None else at_ms)
        return tuple(self._freezes)

    def warm_up(self) -> None:
        """Do the sums that the first reader would wait for: tables, past days, midnights."""
        now_ms = self.clock()
        for di in ("00010000", "0001FF00", "0002FF00", "05060001", "05060101", "05060201"):
            item = lookup(di)
            assert item is not None
            self.values(item, now_ms)

    def set_freezes(self, freezes: Sequence[Freeze]) -> None:
        """Replace the daily records (newest first) by these; later midnights come on top."""
        self._frozen_through = max(self.clock(), self._frozen_through)
        self._freezes = deque(freezes, maxlen=FREEZES_KEPT)

    def set_clock(self, local_ms: int) -> None:
        """Set the meter's own clock; midnights it has passed keep their records."""
        now_ms = self.clock()
        self._take_freezes(now_ms)
        self.meter_clock.set(now_ms, local_ms)

    def add_fault(self, fault: Fault) -> None:
        """From the next request on. Faults act in the order they were added."""
        self.faults.append(fault)

    def add_fault_text(self, text: str, seed: int) -> None:
        """`add_fault` for a fault written as text; ValueError for one that is none."""
        self.add_fault(parse_fault(text, rng=seeded(seed)))

    def clear_faults(self, name: str | None = None) -> None:
        """Take away the faults of a name, or all."""
        self.faults = [fault for fault in self.faults if name is not None and fault.name != name]

    # --- the line -----------------------------------------------------------------------------

    def on_frame(self, raw: bytes) -> list[Transmission]:
        """What the meter sends for a whole frame (68..16) it hears. Empty = silence."""
        frame = parse(raw)
        if frame.from_meter or not addressed(self.address, frame.address):
            return []
        now_ms = self.clock()
        if asks_address(frame):
            return self._send(
                Asked(raw, self.address, "", now_ms), build_address_reply(self.address)
            )
        di = parse_read(frame)
        if di is None:
            return []
        return self._read(frame, Asked(raw, self.address, di, now_ms))

    def _read(self, frame: Frame645, asked: Asked) -> list[Transmission]:
        item = lookup(asked.di)
        true_values = self.values(item, asked.now_ms) if item else None
        if item is None or true_values is None:
            return self._send(asked, build_refusal(self.address, frame.control, _NO_DATA))
        firing = [fault for fault in self.faults if fault.fires(asked)]
        values = self._spoilt(item, true_values, firing)
        payload = encode(item, *values)
        for fault in firing:
            payload = fault.payload(payload)
        reply = build_reply(self.address, item.di, payload)
        sent = self._transmissions(asked, reply, firing)
        self._log(asked, item, (values, true_values), sent, firing)
        return sent

    def _spoilt(
        self, item: Item, values: Sequence[Value], firing: Sequence[Fault]
    ) -> tuple[Value, ...]:
        """The values as the firing faults leave them; only registers are touched."""
        spoilt = list(values)
        for fault in firing:
            for index, value in enumerate(spoilt):
                point = item.point_at(index)
                if isinstance(value, Decimal) and point and item.format == "XXXXXX.XX":
                    spoilt[index] = fault.register(point, value)
        return tuple(spoilt)

    def _send(self, asked: Asked, reply: bytes) -> list[Transmission]:
        firing = [fault for fault in self.faults if fault.fires(asked)]
        return self._transmissions(asked, reply, firing)

    def _transmissions(
        self, asked: Asked, reply: bytes, firing: Sequence[Fault]
    ) -> list[Transmission]:
        settings = self.settings
        delay_ms = settings.reply_delay_ms
        if settings.reply_jitter_ms:
            delay_ms += self._rng.randrange(settings.reply_jitter_ms + 1)
        sent = [Transmission(delay_ms / 1000, WAKE_UP * settings.wakeup + reply)]
        for fault in firing:
            sent = fault.reply(asked, sent)
        return sent

    def _log(
        self,
        asked: Asked,
        item: Item,
        values: tuple[Sequence[Value], Sequence[Value]],
        sent: Sequence[Transmission],
        firing: Sequence[Fault],
    ) -> None:
        if self.truth_log is None:
            return
        said, true = (tuple(None if v is None else str(v) for v in some) for some in values)
        served = Served(
            meter=self.address,
            di=item.di,
            points=tuple(item.point_at(index) or "" for index in range(len(said))),
            values=said,
            true_values=true,
            at_ms=asked.now_ms,
            request=asked.raw.hex().upper(),
            raw=tuple(one.data.hex().upper() for one in sent),
            faults=tuple(fault.name for fault in firing),
        )
        self.truth_log(served)

    # --- what it can say ----------------------------------------------------------------------

    def values(self, item: Item, at_ms: int) -> tuple[Value, ...] | None:
        """The values of an item at a wall time, one a member; None when the meter has it not."""
        if item.layout is None:
            return None
        if item.snapshot == DAILY_FREEZE and item.snapshot_nth:
            return self._frozen_values(item, item.snapshot_nth, at_ms)
        if item.snapshot is not None:
            return None
        if item.point in _CLOCK_POINTS:
            return (self._clock_value(item.point, at_ms),)
        return self._numbers(item, at_ms, {})

    def _clock_value(self, point: str | None, at_ms: int) -> Value:
        now = meter_time(self.meter_clock.local_ms(at_ms))
        if point == "clock":
            return now
        return now.date if point == "date" else now.time

    def _frozen_values(self, item: Item, nth: int, at_ms: int) -> tuple[Value, ...] | None:
        self._take_freezes(at_ms)
        if nth <= len(self._freezes):
            freeze = self._freezes[nth - 1]
            if item.points == (FREEZE_TIME,):
                return (freeze.time,)
            return self._numbers(item, freeze.at_ms, freeze.values)
        if self.settings.empty_freeze == "refuse":
            return None
        return (None,) * _members(item)

    def _numbers(
        self, item: Item, at_ms: int, instead: Mapping[str, Decimal]
    ) -> tuple[Value, ...] | None:
        """One number a member. None when the meter has none of them; a block with some has gaps."""
        values: list[Value] = []
        for index in range(_members(item)):
            point = item.point_at(index)
            if point is None:
                return None
            value = instead.get(point)
            values.append(self.measured.value(point, at_ms) if value is None else value)
        return tuple(values) if any(value is not None for value in values) else None

    def _take_freezes(self, now_ms: int) -> None:
        """Record every midnight the meter's clock has passed since it was last looked at."""
        if now_ms <= self._frozen_through:
            return
        clock = self.meter_clock
        first = clock.local_ms(self._frozen_through) // DAY_MS + 1
        last = clock.local_ms(now_ms) // DAY_MS
        for day in range(max(first, last - FREEZES_KEPT + 1), last + 1):
            midnight = day * DAY_MS
            self._freezes.appendleft(Freeze(meter_time(midnight), clock.wall_ms(midnight)))
        self._frozen_through = now_ms


def _members(item: Item) -> int:
    """How many members this meter's reply has: all tariffs it counts, all that a block names."""
    assert item.layout is not None
    if item.layout.rounds_min == item.layout.rounds_max:
        return len(item.layout.fields) * item.layout.rounds_min
    return len(item.layout.fields) * (1 + TARIFFS)
