"""A Modbus device of any profile: read requests in, answers with their delays out.

Its registers are filled from what a source measures, exactly: a counter shows its true content cut
to the register's step; a device of the secondary side shows what its transformers hand it, so that
the register times CT and PT is the truth cut to one step times CT and PT. No I/O, no clock of its
own. On a line it is silent to broken frames, other units and broadcasts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from protocols.modbus.counting import counting_of
from protocols.modbus.decode import decode, encode
from protocols.modbus.delimiter import COUNT_MAX
from protocols.modbus.device import read_reply_pdu, refused_by_protocol
from protocols.modbus.master import ReadRequest
from protocols.modbus.register import FLOATS, SIGNED, TEXTS, DeviceProfile, Register
from protocols.quantities import quantity
from simulators.faults import Asked, Fault, seeded
from simulators.measured import Register as Truth
from simulators.meter645 import Served, TruthLog
from simulators.modbus_faults import (
    CONNECTION_FAULTS,
    NIGHT_FAULT,
    Answer,
    act_on,
    another_text,
    counted,
    moved_power,
    parse_modbus_fault,
    spoilt_words,
)
from simulators.modbus_source import Derived, Source

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
_REFUSED = 0x80
_ONE = Decimal(1)
_NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ModbusSettings:
    """How one device behaves towards the line.

    `filler`: what undefined registers hold where the profile's `gaps` is ok; elsewhere a block that
    touches one is refused. `ct`, `pt`: of the transformers in front of it (secondary side only).
    """

    unit: int
    reply_delay_ms: int = 40
    reply_jitter_ms: int = 0
    ct: Decimal = _ONE
    pt: Decimal = _ONE
    filler: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a request. `connection`: a fault that acts on the whole connection, by name."""

    answers: tuple[Answer, ...]
    connection: str | None = None


class ModbusDevice:
    """One unit. `clock` gives wall time in milliseconds; all that it says follows from that.

    `grid`: what an inverter's own meter at the grid connection measures. `powers`: what the scale
    factors of its map hold, by address, 0 where none is told. `fixed`: registers that hold the same
    for ever, by address (of the function of its first register); they are no point's.
    """

    def __init__(
        self,
        settings: ModbusSettings,
        profile: DeviceProfile,
        source: Source,
        *,
        clock: Callable[[], int],
        truth_log: TruthLog | None = None,
        grid: Source | None = None,
        constants: Mapping[str, Decimal | str] | None = None,
        powers: Mapping[int, int] = _NOTHING,
        fixed: Mapping[int, int] = _NOTHING,
    ) -> None:
        self.settings = settings
        self.profile = profile
        self.source = source
        said: dict[str, Decimal | str] = {
            "comm_address": Decimal(settings.unit),
            "serial_number": str(100_000 + settings.seed % 900_000),
        }
        if profile.side == "secondary":
            said |= {"ct_ratio": settings.ct, "pt_ratio": settings.pt}
        self._values = Derived(source, grid=grid, constants={**said, **(constants or {})})
        self._powers = dict(powers)
        self._fixed = dict(fixed)
        self.clock = clock
        self.truth_log = truth_log
        self.faults: list[Fault] = []
        self._rng = seeded(settings.seed)
        told = profile.filler if settings.filler is None else settings.filler
        usual = 0xFFFF if profile.kind == "inverter" else 0
        self._filler = usual if told is None else told
        rows = sorted(profile.registers.values(), key=lambda one: (one.address, one.end))
        self._by_function = {
            function: [one for one in rows if one.function == function]
            for function in {one.function for one in rows}
        }
        self._defined = {
            function: {
                at
                for one in rows
                for at in (*range(one.address, one.end), one.scale_address)
                if at is not None
            }
            for function, rows in self._by_function.items()
        }
        for span in profile.spans:
            self._defined[span.function].update(range(span.address, span.address + span.count))
        if rows:
            self._defined[rows[0].function].update(self._fixed)

    @property
    def address(self) -> str:
        """The unit as text: what a configuration calls the device by."""
        return str(self.settings.unit)

    @property
    def functions(self) -> frozenset[int]:
        """The functions its map has registers for."""
        return frozenset(self._by_function)

    # --- truth and control --------------------------------------------------------------------

    def truth(self, at_ms: int, points: Iterable[str] | None = None) -> dict[str, Truth]:
        """Counters of the primary side at a wall time: exact, and as the register tells them."""
        found: dict[str, Truth] = {}
        for point in self.profile.registers if points is None else points:
            register = self.profile.registers.get(point)
            if register is None or quantity(point).kind != "register":
                continue
            exact = self._exact(register, at_ms)
            if isinstance(exact, Decimal):
                words = self._words(register, exact, ())
                shown = decode(
                    register,
                    self._with_scale(register, words, ()),
                    ct=self.settings.ct,
                    pt=self.settings.pt,
                    apply_ratio=True,
                )
                assert isinstance(shown, Decimal)
                found[point] = Truth(exact, shown)
        return found

    def warm_up(self) -> None:
        """Do the sums that the first reader would wait for."""
        now_ms = self.clock()
        for register in self.profile.registers.values():
            self._exact(register, now_ms)

    def add_fault(self, fault: Fault) -> None:
        """From the next request on. Faults act in the order they were added."""
        self.faults.append(fault)

    def add_fault_text(self, text: str, seed: int) -> None:
        """`add_fault` for a fault written as text; ValueError for one that is none."""
        self.add_fault(parse_modbus_fault(text, rng=seeded(seed)))

    def clear_faults(self, name: str | None = None) -> None:
        """Take away the faults of a name, or all."""
        self.faults = [fault for fault in self.faults if name is not None and fault.name != name]

    # --- the line -----------------------------------------------------------------------------

    def on_request(self, asked: ReadRequest) -> Heard:
        """What a read request of this unit brings."""
        now_ms = self.clock()
        di = f"{asked.function}:{asked.address}:{asked.count}"
        about = Asked(asked.raw, self.address, di, now_ms)
        firing = [fault for fault in self.faults if fault.fires(about)]
        if any(fault.name == NIGHT_FAULT for fault in firing) and not self._is_night(now_ms):
            firing = [fault for fault in firing if fault.name != NIGHT_FAULT]
        code = self._refusal(asked)
        said: list[tuple[str, str | None, str | None]] = []
        if code is None:
            pdu = read_reply_pdu(asked.function, self._block(asked, now_ms, firing, said))
        else:
            pdu = bytes((asked.function | _REFUSED, code))
        answers = [Answer(self._delay_s(), asked.unit, pdu)]
        for fault in firing:
            answers = act_on(fault, asked, answers)
        if said and self.truth_log is not None:
            raws = [one.frame(asked.transaction) for one in answers]
            self.truth_log(self._served(about, said, raws, firing))
        broken = next((f.name for f in firing if f.name in CONNECTION_FAULTS), None)
        return Heard(tuple(answers), broken)

    def on_function(self, unit: int, function: int) -> Answer:
        """What a request of a function brings that the device does not have."""
        pdu = bytes((function | _REFUSED, ILLEGAL_FUNCTION))
        return Answer(self._delay_s(), unit, pdu)

    def _delay_s(self) -> float:
        delay_ms = self.settings.reply_delay_ms
        if self.settings.reply_jitter_ms:
            delay_ms += self._rng.randrange(self.settings.reply_jitter_ms + 1)
        return delay_ms / 1000

    def _refusal(self, asked: ReadRequest) -> int | None:
        """The exception that the request meets, in the order real devices look."""
        profile = self.profile
        defined = self._defined.get(asked.function)
        if defined is None:
            return ILLEGAL_FUNCTION
        impossible = refused_by_protocol(asked)
        if impossible is not None:
            return impossible
        if asked.count > min(profile.registers_max, COUNT_MAX):
            return ILLEGAL_VALUE
        if profile.even_only and asked.count % 2:
            return ILLEGAL_VALUE
        if profile.even_only and asked.address % 2:
            return ILLEGAL_ADDRESS
        wanted = range(asked.address, asked.address + asked.count)
        if any(wanted[0] < at <= wanted[-1] for at in profile.breaks):
            return ILLEGAL_ADDRESS
        if profile.gaps == "ok":
            # Filler inside the map and close behind it; far from it there is nothing at all.
            within = range(min(defined), max(defined) + profile.registers_max)
            return None if wanted[0] in within and wanted[-1] in within else ILLEGAL_ADDRESS
        return None if defined.issuperset(wanted) else ILLEGAL_ADDRESS

    def _block(
        self,
        asked: ReadRequest,
        at_ms: int,
        firing: Sequence[Fault],
        said: list[tuple[str, str | None, str | None]],
    ) -> list[int]:
        """The words asked for, of one instant; `said` gets the values that are whole in them."""
        end = asked.address + asked.count
        words = [self._filler] * asked.count
        for at, word in self._fixed.items():
            if asked.address <= at < end:
                words[at - asked.address] = word
        for register in self._by_function[asked.function]:
            if register.behind <= asked.address or register.first >= end:
                continue
            exact = self._exact(register, at_ms)
            held = self._words(register, exact, firing)
            factor_at = register.scale_address
            if factor_at is not None and asked.address <= factor_at < end:
                words[factor_at - asked.address] = self._power(register, firing) & 0xFFFF
            for at, word in enumerate(held, register.address - asked.address):
                if 0 <= at < asked.count:
                    words[at] = word
            if asked.address <= register.address and register.end <= end:
                true = held if not firing else self._words(register, exact, ())
                if exact is None:
                    said.append((register.point, None, None))
                else:
                    shown = self._text(register, held, firing)
                    said.append((register.point, shown, self._text(register, true, ())))
        return words

    def _exact(self, register: Register, at_ms: int) -> Decimal | str | None:
        """The value of the primary side."""
        return self._values.exact(register.point, at_ms)

    def _is_night(self, at_ms: int) -> bool:
        """Whether an inverter has nothing to do; a meter has no night."""
        if self.profile.kind != "inverter":
            return False
        power = self._values.exact("active_power_total", at_ms)
        return isinstance(power, Decimal) and power <= 0

    def _power(self, register: Register, firing: Sequence[Fault]) -> int:
        """The power of ten that the device scales a register with."""
        if register.scale_address is None:
            return 0
        return moved_power(firing, self._powers.get(register.scale_address, 0))

    def _with_scale(
        self, register: Register, words: tuple[int, ...], firing: Sequence[Fault]
    ) -> tuple[int, ...]:
        """As `decode` takes them: with the scale factor behind them, where there is one."""
        if register.scale_address is None:
            return words
        return (*words, self._power(register, firing) & 0xFFFF)

    def _words(
        self, register: Register, exact: Decimal | str | None, firing: Sequence[Fault]
    ) -> tuple[int, ...]:
        """What the register holds; of what the device does not have, its way to say so."""
        if exact is None:
            if register.type in TEXTS:
                return encode(register, None)
            says_so = register.missing or register.type in FLOATS
            if says_so and (self.profile.gaps != "ok" or self.profile.filler is None):
                return encode(register, None)
            return (self._filler,) * register.words
        spoilt = spoilt_words(firing, register)
        if spoilt is not None:
            return spoilt
        if isinstance(exact, str):
            return encode(register, another_text(firing, register.point, exact))
        power = self._power(register, firing)
        probe = (*(0,) * register.words, power & 0xFFFF)
        counting = counting_of(register, None if register.scale_address is None else probe)
        shown = self._cut(register, exact, counting.step)
        if quantity(register.point).kind == "register":
            shown = counted(firing, register.point, shown, counting.limit)
        return encode(register, self._fitting(register, shown, counting.limit), power=power)

    def _cut(self, register: Register, exact: Decimal, step: Decimal) -> Decimal:
        """As the device sees it, cut to the register's step; a balance below 0 is cut towards 0."""
        ct, pt = self.settings.ct, self.settings.pt
        factor = {None: _ONE, "ct": ct, "pt": pt, "ct*pt": ct * pt}[register.ratio]
        return exact // (factor * step) * step

    @staticmethod
    def _fitting(register: Register, value: Decimal, limit: Decimal | None) -> Decimal:
        """A counter that does not fit begins again from 0; what is unsigned has no sign."""
        if quantity(register.point).kind == "register":
            return value if limit is None else value % limit
        if register.type in SIGNED | FLOATS or limit is None:
            return value
        return abs(value) % limit

    def _text(
        self, register: Register, words: tuple[int, ...], firing: Sequence[Fault]
    ) -> str | None:
        value = decode(register, self._with_scale(register, words, firing), apply_ratio=False)
        return format(value, "f") if isinstance(value, Decimal) else value

    def _served(
        self,
        about: Asked,
        said: Sequence[tuple[str, str | None, str | None]],
        raws: Sequence[bytes],
        firing: Sequence[Fault],
    ) -> Served:
        return Served(
            meter=self.address,
            di=about.di,
            points=tuple(point for point, _, _ in said),
            values=tuple(value for _, value, _ in said),
            true_values=tuple(true for _, _, true in said),
            at_ms=about.now_ms,
            request=about.raw.hex().upper(),
            raw=tuple(raw.hex().upper() for raw in raws),
            faults=tuple(fault.name for fault in firing),
        )


def step_of(register: Register) -> Decimal:
    """One count of an integer register, of a float its last decimal; in the unit of the point."""
    return counting_of(register).step
