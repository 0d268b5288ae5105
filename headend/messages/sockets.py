"""What the pipe needs of sockets: a broker's reasons are kept, plain text stays where it may go."""

import socket
import ssl
from contextlib import suppress
from typing import Any

from headend.messages.broker import BrokerSpec, is_loopback

TLS_ALERT = 0x15  # the first byte of a TLS record that says no


class NotLocal(OSError):
    """A host name that should mean this machine leads elsewhere."""


class NotingSocket(ssl.SSLSocket):
    """Remembers what went wrong: the library swallows it, and a broker's reason with it."""

    trouble: OSError | None = None

    def do_handshake(self, block: bool = False) -> None:
        """As its parent; a socket that fails in it is closed, for the library lets it lie."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As the library needs it."""
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.trouble = error
            raise

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401 - as its parent
        """As the library needs it. A broker that closed has said why: that can still be read."""
        try:
            return super().send(data, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.trouble = error
            with suppress(OSError):
                self.recv(1)
            raise


def check_stays_here(spec: BrokerSpec) -> None:
    """NotLocal when plain text that may go to this machine only would leave it.

    Whatever a hosts file makes of the name.
    """
    if not spec.must_be_loopback:
        return
    for *_, address in socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM):
        if not is_loopback(str(address[0])):
            message = f"{spec.host} is {address[0]} here, not this machine"
            raise NotLocal(message)


def answers_in_tls(sock: object) -> bool:
    """Whether plain text was answered with a TLS record that says no."""
    if not isinstance(sock, socket.socket) or isinstance(sock, ssl.SSLSocket):
        return False
    try:
        return sock.recv(1, socket.MSG_PEEK) == bytes([TLS_ALERT])
    except OSError:
        return False  # the read that follows finds it too
