"""The journal: the append-only log of readings and events, its streams, cursors and due points.

One SQLite file, one writer thread. It must not know how records travel further.
"""

from headend.journal.clocks import ClockMeasured
from headend.journal.errors import (
    BelowOldest,
    BeyondJournal,
    JournalBusy,
    SchemaNewer,
    Shed,
    UnknownConsumer,
)
from headend.journal.history import Owed, OwedDay, PointHistory
from headend.journal.journal import Journal
from headend.journal.learned import STATE_CHARS_MAX, KeptState
from headend.journal.model import (
    Appended,
    Base,
    Birth,
    ConsumerSpec,
    CursorState,
    DueLine,
    EntrySlice,
    JournalSettings,
    Parked,
    RecordClass,
    StreamEntry,
    StreamSlice,
    SuccessReport,
    is_feed_consumer,
)
from headend.journal.reader import ConsumerState, JournalReader, Trace

__all__ = [
    "STATE_CHARS_MAX",
    "Appended",
    "Base",
    "BelowOldest",
    "BeyondJournal",
    "Birth",
    "ClockMeasured",
    "ConsumerSpec",
    "ConsumerState",
    "CursorState",
    "DueLine",
    "EntrySlice",
    "Journal",
    "JournalBusy",
    "JournalReader",
    "JournalSettings",
    "KeptState",
    "Owed",
    "OwedDay",
    "Parked",
    "PointHistory",
    "RecordClass",
    "SchemaNewer",
    "Shed",
    "StreamEntry",
    "StreamSlice",
    "SuccessReport",
    "Trace",
    "UnknownConsumer",
    "is_feed_consumer",
]
