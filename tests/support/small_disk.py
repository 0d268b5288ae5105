"""A small file system of a test's own, that can be filled and emptied. Needs root (as tests do)."""

import subprocess
from pathlib import Path
from typing import Self


class SmallDisk:
    """A tmpfs of some mebibytes, mounted for as long as the context lasts."""

    def __init__(self, path: Path, *, mebibytes: int) -> None:
        self.path = path
        self._size = f"{mebibytes}m"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)
        return self

    def __exit__(self, *_exc: object) -> None:
        # Lazily: a server that is still ending must not keep the test's folder.
        subprocess.run(["umount", "-l", str(self.path)], check=True, capture_output=True)

    def fill(self) -> None:
        """Not one byte is free afterwards."""
        try:
            with (self.path / "ballast").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass

    def free(self) -> None:
        """There is room again."""
        (self.path / "ballast").unlink()
