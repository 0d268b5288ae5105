"""`headend billing run` in a process of its own, for tests that kill it."""

import asyncio
import os
import signal
import sys
from decimal import Decimal
from pathlib import Path

from billing_builder import EPOCH_A
from billing_databases import Database

START_S = 30
END_S = 15


def configuration(folder: Path, database: Database):
    """Writes a configuration file; SQLite's path is given as people do, relative to it."""
    url = database.url
    if database.kind == "sqlite":
        url = f"sqlite:///./{database.path.relative_to(folder)}"

    def write(port: int = 1883) -> Path:
        path = folder / "headend.yaml"
        path.write_text(
            "headend: {name: he1, zone: Asia/Shanghai, data: ./data}\n"
            f'feed: {{broker: "mqtt://127.0.0.1:{port}", '
            "consumers: [{name: billing, classes: [billing, events]}]}\n"
            f'billing: {{database: "{url}", name: billing, headends: [he1]}}\n'
        )
        return path

    return write


class Process:
    """The process, with its standard error read all the time."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.process: asyncio.subprocess.Process | None = None
        self.stderr = ""

    async def start(self) -> None:
        """Until it is ready."""
        await self.launch()
        await self.says(b"READY billing")

    async def launch(self) -> None:
        """Without waiting for anything."""
        command = (sys.executable, "-m", "headend.cli.main", "billing", "run", "--config")
        self.process = await asyncio.create_subprocess_exec(
            *command, str(self.config), stderr=asyncio.subprocess.PIPE
        )
        self._said = bytearray()
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self.process))

    async def says(self, words: bytes) -> None:
        """Until it has said so."""
        async with asyncio.timeout(START_S):
            while words not in self._said:
                assert not self._reading.done(), f"ended: {self._said.decode()}"
                self._news.clear()
                await self._news.wait()

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after the signal; what it said is in `stderr`."""
        assert self.process is not None
        if self.process.returncode is None:
            os.kill(self.process.pid, number)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code when it ends by itself."""
        assert self.process is not None
        async with asyncio.timeout(END_S):
            code = await self.process.wait()
            await self._reading
        self.stderr = self._said.decode()
        return code

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(4096):
            self._said += data
            self._news.set()
        self._news.set()


def holds_every_record_once(database, records):
    held = database.rows("SELECT read_id, value, epoch FROM reading")
    for table, count in (("reading_history", 0), ("conflict", 0), ("exchange", len(records))):
        assert database.rows(f"SELECT count(*) FROM {table}") == [(count,)], table
    assert len(held) == len(records)
    assert {read_id for read_id, _, _ in held} == {r.read_id for r in records}
    assert sum(Decimal(value) for _, value, _ in held) == sum(Decimal(r.value) for r in records)
    assert {epoch for _, _, epoch in held} == {EPOCH_A}
