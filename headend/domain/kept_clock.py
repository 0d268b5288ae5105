"""The daemon's time: the machine's wall clock, as long as it does not jump.

A wall clock that is set by hours, by hand or by a fault, would stamp every reading with the wrong
time, and set back again it would leave the plans waiting for hours that have been. So a jump is not
followed at once. Time goes on from what the clock said before, by the clock that never jumps,
until

- the wall clock is back where it should be: then nothing has happened;
- the machine says that its clock was synchronised after the jump; or
- the jump has lasted for `believe_s`: then the machine is believed, right or not.

Small steps and slewing are followed at once. No I/O, and nothing is logged here: who asks for
`away_s` tells.

A clock that cannot be believed from the start is held: time goes on by the clock that never jumps
and nothing of the wall clock is followed, so that whatever was stamped meanwhile keeps its distance
to everything else and can be dated, all of it by one difference, once the time is known.
"""

from collections.abc import Callable

from headend.domain.clock import Clock

JUMP_S = 10.0
BELIEVE_S = 300.0


class KeptClock:
    """A `Clock` made of another one.

    `elapsed`: seconds that go on while the machine sleeps; by default the machine's monotonic ones.
    `synchronised_ms`: wall time at which the machine's clock was last synchronised, None = unknown.
    """

    def __init__(
        self,
        machine: Clock,
        *,
        elapsed: Callable[[], float] | None = None,
        synchronised_ms: Callable[[], int | None] = lambda: None,
        jump_s: float = JUMP_S,
        believe_s: float = BELIEVE_S,
    ) -> None:
        self.machine = machine
        self._elapsed = elapsed or machine.monotonic
        self._synchronised_ms = synchronised_ms
        self._jump_ms = jump_s * 1000
        self._believe_s = believe_s
        self._offset_ms = machine.now_ms() - self._elapsed() * 1000  # ours, over the elapsed time
        self._jumped: tuple[float, float, int] | None = None  # its offset, since when, its stamp
        self._is_held = False

    def monotonic(self) -> float:
        """The machine's."""
        return self.machine.monotonic()

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as far as they can be believed."""
        if self._is_held:
            return self.at_elapsed(self._elapsed())
        machine_ms, elapsed_s = self.machine.now_ms(), self._elapsed()
        offset_ms = machine_ms - elapsed_s * 1000
        has_jumped = abs(offset_ms - self._offset_ms) >= self._jump_ms
        if has_jumped and not self._is_believed(offset_ms, elapsed_s, machine_ms):
            return round(elapsed_s * 1000 + self._offset_ms)
        self._offset_ms = offset_ms
        self._jumped = None
        return machine_ms

    def elapsed(self) -> float:
        """Seconds of the clock that never jumps; its zero is the machine's start or nothing."""
        return self._elapsed()

    def at_elapsed(self, elapsed_s: float) -> int:
        """What this clock showed, or will show, by its offset of now, at an elapsed time."""
        return round(elapsed_s * 1000 + self._offset_ms)

    @property
    def is_held(self) -> bool:
        """Whether the wall clock is not followed at all."""
        return self._is_held

    def hold(self, not_before_ms: int = 0) -> None:
        """Follow the wall clock no more, until `follow`. Time goes on from `not_before_ms` at
        least: stamps of what is made meanwhile do not fall before what is there already."""
        self._offset_ms = max(self._offset_ms, not_before_ms - self._elapsed() * 1000)
        self._jumped = None
        self._is_held = True

    def follow(self) -> float:
        """The wall clock is right: follow it from now on. The seconds that time went on by."""
        before_ms = self._offset_ms
        self._offset_ms = self.machine.now_ms() - self._elapsed() * 1000
        self._jumped = None
        self._is_held = False
        return (self._offset_ms - before_ms) / 1000

    @property
    def away_s(self) -> float:
        """By how much the machine's clock is ahead of ours; 0.0 while it is followed."""
        self.now_ms()
        return 0.0 if self._jumped is None else (self._jumped[0] - self._offset_ms) / 1000

    def _is_believed(self, offset_ms: float, elapsed_s: float, machine_ms: int) -> bool:
        jumped = self._jumped
        if jumped is None or abs(offset_ms - jumped[0]) >= self._jump_ms:
            self._jumped = jumped = (offset_ms, elapsed_s, machine_ms)
        if elapsed_s - jumped[1] >= self._believe_s:
            return True
        synchronised_ms = self._synchronised_ms()
        return synchronised_ms is not None and jumped[2] <= synchronised_ms <= machine_ms
