"""What meters have shown of themselves, kept over restarts: one row a meter, the latest state.

The state is text of its protocol's own making (JSON); the journal does not look into it. It is a
help, never a reading: losing a row costs that a meter is asked again for what it refused.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from headend.journal.group import Group

STATE_CHARS_MAX = 128 * 1024


class KeptState(NamedTuple):
    """The state of one meter. It holds for what it was learned of, and for nothing else.

    `device`: which device answered, as text (address, profile); `changed_ms`: when it was learned.
    """

    protocol: str
    device: str
    state: str
    changed_ms: int


@dataclass(frozen=True, slots=True)
class LearnOp:
    """A meter's newest state. Nobody waits for it: it rides along."""

    meter: str
    kept: KeptState
    rows: ClassVar[int] = 1
    lazy: ClassVar[bool] = True


def check_state(kept: KeptState) -> None:
    """ValueError for a state that is too large to be kept."""
    if len(kept.state) > STATE_CHARS_MAX:
        msg = f"a state of {len(kept.state)} characters is not kept, at most {STATE_CHARS_MAX}"
        raise ValueError(msg)


def learn(connection: sqlite3.Connection, op: LearnOp) -> None:
    """Write one row, in the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO learned VALUES (?,?,?,?,?)", (op.meter, *op.kept))


def learned(group: Group) -> dict[str, KeptState]:
    """Every row."""
    return dict(_rows(group.connection))


def forget(group: Group, meters: tuple[str, ...]) -> int:
    """Drop the rows of meters; how many there were."""
    found = 0
    for meter in meters:
        gone = group.connection.execute("DELETE FROM learned WHERE meter=?", (meter,))
        found += gone.rowcount
    return found


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[str, KeptState]]:
    rows = connection.execute("SELECT meter, protocol, device, state, changed_ms FROM learned")
    for meter, *kept in rows:
        yield meter, KeptState(*kept)
