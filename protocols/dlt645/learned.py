"""What one meter has shown of itself: what it refuses, and how many tariffs its blocks hold.

A plain value; whoever owns the meter keeps it (`to_json`, `from_json`). Only an explicit refusal
teaches anything: silence, damage and a wrong password never do. A block that was refused once is
asked for in single items from then on; a single item counts as not there when it was refused twice,
since there is nothing to fall back to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.formats import TARIFFS_MAX
from protocols.errors import ErrorReply, LocalProtocolError

SCHEMA = "dlt645_learned/1"
NO_DATA = "no_data"
SINGLE_REFUSALS = 2
KEPT_MAX = 512  # more identifiers than any plan asks for


@dataclass(frozen=True, slots=True)
class Learned:
    """`refusals`: how often each identifier was refused as not there. `tariffs`: of a block,
    besides the total; None = not seen yet.
    """

    refusals: Mapping[str, int] = field(default_factory=dict)
    tariffs: int | None = None

    def after_refusal(self, di: str, error: ErrorReply) -> "Learned":
        """What is known after a refusal; unchanged unless it says that there is no such data."""
        known = self.refusals.get(di, 0)
        full = len(self.refusals) >= KEPT_MAX and not known
        if NO_DATA not in error.reasons or full or known >= SINGLE_REFUSALS:
            return self
        return replace(self, refusals={**self.refusals, di: known + 1})

    def after_reply(self, di: str, payload_bytes: int) -> "Learned":
        """What is known after a reply: a meter that answers has the item, and shows its tariffs.

        The same value when nothing is new.
        """
        refusals = self.refusals
        if di in refusals:
            refusals = {one: count for one, count in refusals.items() if one != di}
        tariffs = self.tariffs
        item = lookup(di)
        if item is not None and item.layout is not None and item.points[1:2]:
            rounds = payload_bytes // item.layout.round_bytes
            if item.points[1].endswith("_t{k}") and 1 <= rounds <= TARIFFS_MAX + 1:
                tariffs = rounds - 1
        if refusals is self.refusals and tariffs == self.tariffs:
            return self
        return replace(self, refusals=refusals, tariffs=tariffs)

    def lacks(self, di: str, *, block: bool) -> bool:
        """Whether the meter is known not to have an identifier."""
        return self.refusals.get(di, 0) >= (1 if block else SINGLE_REFUSALS)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it, of shape dlt645_learned/1."""
        return {"schema": SCHEMA, "refusals": dict(self.refusals), "tariffs": self.tariffs}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Learned":
        """What `to_json` gave; LocalProtocolError(code="bad_state") for anything else."""
        refusals, tariffs = tree.get("refusals"), tree.get("tariffs")
        good = (
            tree.get("schema") == SCHEMA
            and isinstance(refusals, Mapping)
            and len(refusals) <= KEPT_MAX
            and all(isinstance(di, str) for di in refusals)
            and all(type(n) is int and 0 < n <= SINGLE_REFUSALS for n in refusals.values())
            and (tariffs is None or (type(tariffs) is int and 0 <= tariffs <= TARIFFS_MAX))
        )
        if not good:
            raise LocalProtocolError(f"this is no {SCHEMA} that was kept", code="bad_state")
        return cls(dict(refusals or {}), tariffs)


NOTHING_LEARNED = Learned()
