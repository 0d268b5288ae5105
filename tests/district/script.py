"""What goes wrong in the district, and when: all of it follows from the seed."""

from dataclasses import dataclass
from random import Random

from simulators.damage import Damaged, flip_bits
from simulators.faults import seeded

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
LOAD_SHARE = 10  # every tenth meter is read each quarter of an hour
SILENT_SHARE = 200  # every two-hundredth says nothing at all


@dataclass(frozen=True, slots=True)
class Size:
    """How large a district is: whole local days behind the first midnight."""

    meters: int
    buses: int
    days: int


@dataclass(frozen=True, slots=True)
class Swap:
    """A device is taken down and another hung up; told to the head-end when it is declared."""

    meter: str
    new_meter: str
    at_ms: int
    declared_ms: int


@dataclass(frozen=True, slots=True)
class Span:
    """From an instant until another, of something that has a name."""

    name: str
    from_ms: int
    until_ms: int

    def covers(self, at_ms: int) -> bool:
        """Whether an instant lies in it."""
        return self.from_ms <= at_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class ClockError:
    """How a meter's clock goes wrong: by so much at the beginning, and ever more."""

    error_ms: int
    drift_ppm: int


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that happens.

    `silent`: meters that never answer. `dark`: meters without power for a while, which keep nothing
    of it. `rollover`: the meter whose import register passes its end, and when. None or empty:
    does not happen.
    """

    seed: int
    size: Size
    begin_ms: int
    midnight_ms: int
    clocks: dict[str, ClockError]
    silent: frozenset[str] = frozenset()
    dark: tuple[Span, ...] = ()
    outage: Span | None = None
    crash: Span | None = None
    swaps: tuple[Swap, ...] = ()
    rollover: tuple[str, int] | None = None
    loss: float = 0.0
    bit_errors: float = 0.0

    @property
    def end_ms(self) -> int:
        """Behind the last midnight, with time left to read it."""
        return self.midnight_ms + self.size.days * DAY_MS + 6 * HOUR_MS

    def midnights(self) -> list[int]:
        """The local midnights whose registers are due: one more than days."""
        return [self.midnight_ms + n * DAY_MS for n in range(self.size.days + 1)]


def names(size: Size) -> list[str]:
    """The meters."""
    return [f"M-{number + 1:05d}" for number in range(size.meters)]


def bus_of(size: Size, number: int) -> str:
    """Where a meter hangs."""
    return f"bus-{number % size.buses + 1:02d}"


def has_load(size: Size, number: int) -> bool:
    """Whether a meter is read each quarter of an hour: a tenth of every bus, others on each."""
    index, bus = divmod(number, size.buses)
    return (index + 3 * bus) % LOAD_SHARE == 0


def calm(seed: int, size: Size, midnight_ms: int) -> Script:
    """Nothing goes wrong."""
    right = dict.fromkeys(names(size), ClockError(0, 0))
    return Script(seed, size, midnight_ms - HOUR_MS, midnight_ms, right)


def troubled(seed: int, size: Size, midnight_ms: int) -> Script:
    """All that a district has to live through; at least five days."""
    rng = seeded(seed)
    meters = names(size)
    clocks = {
        name: ClockError(rng.randrange(-20_000, 20_001), rng.randrange(-30, 31)) for name in meters
    }
    for name in rng.sample(meters, max(1, size.meters // 50)):  # two seconds and more a day
        clocks[name] = ClockError(rng.randrange(-60_000, 60_001), rng.choice((-90, -40, 40, 90)))
    down = rng.randrange(size.buses)
    outage_ms = midnight_ms + DAY_MS + rng.randrange(6, 18) * HOUR_MS
    outage = Span(bus_of(size, down), outage_ms, outage_ms + 36 * HOUR_MS)
    plain = [m for n, m in enumerate(meters) if not has_load(size, n) and n % size.buses != down]
    quiet = max(1, size.meters // SILENT_SHARE)
    chosen = rng.sample(plain, quiet + 4)
    silent, dark, prompt, late, wrapping = chosen[:quiet], *chosen[quiet:]
    first = midnight_ms + 2 * DAY_MS + rng.randrange(9, 17) * HOUR_MS + rng.randrange(3600) * 1000
    second = midnight_ms + DAY_MS + rng.randrange(9, 17) * HOUR_MS + rng.randrange(3600) * 1000
    # Over midnight: the next day's list is not written, and its registers are not asked for.
    crash_ms = midnight_ms + 4 * DAY_MS - rng.randrange(90, 180) * MINUTE_MS
    wrap_ms = midnight_ms + 3 * DAY_MS + rng.randrange(4, 20) * HOUR_MS
    dark_ms = midnight_ms + 2 * DAY_MS - rng.randrange(2, 6) * HOUR_MS
    return Script(
        seed,
        size,
        midnight_ms - HOUR_MS,
        midnight_ms,
        clocks,
        silent=frozenset(silent),
        dark=(Span(dark, dark_ms, dark_ms + rng.randrange(9, 20) * HOUR_MS),),
        outage=outage,
        crash=Span("", crash_ms, crash_ms + rng.randrange(4, 6) * HOUR_MS),
        swaps=(
            Swap(prompt, f"{prompt}-B", first, first + 5 * MINUTE_MS),
            Swap(late, f"{late}-B", second, second + 52 * HOUR_MS),
        ),
        rollover=(wrapping, wrap_ms),
        loss=0.01,
        bit_errors=0.01,
    )


@dataclass(slots=True)
class BadLine:
    """Loses one transmission of so many, and flips bits in as many others."""

    rng: Random
    loss: float
    bit_errors: float

    def __call__(self, data: bytes) -> Damaged:
        """The transmission as it arrives."""
        chance = self.rng.random()
        if chance < self.loss:
            return Damaged(b"")
        if chance < self.loss + self.bit_errors and data:
            return flip_bits(data, self.rng, self.rng.randint(1, 3))
        return Damaged(data)
