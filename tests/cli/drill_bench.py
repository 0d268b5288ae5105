"""Runs `headend drill` as people do, several side by side."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "drill.schema.json").read_text())
SHORT_S = 6


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a local socket's."""
    made = Path(tempfile.mkdtemp(prefix="hd-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@dataclass
class Held:
    """What a drill came to."""

    code: int
    report: dict[str, Any]
    said: str


async def hold(drill: str, folder: Path, *more: str) -> Held:
    """One drill in its short form; its report holds against the schema."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headend.cli.main", "drill", drill, "--json",
        "--for", str(SHORT_S), "--dir", str(folder / drill), *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    assert out, err.decode()
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    return Held(process.returncode, report, err.decode())


async def hold_all(drills: Sequence[str], folder: Path) -> dict[str, Held]:
    """Two at a time: they wait most of the time, and must be in time all the same."""
    places = asyncio.Semaphore(2)

    async def one(drill: str) -> Held:
        async with places:
            return await hold(drill, folder)

    held = await asyncio.gather(*(one(drill) for drill in drills))
    return dict(zip(drills, held, strict=True))


def check_passed(held: Held) -> None:
    """Nothing was lost, everything showed itself, and the books say so."""
    assert held.code == 0, held.said + json.dumps(held.report, indent=1)
    report, counts = held.report, held.report["counts"]
    assert report["passed"]
    assert report["lost"] == []
    assert report["unseen"] == []
    assert report["degraded"], "a fault that nobody notices is no drill"
    assert all(one["seconds"] > 0 for one in report["degraded"] if one["what"] != "overrun")
    assert counts["due"] == counts["read"] + counts["missing"] > 0
    assert counts["readings"] == counts["at_billing"] > 0
    assert counts["registers_compared"] == 12
    assert "open" not in counts["reasons"]
