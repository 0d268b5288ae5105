"""A real PostgreSQL on a free port of this machine, in a folder of its own.

`with PostgreSQL() as server:` or `start()`, `kill()`, `stop()` by hand. The server refuses to run
as root, so it runs as the user `postgres` then, and as whoever runs the tests otherwise. Every
`server.place()` is a role with a schema of its own: cheap, and the way a role without any further
right meets the database.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.mosquitto import free_port

READY_S = 30.0
ADMIN = "postgres"
DATABASE = "billing"
_HASTY = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}


def binaries() -> Path:
    """Where the newest server's programs are: Debian keeps them outside every PATH."""
    places = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(places, key=lambda p: int(p.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    assert found is not None, "PostgreSQL's server is not installed"
    return Path(found).parent


@dataclass(frozen=True)
class Place:
    """A role, and the schema of the same name that it owns."""

    server: "PostgreSQL"
    role: str

    @property
    def url(self) -> str:
        """For configurations."""
        return self.server.url(self.role)

    def connect(self, **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection of our own as that role, beside the tested program's."""
        return self.server.connect(self.role, **options)


@dataclass
class PostgreSQL:
    """One server. `durable`: with fsync, for tests that kill it. `settings`: postgresql.conf."""

    durable: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    initdb: tuple[str, ...] = ()
    hba: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    folder: Path = field(init=False)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        # Not below pytest's folder, which root alone may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="headend-postgresql-"))
        if self._user:
            shutil.chown(self.folder, *self._user)

    def __enter__(self) -> Self:
        self.make()
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.process is not None:
            self.kill()  # nothing of it is needed any more
        shutil.rmtree(self.folder, ignore_errors=True)

    def make(self) -> None:
        """The cluster, with one empty database."""
        command = [
            *(str(binaries() / "initdb"), "-D", str(self.data), "-U", ADMIN, "-A", "trust"),
            *("-E", "UTF8", "--locale", "C.UTF-8", "--no-sync", *self.initdb),
        ]
        self._run(command)
        values = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "40",
            "shared_buffers": "64MB",
            "logging_collector": "off",
            **({} if self.durable else _HASTY),
            **self.settings,
        }
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in values.items())
        if self.hba:
            (self.data / "pg_hba.conf").write_text("\n".join(self.hba) + "\n")

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.folder / "d"

    @property
    def pid(self) -> int:
        """The running server's first process."""
        assert self.process is not None
        return self.process.pid

    def url(self, role: str = ADMIN, database: str = DATABASE) -> str:
        """For configurations."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def connect(
        self, role: str = ADMIN, *, database: str = DATABASE, **options: Any
    ) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection of a test's own, over the local socket, committing by itself."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user=role,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
            **options,
        )

    def execute(self, *statements: str, database: str = DATABASE) -> None:
        """Run statements as the administrator."""
        with self.connect(database=database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def place(self) -> Place:
        """A fresh role with an empty schema."""
        role = f"t{next(self._numbers)}"
        self.execute(f"CREATE ROLE {role} LOGIN", f"CREATE SCHEMA AUTHORIZATION {role}")
        return Place(self, role)

    def start(self) -> None:
        """Start, on the same port every time; returns when the server takes statements."""
        assert self.process is None
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(binaries() / "postgres"), "-D", str(self.data), "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as_server(),
            )
        end = time.monotonic() + READY_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                said = self.log()
                self.stop()
                raise AssertionError(f"PostgreSQL did not start:\n{said}")
            time.sleep(0.02)
        self._make_database()

    def log(self) -> str:
        """What the server said."""
        return (self.folder / "server.log").read_text(errors="replace")

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT (fast: sessions are ended) and wait. Does nothing when it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        process.wait(timeout=30)

    def kill(self) -> None:
        """SIGKILL to every process of it at once, as when the power goes: no goodbye."""
        process, self.process = self.process, None
        assert process is not None
        children = server_processes(process.pid)
        for pid in (process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(timeout=30)
        end = time.monotonic() + READY_S
        while any(map(_is_running, children)):
            assert time.monotonic() < end, "a server process does not die"
            time.sleep(0.01)

    def freeze(self) -> None:
        """SIGSTOP to every process: connections stand and nothing answers. Until `thaw`."""
        for pid in (self.pid, *server_processes(self.pid)):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to every process."""
        for pid in (*server_processes(self.pid), self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            self.connect(database="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_database(self) -> None:
        with self.connect(database="postgres") as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)
            ).fetchone()
            if known is None:
                # Words before signs, as people sort: not the order that bytes have.
                connection.execute(
                    f"CREATE DATABASE {DATABASE} TEMPLATE template0 "
                    "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'".encode()
                )

    @property
    def _user(self) -> tuple[str, str] | None:
        return ("postgres", "postgres") if os.getuid() == 0 else None

    def _as_server(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        user, group = self._user
        return {"user": user, "group": group, "extra_groups": []}

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **self._as_server(),
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


def server_processes(pid: int) -> list[int]:
    """The processes that a server's first process has started."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


def _is_running(pid: int) -> bool:
    """Whether it lives; one that nobody has waited for yet (a zombie) does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
