"""Lines a database refused for good, kept with its words, so that nothing waits behind them.

One file a database, a JSON object a line (`dead_letter/1`). At `BYTES_MAX` it becomes the old one
and a new one is begun: two are kept. The journal still has the readings.
"""

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from headend.domain.clock import iso

SCHEMA = "dead_letter/1"
BYTES_MAX = 8 * 1024 * 1024
LINE_CHARS_MAX = 4000


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
        self.count = sum(1 for _letter in letters(path))

    async def keep(self, found: Sequence[DeadLetter]) -> None:
        """Add letters; they are on the disk when this returns. OSError."""
        await asyncio.to_thread(self._write, found)
        self.count += len(found)

    def _write(self, found: Sequence[DeadLetter]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size >= BYTES_MAX:
            self.path.replace(_older(self.path))
        data = b"".join(
            json.dumps(letter.json(), ensure_ascii=False).encode() + b"\n" for letter in found
        )
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with open(descriptor, "r+b") as file:  # noqa: PTH123 - opened with its mode
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                # Half a letter would spoil the next one.
                with suppress(OSError):
                    file.truncate(end)
                raise


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


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".old")
