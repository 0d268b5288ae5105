"""The journal's own errors, told apart by whoever can decide."""

from collections.abc import Sequence

from headend.domain.errors import JournalError, JournalFull
from headend.journal.model import Appended, CursorState


class JournalBusy(JournalError):
    """Another process holds this journal as its writer."""


class SchemaNewer(JournalError):
    """The file was written by a newer release: it is refused and left as it is."""


class UnknownConsumer(JournalError):
    """A name that is not configured as a consumer of this journal."""


class BeyondJournal(JournalError):
    """A number beyond everything this epoch ever wrote: the journal was set back.

    Somebody holds records that this file does not know: a copied file, a machine snapshot. The
    answer is a new epoch and an alarm.
    """

    def __init__(self, message: str, *, consumer: str, seq: int, last_seq: int) -> None:
        self.consumer = consumer
        self.seq = seq
        self.last_seq = last_seq
        super().__init__(message)


class BelowOldest(JournalError):
    """A number below the oldest record that is still kept."""

    def __init__(self, message: str, *, consumer: str, oldest_seq: int) -> None:
        self.consumer = consumer
        self.oldest_seq = oldest_seq
        super().__init__(message)


class Shed(JournalFull):
    """Some of the births handed over were refused for want of room; the others are committed.

    `appended` has one entry a birth, None for the refused ones.
    """

    def __init__(
        self, message: str, *, appended: Sequence[tuple[Appended, ...] | None] = ()
    ) -> None:
        self.appended = tuple(appended)
        super().__init__(message)


def beyond(consumer: str, seq: int, cursor: CursorState) -> BeyondJournal:
    """The error for a number that was never written."""
    msg = (
        f"consumer {consumer} speaks of record {seq}, this journal's newest is {cursor.last_seq}: "
        "the journal was set back (a copied file, a machine snapshot)"
    )
    return BeyondJournal(msg, consumer=consumer, seq=seq, last_seq=cursor.last_seq)
