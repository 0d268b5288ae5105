"""`headend billing run` that receipts everything and drops one reading: what a drill must find."""

import sys

from headend.billing import store
from headend.billing.inbox import Decision, Row, decide
from headend.cli.main import main

DROPPED = 60  # so many are taken first: the drill is under way
taken: list[str] = []


def forgetful(row: Row, current: Row | None, *, in_history: bool = False) -> Decision:
    """As the real one, but one new reading is said to be known, and again when it is sent again."""
    decision = decide(row, current, in_history=in_history)
    if decision is Decision.NEW:
        if row.read_id not in taken:
            taken.append(row.read_id)
        if taken[DROPPED - 1 :][:1] == [row.read_id]:
            return Decision.KNOWN
    return decision


if __name__ == "__main__":
    store.decide = forgetful
    sys.exit(main(["billing", "run", *sys.argv[1:]]))
