"""Billing's inbox in a file, taking messages, and what its receipts promise."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from unittest import mock

from headend.billing import sqlite as billing_sqlite
from headend.billing.store import Arrived, Result, Store
from headend.domain.clock import from_iso, iso
from headend.domain.identity import content_text, read_id
from headend.messages.records import (
    Batch,
    EventRecord,
    ExchangeEvidence,
    ReadRecord,
    Record,
    ResumeRefused,
    encode,
    encode_batch,
)
from tests.powercut.journal_check import Broken
from tests.powercut.journal_story import HandClock, State, state_of
from tests.powercut.vfs import Recorder

FILE = "billing.db"
T0 = from_iso("2026-03-01T00:00:00Z")
EPOCH_A = "aaaaaaaa-0000-4000-8000-000000000001"
EPOCH_B = "bbbbbbbb-0000-4000-8000-000000000002"
POINT = "active_import_total"


def read(seq: int, value: str, *, n: int | None = None, revision: int = 1) -> ReadRecord:
    """One value a minute; `n` says whose, the number of the record unless told otherwise."""
    n = seq if n is None else n
    meter, time_ms = f"M-{n % 3}", T0 + n * 60_000
    content = content_text(Decimal(value), "kWh", "actual", "ok", Decimal(1), "secondary")
    return ReadRecord(
        seq=seq,
        read_id=read_id(meter, POINT, time_ms, None, revision, content),
        meter=meter,
        service_point=f"SP-{n % 3}",
        point=POINT,
        obis="1.8.0",
        value=value,
        unit="kWh",
        time=iso(time_ms),
        interval_s=None,
        received_at=iso(time_ms + 1500),
        due_at=None,
        status="actual",
        verdict="ok",
        flags=[],
        revision=revision,
        late=False,
        multiplier="1",
        side="secondary",
        evidence=f"x{seq}",
    )


def message(records: list[Record], *, epoch: str = EPOCH_A) -> bytes:
    """A batch of consecutive records."""
    return encode_batch(
        Batch(
            headend="he1",
            epoch=epoch,
            consumer="billing",
            first_seq=records[0].seq,
            last_seq=records[-1].seq,
            records=records,
            exchanges=[
                ExchangeEvidence(
                    ref=record.evidence,
                    request="FEFE68",
                    reply=f"68{record.seq:04X}16",
                    bus="street-a",
                    received_at=iso(T0),
                    attempts=1,
                    software="0.1.0",
                )
                for record in records
                if isinstance(record, ReadRecord) and record.evidence is not None
            ],
        )
    )


def reads(first: int, last: int, *, epoch: str = EPOCH_A) -> bytes:
    """Records whose values follow from their numbers."""
    return message([read(seq, f"{seq}.25") for seq in range(first, last + 1)], epoch=epoch)


def groups() -> list[list[bytes]]:
    """What comes, in groups of one transaction each."""
    alarm = EventRecord(seq=31, event="alarm", at=iso(T0), fields={"alarm": "bus_dead"})
    gone = ResumeRefused(
        headend="he1", epoch=EPOCH_A, consumer="billing", from_seq=61, oldest_seq=66
    )
    return [
        [reads(1, 10)],
        [reads(11, 20), reads(21, 30)],
        [reads(11, 20), message([alarm])],  # known already, and an event
        [message([read(32, "7.00", n=2, revision=2), read(33, "8.50", n=3, revision=2)])],
        [b"not json", reads(34, 40)],
        [reads(45, 50)],  # behind a hole
        [reads(41, 60)],
        [encode(gone), reads(66, 70)],
        [reads(1, 12, epoch=EPOCH_B)],
        *[[reads(13 + 5 * n, 17 + 5 * n, epoch=EPOCH_B)] for n in range(8)],
    ]


def open_store(folder: Path, clock: HandClock | None = None) -> Store:
    """As the consumer process does."""
    url = f"sqlite:///{folder / FILE}"
    return Store(url, name="billing", clock=clock or HandClock(T0), software="0.1.0")


def take(store: Store, payloads: list[bytes]) -> Result:
    """One transaction."""
    return store.take([Arrived("he1", "meter/v1/he1/feed/billing", p) for p in payloads])


@dataclass
class BillingTrail:
    """States of the file after each call, and how far the log was when a call returned."""

    recorder: Recorder
    states: list[tuple[int, State | None]] = field(default_factory=lambda: [(0, None)])
    receipts: list[dict[tuple[str, str], int]] = field(default_factory=lambda: [{}])

    def answered(self, folder: Path, receipts: dict[tuple[str, str], int]) -> None:
        """A call has returned: its receipts may go out now."""
        self.states.append((len(self.recorder.ops), state_in(folder)))
        self.receipts.append({**self.receipts[-1], **receipts})

    def allowed(self, at: int) -> tuple[int, int]:
        """The first and the last state that a file cut at a step may be in."""
        low = max(n for n, (ended, _state) in enumerate(self.states) if ended <= at)
        return low, min(low + 1, len(self.states) - 1)


def state_in(folder: Path) -> State:
    """Every row of the file in a folder."""
    uri = f"{(folder / FILE).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return state_of(connection)


def live(
    folder: Path, recorder: Recorder, *, between: Callable[[Store], None] = lambda _store: None
) -> BillingTrail:
    """Take every group under the recorder; the process starts anew once in between."""
    trail = BillingTrail(recorder)
    store = open_store(folder)
    trail.answered(folder, {})
    for n, payloads in enumerate(groups()):
        if n == 6:
            store.close()
            store = open_store(folder)
        trail.answered(folder, take(store, payloads).receipts)
        between(store)
    store.close()
    return trail


def with_pragmas(*pragmas: str):
    """The writer's session is set up otherwise."""
    return mock.patch.object(billing_sqlite, "_WRITER", (*billing_sqlite._WRITER, *pragmas))


def check_billing(folder: Path, trail: BillingTrail, at: int) -> None:
    """Open billing's file as it was left and look. `Broken`."""
    low, high = trail.allowed(at)
    store = open_store(folder)
    try:
        found = state_in(folder)
        states = [state for _at, state in trail.states[low : high + 1]]
        is_fresh = not any(row.startswith(("reading(", "feed_cursor(")) for row in found)
        if found not in states and not (low == 0 and is_fresh):
            known = trail.states[low][1] or frozenset()
            lost = sorted(known - found)
            raise Broken(f"state {low} or {high} was promised; missing {len(lost)}: {lost[:3]}")
        _receipts_hold(folder, trail.receipts[low])
        _goes_on(store)
    finally:
        store.close()


def _receipts_hold(folder: Path, receipts: dict[tuple[str, str], int]) -> None:
    """Whatever the head-end was told to be durable is found by its id."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        query = "SELECT read_id FROM reading UNION SELECT read_id FROM reading_history"
        ids = {read_id for (read_id,) in connection.execute(query)}
    for (_headend, epoch), through in receipts.items():
        for n in range(1, through + 1):
            is_value = epoch == EPOCH_B or n not in {31, 32, 33, *range(61, 66)}
            if is_value and read(n, f"{n}.25").read_id not in ids:
                raise Broken(f"number {n} of epoch {epoch} was receipted and is not there")


def _goes_on(store: Store) -> None:
    latest = store.latest().get("he1")
    epoch, through = latest or (EPOCH_A, 0)
    result = take(store, [reads(through + 1, through + 3, epoch=epoch)])
    if result.receipts != {("he1", epoch): through + 3}:
        raise Broken(f"behind {through} the receipts were {result.receipts}")
