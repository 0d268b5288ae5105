"""Lines a database refused for good, kept with its words, so that nothing waits behind them.

One file a database, a JSON object a line (`dead_letter/1`). At `BYTES_MAX` it becomes the old one
and a new one is begun: two are kept. What is refused again, after a restart or a replay, stands
there once. The journal still has the readings.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from headend.domain.clock import iso
from headend.durable import make_folder, sync_folder

SCHEMA = "dead_letter/1"
BYTES_MAX = 8 * 1024 * 1024
LINE_CHARS_MAX = 4000
KNOWN_MAX = 50_000


class DeadLetter(NamedTuple):
    """One line that was given up. `status`: the answer, None when it was never sent."""

    at_ms: int
    seq: int
    status: int | None
    text: str
    line: str

    def json(self) -> dict[str, object]:
        """As it is kept and shown."""
        return {
            "schema": SCHEMA,
            "at": iso(self.at_ms),
            "seq": self.seq,
            "status": self.status,
            "text": self.text,
            "line": self.line[:LINE_CHARS_MAX],
        }


class DeadLetters:
    """The file of one database. `count`: letters in it and in the one before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[bytes, None] = {}  # the latest, by `_key`
        self.count = 0
        for letter in letters(path):
            self.count += 1
            self._remember(_key(letter))

    async def keep(self, found: Sequence[DeadLetter]) -> None:
        """Add the letters that are not there; they are on the disk when this returns. OSError."""
        shown = [letter.json() for letter in found]
        new = {key: one for one in shown if (key := _key(one)) not in self._known}
        if not new:
            return
        if await asyncio.to_thread(self._write, list(new.values())):
            self.count = sum(1 for _letter in letters(_older(self.path)))
        self.count += len(new)
        for key in new:
            self._remember(key)

    def _remember(self, key: bytes) -> None:
        self._known[key] = None
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def _write(self, found: Sequence[dict[str, object]]) -> bool:
        """Whether a new file was begun."""
        make_folder(self.path.parent, mode=0o700)
        begins = self.path.exists() and self.path.stat().st_size >= BYTES_MAX
        if begins:
            self.path.replace(_older(self.path))
            sync_folder(self.path.parent)  # before the name is used again
        data = b"".join(json.dumps(letter, ensure_ascii=False).encode() + b"\n" for letter in found)
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with open(descriptor, "r+b") as file:  # noqa: PTH123 - opened with its mode
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":  # torn by a power cut
                data = b"\n" + data
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                # Half a letter would spoil the next one.
                with suppress(OSError):
                    file.truncate(end)
                raise
        if is_new:
            sync_folder(self.path.parent)
        return begins


def letters(path: Path) -> Iterator[dict[str, object]]:
    """What is kept, oldest first. A torn last line (power cut) is left out."""
    for one in (_older(path), path):
        try:
            text = one.read_bytes()
        except FileNotFoundError:
            continue
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _key(letter: dict[str, object]) -> bytes:
    """Equal for the same line of the same record."""
    said = f"{letter.get('seq')} {letter.get('line')}"
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".old")
