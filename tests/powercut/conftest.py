"""A place for thousands of small files that are synced."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is room for it."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 1 << 28:
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="headend-power-", dir=memory))
    yield made
    shutil.rmtree(made)
