"""Registers behind a socket, served by a thread: for commands with a loop of their own."""

import socket
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from protocols.framing import FrameFound, Framer
from protocols.modbus.decode import encode
from protocols.modbus.device import build_exception, build_reply, parse_request, request_delimiter
from protocols.modbus.profile import DeviceProfile
from protocols.modbus.sunspec import END_ID, MARKER, chain_of, sunspec_profile

Words = dict[int, int]


def words_of(profile: DeviceProfile, **values: object) -> Words:
    """The registers of a device that holds these values."""
    words: Words = {}
    for point, value in values.items():
        register = profile.register(point)
        for at, word in enumerate(encode(register, value)):  # type: ignore[arg-type]
            words[register.address + at] = word
    return words


def sunspec_words(models: Sequence[int] = (1, 103), **values: object) -> Words:
    """The registers of a SunSpec device with these models; what scales values is 0."""
    chain = chain_of(models)
    words = dict.fromkeys(range(chain.base, chain.end + 2), 0)
    words |= zip(range(chain.base, chain.base + len(MARKER)), MARKER, strict=True)
    for model in chain.models:
        words |= {model.address: model.id, model.address + 1: model.length}
    words |= {chain.end: END_ID, chain.end + 1: 0}
    return words | words_of(sunspec_profile(chain), **values)


class RegisterServer:
    """`units`: registers by unit, of every function; others are refused, other units are silent.

    `tcp`: Modbus TCP, else RTU frames as bytes over TCP. `asked`: every request that came.
    """

    def __init__(self, units: Mapping[int, Words], *, tcp: bool = True) -> None:
        self.units = units
        self.asked: list[tuple[int, int, int, int]] = []
        self._tcp = tcp
        self._server = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def link(self) -> str:
        """The link URL."""
        scheme = "modbus-tcp" if self._tcp else "tcp"
        return f"{scheme}://127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def other_link(self) -> str:
        """The URL of whoever takes it for the other framing."""
        scheme = "tcp" if self._tcp else "modbus-tcp"
        return f"{scheme}://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for client in self._clients:
            client.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        framer = Framer(request_delimiter(tcp=self._tcp))
        try:
            while data := client.recv(4096):
                for event in framer.feed(data):
                    if isinstance(event, FrameFound):
                        client.sendall(self._answer(event.raw))
        except OSError:
            return

    def _answer(self, raw: bytes) -> bytes:
        request = parse_request(raw, tcp=self._tcp)
        if request is None or request.unit not in self.units:
            return b""
        self.asked.append((request.unit, request.function, request.address, request.count))
        words = self.units[request.unit]
        wanted = range(request.address, request.address + request.count)
        if all(at in words for at in wanted):
            return build_reply(request, [words[at] for at in wanted])
        return build_exception(request, 2)
