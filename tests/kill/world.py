"""The processes of the kill loop and the files they leave: meters, broker, daemon, consumer.

Everything is below one folder: `data/` (the head-end's), `billing/`, `journals/` (what was set
aside), logs, truth and kills.
"""

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.kill import meters
from tests.kill.journals import WRITER, read_only
from tests.kill.series import WRITER_NAME
from tests.support.influxdb import InfluxDB
from tests.support.mosquitto import Mosquitto
from tests.support.postgresql import Place, PostgreSQL

HEADEND = "he-kill"
READY_S = 30.0
END_S = 20.0
SHOW_S = 120.0
ANSWER_MS = 5000  # an overloaded machine is no silent meter: a late answer would be misdated
PLAN_S = 150  # a plan reaches so far ahead of the daemon's start
LOOK_S = 0.03


class WorldError(AssertionError):
    """Something did not happen in its time, or a process ended that nobody killed."""


class JournalState(NamedTuple):
    """What the journal's file says of itself."""

    epoch: str
    epochs: int
    readings: int  # ever written to this file
    last_seq: int
    receipted: int
    to_write: int  # records that the time-series writer has not written; 0 without one
    written: int


def journal_state(path: Path) -> JournalState | None:
    """The state of a journal; None when there is none yet."""
    if not path.exists():
        return None
    try:
        with closing(read_only(path)) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            (epochs,) = connection.execute("SELECT count(*) FROM epochs").fetchone()
            row = connection.execute(
                "SELECT last_seq, receipted FROM consumers WHERE name='billing'"
            ).fetchone()
            series = connection.execute(
                "SELECT last_seq - receipted, receipted FROM consumers WHERE name=?", (WRITER,)
            ).fetchone()
    except sqlite3.OperationalError:
        return None  # being made
    if row is None or "epoch" not in meta:
        return None
    written = sum(int(number) - 1 for name, number in meta.items() if name.startswith("next_rid"))
    return JournalState(meta["epoch"], epochs, written, *row, *(series or (0, 0)))


@dataclass
class World:
    """All of it. `with World(folder) as world:` leaves no process behind.

    `servers`: billing's database is a PostgreSQL, and an InfluxDB is filled beside it.
    """

    folder: Path
    servers: bool = False
    broker: Mosquitto = field(init=False)
    influxdb: InfluxDB = field(init=False)
    postgresql: PostgreSQL = field(init=False)
    ports: list[int] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    plan_ends_at: float = 0.0
    resting: set[str] = field(default_factory=set)  # roles that are meant to be down now
    _ready_from: int = 0  # where the running consumer's log begins
    _place: Place | None = None  # billing's, in the PostgreSQL

    def __post_init__(self) -> None:
        self.broker = Mosquitto(self.folder / "broker")
        self.influxdb = InfluxDB(self.folder / "influxdb")
        self.postgresql = PostgreSQL(durable=True)
        for name in ("data", "billing", "journals"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        try:
            self._start_meters()
            self.broker.start()
            if self.servers:
                self.influxdb.start()
                self.postgresql.make()
                self.postgresql.start()
                self._place = self.postgresql.place()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(timeout=END_S)
            if process.stdout is not None:
                process.stdout.close()
        self.broker.stop()
        self.influxdb.stop()
        if self.is_dead("postgresql"):  # struck, and not started again
            self._end_postgresql()
        self.postgresql.__exit__()

    # -- files

    @property
    def journal(self) -> Path:
        """The journal in use."""
        return self.folder / "data" / "journal.db"

    @property
    def billing(self) -> Path:
        """Billing's database, where it is a file."""
        return self.folder / "billing" / "billing.db"

    def open_billing(self) -> Any:
        """A connection to look at billing's database with."""
        return read_only(self.billing) if self._place is None else self._place.connect()

    @contextmanager
    def _looking_at_billing(self) -> Iterator[Any]:
        with closing(self.open_billing()) as connection:
            yield connection

    @property
    def config(self) -> Path:
        """The one configuration file."""
        return self.folder / "headend.yaml"

    def state(self) -> JournalState:
        """The journal's state; waits a moment for a journal that is being begun."""
        return self.wait(lambda: journal_state(self.journal), READY_S, "no journal")

    def set_journal_aside(self, name: str) -> Path:
        """Move the journal and its log away; nobody may have it open.

        Beside it goes what billing had durable of its epoch: that must never be missing.
        """
        place = self.folder / "journals" / name
        place.mkdir()
        epoch = self.state().epoch
        with self._looking_at_billing() as connection:
            rows = connection.execute("SELECT epoch, through_seq FROM feed_cursor").fetchall()
        (place / "through_seq").write_text(str(dict(rows).get(epoch, 0)))
        for suffix in ("", "-wal", "-shm"):
            part = self.journal.with_name(self.journal.name + suffix)
            if part.exists():
                shutil.move(part, place / part.name)
        return place / self.journal.name

    def copy_journal(self, name: str) -> Path:
        """A whole copy of the journal while it is written, as a backup tool would make it."""
        place = self.folder / "journals" / name
        place.mkdir()
        copy = place / self.journal.name
        with closing(read_only(self.journal)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy

    def write_config(self, *, polling: bool) -> None:
        """Write the configuration: a plan from now on, or one that has ended."""
        now = time.time()
        self.plan_ends_at = now + PLAN_S if polling else 0.0
        ends = self.plan_ends_at if polling else 86_400.0
        begins = now - 1 if polling else 0.0
        number = 0
        rows = []
        for bus in range(len(self.ports)):
            for _ in range(meters.METERS_A_BUS):
                rows.append(
                    f"  - {{id: M-{number:02d}, service_point: SP-{number:02d}, bus: bus-{bus},"
                    f' protocol: dlt645-2007, address: "{meters.address(number)}", plan: fast,'
                    f' capacity_kw: "{meters.CAPACITY_KW}"}}'
                )
                number += 1
        lines = [
            (
                f"headend: {{name: {HEADEND}, zone: Asia/Shanghai, data: ./data,"
                " reserve_mb: {telemetry: 2, billing: 1}}"
            ),
            "buses:",
            *(
                f'  bus-{i}: {{link: "tcp://127.0.0.1:{port}", gap_ms: 0, wakeup: 0,'
                f" timeout_ms: {ANSWER_MS}, turnaround_ms: 5, loss_percent: 0,"
                " allow_overload: true}"
                for i, port in enumerate(self.ports)
            ),
            "meters:",
            *rows,
            "plans:",
            "  fast:",
            f"    from: {_iso(begins)}",
            f"    until: {_iso(ends)}",
            f"    every: [{{seconds: 1, points: [{', '.join(meters.POINTS)}]}}]",
            (
                f'feed: {{broker: "{self.broker.url}", receipt_timeout_s: 2,'
                " consumers: [{name: billing, classes: [billing, telemetry, events]}]}"
            ),
            (f'billing: {{database: "{self._billing_url}", name: billing, headends: [{HEADEND}]}}'),
        ]
        if self.servers:
            lines.append(
                f"timeseries: [{{kind: influxdb1, name: {WRITER_NAME},"
                f' url: "{self.influxdb.url}", database: {self.influxdb.database}}}]'
            )
        draft = self.config.with_suffix(".draft")
        draft.write_text("\n".join(lines) + "\n")
        draft.replace(self.config)

    @property
    def _billing_url(self) -> str:
        return f"sqlite:///{self.billing}" if self._place is None else self._place.url

    # -- processes

    def _start_meters(self) -> None:
        with self._log("meters") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.kill.meters", str(self.folder)],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.processes["meters"] = process
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_S)
        line = process.stdout.readline() if readable else b""
        if not line:
            raise WorldError("the meters did not start")
        self.ports = json.loads(line)["ports"]

    def start_daemon(self, *, polling: bool = True) -> None:
        """Start the daemon with a plan from now on; `wait_ready` says when it stands."""
        self.write_config(polling=polling)
        self._start("daemon", ["run", "--config", str(self.config)])

    def start_consumer(self) -> None:
        """Start billing."""
        self._start("consumer", ["billing", "run", "--config", str(self.config)])

    def _start(self, role: str, arguments: list[str]) -> None:
        old = self.processes.get(role)
        assert old is None or old.poll() is not None
        (self.folder / f"{role}.ready").write_bytes(b"")
        log = self._log(role)
        # The daemon says READY on its output, billing beside its log.
        output = (self.folder / f"{role}.ready").open("ab") if role == "daemon" else log
        self._ready_from = (
            (self.folder / "consumer.log").stat().st_size if role == "consumer" else 0
        )
        self.processes[role] = subprocess.Popen(
            [sys.executable, "-m", "tests.kill.launch", role, str(self.folder), *arguments],
            stdout=output,
            stderr=log,
        )
        if output is not log:
            output.close()
        log.close()

    def _log(self, name: str) -> Any:
        return (self.folder / f"{name}.log").open("ab")

    def wait_ready(self, role: str) -> None:
        """Until a process that was just started says that it stands."""

        def stands() -> bool:
            if role == "daemon":
                return b"READY" in (self.folder / "daemon.ready").read_bytes()
            with (self.folder / "consumer.log").open("rb") as log:
                log.seek(self._ready_from)
                return b"READY" in log.read()

        self.wait(stands, READY_S, f"the {role} does not stand")

    def pid(self, victim: str) -> int:
        """The process id of a victim, who is about to be struck."""
        process = self._process(victim)
        assert process is not None
        return process.pid

    def _process(self, victim: str) -> subprocess.Popen[bytes] | None:
        if victim == "broker":
            return self.broker.process
        if victim == "influxdb":
            return self.influxdb.process
        if victim == "postgresql":
            return self.postgresql.process
        return self.processes[victim]

    def is_dead(self, victim: str) -> bool:
        """Whether a victim has ended."""
        process = self._process(victim)
        return process is None or process.poll() is not None

    def ended_by_kill(self, victim: str) -> bool:
        """Whether a dead victim died of SIGKILL."""
        process = self._process(victim)
        return process is not None and process.returncode == -signal.SIGKILL

    def _end_postgresql(self) -> None:
        """Its first process is dead: no goodbye for the others either. None is left then."""
        end = time.monotonic() + END_S
        while left := processes_in(self.postgresql.data):
            if time.monotonic() > end:
                raise WorldError(f"processes of PostgreSQL do not die: {left}")
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_S)
        self.postgresql.stop()

    def restart(self, victim: str) -> None:
        """Start a dead victim again."""
        if victim == "broker":
            self.broker.kill()  # it is dead: this takes note of it
            self.broker.start()
        elif victim == "influxdb":
            self.influxdb.kill()
            self.influxdb.start()
        elif victim == "postgresql":
            self._end_postgresql()
            self.postgresql.start()
        elif victim == "daemon":
            self.start_daemon()
        else:
            self.start_consumer()

    def kill(self, role: str) -> None:
        """SIGKILL, wherever it stands."""
        os.kill(self.processes[role].pid, signal.SIGKILL)
        self.processes[role].wait(timeout=END_S)

    def stop(self, role: str) -> None:
        """SIGTERM; it must end cleanly and in time."""
        process = self.processes[role]
        process.terminate()
        try:
            code = process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            raise WorldError(f"the {role} does not end on SIGTERM") from None
        if code != 0:
            raise WorldError(f"the {role} ended with {code} on SIGTERM")

    def arm(self, order: dict[str, Any], role: str) -> None:
        """Set the trap in a process."""
        (self.folder / f"arm-{role}.json").write_text(json.dumps(order))
        os.kill(self.processes[role].pid, signal.SIGUSR1)

    def billing_spans(self) -> list[dict[str, Any]]:
        """What billing itself says each service point drew and gave since the first reading."""
        done = subprocess.run(
            [
                sys.executable, "-m", "headend.cli.main", "billing", "show", "--span", "--json",
                "--config", str(self.config),
            ],
            capture_output=True,
            timeout=SHOW_S,
            check=True,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def deaths_inside(self) -> list[str]:
        """Lines of the logs that tell of a task that died or an error nobody expected."""
        return [
            f"{role}: {line}"
            for role in ("meters", "daemon", "consumer")
            for line in (self.folder / f"{role}.log").read_text(errors="replace").splitlines()
            if "Traceback" in line or " task=" in line
        ]

    def last_words(self, lines: int = 15) -> str:
        """How far the records are, and the end of each log: the folder may be gone tomorrow."""
        told = [f"records: {journal_state(self.journal)}"]
        for role in ("daemon", "consumer", "broker"):
            path = self.folder / f"{role}.log"
            if path.exists():
                said = path.read_text(errors="replace").splitlines()[-lines:]
                told += [f"-- {role}:", *(line[:300] for line in said)]
        return "\n".join(told)

    def kills(self) -> list[dict[str, Any]]:
        """Every strike so far."""
        path = self.folder / "kills.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def wait(
        self,
        condition: Callable[[], Any],
        timeout_s: float,
        what: str,
        *,
        mortal: str = "",
    ) -> Any:
        """The first true value of `condition`. WorldError in time, or when a process ends.

        `mortal`: who may be dead meanwhile.
        """
        end = time.monotonic() + timeout_s
        while not (value := condition()):
            for role, process in self.processes.items():
                if role != mortal and process.poll() is not None and role not in self.resting:
                    raise WorldError(f"the {role} ended by itself with {process.returncode}")
            if time.monotonic() > end:
                raise WorldError(f"{what} (waited {timeout_s:.0f} s)")
            time.sleep(LOOK_S)
        return value


def processes_in(folder: Path) -> list[int]:
    """Processes that work in a folder, zombies not counted.

    All of PostgreSQL's work in its data's: so those whose parent is dead are found as well, and no
    other process that has got the number of one of them meanwhile.
    """
    folder = folder.resolve()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                if (entry / "cwd").readlink() == folder:
                    found.append(int(entry.name))
    return found


def _iso(at: float) -> str:
    return '"' + datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds") + '"'
