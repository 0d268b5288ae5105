"""The record of everything that was to be written to a meter: before it is sent, and how it ended.

A file of its own, one JSON object a line, on the disk before a byte goes out. It is only ever
added to; what an earlier process wrote is read again at the start.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headend.domain.errors import HeadendError

SCHEMA = "control_audit/1"
LINE_BYTES_MAX = 16_384


class AuditError(HeadendError):
    """The record cannot be written or read: then nothing is written to a meter either."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be done, by whom and why. `at` is ISO 8601 with an offset."""

    number: int
    at: str
    action: str
    subject: str
    by: str
    reason: str
    details: Mapping[str, Any]


class Audit:
    """The file and who writes to it: one owner. Calls wait for the disk: use a thread.

    AuditError when the file cannot be written, or holds a whole line that is not ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0
        for line in self.lines():
            self._last = max(self._last, int(line["number"]))

    def begin(
        self,
        *,
        at: str,
        action: str,
        subject: str,
        by: str,
        reason: str,
        details: Mapping[str, Any],
    ) -> Intent:
        """Write down what is about to be done; on the disk when this returns."""
        intent = Intent(self._last + 1, at, action, subject, by, reason, details)
        self._append(
            {
                "schema": SCHEMA, "number": intent.number, "at": at, "what": "intent",
                "action": action, "subject": subject, "by": by, "reason": reason, **details,
            }
        )  # fmt: skip
        self._last = intent.number
        return intent

    def end(self, intent: Intent, *, at: str, outcome: str, details: Mapping[str, Any]) -> None:
        """Write down how it ended."""
        self._append(
            {
                "schema": SCHEMA, "number": intent.number, "at": at, "what": "outcome",
                "action": intent.action, "subject": intent.subject, "outcome": outcome, **details,
            }
        )  # fmt: skip

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every line, the oldest first. A last line without its end was cut by a power failure."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            msg = f"{self._path} cannot be read: {error.strerror}"
            raise AuditError(msg) from error
        with file:
            for number, raw in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b""), 1):
                if not raw.endswith(b"\n") and not file.readline(1):
                    return
                try:
                    line = json.loads(raw)
                    good = line["schema"] == SCHEMA and isinstance(line["number"], int)
                except (ValueError, TypeError, KeyError):
                    good = False
                if not good:
                    msg = f"{self._path}:{number} is no line of a {SCHEMA} record: move it aside"
                    raise AuditError(msg)
                yield line

    def _append(self, line: Mapping[str, Any]) -> None:
        raw = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        if len(raw) > LINE_BYTES_MAX:
            msg = f"a record of {len(raw)} bytes is too long: shorten the reason"
            raise AuditError(msg)
        fresh = not self._path.exists()
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _end_cut_line(fd)
                _write_all(fd, raw)
                os.fsync(fd)
            finally:
                os.close(fd)
            if fresh:
                _sync_directory(self._path.parent)
        except OSError as error:
            msg = f"{self._path} cannot be written: {error.strerror}"
            raise AuditError(msg) from error


def _end_cut_line(fd: int) -> None:
    """What a power failure cut short is taken away: it never said anything."""
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0:
        return
    tail = os.pread(fd, min(size, LINE_BYTES_MAX), max(0, size - LINE_BYTES_MAX))
    if not tail.endswith(b"\n"):
        os.ftruncate(fd, size - (len(tail) - (tail.rfind(b"\n") + 1)))


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
