"""A real mosquitto on a free port of this machine, in a folder of its own.

`with Mosquitto(folder) as broker:` or `start()`, `kill()`, `stop()` by hand. Without persistence:
what the broker held is gone when it is killed, as the feed must stand.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from headend.messages.broker import BrokerSpec, TlsSpec
from tests.support.certificates import Authority, Identity

READY_S = 10.0
PORTS = range(12_000, 32_000)
BINARY = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now.

    Below those that the kernel gives to outgoing connections: a server that is down for a while
    must find its port again.
    """
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


# MQTT 3.1.1, a clean session of the client `ready`.
_HELLO = bytes.fromhex("1011 0004 4D515454 04 02 000A 0005") + b"ready"


def port_answers(port: int) -> bool:
    """Whether a broker serves there: it says something, if only by hanging up.

    That the kernel accepts a connection is not enough: mosquitto listens before it has its signal
    handlers, and a SIGHUP in between would end it.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as sock:
            sock.sendall(_HELLO)
            sock.recv(4)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True


@dataclass
class TlsListener:
    """A second listener that wants client certificates of `authority` and takes the common name
    as the user. `server`: the broker's own certificate.
    """

    authority: Authority
    server: Identity
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """For configurations."""
        return f"mqtts://localhost:{self.port}"

    def spec(self, identity: Identity | None = None, **more) -> BrokerSpec:
        """How our own code reaches it; as `identity`, believing `ca_file` (the authority's)."""
        ca_file = more.pop("ca_file", self.authority.ca_file)
        tls = TlsSpec(
            ca_file=ca_file,
            cert_file=identity and identity.cert_file,
            key_file=identity and identity.key_file,
        )
        return BrokerSpec(**{"host": "localhost", "port": self.port, "tls": tls, **more})

    def lines(self) -> list[str]:
        """Its part of the broker's configuration."""
        return [
            f"listener {self.port} 127.0.0.1",
            f"cafile {self.authority.ca_file}",
            f"certfile {self.server.cert_file}",
            f"keyfile {self.server.key_file}",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous false",
        ]


@dataclass
class Mosquitto:
    """One broker.

    `users`: name -> password; then nobody else may connect. `acl`: name -> lines such as
    `readwrite meter/v1/#` (needs `users`). `tls`: a second listener; the access list holds for
    both. `extra`: further configuration lines.
    """

    folder: Path
    users: Mapping[str, str] = field(default_factory=dict)
    acl: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tls: TlsListener | None = None
    extra: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For configurations."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running broker's process id."""
        assert self.process is not None
        return self.process.pid

    def spec(self, user: str | None = None, **more) -> BrokerSpec:
        """How our own code reaches it, as `user`."""
        password_file = None
        if user is not None:
            password_file = self.folder / f"{user}.password"
            password_file.write_text(self.users[user] + "\n")
            password_file.chmod(0o600)
        return BrokerSpec(
            "127.0.0.1", self.port, username=user, password_file=password_file, **more
        )

    def start(self) -> None:
        """Start, on the same port every time; returns when the port answers."""
        assert self.process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        end = time.monotonic() + READY_S
        while not port_answers(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                text = (self.folder / "mosquitto.log").read_text()
                self.stop()
                raise AssertionError(f"mosquitto did not start:\n{text}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing saved."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait. Does nothing when it is not running."""
        self._end(signal.SIGTERM)

    def _end(self, signum: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, signum)
        process.wait(timeout=10)

    def _write_configuration(self) -> None:
        lines = ["user root"] if os.getuid() == 0 else []
        lines += [
            "per_listener_settings true",
            "persistence false",
            "max_queued_messages 0",
            "log_type error",
            "log_type warning",
            f"listener {self.port} 127.0.0.1",
        ]
        if self.users:
            lines += ["allow_anonymous false", f"password_file {self._passwords()}"]
        else:
            lines.append("allow_anonymous true")
        acl = [f"acl_file {self._write_acl()}"] if self.acl else []
        lines += acl
        if self.tls is not None:
            lines += [*self.tls.lines(), *acl]
        lines += self.extra
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def allow(self, name: str, *rules: str) -> None:
        """Add rules for a user while the broker runs; counts from its next look at the file."""
        self.acl = {**self.acl, name: [*self.acl.get(name, ()), *rules]}
        self._write_acl()
        os.kill(self.pid, signal.SIGHUP)

    def _write_acl(self) -> Path:
        path = self.folder / "acl"
        path.write_text(
            "".join(
                f"user {name}\n" + "".join(f"topic {rule}\n" for rule in rules)
                for name, rules in self.acl.items()
            )
        )
        return path

    def _passwords(self) -> Path:
        path = self.folder / "pw"
        path.unlink(missing_ok=True)
        for number, (name, password) in enumerate(self.users.items()):
            create = [] if number else ["-c"]
            subprocess.run(
                ["mosquitto_passwd", *create, "-b", str(path), name, password],
                check=True,
                capture_output=True,
            )
        return path
