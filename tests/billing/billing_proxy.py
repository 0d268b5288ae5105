"""A line between billing and its database that breaks where a test says."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

CHUNK = 1 << 16
TICK_S = 0.05
ANSWER_S = 0.1


@dataclass
class BreakingLine:
    """Passes bytes on until told otherwise. `with BreakingLine(port) as line:`

    `break_at(n)`: the n-th message that the program sends from now on does not arrive, and the
    line breaks. With `answered` it does arrive and is answered, and the answer is lost.
    """

    server_port: int
    rewrite: Callable[[bytes], bytes] = lambda answer: answer
    port: int = 0
    messages: int = 0
    _at: int | None = None
    _answered: bool = False
    _keep_server: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _kept: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        for thread in list(self._threads):
            thread.join(timeout=10)
        self._listener.close()
        for kept in self._kept:
            kept.close()

    def break_at(self, message: int, *, answered: bool = False, keep_server: bool = False) -> None:
        """Arm it, once. `keep_server`: the server does not hear of it, as when a cable is cut."""
        self.messages = 0
        self._at, self._answered, self._keep_server = message, answered, keep_server

    def url(self, role: str, database: str = "billing") -> str:
        """For the program."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], TICK_S)[0]:
                client, _ = self._listener.accept()
                self._start(self._pass_on, client)

    def _pass_on(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.server_port))
        except OSError:
            client.close()
            return
        for end in (client, server):  # messages go out one by one: none may wait for the next
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = bytearray()
        try:
            while not self._ended.is_set():
                for ready in select.select([client, server], [], [], TICK_S)[0]:
                    data = ready.recv(CHUNK)
                    if not data:
                        return
                    if ready is server:
                        client.sendall(self.rewrite(data))
                        continue
                    said += data
                    if not all(self._forward(one, server) for one in _whole_messages(said)):
                        return
        except OSError:
            return
        finally:
            client.close()
            if server not in self._kept:
                server.close()

    def _forward(self, message: bytes, server: socket.socket) -> bool:
        """Pass a message on; False when the line is to break."""
        self.messages += 1
        if self._at is None or self.messages < self._at:
            server.sendall(message)
            return True
        self._at = None
        if self._answered:
            server.sendall(message)
            # One that is only the beginning of a statement has no answer.
            select.select([server], [], [], ANSWER_S)
        if self._keep_server:
            self._kept.append(server)
        return False


def _whole_messages(buffer: bytearray) -> Iterator[bytes]:
    """Takes them off the buffer: a letter and a length; the very first ones have no letter."""
    while len(buffer) >= 5:
        letter = 1 if buffer[0] else 0
        size = letter + int.from_bytes(buffer[letter : letter + 4], "big")
        if len(buffer) < size:
            return
        message = bytes(buffer[:size])
        del buffer[:size]
        yield message
