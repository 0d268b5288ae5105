"""One demo for all tests of this folder."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docs_guide import BIN

ROOT = Path(__file__).parents[2]
DEMO_S = 40


@dataclass(frozen=True)
class Demo:
    """A demo that has run: its exit code, what it printed, and the folder it left."""

    code: int
    lines: list[dict[str, Any]]
    err: str
    folder: Path

    @property
    def config(self) -> Path:
        """The configuration it left."""
        return self.folder / "demo" / "headend.yaml"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`headend demo --for 40s --json`, run once."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [BIN / "headend", "demo", "--for", f"{DEMO_S}s", "--dir", "demo", "--json"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_S + 60,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return Demo(done.returncode, lines, done.stderr, folder)


@pytest.fixture
def place(demo: Demo, tmp_path: Path) -> Path:
    """A folder with a copy of what the demo left, and the example configurations."""
    shutil.copytree(demo.folder / "demo", tmp_path / "demo", symlinks=True)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path
