"""Messages received and not yet taken: bounded, whatever a broker sends."""

import asyncio
from collections import deque
from dataclasses import dataclass

WINDOW_FACTOR = 16  # mosquitto 2.0 goes beyond the window it is granted
BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One message received."""

    topic: str
    payload: bytes
    retain: bool


class Incoming:
    """A queue of messages with the numbers they are acknowledged by (None: QoS 0).

    What finds it full is dropped and counted. To the feed that is a hole, and every hole is asked
    for or sent again.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Message, int | None]] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: Message, mid: int | None, *, window: int) -> bool:
        """Keep a message; False when it was dropped. `window`: what the broker was granted."""
        most = window * (1 if mid is None else WINDOW_FACTOR)
        size = self._bytes + len(message.payload)
        if len(self._queue) >= most or size > BYTES_MAX:
            self.dropped += 1
            return False
        self._bytes = size
        self._queue.append((message, mid))
        self._arrived.set()
        return True

    def take(self) -> tuple[Message, int | None]:
        """The oldest message; there must be one."""
        message, mid = self._queue.popleft()
        self._bytes -= len(message.payload)
        return message, mid

    async def wait(self) -> None:
        """Until something comes, or `wake` is called."""
        self._arrived.clear()
        await self._arrived.wait()

    def wake(self) -> None:
        """Whoever waits looks again."""
        self._arrived.set()
