"""The other end of the feed as tests script it: its log, and what comes back."""

import asyncio
from contextlib import asynccontextmanager

from billing_builder import EPOCH_A, batch, evidence, read, status

from headend.messages.pipe import Pipe
from headend.messages.records import Receipt, decode_from_consumer
from headend.messages.topics import Topics
from tests.support.mosquitto import Mosquitto


class ScriptedHeadend:
    """Publishes batches of its log, keeps what comes back. `obeys`: answers resumes by itself."""

    def __init__(self, pipe: Pipe, *, name: str = "he1", epoch: str = EPOCH_A) -> None:
        self.pipe = pipe
        self.name = name
        self.epoch = epoch
        self.topics = Topics(name)
        self.records: list = []
        self.receipts: list[tuple[str, int]] = []
        self.resumes: list[tuple[str, int]] = []
        self.obeys = True

    def append(self, count: int) -> None:
        for _ in range(count):
            seq = len(self.records) + 1
            time_ms = 1_772_294_400_000 + seq * 60_000
            self.records.append(
                read(
                    seq,
                    f"{seq}.25",
                    meter=f"{self.name}-M-{seq % 3}",
                    service_point=f"{self.name}-SP-{seq % 3}",
                    time_ms=time_ms,
                    evidence=f"x{seq}",
                )
            )

    def message(self, first: int, last: int) -> bytes:
        refs = [evidence(f"x{seq}") for seq in range(first, last + 1)]
        records = self.records[first - 1 : last]
        return batch(records, headend=self.name, epoch=self.epoch, exchanges=refs)

    async def announce(self, *, online: bool = True) -> None:
        payload = status(
            headend=self.name, epoch=self.epoch, last_seq=len(self.records), online=online
        )
        await self.pipe.publish(self.topics.status, payload, retain=True)

    async def send(self, first: int, last: int, *, size: int = 20) -> None:
        for start in range(first, last + 1, size):
            await self.raw(self.message(start, min(start + size - 1, last)))

    async def raw(self, payload: bytes, *, retain: bool = False) -> None:
        await self.pipe.publish(self.topics.feed("billing"), payload, retain=retain)

    async def listen(self) -> None:
        async for message in self.pipe:
            said = decode_from_consumer(message.payload)
            if isinstance(said, Receipt):
                self.receipts.append((said.epoch, said.through_seq))
            else:
                self.resumes.append((said.epoch, said.from_seq))
                if self.obeys and said.epoch == self.epoch and said.from_seq <= len(self.records):
                    await self.send(said.from_seq, len(self.records))

    @property
    def receipted(self) -> int:
        return max((n for epoch, n in self.receipts if epoch == self.epoch), default=0)


@asynccontextmanager
async def scripted_headend(broker: Mosquitto, *, name: str = "he1", epoch: str = EPOCH_A):
    """A connected head-end that listens, ended at the end of the block."""
    async with Pipe(broker.spec(), client_id=f"test-{name}-{epoch[:4]}") as pipe:
        await pipe.subscribe(Topics(name).receipts("billing"))
        headend = ScriptedHeadend(pipe, name=name, epoch=epoch)
        listening = asyncio.create_task(headend.listen())
        try:
            yield headend
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
