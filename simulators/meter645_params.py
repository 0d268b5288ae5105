"""What a simulated meter says of itself: names, parameters, tables, status words.

Numbers are those of the standard's examples of a household meter; nothing reads them back into what
is measured, but for what the meter's state says (its address, speed, clock, relay).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from protocols.dlt645.formats import Value
from protocols.dlt645.functions import SPEED_OF_WORD
from simulators.measured import TARIFFS, Measured
from simulators.meter645_demand import PERIOD_MIN
from simulators.meter645_events import METER_BITS, PHASE_BITS, EventLog
from simulators.meter645_load import LoadSettings

_WORD_OF_SPEED = {speed: word for word, speed in SPEED_OF_WORD.items()}
USUAL_SPEED = 2400


@dataclass(slots=True)
class MeterState:
    """What commands change in a meter. Times are wall milliseconds.

    `relay_open_at_ms`: when the relay opens or opened, None = closed for good; `relay_close_at_ms`:
    when it closes by itself. `speed`: bit/s since a change of speed, None = as the line has it.
    `written`: parameters as they were last written, by identifier.
    """

    address: str
    relay_open_at_ms: int | None = None
    relay_close_at_ms: int | None = None
    is_open_commanded: bool = False
    may_close: bool = False
    is_alarmed: bool = False
    is_protected: bool = False
    is_programmable: bool = True
    speed: int | None = None
    written: dict[str, tuple[Value, ...]] = field(default_factory=dict)

    def relay_open(self, at_ms: int) -> bool:
        """Whether the relay is open."""
        if self.relay_open_at_ms is None or at_ms < self.relay_open_at_ms:
            return False
        return self.relay_close_at_ms is None or at_ms < self.relay_close_at_ms

    def open_commanded(self, at_ms: int) -> bool:
        """Whether the relay is meant to be open; one that recovers by itself no longer is."""
        is_over = self.relay_close_at_ms is not None and at_ms >= self.relay_close_at_ms
        return self.is_open_commanded and not is_over


class Parameters:
    """The items of a meter that are neither measured nor counted."""

    def __init__(
        self,
        measured: Measured,
        state: MeterState,
        events: EventLog,
        *,
        load: Callable[[], LoadSettings],
        settlement: tuple[int, int],
    ) -> None:
        self._measured = measured
        self._state = state
        self._events = events
        self._load = load
        self._settlement = settlement
        self._fixed: dict[str, tuple[Value, ...]] | None = None

    def values(self, di: str, at_ms: int) -> tuple[Value, ...] | None:
        """The values of an identifier; None when it is none of these."""
        written = self._state.written.get(di)
        if written is not None:
            return written
        if di.startswith("040005"):
            return self._words(di, at_ms)
        if self._fixed is None:
            self._fixed = self._make_fixed()
        load = self._load()
        changing: dict[str, tuple[Value, ...]] = {
            "04000401": (self._state.address,),
            "04000402": (self._state.address,),
            "04000403": (f"SIM{self._state.address}",),
            "04000901": (f"{load.mode:02X}",),
            "04000703": (f"{_WORD_OF_SPEED[self._state.speed or USUAL_SPEED]:02X}",),
        }
        changing |= {
            f"04000A{at + 2:02X}": (Decimal(minutes),)
            for at, minutes in enumerate(load.intervals_min)
        }
        return changing.get(di) or self._fixed.get(di)

    def values_1997(self, di: str) -> tuple[Value, ...] | None:
        """The values of an identifier of the 1997 edition; None when it is none of these."""
        written = self._state.written.get(di)
        if written is not None:
            return written
        slots, day = self._slots(), f"{self._settlement[0]:02d} {self._settlement[1]:02d}"
        words = dict.fromkeys(("C020", "C021", "C022"), ("00",))
        numbers = {"C030": 1200, "C031": 1200, "C111": PERIOD_MIN, "C112": PERIOD_MIN}
        numbers |= {"C113": 5, "C114": 10, "C115": 2, "C116": 4, "C118": 1, "C211": 80}
        numbers |= {"C119": 0, "C11A": 0, "C310": 1, "C311": 1, "C312": len(slots)}
        numbers |= {"C313": TARIFFS, "C314": 0, "C511": self._load().intervals_min[3]}
        found: dict[str, tuple[Value, ...]] = {di: (Decimal(n),) for di, n in numbers.items()}
        found |= words
        found |= {"C032": (self._state.address,), "C034": (self._state.address,)}
        found |= {"C033": ("0" * 12,), "C117": (day,), "C510": ("01-01 00:00",)}
        found |= {"C321": ("01-01 01",)}
        found |= {f"C3{0x31 + at:02X}": (slot,) for at, slot in enumerate(slots[:14])}
        return found.get(di)

    def _make_fixed(self) -> dict[str, tuple[Value, ...]]:
        is_sum = self._measured.is_combined_sum
        many = self._measured.model.supply.phases > 1
        day, hour = self._settlement
        texts = {
            "04000404": "220V",
            "04000405": "5A",
            "04000406": "60A",
            "04000407": "1.0",
            "04000408": "2.0",
            "0400040B": "DTZY-SIM" if many else "DDZY-SIM",
            "0400040C": "2024-01-15",
            "0400040D": "DL/T645-2007",
            "0400040E": "000000000000",
            "04000A01": "01-01 00:00",
            "04000B01": f"{day:02d} {hour:02d}",
            "04000B02": "99 99",
            "04000B03": "99 99",
            "04000601": "05" if is_sum else "09",
            "04000602": "05",
            "04000603": "50",
            "04000701": "04",
            "04000702": "08",
            "04000704": "08",
            "04000705": "08",
            "04000801": "FF",
            "04000902": "FF",
            "04001101": "00",
            "04001104": "00" * 8,
            "04001501": "00" * 12,
            "04800001": "headend simulated meter",
            "04800002": "none: a simulation",
            "04800003": "headend",
        }
        numbers = {
            "04000103": PERIOD_MIN,
            "04000104": PERIOD_MIN,
            "04000105": 80,
            "04000201": 1,
            "04000202": 1,
            "04000203": len(self._slots()),
            "04000204": TARIFFS,
            "04000205": 0,
            "04000206": 0,
            "04000207": 0,
            "04000302": 5,
            "04000303": 2,
            "04000304": 4,
            "04000306": 1,
            "04000307": 1,
            "04000409": 1200,
            "0400040A": 1200,
            "04000802": 1,
            "04001402": 0,
            "04001403": 0,
            "04001405": 0,
        }
        fractions = {
            "02800007": "25.0",
            "02800008": "3.60",
            "02800009": "6.00",
            "0280000A": "0",
            "04000E01": "99.9999",
            "04000E02": "99.9999",
            "04000E03": "264.0",
            "04000E04": "176.0",
        }
        slots = self._slots()
        fixed: dict[str, tuple[Value, ...]] = {di: (text,) for di, text in texts.items()}
        fixed |= {di: (Decimal(number),) for di, number in numbers.items()}
        fixed |= {di: (Decimal(text),) for di, text in fractions.items()}
        filled = (slots + slots[-1:] * 14)[:14]
        fixed["04010000"] = ("01-01 01",) * 14
        fixed["04010001"] = tuple(filled)
        return fixed

    def _slots(self) -> list[str]:
        """The day's tariff slots, `hh:mm NN`."""
        changes = self._measured.model.tariff_changes
        return [f"{start // 60:02d}:{start % 60:02d} {tariff:02d}" for start, tariff in changes]

    # --- status words -------------------------------------------------------------------------

    def _words(self, di: str, at_ms: int) -> tuple[Value, ...] | None:
        """One status word, or all seven."""
        if di == "04000508":
            return ("00000000",)
        if di == "040005FF":
            return tuple(f"{self._word(number, at_ms):04X}" for number in range(1, 8))
        number = int(di[6:], 16)
        return (f"{self._word(number, at_ms):04X}",) if 1 <= number <= 7 else None

    def _word(self, number: int, at_ms: int) -> int:
        model = self._measured.model
        active, reactive = model.net_quanta(at_ms), model.reactive_quanta(at_ms)
        match number:
            case 1:
                interval_demand = 1 << 1
                return interval_demand | _bits({4: sum(active) < 0, 5: sum(reactive) < 0})
            case 2:
                directions = {at: power < 0 for at, power in enumerate(active)}
                directions |= {4 + at: power < 0 for at, power in enumerate(reactive)}
                return _bits(directions)
            case 3:
                state = self._state
                return _bits(
                    {
                        3: state.is_programmable,
                        4: state.relay_open(at_ms),
                        6: state.open_commanded(at_ms),
                        7: state.is_alarmed,
                        12: state.is_protected,
                    }
                )
            case 7:
                return _bits({b: self._events.lasting(k, at_ms) for k, b in METER_BITS.items()})
        phase = number - 3
        lasting = {b: self._events.lasting(k, at_ms, phase) for k, b in PHASE_BITS.items()}
        if phase <= len(active):
            lasting[PHASE_BITS["flow_reversed"]] |= active[phase - 1] < 0
        return _bits(lasting)


def _bits(wanted: Mapping[int, bool]) -> int:
    return sum(1 << bit for bit, is_set in wanted.items() if is_set)
