"""Lines that go to a database besides the journal's: statistics of the head-end itself.

They are not journalled: what is lost with the process or during a long outage is a gap in a chart.
They never hold anything back.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

LINES_MAX = 20_000  # three hours of two hundred lines a minute, two megabytes


class ExtraLines:
    """A bounded queue of finished lines for one database; when it is full the oldest go.

    `dropped` counts what was never handed out. `on_put` wakes whoever takes them.
    """

    def __init__(
        self, lines_max: int = LINES_MAX, *, on_put: Callable[[], None] = lambda: None
    ) -> None:
        self._lines: deque[bytes] = deque()
        self._lines_max = lines_max
        self.on_put = on_put
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, lines: Iterable[bytes]) -> None:
        """Add lines without their line end."""
        self._lines.extend(lines)
        self._shorten()
        if self._lines:
            self.on_put()

    def take(self, lines_max: int) -> list[bytes]:
        """Up to `lines_max` of the oldest; they are gone unless they are given back."""
        return [self._lines.popleft() for _ in range(min(lines_max, len(self._lines)))]

    def give_back(self, lines: Sequence[bytes]) -> None:
        """What `take` gave could not be sent: first again, or dropped when there is no room."""
        self._lines.extendleft(reversed(lines))
        self._shorten()

    def _shorten(self) -> None:
        over = len(self._lines) - self._lines_max
        for _ in range(over):
            self._lines.popleft()
        self.dropped += max(over, 0)
