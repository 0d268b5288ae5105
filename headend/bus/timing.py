"""How long things may take on a line."""

from headend.bus.request import BusRequest
from headend.bus.settings import BusSettings

WAKE_UP_BYTES = 4  # in front of a reply; counted into its time on the wire


def allowed_s(request: BusRequest, settings: BusSettings, char_s: float) -> float:
    """Seconds from the first byte sent to the last byte of the reply.

    The request's time on the wire, then the request's own time-out, or else turnaround + margin +
    the reply's time on the wire. `char_s` 0.0 = the line's speed is not known: taken for slow.
    """
    char_s = char_s or settings.char_unknown_s
    asked_s = len(request.payload) * char_s
    if request.timeout_s is not None:
        return asked_s + request.timeout_s
    turnaround_s = (settings.reply_timeout_ms + settings.margin_ms) / 1000
    return asked_s + turnaround_s + (request.reply_bytes + WAKE_UP_BYTES) * char_s
