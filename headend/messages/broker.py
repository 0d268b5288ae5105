"""Which broker, and how to reach it: the parsed form of a broker URL with its secrets' files.

Secrets are read from files when a connection is made and never kept, printed or logged.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from headend.domain.errors import ConfigError

PORT_PLAIN = 1883
PORT_TLS = 8883
SECRET_BYTES_MAX = 4096


class MqttVersion(StrEnum):
    """Which MQTT to speak. `auto`: 5, and 3.1.1 with a broker that says it does not know 5."""

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
        """A client context that checks the broker's certificate and name. Reads files."""
        context = ssl.create_default_context(
            cafile=None if self.ca_file is None else str(self.ca_file)
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """Everything a `Pipe` needs to know of the broker.

    `inflight_max`: messages sent and not acknowledged (20 to 50 is enough). `incoming_max`:
    messages received and not yet taken; above it the socket is not read. `packet_bytes_max`: what
    an MQTT 5 broker may send us. `ack_timeout_s`: a message without its PUBACK for so long means
    that the connection is dead.
    """

    host: str
    port: int = PORT_PLAIN
    version: MqttVersion = MqttVersion.AUTO
    username: str | None = None
    password_file: Path | None = None
    tls: TlsSpec | None = None
    keepalive_s: int = 20
    connect_timeout_s: float = 5.0
    ack_timeout_s: float = 10.0
    inflight_max: int = 20
    incoming_max: int = 64
    packet_bytes_max: int = 1024 * 1024

    @property
    def name(self) -> str:
        """For messages: host and port, nothing secret."""
        return f"{self.host}:{self.port}"

    def password(self) -> str | None:
        """The password's text, read now; the file's trailing line end does not belong to it."""
        if self.password_file is None:
            return None
        with self.password_file.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
        if len(data) > SECRET_BYTES_MAX:
            msg = f"{self.password_file} is too large to hold a password"
            raise OSError(msg)
        return data.decode().rstrip("\r\n")


def parse_broker_url(
    url: str,
    *,
    username: str | None = None,
    password_file: Path | None = None,
    tls: TlsSpec | None = None,
    version: MqttVersion = MqttVersion.AUTO,
    allow_plaintext: bool = False,
) -> BrokerSpec:
    """`mqtt://host[:port]` or `mqtts://host[:port]`; ConfigError says what is wrong.

    Plain text is refused for any host but this machine unless `allow_plaintext`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"broker URL cannot be read: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise ConfigError("broker URL is none", hint="mqtt://host:1883 or mqtts://host:8883")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "broker URL holds credentials", hint="name the user and a password_file beside it"
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError("broker URL has more than host and port", hint="mqtt://host:1883")
    encrypted = parts.scheme == "mqtts"
    if not encrypted and tls is not None:
        raise ConfigError("certificates with a plain mqtt:// URL", hint="mqtts://host:8883")
    if not encrypted and not allow_plaintext and not is_loopback(parts.hostname):
        raise ConfigError(
            f"plain text to {parts.hostname}: readings and passwords would cross the network open",
            hint="mqtts://, or allow it by name where the network itself is closed",
        )
    return BrokerSpec(
        host=parts.hostname,
        port=port or (PORT_TLS if encrypted else PORT_PLAIN),
        version=version,
        username=username,
        password_file=password_file,
        tls=(tls or TlsSpec()) if encrypted else None,
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
