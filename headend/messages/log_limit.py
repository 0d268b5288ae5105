"""Keeps a repeated message from flooding the log.

The first of a kind is logged in full, the next ones within a minute are only counted, and the
first after that minute says how many there were.
"""

import logging
from collections.abc import Hashable

from headend.domain.clock import Clock

KINDS_MAX = 256


class LogLimit:
    """At most one line a minute and kind. The number of kinds remembered is bounded."""

    def __init__(self, log: logging.Logger, clock: Clock, *, every_s: float = 60.0) -> None:
        self._log = log
        self._clock = clock
        self._every_s = every_s
        self._seen: dict[Hashable, tuple[float, int]] = {}

    def warning(self, kind: Hashable, text: str, *args: object) -> None:
        """Log at WARNING, or only count when this kind was logged less than a minute ago."""
        now = self._clock.monotonic()
        last, suppressed = self._seen.get(kind, (float("-inf"), 0))
        if now - last < self._every_s:
            self._seen[kind] = (last, suppressed + 1)
            return
        if suppressed:
            self._log.warning(text + " repeated=%d", *args, suppressed)
        else:
            self._log.warning(text, *args)
        self._seen.pop(kind, None)
        while len(self._seen) >= KINDS_MAX:
            self._seen.pop(next(iter(self._seen)))
        self._seen[kind] = (now, 0)

    def forget(self, kind: Hashable) -> None:
        """The state behind this kind has ended: its next message is logged in full."""
        self._seen.pop(kind, None)
