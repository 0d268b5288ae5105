"""When a meter cannot be reached, the rest of its points is told so without touching the line."""

from headend.domain.errors import (
    BusError,
    DeadlinePassed,
    NoAnswer,
    PortBusy,
    PortGone,
    QueueFull,
)

# The line or the device may still serve another item after these; after every other failure of
# the bus the rest of the points would only cost their time-outs.
_ANOTHER_ITEM_MAY_SUCCEED = frozenset({"damaged", "foreign"})


def end_of_the_talk(error: Exception) -> BusError | None:
    """The failure that makes asking for more points pointless; None when it is not one."""
    if isinstance(error, NoAnswer) and error.diagnosis in _ANOTHER_ITEM_MAY_SUCCEED:
        return None
    return error if isinstance(error, BusError) else None


def not_asked(gone: BusError) -> BusError:
    """The error of a point that was not asked for, because the meter could not be reached."""
    message = f"not asked: {gone}"
    match gone:
        case NoAnswer():
            return NoAnswer(
                message, bus=gone.bus, waited_ms=0.0, attempts=0, diagnosis=gone.diagnosis
            )
        case PortGone() | PortBusy() | DeadlinePassed() | QueueFull():
            return type(gone)(message, bus=gone.bus)
        case _:
            return BusError(message, bus=gone.bus)
