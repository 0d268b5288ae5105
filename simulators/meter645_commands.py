"""What a simulated meter does when it is told to: clock, freezes, parameters, passwords, relay.

Both editions. A wrong password is counted by level; after `tries` of them the level is closed for a
time, in which the right one is refused too, and no trying opens it. A command that is shaped like
none is heard in silence, as is one to an address it may not come to.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal, Protocol

from protocols.bcd import digits_of
from protocols.dlt645.catalogue import Item, lookup
from protocols.dlt645.clock import DATE, DATE_AND_TIME, TIME, parse_clock
from protocols.dlt645.fields import OperatorCode
from protocols.dlt645.formats import MeterTime, Value
from protocols.dlt645.frame import CLOCK_TO_ALL, Frame645, build
from protocols.dlt645.functions import SPEED_OF_WORD
from protocols.dlt645.items import decode
from protocols.dlt645.meter import WriteAsked, build_done, build_refusal, parse_write
from protocols.dlt645.refusal import error_byte
from protocols.errors import RemoteProtocolError
from simulators.energy import DAY_MS
from simulators.meter645_clock import MeterClock, local_ms_of, meter_time
from simulators.meter645_content import Content, Kept
from simulators.meter645_events import EventLog
from simulators.meter645_params import MeterState
from simulators.meter645_store import HOUR_MS, Freeze, every, monthly

Reach = Literal["one", "any", "all"]  # of the address: a meter's own, AA..AA, the broadcast
OTHER, NO_DATA, DENIED, SPEED = (
    error_byte(name) for name in ("other", "no_data", "password", "speed")
)
_ILLEGAL_1997 = 0x01
_EVERY = 99
_FREEZE = 0x16
_WRITE_ADDRESS, _WRITE_ADDRESS_1997 = 0x15, 0x0A
_NEVER_BY_WILDCARD = frozenset((0x14, 0x17, 0x19, 0x1A, 0x1B, 0x1C))  # what changes one meter
_RELAY_LEVELS = (2, 4)
_AUTHENTICATION_EXPIRED = bytes((0x08, 0x00))
_IDENTITY_FAILED = bytes((0x08, 0x00))
_CLOCK_ITEMS = {DATE, TIME, DATE_AND_TIME, "C010", "C011"}
_ADDRESS_ITEMS = {"04000401", "C032"}
_FIVE_MIN_MS = 300_000


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """What a meter lets itself be told.

    `passwords`: six digits by level. `tries` wrong ones close a level for `lock_s`. `programmable`:
    the key is pressed. `clock_reach_s`: the greatest difference a broadcast time may set right;
    `clock_single`: it is also taken when sent to the meter's own address. `relay_delay_ms`: from
    the command to the relay. `plain_trip`: whether the relay opens without authentication.
    `speeds`: bit/s it can change to; `speed_fallback_s`: it returns to the old one when it hears
    nothing at the new one for so long. `esam`: it answers authentication, always in the negative.
    """

    passwords: Mapping[int, str] = field(default_factory=lambda: {2: "000000", 4: "000000"})
    tries: int = 3
    lock_s: int = 3600
    programmable: bool = True
    clock_reach_s: int = 300
    clock_single: bool = False
    relay_delay_ms: int = 0
    plain_trip: bool = True
    speeds: tuple[int, ...] = (1200, 2400, 4800, 9600)
    speed_fallback_s: int | None = None
    esam: bool = False


class Owner(Protocol):
    """The meter that is told."""

    state: MeterState
    kept: Kept
    content: Content
    events: EventLog
    meter_clock: MeterClock

    def set_clock(self, local_ms: int) -> None:
        """Set its own clock."""
        ...


_Handler = Callable[[Frame645, int], bytes | None]
_Table = Mapping[int, tuple[int, int, _Handler]]  # the least and the greatest length of DATA


class Commands:
    """What one meter has been told, and what it still refuses."""

    def __init__(self, settings: CommandSettings, owner: Owner) -> None:
        self.settings = settings
        self._owner = owner
        self._passwords = dict(settings.passwords)
        self._wrong: dict[int, int] = {}
        self._closed_until_ms: dict[int, int] = {}
        self._clock_day: dt.date | None = None
        self.speed_from_ms = 0
        self.speed_before: int | None = None
        self.speed_kept = True  # something was heard at the present speed
        owner.state.is_programmable = settings.programmable
        self._commands: _Table = {
            0x03: (8, 255, self._authenticate),
            0x14: (12, 255, self._write),
            _FREEZE: (4, 4, self._freeze),
            0x17: (1, 1, self._change_speed),
            0x18: (12, 12, self._change_password),
            0x19: (8, 8, self._clear_demand),
            0x1A: (8, 8, self._clear_meter),
            0x1B: (12, 12, self._clear_events),
            0x1C: (16, 16, self._relay),
            0x1D: (1, 1, self._terminal),
        }
        self._commands_1997: _Table = {
            0x04: (6, 255, self._write),
            0x0C: (1, 1, self._change_speed),
            0x0F: (8, 8, self._change_password),
            0x10: (0, 4, self._clear_demand_1997),
        }

    def answer(self, frame: Frame645, reach: Reach, now_ms: int) -> bytes | None:
        """The reply to a command of the 2007 edition; None = silence. Never raises."""
        if frame.control == CLOCK_TO_ALL:
            self._take_time(frame, reach, now_ms)
            return None
        if frame.control == _WRITE_ADDRESS:
            return self._write_address(frame, now_ms) if reach == "any" else None
        if reach == "all" and frame.control != _FREEZE:
            return None  # the output of the terminal too is heard without an answer
        if reach == "any" and frame.control in _NEVER_BY_WILDCARD:
            return None
        reply = self._handled(self._commands, frame, now_ms)
        return None if reach == "all" else reply

    def answer_1997(self, frame: Frame645, reach: Reach, now_ms: int) -> bytes | None:
        """The reply to a command of the 1997 edition; None = silence. Never raises."""
        if frame.control == CLOCK_TO_ALL:
            self._take_time(frame, reach, now_ms)
            return None
        if frame.control == _WRITE_ADDRESS_1997:
            return self._write_address(frame, now_ms) if reach != "one" else None
        return self._handled(self._commands_1997, frame, now_ms)

    def _handled(self, table: _Table, frame: Frame645, now_ms: int) -> bytes | None:
        """What a command does and says; one of another length is heard in silence."""
        if frame.control not in table:
            return None
        least, most, handle = table[frame.control]
        return handle(frame, now_ms) if least <= len(frame.data) <= most else None

    # --- the clock ----------------------------------------------------------------------------

    def _take_time(self, frame: Frame645, reach: Reach, now_ms: int) -> None:
        """Follow a broadcast time, or pass over it without a sign.

        Taken once a day, within `clock_reach_s`, not from 23:55 to 00:05 and not within five
        minutes of a settlement, all by the meter's own clock.
        """
        if reach != "all" and not (reach == "one" and self.settings.clock_single):
            return
        told = parse_clock(frame)
        if told is None:
            return
        mine_ms = self._owner.meter_clock.local_ms(now_ms)
        mine = meter_time(mine_ms)
        wanted_ms = local_ms_of(told)
        if abs(wanted_ms - mine_ms) > self.settings.clock_reach_s * 1000:
            return
        within = mine_ms % DAY_MS
        if within >= DAY_MS - _FIVE_MIN_MS or within < _FIVE_MIN_MS:
            return
        if self._near_settlement(mine_ms) or self._clock_day == mine.date:
            return
        self._owner.set_clock(wanted_ms)
        self._clock_day = meter_time(wanted_ms).date

    def _near_settlement(self, local_ms: int) -> bool:
        day, hour = self._owner.kept.settings.settlement
        due = monthly(day, hour)(local_ms - _FIVE_MIN_MS - 1, local_ms + _FIVE_MIN_MS, 1)
        return bool(list(due))

    def _set_clock_item(self, value: Value, operator: str, now_ms: int) -> bool:
        before_ms = self._owner.meter_clock.local_ms(now_ms)
        before = meter_time(before_ms)
        if isinstance(value, MeterTime):
            after_ms = local_ms_of(value)
        elif isinstance(value, dt.date):
            after_ms = local_ms_of(MeterTime(value, dt.time())) + before_ms % DAY_MS
        elif isinstance(value, dt.time):
            after_ms = local_ms_of(MeterTime(before.date, value))
        else:
            return False
        self._owner.set_clock(after_ms)
        self._owner.events.note("033004", OperatorCode(operator), before, meter_time(after_ms))
        return True

    # --- passwords ----------------------------------------------------------------------------

    def closed(self, level: int, now_ms: int) -> bool:
        """Whether a level is closed after too many wrong passwords."""
        return now_ms < self._closed_until_ms.get(level, 0)

    def _admits(self, password: bytes, now_ms: int) -> bool:
        """Whether level and password (PA P0 P1 P2) are right and the level is not closed."""
        level, digits = password[0], digits_of(password[1:4])
        if level not in self._passwords or self.closed(level, now_ms):
            return False
        if digits is not None and digits == self._passwords[level]:
            self._wrong[level] = 0
            return True
        self._wrong[level] = self._wrong.get(level, 0) + 1
        if self._wrong[level] >= self.settings.tries:
            self._wrong[level] = 0
            self._closed_until_ms[level] = now_ms + self.settings.lock_s * 1000
        return False

    def _may_program(self, password: bytes, now_ms: int) -> bool:
        return self._owner.state.is_programmable and self._admits(password, now_ms)

    def _change_password(self, frame: Frame645, now_ms: int) -> bytes:
        """(DI) PAo Po Po Po PAn Pn Pn Pn: the old one's level may not be below that of the new.

        In the 2007 edition the identifier names the level once more.
        """
        old, new = frame.data[-8:-4], frame.data[-4:]
        is_named = frame.data[:-8] in (b"", bytes((new[0] + 1 & 0xFF, 0x0C, 0x00, 0x04)))
        digits = digits_of(new[1:])
        if not self._may_program(old, now_ms) or old[0] > new[0]:
            return self._reply(frame, DENIED)
        if digits is None or not is_named or new[0] > 9:
            return self._reply(frame, OTHER)
        self._passwords[new[0]] = digits
        return self._reply(frame, None, new)

    # --- writing ------------------------------------------------------------------------------

    def _write(self, frame: Frame645, now_ms: int) -> bytes | None:
        asked = parse_write(frame)
        if asked is None:
            return None
        if not self._may_program(asked.password, now_ms):
            return self._reply(frame, DENIED)
        item = lookup(asked.di)
        if item is None:
            return self._reply(frame, NO_DATA)
        if item.layout is None or item.access != "rw":
            return self._reply(frame, OTHER)
        try:
            values = decode(item, asked.payload)
        except RemoteProtocolError:
            return self._reply(frame, OTHER)
        return self._reply(frame, None if self._written(item, values, asked, now_ms) else OTHER)

    def _written(
        self, item: Item, values: tuple[Value, ...], asked: WriteAsked, now_ms: int
    ) -> bool:
        """Do what a good write says; whether it could be done."""
        owner = self._owner
        operator = asked.operator[::-1].hex().upper() or "00000000"
        if item.di in _CLOCK_ITEMS:
            return self._set_clock_item(values[0], operator, now_ms)
        if all(value is None for value in values):
            return False
        if item.di in _ADDRESS_ITEMS:
            return self._set_address(str(values[0]))
        if item.di.startswith(("04000A0", "04000901")) and not self._set_load(item.di, values[0]):
            return False
        owner.state.written[item.di] = values
        now = meter_time(owner.meter_clock.local_ms(now_ms))
        owner.events.note_programming(now, operator, [item.di.rjust(8, "0")])
        return True

    def _set_load(self, di: str, value: Value) -> bool:
        """Modes and intervals of load records, from now on."""
        load = self._owner.kept.load
        if di == "04000901":
            load.settings = replace(load.settings, mode=int(str(value), 16) & 0x3F)
            return True
        at = int(di[6:], 16) - 2
        if not isinstance(value, Decimal) or not 0 <= at < len(load.settings.intervals_min):
            return di == "04000A01"
        minutes = list(load.settings.intervals_min)
        minutes[at] = int(value)
        try:
            a, b, c, d, e, f = minutes
            load.settings = replace(load.settings, intervals_min=(a, b, c, d, e, f))
        except ValueError:
            return False
        return True

    def _write_address(self, frame: Frame645, now_ms: int) -> bytes | None:  # noqa: ARG002
        digits = digits_of(frame.data)
        is_free = self._owner.state.is_programmable and len(frame.data) == 6
        if not is_free or digits is None or not self._set_address(digits):
            return None
        return self._reply(frame, None)

    def _set_address(self, digits: str) -> bool:
        if digits == "99" * 6:
            return False
        self._owner.state.address = digits
        return True

    # --- freezes, demands, events --------------------------------------------------------------

    def _freeze(self, frame: Frame645, now_ms: int) -> bytes:
        return self._reply(frame, self._frozen(frame.data, now_ms))

    def _frozen(self, data: bytes, now_ms: int) -> int | None:
        """Freeze now (all 99), or from now on every month, day or hour. None = done."""
        digits = digits_of(data)  # MM DD hh mm
        if digits is None:
            return OTHER
        month, day, hour, minute = (int(digits[at : at + 2]) for at in range(0, 8, 2))
        stores, clock = self._owner.kept.stores, self._owner.meter_clock
        if (month, day, hour, minute) == (_EVERY,) * 4:
            time = meter_time(clock.local_ms(now_ms) // 60_000 * 60_000)
            stores["instant_freeze"].add(Freeze(time, now_ms))
            return None
        is_time = month == _EVERY and minute < 60
        if not is_time or (hour >= 24 and hour != _EVERY) or not (1 <= day <= 31 or day == _EVERY):
            return OTHER
        timed = stores["timed_freeze"]
        timed.take(clock, now_ms)
        if hour == _EVERY:
            if day != _EVERY:
                return OTHER
            timed.change_due(every(HOUR_MS, minute * 60_000))
        elif day == _EVERY:
            timed.change_due(every(DAY_MS, hour * HOUR_MS + minute * 60_000))
        else:
            timed.change_due(monthly(day, hour, minute))
        return None

    def _clear_meter(self, frame: Frame645, now_ms: int) -> bytes:  # noqa: ARG002
        return self._reply(frame, DENIED)  # this meter cannot be cleared

    def _clear_demand(self, frame: Frame645, now_ms: int) -> bytes:
        data = frame.data
        if not self._may_program(data[:4], now_ms):
            return self._reply(frame, DENIED)
        owner = self._owner
        operator = data[7:3:-1].hex().upper()
        record = owner.content.demands_before_clearing(operator, owner.meter_clock, now_ms)
        owner.events.note("033002", *record)
        owner.content.demand_cleared_ms = now_ms
        return self._reply(frame, None)

    def _clear_demand_1997(self, frame: Frame645, now_ms: int) -> bytes:
        self._owner.content.demand_cleared_ms = now_ms
        return self._reply(frame, None)

    def _clear_events(self, frame: Frame645, now_ms: int) -> bytes:
        data = frame.data
        if not self._may_program(data[:4], now_ms):
            return self._reply(frame, DENIED)
        di = data[:7:-1].hex().upper()
        if not di.endswith("FF"):
            return self._reply(frame, OTHER)
        owner = self._owner
        owner.events.clear(now_ms, "" if di == "F" * 8 else di[:6])
        now = meter_time(owner.meter_clock.local_ms(now_ms))
        owner.events.note("033003", now, OperatorCode(data[7:3:-1].hex().upper()), di)
        return self._reply(frame, None)

    # --- speed, terminal, security --------------------------------------------------------------

    def _terminal(self, frame: Frame645, now_ms: int) -> bytes:  # noqa: ARG002
        return self._reply(frame, None if frame.data[0] <= 2 else OTHER, frame.data)

    def _authenticate(self, frame: Frame645, now_ms: int) -> bytes | None:  # noqa: ARG002
        return self._refuse2(frame, _IDENTITY_FAILED) if self.settings.esam else None

    def _change_speed(self, frame: Frame645, now_ms: int) -> bytes:
        """Exactly one bit, of a speed it knows: answered at the old speed, then changed."""
        speed = SPEED_OF_WORD.get(frame.data[0])
        if speed is None or speed not in self.settings.speeds:
            return self._reply(frame, SPEED)
        self.speed_before = self._owner.state.speed
        self._owner.state.speed = speed
        self.speed_from_ms, self.speed_kept = now_ms, False
        return self._reply(frame, None, frame.data)

    # --- the relay ------------------------------------------------------------------------------

    def _relay(self, frame: Frame645, now_ms: int) -> bytes:
        data = frame.data
        if data[0] == 0x98 and data[3] == 0x01:
            return self._refuse2(frame, _AUTHENTICATION_EXPIRED)
        if data[0] not in _RELAY_LEVELS or not self._admits(data[:4], now_ms):
            return self._reply(frame, DENIED)
        until = _moment(data[10:])
        local_ms = self._owner.meter_clock.local_ms(now_ms)
        if until is None or local_ms_of(until) < local_ms:
            return self._reply(frame, OTHER)  # its time is over
        return self._reply(frame, self._move_relay(data[8], data[9], now_ms))

    def _move_relay(self, command: int, spare: int, now_ms: int) -> int | None:
        state, events = self._owner.state, self._owner.events
        at_ms = now_ms + self.settings.relay_delay_ms
        when = meter_time(self._owner.meter_clock.local_ms(at_ms))
        match command:
            case 0x1A | 0x1D | 0x1E:
                if not self.settings.plain_trip:
                    return DENIED
                recovers = command != 0x1A
                if state.is_protected or (recovers and not spare):
                    return OTHER
                state.relay_open_at_ms, state.relay_close_at_ms = at_ms, None
                if recovers:
                    state.relay_close_at_ms = at_ms + spare * _FIVE_MIN_MS
                state.is_open_commanded, state.may_close = True, False
                events.note("1D0001", when)
            case 0x1B:
                state.is_open_commanded, state.may_close = False, True
            case 0x1C:
                state.is_open_commanded = state.may_close = False
                if state.relay_open_at_ms is not None:
                    state.relay_close_at_ms = at_ms
                    events.note("1E0001", when)
            case 0x2A | 0x2B:
                state.is_alarmed = command == 0x2A
            case 0x3A | 0x3B:
                state.is_protected = command == 0x3A
            case _:
                return OTHER
        return None

    # --- replies ------------------------------------------------------------------------------

    def _reply(self, frame: Frame645, error: int | None, data: bytes = b"") -> bytes:
        """What was asked is done, or refused with an error byte."""
        address = self._owner.state.address
        if error is None:
            return build_done(address, frame.control, data)
        return build_refusal(address, frame.control, error)

    def _refuse2(self, frame: Frame645, errors: bytes) -> bytes:
        """A refusal with two error bytes."""
        return build(self._owner.state.address, frame.control | 0xC0, errors)


def _moment(raw: bytes) -> MeterTime | None:
    """ss mm hh DD MM YY; None for what is no time."""
    digits = digits_of(raw)
    if digits is None:
        return None
    year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    try:
        return MeterTime(dt.date(2000 + year, month, day), dt.time(hour, minute, second))
    except ValueError:
        return None
