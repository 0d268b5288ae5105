"""Who goes first when several kinds of work want one line, and what the less urgent are sure of.

The more urgent goes first, but nobody waits for ever: a kind of work that waits is owed a turn when
others have used the line for so many times the length of its own last turn. So each kind keeps a
part of the line however much is asked by the others, and how long it waits for its next turn is
known beforehand. Where the more urgent leaves time, the less urgent has all of it.
"""

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

FIRST_TURN_S = 0.5  # how long a turn is taken to be before there was one
TURN_S_MIN = 0.001
TURN_S_MAX = 10.0  # a longer one is counted as this, so that its kind is not put off for minutes

Kind = TypeVar("Kind")


class Shares(Generic[Kind]):
    """`patience`: for every kind that can be put off, how many times its last turn it waits."""

    def __init__(self, patience: Mapping[Kind, float]) -> None:
        self._patience = dict(patience)
        self._waited_s = dict.fromkeys(patience, 0.0)
        self._turn_s = dict.fromkeys(patience, FIRST_TURN_S)

    def owed(self, kind: Kind) -> float:
        """From 1 on this kind, which waits, goes before what is more urgent; the most owed first.

        A kind that cannot be put off is owed nothing.
        """
        return self._waited_s.get(kind, 0.0) / self.waits_s(kind)

    def waits_s(self, kind: Kind) -> float:
        """For how long others use the line at most while this kind waits for its next turn."""
        return self._patience.get(kind, float("inf")) * self._turn_s.get(kind, FIRST_TURN_S)

    def used(self, kind: Kind, seconds: float, waiting: Collection[Kind]) -> None:
        """This kind has used the line; the kinds in `waiting` waited meanwhile."""
        for other in waiting:
            if other != kind and other in self._waited_s:
                self._waited_s[other] += seconds
        if kind in self._waited_s:
            self._waited_s[kind] = 0.0
            self._turn_s[kind] = min(max(seconds, TURN_S_MIN), TURN_S_MAX)
