"""Is this value believable? The first rule set: range, backward, too fast, rollover, clock.

`judge` decides on one value with what is known before it. A value that cannot be believed is
`held`: it is kept, read again, and never becomes the base that later values are compared with.
"""

from dataclasses import field
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from headend.domain.reading import Verdict

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from headend.domain.values import dataclass

MS_PER_HOUR = 3_600_000

# What an instrument on a low- or medium-voltage connection can show on its own (secondary) side.
# By unit; a value outside is held. Power and current are bounded by the connection instead.
RANGE_BY_UNIT: dict[str, tuple[Decimal, Decimal]] = {
    "V": (Decimal(0), Decimal(1000)),
    "Hz": (Decimal(40), Decimal(70)),
    "": (Decimal(-1), Decimal(1)),
}
# The same where the instrument turns its values into primary ones itself: by what ratio is not
# known here, so only what no connection has is ruled out.
RANGE_OF_PRIMARY: dict[str, tuple[Decimal, Decimal]] = {"V": (Decimal(0), Decimal(1_000_000))}
POWER_UNITS = frozenset({"kW", "kvar", "kVA"})
REGISTER_KINDS = frozenset({"register"})


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The thresholds, as data. `version` travels into every trace.

    `capacity_kw` stands in where a meter has none of its own. `power_margin` is what power may
    exceed the connection's capacity by. `clock_tolerance_s`: how far a meter's clock may be off
    before its readings are suspect (300 s for DL/T 645 class meters).
    """

    version: str = "register/1"
    capacity_kw: Decimal = Decimal(100)
    power_margin: Decimal = Decimal("1.5")
    clock_tolerance_s: int = 300
    range_by_unit: dict[str, tuple[Decimal, Decimal]] = field(
        default_factory=lambda: dict(RANGE_BY_UNIT)
    )


@dataclass(frozen=True, slots=True)
class Base:
    """The last good register of a point: what the next value is compared with."""

    value: Decimal
    time_ms: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that has just been decoded.

    `digits`: digits before the decimal point of the register (645 energy: 6); `limit`: the first
    value the register cannot show, where that is not a matter of digits (infinite: it never wraps).
    `count`: the smallest step it can take. `clock_offset_s`: the meter's clock minus ours where
    known. `applied`: a transformers' ratio that is in the value already; None: there may be one
    that only the instrument knows.
    """

    point: str
    kind: str
    unit: str
    value: Decimal
    time_ms: int
    multiplier: Decimal = Decimal(1)
    capacity_kw: Decimal | None = None
    digits: int = 6
    count: Decimal = Decimal("0.01")
    clock_offset_s: float | None = None
    limit: Decimal | None = None
    applied: Decimal | None = Decimal(1)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict with the rules that spoke (sorted) and why, for people."""

    verdict: Verdict
    flags: tuple[str, ...] = ()
    reason: str = ""
    rolled_over: bool = False


OK = Judgement(Verdict.OK)


def judge(rules: RuleSet, new: Candidate, base: Base | None) -> Judgement:
    """The verdict on one value. Pure: the same inputs give the same verdict years later."""
    found = (
        _register(rules, new, base) if new.kind in REGISTER_KINDS else _instantaneous(rules, new)
    )
    offset_s = new.clock_offset_s
    if offset_s is None or abs(offset_s) <= rules.clock_tolerance_s:
        return found
    flags = tuple(sorted({*found.flags, "clock"}))
    verdict = Verdict.SUSPECT if found.verdict is Verdict.OK else found.verdict
    why = found.reason or f"the meter's clock is off by {offset_s:.0f} s"
    return Judgement(verdict, flags, why, found.rolled_over)


def _instantaneous(rules: RuleSet, new: Candidate) -> Judgement:
    if new.unit in POWER_UNITS:
        capacity_kw = rules.capacity_kw if new.capacity_kw is None else new.capacity_kw
        high = capacity_kw * rules.power_margin / new.multiplier
        low = -high
    elif new.unit in rules.range_by_unit and new.kind == "instantaneous":
        low, high = _instrument_range(rules, new)
    else:
        return OK
    if low <= new.value <= high:
        return OK
    why = f"{new.value} {new.unit} is outside {low}..{high} {new.unit}"
    return Judgement(Verdict.HELD, ("out_of_range",), why)


def _instrument_range(rules: RuleSet, new: Candidate) -> tuple[Decimal, Decimal]:
    """What the instrument can show, on the side that the value is of."""
    low, high = rules.range_by_unit[new.unit]
    if new.applied is None:
        return RANGE_OF_PRIMARY.get(new.unit, (low, high))
    return low * new.applied, high * new.applied


@lru_cache(maxsize=64)
def _limit(digits: int) -> Decimal:
    """The first number that a register of so many digits cannot show."""
    return Decimal(10) ** digits


def _register(rules: RuleSet, new: Candidate, base: Base | None) -> Judgement:
    limit = _limit(new.digits) if new.limit is None else new.limit
    if not 0 <= new.value < limit:
        size = f"of {new.digits} digits" if new.limit is None else f"that wraps at {limit}"
        why = f"{new.value} {new.unit} does not fit a register {size}"
        return Judgement(Verdict.HELD, ("out_of_range",), why)
    if base is None or new.time_ms < base.time_ms:
        return OK  # nothing before it to compare with; an older value is judged by its neighbours
    delta = new.value - base.value
    if 0 <= delta <= new.count:
        return OK  # it stands, or has just gone on by one count: believable after any time
    capacity_kw = rules.capacity_kw if new.capacity_kw is None else new.capacity_kw
    hours = Decimal(new.time_ms - base.time_ms) / MS_PER_HOUR
    # Both ends are cut down to a count of the register, so one count may appear from nothing.
    most = capacity_kw * hours / new.multiplier + new.count
    if delta > most:
        why = f"+{delta} {new.unit} in {hours:.4f} h, the connection allows {most:.2f}"
        return Judgement(Verdict.HELD, ("too_fast",), why)
    if delta >= 0:
        return OK
    if delta + limit <= most:
        return Judgement(
            Verdict.OK, ("rollover",), f"wrapped at {limit} {new.unit}", rolled_over=True
        )
    why = f"{new.value} {new.unit} is below the last good {base.value} {new.unit}"
    return Judgement(Verdict.HELD, ("backward",), why)
