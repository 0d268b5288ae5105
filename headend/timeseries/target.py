"""Where a writer writes: address, names, and the files its secrets stand in. And the seam of the
dialects.

Secrets are read when a connection is made and never kept, printed or logged.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from headend.config.secret_files import FileFault, client_context, read_secret
from headend.domain.clock import Clock
from headend.domain.errors import ConfigError
from headend.messages.broker import is_loopback
from headend.timeseries.outcome import Outcome

PRECISION = "ms"
ANSWER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One database. Plain http to any host but this machine is a ConfigError unless allowed.

    `influxdb1`: `database`, and `username` with `password_file`, or `token_file`. `influxdb2`:
    `org`, `bucket`, `token_file`.
    """

    kind: Literal["influxdb1", "influxdb2"]
    url: str
    database: str = ""
    org: str = ""
    bucket: str = ""
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    allow_plaintext: bool = False
    connect_timeout_s: float = 10.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        url = urlsplit(self.url)
        if (
            url.scheme != "https"
            and not self.allow_plaintext
            and not is_loopback(url.hostname or "")
        ):
            raise ConfigError(
                f"plain text to {url.hostname}: readings and passwords would cross the network",
                hint="https, or allow it by name where the network itself is closed",
            )

    def secret(self, key: Literal["password_file", "token_file"]) -> str | None:
        """What stands in a secret's file, read now; None without one. FileFault."""
        path: Path | None = getattr(self, key)
        if path is None:
            return None
        text = read_secret(path, key)
        if not text.isprintable():
            hint = "write the secret into it, on one line"
            raise FileFault(key, path, "holds more than a secret", hint)
        return text

    def tls(self) -> ssl.SSLContext | None:
        """How https is checked: against `ca_file`, else the system's authorities. FileFault."""
        if not self.url.startswith("https:"):
            return None
        return client_context(self.ca_file, None, None)


class Dialect(Protocol):
    """One client of one database, with the secrets it read when it was made."""

    async def write(self, body: bytes) -> Outcome:
        """Send lines once. Never raises for what a server or a network does."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


def open_dialect(target: Target, clock: Clock) -> Dialect:
    """A client for a target, on the running loop; FileFault when a file cannot be used.

    Reads files; connects at the first write. Only the library that is needed is imported.
    """
    if target.kind == "influxdb2":
        from headend.timeseries.influxdb2 import InfluxDB2  # noqa: PLC0415

        return InfluxDB2(target, clock)
    from headend.timeseries.influxdb1 import InfluxDB1  # noqa: PLC0415

    return InfluxDB1(target, clock)
