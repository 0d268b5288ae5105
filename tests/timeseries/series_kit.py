"""A journal with a writer into a database, and what must be in the database afterwards.

What is expected is worked out from the journal's own records, by other code than the encoder's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from headend.domain.clock import from_iso
from headend.domain.reading import Reading
from headend.journal import Birth, ConsumerSpec, Journal, JournalReader
from headend.supervisor import Supervisor
from headend.timeseries.alarm import StoppedAlarm
from headend.timeseries.deadletters import DeadLetters, letters
from headend.timeseries.service import CLASSES
from headend.timeseries.target import Target
from headend.timeseries.writer import SeriesWriter, WriterSettings
from protocols.quantities import quantity
from tests.journal.journal_kit import NOON_MS, Bench, reading
from tests.support.influxdb import InfluxDB
from tests.support.waiting import eventually

NAME = "influx"
CONSUMER = f"timeseries:{NAME}"
HEADEND = "he1"
QUICK = WriterSettings(
    lines_max=50,
    records_read=20,
    linger_s=0.0,
    retry_first_s=0.02,
    retry_max_s=0.1,
    stopped_first_s=0.05,
    stopped_max_s=0.2,
    extra_retry_s=0.05,
)
STEP_MS = 900_000

Key = tuple[str, str, str, str, str, int]  # measurement, meter, service point, interval, field, ms


def target_of(influx: InfluxDB, **more) -> Target:
    """How the writer reaches a server of a test."""
    wanted = {"timeout_s": 5.0, "connect_timeout_s": 1.0} | more
    return Target(kind="influxdb1", url=influx.url, database=influx.database, **wanted)


@dataclass
class World:
    """One head-end's journal and one writer, alive between `running`'s begin and end."""

    folder: Path
    target: Target
    settings: WriterSettings = QUICK
    bench: Bench = field(init=False)
    journal: Journal = field(init=False)
    writer: SeriesWriter = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        spec = ConsumerSpec(CONSUMER, CLASSES)
        self.bench = Bench(self.folder / "journal.db", consumers=(spec,))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """From the opening of the journal to its end, the writer supervised."""
        self.journal = await self.bench.open()
        told = await self.journal.meter_events(("alarm", "alarm_cleared"))
        alarm = StoppedAlarm(NAME, self.journal.append_event, self.bench.clock, told)
        async with self.journal, Supervisor() as self.supervisor:
            self.writer = SeriesWriter(
                self.journal,
                self.target,
                name=NAME,
                headend=HEADEND,
                clock=self.bench.clock,
                letters=DeadLetters(self.letters_path),
                alarm=alarm,
                settings=self.settings,
            )
            self.supervisor.start("alarm", alarm.run)
            self.supervisor.start("writer", self.writer.run)
            yield self
            assert all(not state.restarts for state in self.supervisor.states.values())

    @property
    def letters_path(self) -> Path:
        return self.folder / "dead_letters.jsonl"

    def dead_letters(self) -> list[dict[str, Any]]:
        return list(letters(self.letters_path))

    async def append(self, *readings: Reading) -> None:
        """Each born by itself."""
        await self.journal.append_many([Birth((one,)) for one in readings])

    async def fill(self, instants: int, *, meters: int = 3, first: int = 0) -> None:
        """Registers and instantaneous values of some meters, instant by instant."""
        for n in range(first, first + instants):
            births = [Birth(tuple(freeze(meter, n))) for meter in range(1, meters + 1)]
            await self.journal.append_many(births)

    async def written(self, timeout_s: float = 20.0) -> None:
        """Until nothing of the journal is missing in the database, or is a dead letter."""
        await eventually(
            lambda: self.cursor.backlog == 0 and self.cursor.last_seq > 0,
            timeout_s=timeout_s,
            what=f"written: {self.writer.report()}",
        )

    @property
    def cursor(self):
        return self.journal.cursors()[CONSUMER]

    async def says(self, state: str) -> dict[str, Any]:
        """Until the writer's report has this state; the report."""
        await eventually(
            lambda: self.writer.report()["state"] == state,
            what=f"{state}: {self.writer.report()}",
        )
        return self.writer.report()

    async def alarms(self, count: int) -> list:
        """The first `count` alarm events of the writer, in order."""

        async def found():
            events = await self.journal.meter_events(("alarm", "alarm_cleared"))
            ours = [e for e in events if e.fields["alarm"] == "timeseries_stopped"]
            return ours if len(ours) >= count else None

        events = await eventually(found, what=f"{count} alarms")
        assert len(events) == count
        return events

    def expected(self) -> dict[Key, Any]:
        """What the journal holds, as it must stand in the database."""
        with JournalReader(self.bench.path) as journal:
            return expected_of(journal)


def freeze(meter: int, n: int) -> list[Reading]:
    """What a meter of `fill` says at instant `n`."""
    time_ms = NOON_MS + n * STEP_MS
    values = {
        "active_import_total": Decimal(1_000_000 * meter + 25 * n).scaleb(-2),
        "active_export_total": Decimal(7_777 * meter + n).scaleb(-2),
        "voltage_a": Decimal(2200 + (n * meter) % 99).scaleb(-1),
        "active_power_total": Decimal(-50_000 + n * 7 * meter).scaleb(-4),
    }
    return [
        reading(str(value), meter=f"M-{meter}", point=point, time_ms=time_ms)
        for point, value in values.items()
    ]


def expected_of(journal: JournalReader) -> dict[Key, Any]:
    """Field by field: a value by its digits, a quality as a whole number."""
    found: dict[Key, Any] = {}
    for record in journal.readings(all_revisions=True):
        try:
            kind: str = quantity(record.point).kind
        except KeyError:
            kind = "other"
        time_ms = from_iso(record.time)
        interval = "" if record.interval_s is None else str(record.interval_s)

        def put(
            measurement: str,
            suffix: str,
            value: Any,
            *,
            at: tuple = (record.meter, record.service_point, interval),
            point: str = record.point,
            time_ms: int = time_ms,
        ) -> None:
            found[(measurement, *at, point + suffix, time_ms)] = value

        variant = ""
        if record.status in ("estimated", "substituted", "manual"):
            variant = "_estimated"
        if record.verdict == "fail":
            variant = "_rejected"
        if record.value is None:
            variant = ""
        if record.revision > 1:
            for other in {"", "_estimated", "_rejected"} - {variant}:
                put(kind + other, "_quality", 9)
        if record.value is None:
            put(kind, "_quality", 9 if "withdrawn" in record.flags else 8)
            continue
        put(kind + variant, "", Decimal(record.value))
        quality = {"ok": 0, "suspect": 1, "fail": 2}[record.verdict]
        put(kind + variant, "_quality", quality)
    return found


def everything(influx: InfluxDB) -> dict[Key, Any]:
    """All fields of all series a database holds, without its own and the statistics'."""
    found: dict[Key, Any] = {}
    tags = ("headend", "meter", "service_point", "interval_s")
    for measurement in influx.measurements() - {"bus", "due", "writer"}:
        for row in influx.rows(f'SELECT * FROM "{measurement}" GROUP BY *'):
            assert row["headend"] == HEADEND
            at = [row.get(tag, "") for tag in tags[1:]]
            for name, value in row.items():
                if name not in (*tags, "name", "time") and value is not None:
                    found[(measurement, *at, name, row["time"])] = value
    return found


def assert_holds(influx: InfluxDB, expected: dict[Key, Any]) -> None:
    """The database holds exactly what is expected, digit by digit."""
    assert_same(everything(influx), expected)


def assert_same(found: dict[Key, Any], expected: dict[Key, Any]) -> None:
    """Exactly the same fields with the same digits."""
    missing = expected.keys() - found.keys()
    assert not missing, f"{len(missing)} missing, such as {sorted(missing)[:3]}"
    more = found.keys() - expected.keys()
    assert not more, f"{len(more)} too many, such as {sorted(more)[:3]}"
    wrong = {k: (found[k], v) for k, v in expected.items() if found[k] != v}
    assert not wrong, f"{len(wrong)} wrong, such as {list(wrong.items())[:3]}"
