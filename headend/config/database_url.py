"""What a database URL says: a file of SQLite's, or a PostgreSQL server.

The names behind the `?` are those of PostgreSQL's own client library. No URL holds a password.
"""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from headend.domain.errors import ConfigError
from headend.domain.hosts import is_loopback

EXAMPLES = "sqlite:///./data/billing.db or postgresql://user@host/name"
PORT = 5432
_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql", "postgresql+psycopg")
_FILES = ("sslrootcert", "sslcert", "sslkey")
_OPTIONS = ("host", "sslmode", *_FILES)
_SECRETS = ("password", "passfile", "sslpassword", "service", "servicefile")
# From the weakest to the strongest; the last two look at the server's certificate.
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_CHECKED = ("verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """A file. `path` is as it stands in the URL; empty or `:memory:` is no file at all."""

    path: str

    @property
    def name(self) -> str:
        """For messages."""
        return self.path

    @property
    def is_file(self) -> bool:
        """It outlives the process."""
        return self.path not in ("", ":memory:")


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A database of a server. `host` begins with / when it is the folder of a local socket.

    `user` None is the user who runs the process, `host` None the library's own local socket.
    """

    database: str
    user: str | None = None
    host: str | None = None
    port: int = PORT
    sslmode: str | None = None
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages: nothing secret."""
        where = f"{self.host or 'the local socket'}:{self.port}"
        return f"database {self.database} at {where}"

    @property
    def is_local(self) -> bool:
        """The bytes never leave this machine."""
        return self.host is None or self.host.startswith("/") or is_loopback(self.host)

    @property
    def sslmode_used(self) -> str:
        """What is asked of the connection: beyond this machine the strongest, unless said."""
        return self.sslmode or ("prefer" if self.is_local else "verify-full")

    def check_secure(self, *, allow_plaintext: bool) -> None:
        """ConfigError for a server that anybody on the way could be or listen to."""
        mode = self.sslmode_used
        if mode in _CHECKED and "sslrootcert" not in self.files:
            raise ConfigError(
                f"who signed the certificate of {self.host} is not said",
                hint="?sslrootcert=FILE; /etc/ssl/certs/ca-certificates.crt holds the system's "
                "authorities",
            )
        if self.is_local or mode in _CHECKED or allow_plaintext:
            return
        what = "to whoever answers for" if mode == "require" else "unencrypted to"
        raise ConfigError(
            f"sslmode={mode}: readings would go {what} {self.host}",
            hint="use sslmode=verify-full, or say allow_plaintext: true",
        )


def parse_database(text: str) -> SqlitePlace | PostgresPlace:
    """The place a database URL names; ConfigError with a hint otherwise."""
    if text.startswith(_SQLITE):
        return SqlitePlace(text.removeprefix(_SQLITE))
    try:
        url = urlsplit(text)
    except ValueError:
        url = SplitResult("", "", "", "", "")
    if url.scheme not in _POSTGRESQL or not text.startswith(f"{url.scheme}://"):
        raise _unknown_scheme(url.scheme)
    return _server(url)


def _unknown_scheme(scheme: str) -> ConfigError:
    # The text itself may hold a password in a place that only its author knows.
    if scheme.startswith("postgresql+"):
        driver = scheme.removeprefix("postgresql+")
        return ConfigError(f"the driver {driver} is not used here", hint="postgresql://")
    if scheme == "postgres":
        return ConfigError("postgres:// is not a database URL", hint="postgresql://")
    return ConfigError(
        f"{scheme}:// is not a database URL" if scheme else "not a database URL", hint=EXAMPLES
    )


def _server(url: SplitResult) -> PostgresPlace:
    if url.fragment:
        raise ConfigError("a database URL has no part behind #", hint=EXAMPLES)
    user, _, where = url.netloc.rpartition("@")
    if ":" in user:
        raise ConfigError("the database URL holds a password", hint="use password_file")
    options = _options(url.query)
    host, port = _host_and_port(where)
    if host and "host" in options:
        raise ConfigError("the database URL names the host twice", hint=EXAMPLES)
    host = host or options.get("host")
    if host and "," in host:
        raise ConfigError("the database URL names several hosts", hint="one database, one host")
    database = unquote(url.path.removeprefix("/"))
    if not database or "/" in database:
        raise ConfigError("the database URL names no database", hint=EXAMPLES)
    mode = options.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise ConfigError(
            f"sslmode={mode} is not known here", hint=f"one of {', '.join(_SSL_MODES)}"
        )
    files = {key: Path(options[key]) for key in _FILES if key in options}
    if ("sslcert" in files) != ("sslkey" in files):
        raise ConfigError("sslcert and sslkey belong together")
    place = PostgresPlace(database, unquote(user) or None, host, port, mode, files)
    if any("\x00" in part for part in (database, place.user or "", host or "", *options.values())):
        raise ConfigError("the database URL holds a zero byte", hint=EXAMPLES)
    return place


def _host_and_port(where: str) -> tuple[str | None, int]:
    host, bracket, rest = where.rpartition("]")
    if bracket:
        host = host.removeprefix("[")
        port_text = rest.removeprefix(":")
    else:
        host, _, port_text = where.partition(":")
    if port_text == "":
        return unquote(host) or None, PORT
    if not (port_text.isascii() and port_text.isdigit()) or not 0 < int(port_text) < 65536:
        raise ConfigError("the database URL's port is not a port", hint=EXAMPLES)
    return unquote(host) or None, int(port_text)


def _options(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in _SECRETS:
            raise ConfigError(f"{key} does not stand in a database URL", hint="use password_file")
        if key not in _OPTIONS:
            near = difflib.get_close_matches(key, _OPTIONS, n=1)
            known = f"did you mean {near[0]}?" if near else f"known here: {', '.join(_OPTIONS)}"
            raise ConfigError(f"{key} is not known in a database URL", hint=known)
        if key in found:
            raise ConfigError(f"{key} stands twice in the database URL")
        if not value:
            raise ConfigError(f"{key} is empty in the database URL")
        found[key] = value
    return found
