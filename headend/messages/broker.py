"""Which broker, and how to reach it, with the files its secrets stand in.

Secrets are read from files when a connection is made and never kept, printed or logged.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from headend.config.secret_files import client_context, read_secret
from headend.domain.errors import ConfigError

PORT_PLAIN = 1883


class MqttVersion(StrEnum):
    """Which MQTT to speak.

    `auto`: 5, and 3.1.1 with a broker that says it does not know 5, or does not answer it (then
    each connection costs the connect time-out; better name 3.1.1 for such a broker).
    """

    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """Certificates. `ca_file` None = the system's; `cert_file`/`key_file` = our own identity."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A client context that checks the broker's certificate and name. Reads files; FileFault.

        Files that were replaced on the disk count from the next connection on.
        """
        return client_context(self.ca_file, self.cert_file, self.key_file)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it stands on."""
        return tuple(f for f in (self.ca_file, self.cert_file, self.key_file) if f is not None)


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """Everything a `Pipe` needs to know of the broker.

    Plain text to any host but this machine is refused (ConfigError) unless `allow_plaintext`.

    `inflight_max`: messages sent and not acknowledged (20 to 50 is enough). `incoming_max`:
    messages received and not yet taken: the window we grant the broker. `packet_bytes_max`: what
    an MQTT 5 broker may send us. `ack_timeout_s`: a message without its PUBACK for so long means
    that the connection is dead.
    """

    host: str
    port: int = PORT_PLAIN
    version: MqttVersion = MqttVersion.AUTO
    username: str | None = None
    password_file: Path | None = None
    tls: TlsSpec | None = None
    allow_plaintext: bool = False
    keepalive_s: int = 20
    connect_timeout_s: float = 5.0
    ack_timeout_s: float = 10.0
    inflight_max: int = 20
    incoming_max: int = 64
    packet_bytes_max: int = 1024 * 1024

    def __post_init__(self) -> None:
        if self.tls is None and not self.allow_plaintext and not is_loopback(self.host):
            raise ConfigError(
                f"plain text to {self.host}: readings and passwords would cross the network open",
                hint="TLS, or allow it by name where the network itself is closed",
            )

    @property
    def name(self) -> str:
        """For messages: host and port, nothing secret."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def must_be_loopback(self) -> bool:
        """Whether the bytes may go to this machine only."""
        return self.tls is None and not self.allow_plaintext

    def password(self) -> str | None:
        """The password's text, read now; FileFault."""
        return None if self.password_file is None else read_secret(self.password_file)

    def check_files(self) -> None:
        """Read every file once; FileFault for the first one that cannot be used."""
        self.password()
        if self.tls is not None:
            self.tls.context()

    def files_stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Changes when one of the files is replaced or rewritten; None for one that is away."""
        files = () if self.tls is None else self.tls.files
        if self.password_file is not None:
            files = (*files, self.password_file)
        return tuple(_stamp(file) for file in files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
