"""The writers and statistics of one head-end, put together from its configuration."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from headend.config import Config
from headend.config.sections.timeseries import TimeseriesSection
from headend.domain.clock import Clock
from headend.domain.meter import Event
from headend.journal import ConsumerSpec, Journal
from headend.journal.model import TIMESERIES_PREFIX
from headend.supervisor import Supervisor
from headend.timeseries.alarm import StoppedAlarm, alarmed
from headend.timeseries.deadletters import DeadLetters
from headend.timeseries.statistics import HasStatistics, StatisticsSampler
from headend.timeseries.target import Target
from headend.timeseries.writer import SeriesWriter, WriterSettings

CLASSES = frozenset({"billing", "telemetry"})


def consumers(config: Config) -> list[ConsumerSpec]:
    """The cursors of the configured databases."""
    return [
        ConsumerSpec(
            TIMESERIES_PREFIX + section.known_as,
            CLASSES,
            max_backlog_days=section.max_backlog_days,
        )
        for section in config.timeseries
    ]


def letters_path(config: Config, name: str) -> Path:
    """Where the dead letters of a database are kept."""
    return config.data_path / "timeseries" / f"{name}.dead_letters.jsonl"


def target_of(config: Config, section: TimeseriesSection) -> Target:
    """What the configuration says of a database, with absolute paths. ConfigError."""

    def file(path: Path | None) -> Path | None:
        return None if path is None else config.file(path)

    return Target(
        kind=section.kind,
        url=section.url,
        database=section.database or "",
        org=section.org or "",
        bucket=section.bucket or "",
        username=section.username,
        password_file=file(section.password_file),
        token_file=file(section.token_file),
        ca_file=file(section.ca_file),
        allow_plaintext=section.allow_plaintext,
    )


class TimeSeries:
    """Every configured database with its writer."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        *,
        clock: Clock,
        buses: Mapping[str, HasStatistics],
        told: Sequence[Event],
        settings: WriterSettings | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._sampling = False
        self._alarms = {
            name: StoppedAlarm(name, journal.append_event, clock, told)
            for name in (section.known_as for section in config.timeseries)
        }
        self.writers = [self._writer(config, section) for section in config.timeseries]
        for name in alarmed(told) - self._alarms.keys():
            # Nobody writes there any more: the alarm would stand for ever.
            self._alarms[name] = StoppedAlarm(name, journal.append_event, clock, told)
            self._alarms[name].clear()
        self._sampler = StatisticsSampler(
            headend=config.name,
            clock=clock,
            zone=config.zone,
            journal_path=config.journal_path,
            buses=buses,
            writers=self.writers,
        )

    @property
    def names(self) -> list[str]:
        """Of the databases."""
        return [writer.name for writer in self.writers]

    async def replay(self, name: str, from_seq: int) -> int:
        """Write a database again from a record on, 0: the oldest kept; the record it begins with.

        JournalError says why not. KeyError: no such database.
        """
        writer = next((w for w in self.writers if w.name == name), None)
        if writer is None:
            raise KeyError(name)
        return await writer.replay(from_seq)

    def start(self, supervisor: Supervisor) -> None:
        """Start everything, each task under a name of its own."""
        for name, alarm in self._alarms.items():
            supervisor.start(f"timeseries-alarm:{name}", alarm.run)
        for writer in self.writers:
            supervisor.start(f"timeseries:{writer.name}", writer.run)
        self._sample(supervisor)

    async def take_out(self, names: Collection[str], supervisor: Supervisor) -> None:
        """Write to these databases no longer. Their cursors stay where they are."""
        for writer in [writer for writer in self.writers if writer.name in names]:
            await supervisor.remove(f"timeseries:{writer.name}")
            self._journal.off_append(writer.wake)
            self.writers.remove(writer)

    def put_in(self, config: Config, names: Collection[str], supervisor: Supervisor) -> None:
        """Write to these databases of a configuration; their cursors are in the journal."""
        for section in config.timeseries:
            name = section.known_as
            if name not in names:
                continue
            if name not in self._alarms:
                self._alarms[name] = StoppedAlarm(name, self._journal.append_event, self._clock)
                supervisor.start(f"timeseries-alarm:{name}", self._alarms[name].run)
            writer = self._writer(config, section)
            self.writers.append(writer)
            supervisor.start(f"timeseries:{name}", writer.run)
        self._sample(supervisor)

    def forget(self, names: Collection[str]) -> None:
        """These databases are no longer configured: nobody else would clear their alarms."""
        for name in names:
            self._alarms[name].clear()

    def _sample(self, supervisor: Supervisor) -> None:
        if self.writers and not self._sampling:
            self._sampling = True
            supervisor.start("statistics", self._sampler.run)

    def _writer(self, config: Config, section: TimeseriesSection) -> SeriesWriter:
        return SeriesWriter(
            self._journal,
            target_of(config, section),
            name=section.known_as,
            headend=config.name,
            clock=self._clock,
            letters=DeadLetters(letters_path(config, section.known_as)),
            alarm=self._alarms[section.known_as],
            settings=self._settings,
        )

    def report(self) -> list[dict[str, Any]]:
        """How every writer stands, JSON-ready."""
        return [writer.report() for writer in self.writers]
