"""The last good register of every series: what the next value is judged against.

A base follows from the log, so it is committed with its reading. Its table is a snapshot that is
brought up to date now and then; at the start the readings since are gone through again.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from headend.journal.codec import Form
from headend.journal.model import DAY_MS
from headend.journal.points import point_facts
from headend.journal.schema import day_tables, table_name

BaseRow = tuple[str, int]  # the value's text, the instant held for

SNAPSHOT_AFTER = 100_000  # readings gone through again at the start, at most about this many
SLICE = 500


class Bases:
    """Bases by series number, in memory and as a snapshot in the file."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        series: Mapping[tuple[str, str, int | None], int],
        forms: Sequence[Form],
        tables: Mapping[str, set[int]],
    ) -> None:
        self._connection = connection
        self._forms = forms
        self._bases: dict[int, BaseRow] = {
            number: (value, time_ms)
            for number, value, time_ms in connection.execute(
                "SELECT series, value, time_ms FROM bases"
            )
        }
        self._dirty: set[int] = set()
        self._writing: list[int] = []
        self._writing_at = 0
        self._writing_rid = 0
        self._undo: dict[int, BaseRow | None] = {}
        row = connection.execute("SELECT value FROM meta WHERE key='base_rid'").fetchone()
        self._snapshot_rid = 1 if row is None else int(row[0])
        self._go_through(series, tables)

    def get(self, series: int) -> BaseRow | None:
        """The base of a series."""
        return self._bases.get(series)

    def items(self) -> Mapping[int, BaseRow]:
        """All bases."""
        return self._bases

    def begin(self) -> None:
        """A transaction begins."""
        self._undo.clear()

    def rolled_back(self) -> None:
        """Undo what the transaction changed."""
        for series, before in self._undo.items():
            self._put(series, before)
        self._undo.clear()
        # A slice may have been rolled back with it: the snapshot is begun anew.
        self._dirty.update(self._writing)
        self._writing = []

    def change(self, series: int, base: BaseRow | None) -> None:
        """Change a base inside a transaction."""
        if series not in self._undo:
            self._undo[series] = self._bases.get(series)
        self._put(series, base)

    def judge(
        self, series: int, value: str | None, time_ms: int, revision: int, *, good: bool
    ) -> None:
        """Let a reading that has been written become the base, or stop being it."""
        base = self._bases.get(series)
        if good and value is not None:
            if base is None or time_ms >= base[1]:
                # As `change`, without asking again.
                self._undo.setdefault(series, base)
                self._bases[series] = (value, time_ms)
                self._dirty.add(series)
        elif base is not None and base[1] == time_ms and revision > 1:
            self.change(series, self._last_good(series, time_ms))

    def replaces(self, series: int, time_ms: int, revision: int) -> bool:
        """A reading of this instant that is not good would undo the base."""
        base = self._bases.get(series)
        return base is not None and base[1] == time_ms and revision > 1

    def write(self, next_rid: int) -> None:
        """Bring the snapshot forward by a slice when it is due. Inside a transaction."""
        if not self._writing:
            if next_rid - self._snapshot_rid < SNAPSHOT_AFTER:
                return
            self._start(next_rid)
        end = self._writing_at + SLICE
        self._write(self._writing[self._writing_at : end])
        self._writing_at = end
        if end >= len(self._writing):
            self._finish()

    def write_all(self, next_rid: int) -> None:
        """Bring the snapshot up to date. Inside a transaction."""
        self._dirty.update(self._writing)
        self._start(next_rid)
        self._write(self._writing)
        self._finish()

    @property
    def dirty(self) -> bool:
        """The snapshot is behind."""
        return bool(self._dirty or self._writing)

    # -- inside

    def _put(self, series: int, base: BaseRow | None) -> None:
        if base is None:
            self._bases.pop(series, None)
        else:
            self._bases[series] = base
        self._dirty.add(series)

    def _start(self, next_rid: int) -> None:
        self._writing = list(self._dirty)
        self._writing_at = 0
        self._writing_rid = next_rid
        self._dirty.clear()

    def _write(self, some: Sequence[int]) -> None:
        bases = self._bases
        kept = [(number, *bases[number]) for number in some if number in bases]
        gone = [(number,) for number in some if number not in bases]
        self._connection.executemany("INSERT OR REPLACE INTO bases VALUES (?,?,?)", kept)
        self._connection.executemany("DELETE FROM bases WHERE series=?", gone)

    def _finish(self) -> None:
        self._writing = []
        self._snapshot_rid = self._writing_rid
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('base_rid', ?)", (str(self._snapshot_rid),)
        )

    def _last_good(self, series: int, before_ms: int) -> BaseRow | None:
        """The newest good value held for an instant before, in the file."""
        for day in reversed(day_tables(self._connection).get("rb", [])):
            if day * DAY_MS >= before_ms:
                continue
            rows = self._connection.execute(
                f"SELECT value, time_ms, form FROM {table_name('rb', day)}"  # noqa: S608
                " WHERE series=? AND time_ms<? ORDER BY time_ms DESC, revision DESC",
                (series, before_ms),
            )
            seen_ms = None
            for value, time_ms, form in rows:
                if time_ms != seen_ms and value is not None and self._forms[form - 1].good:
                    return value, time_ms
                seen_ms = time_ms  # what follows of this instant is an older revision
        return None

    def _go_through(
        self, series: Mapping[tuple[str, str, int | None], int], tables: Mapping[str, set[int]]
    ) -> None:
        """Apply the readings since the snapshot, in the order they were written."""
        registers = {number for key, number in series.items() if point_facts(key[1]).register}
        rows: list[tuple[int, int, str | None, int, int, int]] = []
        for day in tables.get("rb", ()):
            rows += self._connection.execute(
                f"SELECT rid, series, value, time_ms, revision, form FROM {table_name('rb', day)}"  # noqa: S608
                " WHERE rid>=?",
                (self._snapshot_rid,),
            )
        for _rid, number, value, time_ms, revision, form in sorted(rows):
            if number in registers:
                good = self._forms[form - 1].good
                self.judge(number, value, time_ms, revision, good=good)
        self._undo.clear()
