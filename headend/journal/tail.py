"""The newest records of one stream, kept in memory so that live feeding reads no file."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headend.journal.build import build_record, entry_bytes, evidence, evidence_bytes
from headend.journal.model import EntrySlice, RecordClass, StreamEntry, StreamSlice

_BILLING = RecordClass.BILLING  # a member of an Enum costs as much as three lookups of a global

if TYPE_CHECKING:
    from headend.messages.records import ExchangeEvidence, Record


class Tail:
    """Consecutive entries from `first_seq` on; at most twice `entries_max` are held."""

    def __init__(self, first_seq: int, entries_max: int, software: str) -> None:
        self.first_seq = first_seq
        self._entries: list[StreamEntry] = []
        self._entries_max = entries_max
        self._software = software

    def extend(self, first_seq: int, entries: Sequence[StreamEntry]) -> None:
        """Add the entries that were committed; the oldest make room."""
        assert first_seq == self.first_seq + len(self._entries)
        self._entries.extend(entries)
        if len(self._entries) > 2 * self._entries_max:
            self._drop(len(self._entries) - self._entries_max)

    def drop_through(self, seq: int) -> None:
        """What is receipted is no longer needed here; a replay reads the file."""
        if seq >= self.first_seq:
            self._drop(min(seq - self.first_seq + 1, len(self._entries)))

    def read(self, from_seq: int, records_max: int, bytes_max: int) -> StreamSlice:
        """The same records as the file would give. `from_seq` is not below `first_seq`."""
        index = from_seq - self.first_seq
        records: list[Record] = []
        used: dict[int, ExchangeEvidence] = {}
        size = 0
        for seq, entry in enumerate(self._entries[index : index + records_max], from_seq):
            size += entry_bytes(entry)
            new = None
            if entry.kind is _BILLING:
                reading, _read_id, _revision, xid = entry.items[0]
                if reading.exchange is not None and xid not in used:
                    new = reading.exchange
                    size += evidence_bytes(new)
            if size > bytes_max and records:
                break
            if new is not None:
                used[xid] = evidence(xid, new, self._software)
            records.append(build_record(seq, entry))
        return StreamSlice(from_seq, records, list(used.values()))

    def entries(self, from_seq: int, records_max: int) -> EntrySlice:
        """The entries themselves. `from_seq` is not below `first_seq`."""
        index = from_seq - self.first_seq
        found = self._entries[index : index + records_max]
        return EntrySlice(from_seq + len(found) - 1, list(enumerate(found, from_seq)), 0)

    def _drop(self, count: int) -> None:
        del self._entries[:count]
        self.first_seq += count
