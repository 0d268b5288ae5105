"""The truth log: one JSON object a line for every answer a meter gave values in.

Written and flushed before the bytes leave, so that whatever a reader holds stands here already,
even when this process is killed a moment later.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from simulators.meter645 import Served


class TruthFile:
    """Appends to a file; several meters may share one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, served: Served) -> None:
        """Append one answer; it is with the operating system when this returns."""
        json.dump(asdict(served), self._file, separators=(",", ":"))
        self._file.write("\n")
        self._file.flush()

    def close(self) -> None:
        """No more answers."""
        self._file.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def read_truth(path: Path) -> Iterator[Served]:
    """The answers of a truth log in order; a last line cut off by a kill is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            entry = json.loads(line)
            for key in ("points", "values", "true_values", "raw", "faults"):
                entry[key] = tuple(entry[key])
            yield Served(**entry)
