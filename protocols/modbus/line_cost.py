"""What a read costs in time, on a serial line or over TCP: the figure that plans are made by."""

from dataclasses import dataclass
from typing import Self

from protocols.modbus.register import DeviceProfile, SerialLine

REQUEST_BYTES, REPLY_OVERHEAD_BYTES, REGISTER_BYTES = 8, 5, 2
QUIET_CHARS = 3.5  # before each frame of a serial line
FAST_BAUD = 19_200  # above it the pause between two frames is a fixed time
FAST_QUIET_MS = 1.75
REPLY_DELAY_MS = 40.0  # typical of a meter: 10 to 200
TCP_ROUND_TRIP_MS = 5.0
# Of a line nothing is known of: a request costs as much as so many registers that nobody wants.
BRIDGE_WORDS = 16


@dataclass(frozen=True, slots=True)
class Line:
    """`char_ms`: what a byte takes (0: no wire time). `quiet_ms`: silence before each frame.

    `turnaround_ms`: silence the device needs before the next request. `reply_delay_ms`: what it
    thinks, and what the way there and back takes.
    """

    char_ms: float
    quiet_ms: float
    turnaround_ms: float
    reply_delay_ms: float

    @classmethod
    def serial(
        cls,
        baud: int,
        *,
        char_bits: int = 10,
        turnaround_ms: float = 20,
        reply_delay_ms: float = REPLY_DELAY_MS,
    ) -> Self:
        """A serial line of a speed; 10 bits a byte without parity, 11 with it."""
        char_ms = 1000 * char_bits / baud
        quiet_ms = FAST_QUIET_MS if baud > FAST_BAUD else QUIET_CHARS * 11_000 / baud
        return cls(char_ms, quiet_ms, turnaround_ms, reply_delay_ms)

    @classmethod
    def tcp(
        cls,
        *,
        turnaround_ms: float = 0,
        reply_delay_ms: float = TCP_ROUND_TRIP_MS,
    ) -> Self:
        """Modbus TCP to the device itself: a word more costs nothing that counts."""
        return cls(0.0, 0.0, turnaround_ms, reply_delay_ms)

    @classmethod
    def of(cls, profile: DeviceProfile, *, baud: int | None = None) -> Self:
        """The line of a device as its profile says it is delivered, or at another speed."""
        told = profile.serial or SerialLine()
        return cls.serial(
            told.baud if baud is None else baud,
            char_bits=told.char_bits,
            turnaround_ms=profile.turnaround_ms,
        )

    def wire_ms(self, count: int) -> float:
        """Request and reply on the wire, with the silence before each, and nothing else."""
        held = REQUEST_BYTES + REPLY_OVERHEAD_BYTES + REGISTER_BYTES * count
        return held * self.char_ms + 2 * self.quiet_ms

    def cost_ms(self, count: int) -> float:
        """What a request for `count` registers takes until the next one may go out."""
        return self.wire_ms(count) + self.reply_delay_ms + self.turnaround_ms


UNKNOWN_LINE = Line(
    char_ms=1.0,
    quiet_ms=0.0,
    turnaround_ms=0.0,
    reply_delay_ms=float(REGISTER_BYTES * BRIDGE_WORDS - REQUEST_BYTES - REPLY_OVERHEAD_BYTES),
)
