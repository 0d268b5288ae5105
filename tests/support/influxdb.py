"""A real InfluxDB 1.6.7 on free ports of this machine, in a folder of its own.

`with InfluxDB(folder) as influx:` or `start()`, `kill()`, `stop()` by hand; a new start finds the
same data on the same port. Its answers are read with their digits: no float in between.
"""

import base64
import json
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tests.support.http import Answer, call
from tests.support.mosquitto import free_port
from tests.support.server import ServerProcess

BINARY = shutil.which("influxd") or "/usr/bin/influxd"
DATABASE = "meters"
ADMIN = "admin"
ADMIN_PASSWORD = "admin secret"


class Refused(AssertionError):
    """The server answered a query with an error."""


@dataclass
class InfluxDB:
    """One server.

    `users`: name -> password, all privileges on `database`; then nobody gets in without one.
    `body_bytes_max`: of a write; more is 413. `data`: where the data lies (default: in `folder`).
    `create`: whether `start` creates the database. `http`: further lines of its section.
    """

    folder: Path
    users: Mapping[str, str] = field(default_factory=dict)
    body_bytes_max: int | None = None
    data: Path | None = None
    database: str = DATABASE
    create: bool = True
    http: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    _process: ServerProcess | None = None
    _bind: str = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For configurations."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def process(self) -> "subprocess.Popen[bytes] | None":
        """The server's process, also after it has ended; None when none was started."""
        return None if self._process is None else self._process.process

    # -- its life

    def start(self) -> None:
        """Start on the same port and data every time; returns when it answers."""
        assert self._process is None
        self._process = ServerProcess("influxd", self.folder / "influxd.log")
        self._write_configuration()
        try:
            self._process.start(
                [BINARY, "-config", str(self.folder / "influxd.conf")],
                lambda: call(self.port, "GET", "/ping", timeout_s=1.0).status == 204,
            )
        except BaseException:
            self._process = None
            raise
        self._set_up()

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait. Does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It hangs: connections open, nothing is answered."""
        assert self._process is not None
        self._process.pause()

    def go_on(self) -> None:
        """It hangs no longer."""
        assert self._process is not None
        self._process.go_on()

    def backup(self, folder: Path) -> None:
        """`influxd backup`: it begins a new log and puts what the old one holds into its files."""
        command = [BINARY, "backup", "-portable", "-host", self._bind, str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    # -- what it says

    def query(self, text: str, *, user: str | None = None, timeout_s: float = 10.0) -> Any:
        """The whole answer of a query, numbers with a fraction as Decimal of their digits."""
        parameters = {"db": self.database, "epoch": "ms", "q": text}
        answer = self._post("/query", parameters, user=user, timeout_s=timeout_s)
        found = json.loads(answer.body, parse_float=Decimal)
        errors = [found.get("error")] + [one.get("error") for one in found.get("results", ())]
        if answer.status != 200 or any(errors):
            raise Refused(f"{answer.status} {[e for e in errors if e]}: {text}")
        return found

    def rows(self, text: str) -> list[dict[str, Any]]:
        """The rows of a query's answer, each a dict of its columns; `time` in ms.

        Tags of a GROUP BY and the measurement (`name`) are put into each row.
        """
        found = []
        for result in self.query(text)["results"]:
            for series in result.get("series", ()):
                common = {"name": series["name"], **series.get("tags", {})}
                found += [
                    common | dict(zip(series["columns"], values, strict=True))
                    for values in series.get("values", ())
                ]
        return found

    def count(self, measurement: str, field_name: str) -> int:
        """How many points of a field there are; 0 for what was never written."""
        rows = self.rows(f'SELECT count("{field_name}") AS n FROM "{measurement}"')
        return rows[0]["n"] if rows else 0

    def measurements(self) -> set[str]:
        """Names of what was written."""
        return {row["name"] for row in self._values("SHOW MEASUREMENTS")}

    def write(
        self, lines: bytes, *, precision: str = "ms", user: str | None = None, database: str = ""
    ) -> Answer:
        """Write line protocol as it is; the server's answer, whatever it is."""
        parameters = {"db": database or self.database, "precision": precision}
        return self._post("/write", parameters, lines, user=user)

    def create_database(self) -> None:
        """`database`, where `create` is False."""
        self.query(f'CREATE DATABASE "{self.database}"')

    def set_password(self, user: str, password: str) -> None:
        """Change a user's password on the server."""
        self.query(f"SET PASSWORD FOR \"{user}\" = '{password}'")

    # -- inside

    def _end(self, signum: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(signum)

    def _values(self, text: str) -> list[dict[str, Any]]:
        return [
            dict(zip(series["columns"], values, strict=True))
            for result in self.query(text)["results"]
            for series in result.get("series", ())
            for values in series.get("values", ())
        ]

    def _post(
        self,
        path: str,
        parameters: Mapping[str, str],
        body: bytes = b"",
        *,
        user: str | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        headers = {}
        if self.users:
            name = ADMIN if user is None else user
            password = ADMIN_PASSWORD if name == ADMIN else self.users[name]
            token = base64.b64encode(f"{name}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        where = f"{path}?{urlencode(parameters)}"
        return call(self.port, "POST", where, body, headers, timeout_s=timeout_s)

    def _set_up(self) -> None:
        if self.users:
            # The first user may be made without one; at a later start it is there already.
            text = f"CREATE USER {ADMIN} WITH PASSWORD '{ADMIN_PASSWORD}' WITH ALL PRIVILEGES"
            call(self.port, "POST", f"/query?{urlencode({'q': text})}")
        if self.create:
            self.create_database()
        known = {row["user"] for row in self._values("SHOW USERS")}
        for name, password in self.users.items():
            if name not in known:
                self.query(f"CREATE USER \"{name}\" WITH PASSWORD '{password}'")
                self.query(f'GRANT ALL ON "{self.database}" TO "{name}"')

    def _write_configuration(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.data or self.folder
        self._bind = f"127.0.0.1:{free_port()}"
        more = list(self.http)
        if self.users:
            more.append("auth-enabled = true")
        if self.body_bytes_max is not None:
            more.append(f"max-body-size = {self.body_bytes_max}")
        (self.folder / "influxd.conf").write_text(
            "reporting-disabled = true\n"
            f'bind-address = "{self._bind}"\n'
            f'[meta]\ndir = "{data}/meta"\n'
            f'[data]\ndir = "{data}/data"\nwal-dir = "{data}/wal"\n'
            "[monitor]\nstore-enabled = false\n"
            "[subscriber]\nenabled = false\n"
            "[continuous_queries]\nenabled = false\n"
            f'[http]\nbind-address = "127.0.0.1:{self.port}"\nlog-enabled = false\n'
            + "".join(f"{line}\n" for line in more)
        )
