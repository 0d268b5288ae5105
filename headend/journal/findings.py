"""What a start has to tell and to mend first: a note beside the journal, `<journal>.note`.

Mending a damaged journal takes several steps, and the power may go between any two of them. The
note is on the disk before the first step, and is taken away when the alarms (and the new epoch,
where one is needed) are committed. A start that finds one goes on from there; told twice is
better than not at all. A process that cannot write its journal any more leaves one to the next.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headend.domain.clock import Clock
from headend.domain.meter import Event
from headend.durable import remove_file, sync_folder, write_file

log = logging.getLogger(__name__)

NOTE = ".note"


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    at_ms: int
    fields: dict[str, object]


class _Note(msgspec.Struct, forbid_unknown_fields=True):
    alarms: list[_Told]
    new_epoch: str | None
    moves: list[tuple[str, str]]


@dataclass(slots=True)
class Findings:
    """`alarms` are events to be recorded; `new_epoch`: why the numbers cannot go on, or None.

    `moves`: names in the journal's folder that are to be changed, from and to, before anything
    else is done there.
    """

    path: Path
    alarms: list[Event] = field(default_factory=list)
    new_epoch: str | None = None
    moves: list[tuple[str, str]] = field(default_factory=list)

    def keep(self) -> None:
        """On the disk when it returns. OSError."""
        alarms = [_Told(e.kind, e.at_ms, e.fields) for e in self.alarms]
        note = _Note(alarms, self.new_epoch, self.moves)
        write_file(_place(self.path), msgspec.json.encode(note))

    def move(self) -> None:
        """Change the names that are to be changed, as far as that has not been done."""
        folder = self.path.parent
        for old, new in self.moves:
            if (folder / old).exists() and not (folder / new).exists():
                (folder / old).rename(folder / new)
        sync_folder(folder)
        self.moves = []
        # Before a new journal takes the old names: the next start must not move that one.
        self.keep()

    def told(self) -> None:
        """Everything is committed: the note goes."""
        remove_file(_place(self.path))


def findings_of(path: Path, clock: Clock) -> Findings:
    """What was left to be told about the journal at `path`; usually nothing."""
    try:
        data = _place(path).read_bytes()
    except FileNotFoundError:
        return Findings(path)
    try:
        note = msgspec.json.decode(data, type=_Note)
    except msgspec.DecodeError as error:
        # Written whole or not at all, so the disk has spoiled it: that there is one says enough.
        message = (
            f"the journal {path} was damaged or replaced; the note that says how cannot be read"
        )
        log.error("%s: %s", message, error)  # noqa: TRY400 - expected
        fields = {"alarm": "journal_log_damaged", "message": message}
        return Findings(path, [Event("alarm", clock.now_ms(), fields)], message)
    alarms = [Event(e.kind, e.at_ms, e.fields) for e in note.alarms]
    return Findings(path, alarms, note.new_epoch, note.moves)


def _place(path: Path) -> Path:
    return path.with_name(path.name + NOTE)
