"""Which instants meters' clocks have skipped or shown twice. In memory, bounded.

What a meter stamps by its own clock (a freeze, an interval of a load profile) near a moment at
which that clock was set is of another length than it seems, or is there twice, or not at all.
"""

from headend.domain.clock import from_iso
from headend.domain.meter import Event

FLAG = "clock_jump"
JUMPS_MAX = 100  # of one meter


class ClockJumps:
    """Spans of meter time, by meter."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[int, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._spans)

    def add(self, event: Event) -> None:
        """A `clock_jump`: the meter went from one offset to another, at or since some instant."""
        before_ms = round(float(event.fields["before_s"]) * 1000)
        after_ms = round(float(event.fields["after_s"]) * 1000)
        since = event.fields.get("since")
        from_ms = event.at_ms if since is None else from_iso(str(since))
        shown = (from_ms + before_ms, from_ms + after_ms, event.at_ms + before_ms,
                 event.at_ms + after_ms)  # fmt: skip
        spans = self._spans.setdefault(str(event.fields["meter"]), [])
        spans.append((min(shown), max(shown)))
        del spans[:-JUMPS_MAX]

    def touches(self, meter: str, from_ms: int, to_ms: int) -> bool:
        """Whether the clock jumped within [from, to], by the meter's own time."""
        return any(first <= to_ms and last >= from_ms for first, last in self._spans.get(meter, ()))
