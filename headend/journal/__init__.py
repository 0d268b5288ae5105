"""The journal: the append-only log of readings and events, its streams, cursors and due points.

One SQLite file, one writer thread. It must not know how records travel further.
"""

from headend.journal.errors import (
    BelowOldest,
    BeyondJournal,
    JournalBusy,
    SchemaNewer,
    Shed,
    UnknownConsumer,
)
from headend.journal.journal import Journal
from headend.journal.model import (
    Appended,
    Base,
    Birth,
    ConsumerSpec,
    CursorState,
    DueLine,
    JournalSettings,
    Parked,
    RecordClass,
    StreamSlice,
)

__all__ = [
    "Appended",
    "Base",
    "BelowOldest",
    "BeyondJournal",
    "Birth",
    "ConsumerSpec",
    "CursorState",
    "DueLine",
    "Journal",
    "JournalBusy",
    "JournalSettings",
    "Parked",
    "RecordClass",
    "SchemaNewer",
    "Shed",
    "StreamSlice",
    "UnknownConsumer",
]
