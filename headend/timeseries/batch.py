"""Lines of consecutive records on their way into one request. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headend.timeseries.lines import Line, split_fields


@dataclass(slots=True)
class Pending:
    """A line with the number of the record it came from (the first, of several)."""

    seq: int
    line: Line
    body: bytes = b""  # the text with its line end, once it is wanted

    def encoded(self) -> bytes:
        """As it is sent, with its line end."""
        if not self.body:
            self.body = self.line.text().encode() + b"\n"
        return self.body

    def split(self) -> Iterator["Pending"]:
        """One for each point of the line."""
        return (Pending(self.seq, one) for one in split_fields(self.line))


class Batch:
    """Gathers records until one does not fit.

    Fields of one series and instant become one line. A record that says something else of what is
    in the batch already (a later revision) does not fit: it goes out after this batch was written,
    so that the order of the journal decides, and not how a server takes one thing said twice.
    """

    def __init__(self, lines_max: int) -> None:
        self._lines_max = lines_max
        self._lines: dict[tuple[str, int], Pending] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, seq: int, lines: Sequence[Line]) -> bool:
        """Take a record's lines, all or none. An empty batch takes any record."""
        known = self._lines
        if known and (len(known) + len(lines) > self._lines_max or self._said_already(lines)):
            return False
        for line in lines:
            key = (line.head, line.time_ms)
            pending = known.get(key)
            if pending is None:
                known[key] = Pending(seq, line)
            else:
                pending.line.fields.update(line.fields)
        return True

    def pending(self) -> list[Pending]:
        """The lines, in the order of the journal."""
        return list(self._lines.values())

    def _said_already(self, lines: Sequence[Line]) -> bool:
        for line in lines:
            pending = self._lines.get((line.head, line.time_ms))
            if pending is not None and not line.fields.keys().isdisjoint(pending.line.fields):
                return True
        return False
