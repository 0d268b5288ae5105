"""A journal with readings in it, a configuration beside it, and the two commands."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headend.archive import Watch
from headend.cli.main import main
from headend.journal import Birth, Journal
from headend.journal.backup import Source, back_up
from headend.journal.restore import Restored, restore
from headend.messages.records import EventRecord
from tests.journal.journal_kit import NOON_MS, Bench, exchange, reading

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
CONFIG = """
headend:
  {{name: {name}, zone: Asia/Shanghai, data: ./data, reserve_mb: {{telemetry: 2, billing: 1}}}}
buses:
  street-a: {{link: "tcp://127.0.0.1:1?baud=9600"}}
meters:
  - {{id: M-1, service_point: SP-1, bus: street-a, protocol: dlt645-2007,
     address: "000000000001", plan: p}}
plans:
  p: {{daily: {{at: "00:00", points: [active_import_total]}}}}
feed:
  broker: "mqtt://127.0.0.1:1"
  consumers: [{{name: billing, classes: [billing]}}]
timeseries:
  - {{kind: influxdb1, name: charts, url: "http://127.0.0.1:1", database: meters}}
billing: {{database: "sqlite:///billing.db", name: billing, headends: [{name}]}}
"""


def quiet(_word: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def birth(n: int) -> Birth:
    """The n-th reading of a meter."""
    return Birth((reading(f"{n}.00", time_ms=NOON_MS + n, exchange=exchange(n)),))


@dataclass
class Place:
    """A head-end's folder. The journal is written by `bench`, the commands by `headend`."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    name: str = "he1"

    def __post_init__(self) -> None:
        self.config.write_text(CONFIG.format(name=self.name))
        self.data.mkdir()
        self.bench = Bench(self.data / "journal.db")

    @property
    def config(self) -> Path:
        return self.folder / "headend.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def journal(self) -> Path:
        return self.data / "journal.db"

    @property
    def letters(self) -> Path:
        return self.data / "timeseries" / "charts.dead_letters.jsonl"

    def bytes_of(self, path: Path) -> bytes:
        """A file that is there."""
        return path.read_bytes()

    async def fill(self, first: int, last: int, *, receipted: int | None = None) -> str:
        """Readings `first` to `last`; the epoch they were written in."""
        async with await self.bench.open() as journal:
            await journal.append_many([birth(n) for n in range(first, last + 1)])
            if receipted is not None:
                await journal.receipt("billing", receipted)
            return journal.epoch

    def back_up(self, target: Path, *, watch: Watch = quiet, reserve: int = 0) -> dict[str, Any]:
        """As the command does."""
        source = Source(self.name, self.journal, [self.letters], reserve)
        return back_up(source, target, clock=self.bench.clock, software="0.1.0", watch=watch)

    def restore(self, backup: Path, *, headend: str | None = None) -> Restored:
        """As the command does."""
        return restore(
            backup,
            self.journal,
            headend=headend or self.name,
            letters=self.letters.parent,
            clock=self.bench.clock,
            watch=quiet,
        )

    def headend(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of a command with this configuration."""
        self.capsys.readouterr()
        code = main([*map(str, arguments), "--config", str(self.config)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """What a command that goes well prints as JSON, held against its schema."""
        code, out, err = self.headend(*arguments, "--json")
        assert code == 0, err
        (line,) = out.splitlines()
        found: dict[str, Any] = json.loads(line)
        schema = SCHEMAS / f"{found['schema'].partition('/')[0]}.schema.json"
        jsonschema.validate(found, json.loads(schema.read_text(encoding="utf-8")))
        return found


async def values(journal: Journal, consumer: str = "billing", from_seq: int = 1) -> list[str]:
    """The values on a stream."""
    return [r.value for r in await records(journal, consumer, from_seq) if hasattr(r, "value")]


async def events(journal: Journal, consumer: str = "billing") -> dict[str, dict[str, Any]]:
    """The alarms on a stream by their name."""
    return {
        str(r.fields["alarm"]): dict(r.fields)
        for r in await records(journal, consumer, 1)
        if isinstance(r, EventRecord) and r.event == "alarm"
    }


async def records(journal: Journal, consumer: str, from_seq: int) -> list[Any]:
    """Everything on a stream."""
    found: list[Any] = []
    while True:
        more = await journal.read_stream(consumer, from_seq + len(found), records_max=100_000)
        if not more.records:
            return found
        found += more.records


def everything_in(folder: Path) -> Iterator[str]:
    """Names of all files below a folder."""
    yield from sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
