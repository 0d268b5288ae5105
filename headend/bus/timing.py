"""How long things may take on a line."""

from headend.bus.attempt import Attempt
from headend.bus.queue import Pending
from headend.bus.request import BusRequest, Late
from headend.bus.settings import BusSettings
from headend.domain.exchange import Outcome

WAKE_UP_BYTES = 4  # in front of a reply; counted into its time on the wire

_ANSWERS = frozenset({Outcome.REPLY, Outcome.REFUSED})
_UNANSWERED = frozenset((Outcome.SILENCE, Outcome.INCOMPLETE, Outcome.ECHO_ONLY, Outcome.FOREIGN))


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


def silence_after(
    attempt: Attempt, pending: Pending, settings: BusSettings, *, asked_at: float, now: float
) -> tuple[float, float]:
    """What the line owes after an attempt: seconds of quiet after each byte, and until when.

    `asked_at`: the end of the request on the wire; `now`: the end of the attempt.
    """
    late, last_byte_at = pending.request.late, attempt.last_byte_at
    gap_s = settings.gap_ms / 1000
    if late is Late.NUMBERED:
        return gap_s, max(asked_at, last_byte_at or asked_at) + gap_s
    silence_s = max(settings.silence_after_timeout_ms / 1000, gap_s)
    until = 0.0
    if late is Late.ANONYMOUS:
        own_s = attempt.ends_at - asked_at
        silence_s = max(silence_s, own_s)
        until = attempt.ends_at + own_s
    if attempt.outcome in _ANSWERS:
        assert last_byte_at is not None
        # After an earlier try that nobody seemed to answer this may be its late reply, and the
        # reply to the latest try still to come: it must not meet the same question again.
        if _UNANSWERED.isdisjoint(pending.outcomes):
            return gap_s, last_byte_at + gap_s
        return silence_s, max(last_byte_at + silence_s, until)
    quiet_since = now if not attempt.line_quiet else last_byte_at or now
    return silence_s, max(max(quiet_since, asked_at) + silence_s, until)
