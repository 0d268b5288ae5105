"""A DL/T 645-2007 meter: frames in, replies with their delays out. No I/O, no clock of its own.

It answers reads of what it measures, counts and has frozen at its midnights, says who it is, and
refuses what it does not have. To all else it is silent, as real meters are: broken frames, other
addresses, other directions, functions it does not know.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal

from protocols.dlt645.catalogue import DAILY_FREEZE, DIGITS_2007, Item, lookup
from protocols.dlt645.formats import Value
from protocols.dlt645.frame import DATA_BYTES_USUAL_MAX, WAKE_UP, Frame645, parse
from protocols.dlt645.items import encode
from protocols.dlt645.load_profile import CLASS_POINTS, class_of
from protocols.dlt645.meter import (
    ReadAsked,
    addressed,
    asks_address,
    build_address_reply,
    build_parts,
    build_refusal,
    parse_any_read,
)
from protocols.dlt645.refusal import error_byte
from protocols.errors import LocalProtocolError
from simulators.faults import Asked, Fault, parse_fault, seeded
from simulators.measured import Measured, Register
from simulators.meter645_clock import MeterClock, meter_time
from simulators.meter645_content import FREEZES_KEPT, Content, Kept, KeptSettings
from simulators.meter645_load import REGIONAL_DI
from simulators.meter645_store import Freeze, Gap
from simulators.wire import Transmission

__all__ = [
    "FREEZES_KEPT",
    "Freeze",
    "Gap",
    "KeptSettings",
    "Meter645",
    "MeterClock",
    "MeterSettings",
    "Served",
    "TruthLog",
    "meter_time",
]

_NO_DATA, _OTHER = error_byte("no_data"), error_byte("other")


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


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """How one meter behaves towards the line.

    `reply_delay_ms` (Td) plus up to `reply_jitter_ms`; `wakeup`: FE bytes before a reply (0..4);
    `empty_freeze`: what a record of the past that is not there looks like. `frame_data_max`: bytes
    of DATA in one frame; longer replies go on in follow-up frames. `kept`: what it keeps.
    """

    address: str
    reply_delay_ms: int = 100
    reply_jitter_ms: int = 0
    wakeup: int = 0
    empty_freeze: Literal["refuse", "ff", "zero"] = "refuse"
    seed: int = 0
    frame_data_max: int = DATA_BYTES_USUAL_MAX
    kept: KeptSettings = field(default_factory=KeptSettings)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply with values, in its frames: as the bytes say, and as they should."""

    di: str
    points: tuple[str, ...]
    values: tuple[Value, ...]
    true_values: tuple[Value, ...]
    frames: tuple[bytes, ...]


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
        self.kept = Kept(settings.kept, from_ms=measured.model.timeline.origin_ms)
        self.content = Content(measured, self.kept, empty=settings.empty_freeze)
        self._begun: _Answer | None = None  # a reply of several frames, as it goes out

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
        store = self.kept.stores[DAILY_FREEZE]
        store.take(self.meter_clock, self.clock() if at_ms is None else at_ms)
        return tuple(store)[::-1]

    def warm_up(self) -> None:
        """Do the sums that the first reader would wait for: tables, past days, midnights."""
        now_ms = self.clock()
        for di in ("00010000", "0001FF00", "0002FF00", "05060001", "05060101", "05060201"):
            item = lookup(di)
            assert item is not None
            self.values(item, now_ms)

    def set_freezes(self, freezes: Sequence[Freeze]) -> None:
        """Replace the daily records (newest first) by these; later midnights come on top."""
        self.kept.stores[DAILY_FREEZE].replace(freezes[::-1], self.clock())

    def set_clock(self, local_ms: int) -> None:
        """Set the meter's own clock; what it has passed keeps its records."""
        now_ms = self.clock()
        self.kept.take(self.meter_clock, now_ms)
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
        read = parse_any_read(frame)
        if read is None or len(read.di) != DIGITS_2007:
            return []
        return self._read(frame, read, Asked(raw, self.address, read.di, now_ms))

    def _read(self, frame: Frame645, read: ReadAsked, asked: Asked) -> list[Transmission]:
        if read.sequence is not None:
            return self._send(asked, self._further(frame, read))
        self._begun = None
        firing = [fault for fault in self.faults if fault.fires(asked)]
        answer = self._answer(read, asked.now_ms, firing)
        if isinstance(answer, int):
            refusal = build_refusal(self.address, frame.control, answer)
            return self._transmissions(asked, refusal, firing)
        self._begun = answer if len(answer.frames) > 1 else None
        sent = self._transmissions(asked, answer.frames[0], firing)
        self._log(asked, answer, sent, firing)
        return sent

    def _further(self, frame: Frame645, read: ReadAsked) -> bytes:
        """The part of the reply begun that is asked for, again if need be; else a refusal."""
        begun = self._begun
        if begun is None or begun.di != read.di or not 0 < (read.sequence or 0) < len(begun.frames):
            return build_refusal(self.address, frame.control, _NO_DATA)
        assert read.sequence is not None
        return begun.frames[read.sequence]

    def _answer(self, read: ReadAsked, now_ms: int, firing: Sequence[Fault]) -> _Answer | int:
        """The reply to a first read, or the error byte of its refusal."""
        number = class_of(read.di)
        if number is not None:
            return self._load_answer(number, read, now_ms, firing)
        item = lookup(read.di) if read.count is None and read.moment is None else None
        true_values = self.values(item, now_ms) if item else None
        if item is None or true_values is None:
            return _NO_DATA
        values = self._spoilt(item, true_values, firing)
        points = tuple(item.point_at(index) or "" for index in range(len(values)))
        payload = encode(item, *values)
        return self._in_frames(_Answer(item.di, points, values, true_values, ()), payload, firing)

    def _load_answer(
        self, number: int, read: ReadAsked, now_ms: int, firing: Sequence[Fault]
    ) -> _Answer | int:
        """Load records: with a count, those from a time on with a time too."""
        load = self.kept.load
        if read.di == REGIONAL_DI and not load.settings.regional:
            return _NO_DATA
        if read.count is None or (read.di.endswith("01")) != (read.moment is not None):
            return _OTHER
        load.take(self.meter_clock, now_ms)
        records = load.records(number, read)
        if not records and load.settings.empty == "refuse":
            return _NO_DATA
        payload = load.payload(number, records, self.content.value_at)
        points: list[str] = []
        values: list[Value] = []
        for kept in records:
            for one, said in load.classes(number, kept, self.content.value_at).items():
                points += [f"{point}@{kept.time}" for point in CLASS_POINTS[one]]
                values += said
        answer = _Answer(read.di, tuple(points), tuple(values), tuple(values), ())
        return self._in_frames(answer, payload, firing)

    def _in_frames(self, answer: _Answer, payload: bytes, firing: Sequence[Fault]) -> _Answer | int:
        for fault in firing:
            payload = fault.payload(payload)
        data_max = self.settings.frame_data_max
        try:
            frames = build_parts(self.address, answer.di, payload, data_max=data_max)
        except LocalProtocolError:
            return _OTHER  # more parts than can be counted
        return replace(answer, frames=tuple(frames))

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
        answer: _Answer,
        sent: Sequence[Transmission],
        firing: Sequence[Fault],
    ) -> None:
        if self.truth_log is None or not answer.values:
            return
        said, true = (
            tuple(None if v is None else str(v) for v in some)
            for some in (answer.values, answer.true_values)
        )
        served = Served(
            meter=self.address,
            di=answer.di,
            points=answer.points,
            values=said,
            true_values=true,
            at_ms=asked.now_ms,
            request=asked.raw.hex().upper(),
            raw=tuple(one.data.hex().upper() for one in sent),
            faults=tuple(fault.name for fault in firing),
        )
        self.truth_log(served)

    def values(self, item: Item, at_ms: int) -> tuple[Value, ...] | None:
        """The values of an item at a wall time, one a member; None when the meter has it not."""
        return self.content.values(item, self.meter_clock, at_ms)
