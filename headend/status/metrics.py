"""The facts as Prometheus tells them. Names are kept once they are released.

Labels are buses, consumers, databases, tasks, states and alarm names, all of them configured or of
a small vocabulary; never a meter, so that a fleet does not become ten thousand series.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from headend.bus import BOUNDS_S, BusState
from headend.domain.alarms import alarm_kinds
from headend.domain.exchange import Outcome
from headend.status.facts import DayFacts, Facts, MeterState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REASONS_MAX = 20
OTHER = "other"


def exposition(facts: Facts) -> bytes:
    """All metrics in the text format. Takes some milliseconds: not for the event loop."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(facts))
    return bytes(generate_latest(registry))


class _Told(Collector):
    """Facts as metric families."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterable[Metric]:
        """Every family, once."""
        facts = self._facts
        yield from _process(facts)
        yield from _tasks(facts)
        yield from _line(facts)
        yield from _requests(facts)
        yield from _damage(facts)
        yield from _meters(facts)
        yield from _clocks(facts)
        yield from _journal(facts)
        yield from _due(facts)
        yield from _feed(facts)
        yield from _databases(facts)
        yield from _alarms(facts)


def _gauge(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str
) -> Metric:
    family = GaugeMetricFamily(f"headend_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _counter(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str
) -> Metric:
    family = CounterMetricFamily(f"headend_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _one(value: float) -> list[tuple[tuple[str, ...], float]]:
    return [((), value)]


def _process(facts: Facts) -> Iterator[Metric]:
    process = facts.process
    info = InfoMetricFamily("headend_build", "The release that runs and what it is called.")
    info.add_metric((), {"version": process.version, "headend": facts.headend})
    yield info
    yield _gauge("up", "1 while the daemon's event loop turns.", _one(1))
    yield _gauge(
        "start_time_seconds", "When the daemon was started, Unix time.",
        _one(process.started_ms / 1000),
    )  # fmt: skip
    yield _gauge("uptime_seconds", "For how long the daemon runs.", _one(process.up_s))
    yield _gauge("resident_memory_bytes", "Memory of the process.", _one(process.rss_bytes))
    yield _gauge("open_fds", "Open file descriptors.", _one(process.open_files))
    yield _gauge("max_fds", "File descriptors that may be open.", _one(process.files_max))
    yield _counter("cpu_seconds", "Processor time used.", _one(process.cpu_s))
    yield _gauge("asyncio_tasks", "Tasks of the event loop.", _one(process.tasks))
    yield _gauge(
        "loop_lag_seconds", "How late the event loop woke up when last measured.",
        _one(process.lag_s),
    )  # fmt: skip
    yield _gauge(
        "loop_lag_max_seconds", "The longest such lag of the last minute.", _one(process.lag_max_s)
    )
    away_s = facts.clock_away_s
    if away_s is not None:
        yield _gauge(
            "clock_trusted", "1 while the machine's wall clock is believed.",
            _one(away_s == 0 and facts.clock_distrusted is None),
        )  # fmt: skip
        yield _gauge(
            "undated_readings", "Readings taken before the machine's clock was believed.",
            _one(0 if facts.clock_distrusted is None else facts.undated),
        )  # fmt: skip
        yield _gauge(
            "clock_away_seconds", "By how much it is ahead of the time that is kept.", _one(away_s)
        )


def _tasks(facts: Facts) -> Iterator[Metric]:
    yield _counter(
        "task_restarts", "Restarts of a supervised task since the start.",
        [((task.name,), task.restarts) for task in facts.tasks], "task",
    )  # fmt: skip
    yield _gauge(
        "task_running", "1 while a supervised task runs.",
        [((task.name,), task.running) for task in facts.tasks], "task",
    )  # fmt: skip


def _line(facts: Facts) -> Iterator[Metric]:
    told = [(bus.name, bus.statistics) for bus in facts.buses]
    yield _gauge(
        "bus_port_open", "1 while the port of a bus is open.",
        [((name,), s.state is BusState.OPEN) for name, s in told], "bus",
    )  # fmt: skip
    yield _counter(
        "bus_port_opens", "How often the port of a bus was opened.",
        [((name,), s.opens) for name, s in told], "bus",
    )  # fmt: skip
    yield _counter(
        "bus_exchanges", "Attempts that reached the wire, by how they ended.",
        [((name, o.value), s.outcomes.get(o, 0)) for name, s in told for o in Outcome],
        "bus", "outcome",
    )  # fmt: skip
    yield _counter(
        "bus_bytes", "Bytes on the line.",
        [
            ((name, direction), count)
            for name, s in told
            for direction, count in (("sent", s.bytes_sent), ("received", s.bytes_received))
        ],
        "bus", "direction",
    )  # fmt: skip
    yield _counter(
        "bus_busy_seconds", "Time of the line spent in attempts.",
        [((name,), s.busy_s) for name, s in told], "bus",
    )  # fmt: skip
    yield _counter(
        "bus_probe_seconds", "The part of the line's time that probes of silent meters took.",
        [((name,), s.dead_s) for name, s in told], "bus",
    )  # fmt: skip
    latency = HistogramMetricFamily(
        "headend_bus_latency_seconds",
        "From the first byte of a request to the last of its answer.",
        labels=("bus",),
    )
    for name, s in told:
        at, buckets = 0, []
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), s.latency.counts, strict=True):
            at += count
            buckets.append((bound, float(at)))
        latency.add_metric((name,), buckets, s.latency.sum_s)
    yield latency


def _requests(facts: Facts) -> Iterator[Metric]:
    told = [(bus.name, bus.statistics) for bus in facts.buses]
    yield _counter(
        "bus_requests", "Requests by what became of them.",
        [
            ((name, result), count)
            for name, s in told
            for result, count in (
                ("answered", s.answered), ("failed", s.failed), ("queue_full", s.refused_full),
                ("deadline_passed", s.deadline_passed), ("dead_waiting", s.dead_waiting),
            )
        ],
        "bus", "result",
    )  # fmt: skip
    yield _gauge(
        "bus_queue_length", "Requests that wait for the line.",
        [((name,), s.queue_len) for name, s in told], "bus",
    )  # fmt: skip
    for name, text, of in (
        ("poll_jobs", "Jobs of the schedule that were done.", "jobs"),
        ("poll_retries", "Jobs that were tried again.", "retries"),
        ("poll_overruns", "Instants skipped because the next one had come.", "overruns"),
    ):
        yield _counter(name, text, [((b.name,), getattr(b, of)) for b in facts.buses], "bus")


def _damage(facts: Facts) -> Iterator[Metric]:
    told = [(bus.name, bus.statistics) for bus in facts.buses]
    yield _counter(
        "bus_damaged_bytes", "Bytes with a parity or framing error, where the port shows it.",
        [((name,), s.marked_bytes) for name, s in told], "bus",
    )  # fmt: skip
    yield _counter(
        "bus_noise", "Pieces of replies that were no good frame, by reason.",
        [
            ((name, reason), s.noise.get(reason, 0))
            for name, s in told
            for reason in ("checksum", "parity", "end", "incomplete", "dirt", "overflow")
        ],
        "bus", "reason",
    )  # fmt: skip
    yield _counter(
        "bus_strange_frames", "Whole frames that were no answer to what was asked, by kind.",
        [((name, kind), count) for name, s in told for kind, count in s.strange.items()],
        "bus", "kind",
    )  # fmt: skip
    yield _counter(
        "bus_stray_bytes", "Bytes that belonged to no answer.",
        [((name,), s.stray_bytes) for name, s in told], "bus",
    )  # fmt: skip


def _meters(facts: Facts) -> Iterator[Metric]:
    yield _gauge(
        "bus_meters", "Meters by how they stand with their bus.",
        [
            ((bus.name, state.value), bus.states.get(state, 0))
            for bus in facts.buses
            for state in MeterState
        ],
        "bus", "state",
    )  # fmt: skip


def _clocks(facts: Facts) -> Iterator[Metric]:
    """Meters' clocks as last measured."""
    watch = facts.clocks
    if watch is None:
        return
    known = [(meter.bus, meter.clock) for meter in facts.meters if meter.clock is not None]
    states = Counter(clock.verdict for _bus, clock in known)
    yield _gauge(
        "meter_clocks", "Meters by their clock as last measured: leave (right), sync, ticket.",
        [((state,), states.get(state, 0)) for state in ("leave", "sync", "ticket")], "verdict",
    )  # fmt: skip
    worst: dict[str, float] = {}
    for bus, clock in known:
        worst[bus] = max(worst.get(bus, 0.0), abs(clock.offset_s))
    yield _gauge(
        "meter_clock_offset_max_seconds", "The greatest difference of a meter's clock on a bus.",
        [((bus,), value) for bus, value in sorted(worst.items())], "bus",
    )  # fmt: skip
    yield _counter(
        "meter_clock_measurements", "Measurements of meters' clocks since the start, by how.",
        [(("measured",), watch.measured), (("failed",), watch.failed), (("set",), watch.set)],
        "outcome",
    )  # fmt: skip


def _journal(facts: Facts) -> Iterator[Metric]:
    journal = facts.journal
    yield _counter("journal_commits", "Commits since the start.", _one(journal.commits))
    yield _counter(
        "journal_refused", "Readings refused for want of room.",
        [(("billing",), journal.refused_billing), (("telemetry",), journal.refused_telemetry)],
        "class",
    )  # fmt: skip
    yield _counter(
        "journal_exchanges_dropped", "Attempts that were not kept because the queue was full.",
        _one(journal.exchanges_dropped),
    )  # fmt: skip
    yield _gauge("journal_file_bytes", "The journal with its log.", _one(journal.file_bytes))
    yield _gauge(
        "journal_free_bytes", "Room left on the journal's file system.", _one(journal.free_bytes)
    )
    age_s = journal.append_age_s
    yield _gauge(
        "journal_last_append_age_seconds", "Since a record was last appended, or since the start.",
        _one(facts.process.up_s if age_s is None else age_s),
    )  # fmt: skip


def _due(facts: Facts) -> Iterator[Metric]:
    days = [
        (name, day)
        for name, day in (("today", facts.kept.today), ("yesterday", facts.kept.yesterday))
        if day is not None
    ]
    yield _gauge(
        "due_points", "Due points of a local day up to now, by state.",
        [
            ((name, state.value), count)
            for name, day in days
            for state, count in day.counts.items()
        ],
        "day", "state",
    )  # fmt: skip
    yield _gauge(
        "due_points_overdue", "Due points that are open for more than an hour.",
        [((name,), day.overdue) for name, day in days], "day",
    )  # fmt: skip
    yield _gauge(
        "due_points_failed", "Due points that are missing, or open and failed so far, by reason.",
        [
            ((name, reason), count)
            for name, day in days
            for reason, count in _reasons(day).items()
        ],
        "day", "reason",
    )  # fmt: skip
    yield _gauge(
        "journal_read_ok", "1 when the due points and alarms could be read from the journal.",
        _one(facts.kept.trouble is None),
    )  # fmt: skip


def _reasons(day: DayFacts) -> Mapping[str, int]:
    """The most frequent ones by name, what is left as `other`."""
    ranked = sorted(day.by_reason.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ranked[:REASONS_MAX])
    if ranked[REASONS_MAX:]:
        found[OTHER] = found.get(OTHER, 0) + sum(count for _, count in ranked[REASONS_MAX:])
    return found


def _feed(facts: Facts) -> Iterator[Metric]:
    feed = facts.feed
    if feed is None:
        return
    yield _gauge("feed_connected", "1 while the broker is connected.", _one(feed.connected))
    streams = feed.streams
    yield _gauge(
        "feed_backlog_records", "Records that a consumer has not receipted.",
        [((s.name,), s.backlog) for s in streams], "consumer",
    )  # fmt: skip
    yield _gauge(
        "feed_oldest_unreceipted_seconds", "Age of the oldest of them; 0 when there is none.",
        [
            ((s.name,), 0.0 if s.oldest_ms is None else max(0.0, (facts.at_ms - s.oldest_ms) / 1e3))
            for s in streams
        ],
        "consumer",
    )  # fmt: skip
    yield _gauge(
        "feed_expired", "1 when a consumer was away for too long and lost its hold on retention.",
        [((s.name,), s.expired) for s in streams], "consumer",
    )  # fmt: skip
    yield _counter(
        "feed_appended_records", "Records appended to a consumer's stream in this epoch.",
        [((s.name,), s.last_seq) for s in streams], "consumer",
    )  # fmt: skip
    yield _counter(
        "feed_sent_records", "Records sent, those sent again included.",
        [((s.name,), s.sent) for s in streams], "consumer",
    )  # fmt: skip
    yield _counter(
        "feed_resends", "How often sending began again because no receipt came.",
        [((s.name,), s.resends) for s in streams], "consumer",
    )  # fmt: skip
    yield _counter(
        "feed_receipts", "Receipts that moved a cursor.",
        [((s.name,), s.receipts) for s in streams], "consumer",
    )  # fmt: skip
    yield _counter(
        "feed_refused_messages", "Messages that came in and were refused, by reason.",
        [((reason,), count) for reason, count in feed.refused.items()], "reason",
    )  # fmt: skip


def _databases(facts: Facts) -> Iterator[Metric]:
    told = facts.databases
    if not told:
        return
    yield _gauge(
        "timeseries_lag_seconds", "Age of the oldest reading that a database lacks.",
        [((d.name,), d.lag_s) for d in told], "database",
    )  # fmt: skip
    yield _gauge(
        "timeseries_backlog_records", "Records that a database lacks.",
        [((d.name,), d.backlog) for d in told], "database",
    )  # fmt: skip
    yield _gauge(
        "timeseries_writing", "1 while a database takes what comes.",
        [((d.name,), d.state == "writing") for d in told], "database",
    )  # fmt: skip
    yield _counter(
        "timeseries_written_lines", "Lines written.",
        [((d.name,), d.written_lines) for d in told], "database",
    )  # fmt: skip
    yield _gauge(
        "timeseries_dead_letters", "Lines that a database refused for good.",
        [((d.name,), d.dead_letters) for d in told], "database",
    )  # fmt: skip


def _alarms(facts: Facts) -> Iterator[Metric]:
    counts: dict[tuple[str, str], int] = {
        (kind.name, kind.severity): 0
        for kind in alarm_kinds()
        if kind.stands and kind.of != "billing"
    }
    for alarm in facts.kept.alarms:
        key = (alarm.name, alarm.severity)
        counts[key] = counts.get(key, 0) + 1
    yield _gauge(
        "alarms_standing", "Alarms that stand, by name; every name that can stand is told.",
        counts.items(), "alarm", "severity",
    )  # fmt: skip
