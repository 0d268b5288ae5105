"""The errors a caller of the bus gets, with texts that say what, where and what next."""

from collections.abc import Sequence

from headend.bus.request import BusRequest
from headend.domain.errors import BusError, DeadlinePassed, NoAnswer, PortGone, QueueFull
from headend.domain.exchange import Outcome

_TELLING = (
    Outcome.DAMAGED,
    Outcome.INCOMPLETE,
    Outcome.FOREIGN,
    Outcome.UNREACHED,
    Outcome.ECHO_ONLY,
    Outcome.SILENCE,
)


def gone(bus: str, text: str, cause: BusError | None = None) -> PortGone:
    """The port is not there; `cause` is what opening it said."""
    error = PortGone(f"bus {bus}: {text}; it is tried again", bus=bus)
    error.__cause__ = cause
    return error


def stopped(bus: str) -> PortGone:
    """Nobody works the bus any more."""
    return PortGone(f"bus {bus} is being stopped", bus=bus)


def dead_waiting(bus: str, device: str, wait_s: float) -> NoAnswer:
    """A dead device is not asked now."""
    msg = (
        f"bus {bus}: {device} has been silent and is asked again no sooner than in {wait_s:.0f} s; "
        "a read on demand asks it at once"
    )
    return NoAnswer(msg, bus=bus, waited_ms=0.0, attempts=0, diagnosis="dead_waiting")


def too_late(bus: str, request: BusRequest) -> DeadlinePassed:
    """No turn before the deadline."""
    msg = f"bus {bus}: no turn for {request.device} before its deadline; nothing was sent"
    return DeadlinePassed(msg, bus=bus)


def queue_full(bus: str, waiting: int) -> QueueFull:
    """The bound of the queue is reached."""
    msg = f"bus {bus}: {waiting} requests are waiting, its bound is reached; ask again later"
    return QueueFull(msg, bus=bus)


def no_answer(bus: str, device: str, outcomes: Sequence[Outcome], waited_ms: float) -> NoAnswer:
    """All attempts failed; the diagnosis is the most telling of their outcomes."""
    diagnosis = next((o for o in _TELLING if o in outcomes), Outcome.SILENCE)
    tries = len(outcomes)
    msg = (
        f"bus {bus}: no answer from {device} in {tries} {'try' if tries == 1 else 'tries'} "
        f"({', '.join(outcomes)})"
    )
    return NoAnswer(msg, bus=bus, waited_ms=waited_ms, attempts=tries, diagnosis=diagnosis.value)
