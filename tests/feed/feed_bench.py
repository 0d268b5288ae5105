"""What the feed's tests stand on: a journal in memory, a consumer that keeps records once."""

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from headend.domain.clock import SystemClock, iso
from headend.domain.meter import Event
from headend.feed.publisher import Publisher
from headend.feed.settings import FeedSettings
from headend.journal.errors import BeyondJournal
from headend.journal.model import CursorState, StreamSlice
from headend.messages.connection import Backoff
from headend.messages.pipe import Pipe, PipeLost
from headend.messages.records import (
    Batch,
    EventRecord,
    ExchangeEvidence,
    ExpiredRecord,
    ReadRecord,
    Receipt,
    Resume,
    ResumeRefused,
    decode_to_consumer,
    encode,
    last_seq_of,
)
from headend.messages.topics import Topics

HEADEND = "he1"
FAST = FeedSettings(
    records_max=20,
    window_batches=5,
    window_records=100,
    receipt_timeout_s=0.4,
    resume_gap_s=0.02,
    status_wait_s=0.05,
    status_gap_s=0.05,
    refused_first_s=0.1,
)
QUICK = Backoff(first_s=0.02, max_s=0.2)


def read_record(seq: int, value: str = "12345.67", **more) -> ReadRecord:
    """A read record as the journal makes them."""
    fields = {
        "seq": seq,
        "read_id": f"{seq:032x}",
        "meter": "M-0001",
        "service_point": "SP-1",
        "point": "active_import_total",
        "obis": "1.8.0",
        "value": value,
        "unit": "kWh",
        "time": "2026-11-25T00:00:00Z",
        "interval_s": None,
        "received_at": "2026-11-25T00:00:01.250Z",
        "due_at": "2026-11-25T00:00:00Z",
        "status": "actual",
        "verdict": "ok",
        "flags": [],
        "revision": 0,
        "late": False,
        "multiplier": "1",
        "side": "secondary",
        "evidence": f"x{seq}",
    }
    return ReadRecord(**{**fields, **more})


def evidence(ref: str) -> ExchangeEvidence:
    """The exchange behind a record."""
    return ExchangeEvidence(
        ref=ref,
        request="FEFEFEFE68010000000000681104333334333316",
        reply="680100000000006891083333343300000000B716",
        bus="street-a",
        received_at="2026-11-25T00:00:01.250Z",
        attempts=1,
        software="0.1.0",
    )


@dataclass
class FakeStream:
    """One consumer's records. Index 0 holds seq 1."""

    records: list = field(default_factory=list)
    receipted: int = 0
    oldest: int = 1


class FakeJournal:
    """The journal's seam to the feed, in memory; every call yields to the loop once."""

    def __init__(self, *consumers: str) -> None:
        self.epoch = str(uuid.uuid4())
        self.streams = {name: FakeStream() for name in consumers}
        self.events = []
        self.epochs = []
        self._callbacks = []
        self.receipts = []

    def write(self, count: int, consumer: str | None = None) -> None:
        """Append read records to one stream or to all."""
        for name, stream in self.streams.items():
            if consumer in (None, name):
                first = len(stream.records) + 1
                stream.records += [read_record(first + i) for i in range(count)]
        self._told()

    def on_append(self, callback) -> None:
        self._callbacks.append(callback)

    def _told(self) -> None:
        for callback in self._callbacks:
            callback()

    def cursors(self):
        return {
            name: CursorState(len(s.records) + 1, s.receipted, s.oldest)
            for name, s in self.streams.items()
        }

    async def read_stream(self, consumer, from_seq, *, records_max):
        await asyncio.sleep(0)
        stream = self.streams[consumer]
        records = []
        if from_seq < stream.oldest:
            records.append(ExpiredRecord(first_seq=from_seq, last_seq=stream.oldest - 1))
        start = max(from_seq, stream.oldest)
        records += stream.records[start - 1 : start - 1 + records_max - len(records)]
        exchanges = [evidence(r.evidence) for r in records if isinstance(r, ReadRecord)]
        return StreamSlice(from_seq, records, exchanges)

    async def receipt(self, consumer, through_seq):
        await asyncio.sleep(0)
        stream = self.streams[consumer]
        if through_seq > len(stream.records):
            raise BeyondJournal(
                "beyond", consumer=consumer, seq=through_seq, last_seq=len(stream.records)
            )
        self.receipts.append((consumer, through_seq))
        stream.receipted = max(stream.receipted, through_seq)

    async def set_cursor(self, consumer, from_seq):
        self.streams[consumer].receipted = from_seq - 1

    async def new_epoch(self, reason):
        await asyncio.sleep(0)
        self.epochs.append(reason)
        self.epoch = str(uuid.uuid4())
        for stream in self.streams.values():
            rest = stream.records[stream.receipted :]
            stream.records = [
                EventRecord(seq=i, event=r.event, at=r.at, fields=r.fields)
                if isinstance(r, EventRecord)
                else read_record(i, evidence=r.evidence, read_id=r.read_id)
                for i, r in enumerate(rest, 1)
            ]
            stream.receipted = 0
            stream.oldest = 1
        await self.append_event(Event("alarm", 0, {"alarm": "new_epoch", "reason": reason}))
        return self.epoch

    async def append_event(self, event):
        await asyncio.sleep(0)
        self.events.append(event)
        for stream in self.streams.values():
            seq = len(stream.records) + 1
            stream.records.append(
                EventRecord(
                    seq=seq, event=event.kind, at=iso(event.at_ms), fields=dict(event.fields)
                )
            )
        self._told()
        return 1

    def alarms(self) -> list[str]:
        """Names of the alarms raised so far."""
        return [e.fields["alarm"] for e in self.events if e.kind == "alarm"]


class Consumer:
    """Keeps each record once, in order, and receipts what it keeps, as billing does."""

    def __init__(self, spec, name: str = "billing", *, headend: str = HEADEND) -> None:
        self.spec = spec
        self.name = name
        self.topics = Topics(headend)
        self.through: dict[str, int] = {}  # epoch -> durable up to
        self.kept: dict[str, list] = {}  # epoch -> records, in order
        self.batches: list[Batch] = []
        self.refused: list[ResumeRefused] = []
        self.doubles = 0
        self.holes = 0
        self.silent = False
        self.online = asyncio.Event()
        self.pipe: Pipe | None = None

    async def run(self) -> None:
        while True:
            try:
                async with Pipe(self.spec, client_id=f"test-{self.name}") as pipe:
                    await pipe.subscribe(self.topics.feed(self.name))
                    self.pipe = pipe
                    for epoch in self.through:
                        await self.resume(epoch)
                    self.online.set()
                    async for message in pipe:
                        await self.take(message.payload)
            except PipeLost:
                self.pipe = None
                self.online.clear()
                await asyncio.sleep(0.02)

    async def take(self, payload: bytes) -> None:
        message = decode_to_consumer(payload)
        if isinstance(message, ResumeRefused):
            self.refused.append(message)
            return
        self.batches.append(message)
        if self.silent:
            return
        through = self.through.setdefault(message.epoch, 0)
        if message.first_seq > through + 1:
            self.holes += 1
            await self.resume(message.epoch)
            return
        kept = self.kept.setdefault(message.epoch, [])
        for record in message.records:
            if last_seq_of(record) > through:
                kept.append(record)
            else:
                self.doubles += 1
        self.through[message.epoch] = max(through, message.last_seq)
        await self.say(Receipt(epoch=message.epoch, through_seq=message.last_seq))

    async def resume(self, epoch: str, from_seq: int | None = None) -> None:
        seq = self.through[epoch] + 1 if from_seq is None else from_seq
        await self.say(Resume(epoch=epoch, from_seq=seq))

    async def say(self, message) -> None:
        await self.pipe.publish(self.topics.receipts(self.name), encode(message))

    def ids(self) -> list[str]:
        return [r.read_id for k in self.kept.values() for r in k if isinstance(r, ReadRecord)]


def make_publisher(journal, spec, settings: FeedSettings = FAST, **more) -> Publisher:
    return Publisher(
        journal,
        spec,
        settings,
        headend=HEADEND,
        clock=SystemClock(),
        version="0.1.0",
        configuration_hash="c0ffee",
        backoff=QUICK,
        **more,
    )


@asynccontextmanager
async def running(*runs):
    """Run these until the block ends; an error of any of them fails the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run.run()) for run in runs]
        yield
        for task in tasks:
            task.cancel()
