"""A DL/T 645 meter, of either edition: frames in, replies with their delays out. No I/O.

It answers reads of what it measures, counts, keeps and is, says who it is, takes the commands the
standard gives it, and refuses what it does not have. To all else it is silent, as real meters are:
broken frames, other addresses, frames of meters, functions of the other edition.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Literal

from protocols.dlt645.catalogue import DAILY_FREEZE, DIGITS_1997, DIGITS_2007, Item, lookup
from protocols.dlt645.formats import Value
from protocols.dlt645.frame import BROADCAST, WAKE_UP, WILDCARD, Frame645, build, parse
from protocols.dlt645.functions import Edition
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
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.dlt645.refusal import error_byte
from protocols.errors import LocalProtocolError
from simulators.faults import Asked, Fault, parse_fault, seeded
from simulators.measured import Measured, Register
from simulators.meter645_clock import MeterClock, meter_time
from simulators.meter645_commands import Commands, CommandSettings, Reach
from simulators.meter645_content import FREEZES_KEPT, Content, Kept, KeptSettings
from simulators.meter645_events import Event, EventLog
from simulators.meter645_load import REGIONAL_DI, LoadSettings
from simulators.meter645_params import MeterState, Parameters
from simulators.meter645_store import Freeze, Gap
from simulators.wire import Transmission

__all__ = [
    "FREEZES_KEPT",
    "CommandSettings",
    "Event",
    "Freeze",
    "Gap",
    "KeptSettings",
    "LoadSettings",
    "Meter645",
    "MeterClock",
    "MeterSettings",
    "Served",
    "TruthLog",
    "meter_time",
]

_NO_DATA, _OTHER = error_byte("no_data"), error_byte("other")
_RE_READ_1997 = 0x03


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
    `empty_freeze`: what a record of the past that is not there looks like. `edition`: None = that
    of `profile`, which says how the model differs from the standard: items of other widths, no
    signs, what it refuses, bytes in a frame, how load records are written. `absolute`: powers and
    currents without a sign, whatever the profile says. `frame_data_max`: bytes of DATA in one
    frame, longer replies go on in follow-up frames; None = the profile's. `header`: the address
    replies bear, its own or what it was asked by. `hears_all`: a meter of the 1997 edition answers
    reads and writes sent to 99..99.
    """

    address: str
    reply_delay_ms: int = 100
    reply_jitter_ms: int = 0
    wakeup: int = 0
    empty_freeze: Literal["refuse", "ff", "zero"] = "refuse"
    seed: int = 0
    edition: Edition | None = None
    profile: MeterProfile = GENERIC
    absolute: bool = False
    frame_data_max: int | None = None
    header: Literal["own", "asked"] = "own"
    hears_all: bool = True
    kept: KeptSettings = field(default_factory=KeptSettings)
    commands: CommandSettings = field(default_factory=CommandSettings)
    events: tuple[Event, ...] = ()

    @property
    def speaks(self) -> Edition:
        """The edition the meter speaks."""
        return self.edition or self.profile.edition


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
    a reader ever got stands there first. `heard` counts frames that were its to answer.
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
        origin_ms = measured.model.timeline.origin_ms
        self.settings = settings
        self.measured = measured
        self.clock = clock
        self.meter_clock = meter_clock or MeterClock(set_at_ms=origin_ms)
        self.truth_log = truth_log
        self.faults: list[Fault] = []
        self.heard = 0
        self._rng = seeded(settings.seed)
        profile, kept = settings.profile, settings.kept
        load = kept.load
        if profile.load != GENERIC.load or profile.load_all_di == REGIONAL_DI:
            regional = load.regional or profile.load_all_di == REGIONAL_DI
            kept = replace(kept, load=replace(load, shape=profile.load, regional=regional))
        self.state = MeterState(settings.address)
        self.kept = Kept(kept, from_ms=origin_ms)
        self.events = EventLog((*settings.events, *_outages(kept.gaps)), measured.value)
        parameters = Parameters(
            measured,
            self.state,
            self.events,
            load=lambda: self.kept.load.settings,
            settlement=kept.settlement,
        )
        self.content = Content(
            measured,
            self.kept,
            parameters,
            self.events,
            empty=settings.empty_freeze,
            is_absolute=settings.absolute or profile.signs == "status_words",
            tariffs=profile.tariffs,
        )
        self.commands = Commands(settings.commands, self)
        self._data_max = settings.frame_data_max or profile.data_max
        self._begun: _Answer | None = None  # a reply of several frames, as it goes out
        self._said = 0  # the number of its latest frame

    @property
    def address(self) -> str:
        """Twelve digits, high first."""
        return self.state.address

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

    def press_button(self) -> None:
        """The customer closes the relay, where closing is permitted."""
        if self.state.may_close and self.state.relay_open_at_ms is not None:
            self.state.may_close = False
            self.state.relay_close_at_ms = self.clock()
            when = meter_time(self.meter_clock.local_ms(self.clock()))
            self.events.note("1E0001", when)

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

    def hears(self, speed: int | None) -> bool:
        """Whether it understands a line that runs at `speed` (bit/s; None = at whatever speed).

        A meter that changed its speed and hears nothing at the new one may go back to the old.
        """
        mine, commands = self.state.speed, self.commands
        if mine is None or speed is None or mine == speed:
            commands.speed_kept = commands.speed_kept or mine == speed
            return True
        wait_s = commands.settings.speed_fallback_s
        waited_ms = self.clock() - commands.speed_from_ms
        if wait_s is None or commands.speed_kept or waited_ms < wait_s * 1000:
            return False
        self.state.speed = commands.speed_before
        return self.state.speed in (None, speed)

    def on_frame(self, raw: bytes) -> list[Transmission]:
        """What the meter sends for a whole frame (68..16) it hears. Empty = silence."""
        frame = parse(raw)
        reach = self._reach(frame)
        if frame.from_meter or reach is None:
            return []
        self.heard += 1
        now_ms = self.clock()
        is_1997 = self.settings.speaks == "dlt645-1997"
        if frame.control == _RE_READ_1997 and is_1997 and not frame.data:
            return self._say_again(frame, raw, now_ms, reach)
        if asks_address(frame) and not is_1997:
            return self._send(
                Asked(raw, self.address, "", now_ms), build_address_reply(self.address)
            )
        read = parse_any_read(frame)
        if read is not None and len(read.di) == (DIGITS_1997 if is_1997 else DIGITS_2007):
            if reach == "all" and not (is_1997 and self.settings.hears_all):
                return []
            return self._read(frame, read, Asked(raw, self.address, read.di, now_ms))
        if is_1997:
            if reach == "all" and frame.control == 0x04 and not self.settings.hears_all:
                return []
            reply = self.commands.answer_1997(frame, reach, now_ms)
        else:
            reply = self.commands.answer(frame, reach, now_ms)
        if reply is None:
            return []
        return self._send(Asked(raw, self.address, "", now_ms), reply)

    def _reach(self, frame: Frame645) -> Reach | None:
        """How a frame is addressed to this meter; None when it is not."""
        if frame.address == BROADCAST:
            return "all"
        if frame.address == WILDCARD:
            return "any"
        return "one" if addressed(self.address, frame.address) else None

    def _read(self, frame: Frame645, read: ReadAsked, asked: Asked) -> list[Transmission]:
        if read.sequence is not None:
            return self._send(asked, self._further(frame, read))
        self._begun, self._said = None, 0
        firing = [fault for fault in self.faults if fault.fires(asked)]
        answer = self._answer(self._header(frame), read, asked.now_ms, firing)
        if isinstance(answer, int):
            refusal = build_refusal(self._header(frame), frame.control, answer)
            return self._transmissions(asked, refusal, firing)
        self._begun = answer
        sent = self._transmissions(asked, answer.frames[0], firing)
        self._log(asked, answer, sent, firing)
        return sent

    def _header(self, frame: Frame645) -> str:
        return frame.address if self.settings.header == "asked" else self.address

    def _further(self, frame: Frame645, read: ReadAsked) -> bytes:
        """The part of the reply begun that is asked for, again if need be; else a refusal.

        The 1997 edition counts no parts: the next one is meant.
        """
        begun = self._begun
        wanted = read.sequence if len(read.di) == DIGITS_2007 else self._said + 1
        if begun is None or begun.di != read.di or not 0 < (wanted or 0) < len(begun.frames):
            return build_refusal(self._header(frame), frame.control, _NO_DATA)
        assert wanted is not None
        self._said = wanted
        return begun.frames[wanted]

    def _say_again(
        self, frame: Frame645, raw: bytes, now_ms: int, reach: Reach
    ) -> list[Transmission]:
        """The latest part once more (1997 edition), under the control code of a re-read."""
        asked = Asked(raw, self.address, "", now_ms)
        if reach == "all" and not self.settings.hears_all:
            return []
        if self._begun is None:
            return self._send(asked, build_refusal(self._header(frame), frame.control, _NO_DATA))
        latest = parse(self._begun.frames[self._said])
        more = latest.control & 0x20
        return self._send(
            asked, build(self._header(frame), 0x80 | _RE_READ_1997 | more, latest.data)
        )

    def _answer(
        self, header: str, read: ReadAsked, now_ms: int, firing: Sequence[Fault]
    ) -> _Answer | int:
        """The reply to a first read, or the error byte of its refusal."""
        profile = self.settings.profile
        if read.di in profile.refuses:
            return _NO_DATA
        number = class_of(read.di)
        if number is not None:
            return self._load_answer(header, number, read, now_ms, firing)
        item = profile.item(read.di) if read.count is None and read.moment is None else None
        said = self.content.said(item, self.meter_clock, now_ms) if item else None
        if item is None or said is None:
            return _NO_DATA
        values = self._spoilt(item, said.values, firing) if firing else said.values
        points = tuple([item.point_at(index) or "" for index in range(len(values))])
        payload = _payload(item, values, said.fill)
        return self._in_frames(header, item.di, payload, firing, (points, values, said.values))

    def _load_answer(
        self, header: str, number: int, read: ReadAsked, now_ms: int, firing: Sequence[Fault]
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
        value_at = partial(self.content.value_at, clock=self.meter_clock)
        payload = load.payload(number, records, value_at)
        points: list[str] = []
        values: list[Value] = []
        for kept in records:
            for one, said in load.classes(number, kept, value_at).items():
                points += [f"{point}@{kept.time}" for point in CLASS_POINTS[one]]
                values += said
        logged = (tuple(points), tuple(values), tuple(values))
        return self._in_frames(header, read.di, payload, firing, logged)

    def _in_frames(
        self,
        header: str,
        di: str,
        payload: bytes,
        firing: Sequence[Fault],
        logged: tuple[tuple[str, ...], tuple[Value, ...], tuple[Value, ...]],
    ) -> _Answer | int:
        for fault in firing:
            payload = fault.payload(payload)
        try:
            frames = build_parts(header, di, payload, data_max=self._data_max)
        except LocalProtocolError:
            return _OTHER  # more parts than can be counted
        return _Answer(di, *logged, tuple(frames))

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
        data = WAKE_UP * settings.wakeup + reply + settings.profile.suffix
        sent = [Transmission(delay_ms / 1000, data)]
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
        said = self.content.said(item, self.meter_clock, at_ms)
        return None if said is None else said.values


def _payload(item: Item, values: Sequence[Value], fill: int) -> bytes:
    """The bytes of an item; of an empty slot the byte that fills it."""
    assert item.layout is not None
    if all(value is None for value in values):
        rounds = len(values) // len(item.layout.fields)
        return bytes((fill,)) * (rounds * item.layout.round_bytes)
    return encode(item, *values)


def _outages(gaps: Iterable[Gap]) -> Iterable[Event]:
    """A span in which nothing at all was kept is one without power: the meter recorded that."""
    return (
        Event("power_down", gap.from_ms, gap.until_ms)
        for gap in gaps
        if gap.effect == "missing" and not gap.stores
    )
