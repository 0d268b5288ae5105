"""A head-end's stream as tests script it: births in, batches out."""

from dataclasses import dataclass, field
from decimal import Decimal

from billing_databases import TABLES, Database

from headend.billing.store import Arrived, Store
from headend.domain.clock import from_iso, iso
from headend.domain.identity import content_text, read_id
from headend.messages.records import (
    Batch,
    ConsumerStatus,
    EventRecord,
    ExchangeEvidence,
    ExpiredRecord,
    FreezeRecord,
    ReadRecord,
    Record,
    ResumeRefused,
    Status,
    encode,
    encode_batch,
    last_seq_of,
)

T0 = from_iso("2026-03-01T00:00:00+08:00")
MINUTE = 60_000
EPOCH_A = "aaaaaaaa-0000-4000-8000-000000000001"
EPOCH_B = "bbbbbbbb-0000-4000-8000-000000000002"
IMPORT = "active_import_total"
EXPORT = "active_export_total"


class FixedClock:
    """Stands still until it is moved."""

    def __init__(self, now_ms: int = T0) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def read(
    seq: int,
    value: str | None,
    *,
    meter: str = "M-1",
    service_point: str = "SP-1",
    point: str = IMPORT,
    time_ms: int = T0,
    revision: int = 1,
    status: str = "actual",
    verdict: str = "ok",
    flags: list[str] | None = None,
    multiplier: str = "1",
    side: str = "secondary",
    due_ms: int | None = None,
    evidence: str | None = None,
    unit: str = "kWh",
    interval_s: int | None = None,
) -> ReadRecord:
    content = content_text(
        None if value is None else Decimal(value), unit, status, verdict, Decimal(multiplier), side
    )
    return ReadRecord(
        seq=seq,
        read_id=read_id(meter, point, time_ms, interval_s, revision, content),
        meter=meter,
        service_point=service_point,
        point=point,
        obis="1.8.0",
        value=value,
        unit=unit,
        time=iso(time_ms),
        interval_s=interval_s,
        received_at=iso(time_ms + 1500),
        due_at=None if due_ms is None else iso(due_ms),
        status=status,
        verdict=verdict,
        flags=flags or [],
        revision=revision,
        late=False,
        multiplier=multiplier,
        side=side,
        evidence=evidence,
    )


def withdrawn(seq: int, *, revision: int = 2, **kwargs) -> ReadRecord:
    return read(seq, None, revision=revision, status="null", flags=["withdrawn"], **kwargs)


def freeze(seq: int, values: dict[str, str | None], **changes) -> FreezeRecord:
    fields = {
        "seq": seq,
        "meter": "M-1",
        "service_point": "SP-1",
        "values": values,
        "time": iso(T0),
        "received_at": iso(T0 + 1500),
        "due_at": iso(T0),
        "status": "actual",
        "verdict": "ok",
        "flags": [],
        "revision": 1,
        "late": False,
        "multiplier": "1",
        "side": "secondary",
        "evidence": None,
    }
    return FreezeRecord(**(fields | changes))


def exchange(
    seq: int,
    *,
    at_ms: int,
    old_final: dict[str, str],
    new_initial: dict[str, str],
    service_point: str = "SP-1",
    old_meter: str = "M-1",
    new_meter: str = "M-2",
) -> EventRecord:
    return EventRecord(
        seq=seq,
        event="meter_exchange",
        at=iso(at_ms),
        fields={
            "service_point": service_point,
            "old_meter": old_meter,
            "new_meter": new_meter,
            "new_address": "000000000002",
            "old_final": old_final,
            "new_initial": new_initial,
            "by": "fitter",
            "reason": "test",
        },
    )


def evidence(ref: str, *, reply: str | None = "68AA16") -> ExchangeEvidence:
    return ExchangeEvidence(
        ref=ref,
        request="FEFE68",
        reply=reply,
        bus="street-a",
        received_at=iso(T0),
        attempts=1,
        software="headend test",
    )


def batch(
    records: list[Record],
    *,
    headend: str = "he1",
    epoch: str = EPOCH_A,
    consumer: str = "billing",
    exchanges: list[ExchangeEvidence] | None = None,
) -> bytes:
    first = records[0]
    return encode_batch(
        Batch(
            headend=headend,
            epoch=epoch,
            consumer=consumer,
            first_seq=first.first_seq if isinstance(first, ExpiredRecord) else first.seq,
            last_seq=last_seq_of(records[-1]),
            records=records,
            exchanges=exchanges or [],
        )
    )


def reads(first_seq: int, last_seq: int, *, headend: str = "he1", epoch: str = EPOCH_A) -> bytes:
    """Reads with one value a minute whose value and time follow from the number."""
    return batch(
        [
            read(
                seq,
                f"{seq}.25",
                meter=f"{headend}-M-{seq % 3}",
                service_point=f"{headend}-SP-{seq % 3}",
                time_ms=T0 + seq * MINUTE,
                evidence=f"x{seq}",
            )
            for seq in range(first_seq, last_seq + 1)
        ],
        headend=headend,
        epoch=epoch,
        exchanges=[evidence(f"x{seq}") for seq in range(first_seq, last_seq + 1)],
    )


def resume_refused(from_seq: int, oldest_seq: int, *, epoch: str = EPOCH_A) -> bytes:
    return encode(
        ResumeRefused(
            headend="he1", epoch=epoch, consumer="billing", from_seq=from_seq, oldest_seq=oldest_seq
        )
    )


def status(
    *, headend: str = "he1", epoch: str = EPOCH_A, last_seq: int = 0, online: bool = True
) -> bytes:
    state = ConsumerStatus(last_seq=last_seq, oldest_seq=1, backlog=0)
    return encode(
        Status(
            headend=headend,
            online=online,
            version="test",
            epoch=epoch,
            configuration="",
            consumers={"billing": state},
        )
    )


@dataclass
class Inbox:
    """A store with short words for tests; what is held is read with eyes of the tests' own."""

    database: Database
    clock: FixedClock = field(default_factory=FixedClock)

    def __post_init__(self) -> None:
        self.store = Store(self.url, name="billing", clock=self.clock, software="test")

    @property
    def url(self) -> str:
        return self.database.url

    @staticmethod
    def arrived(payload: bytes, headend: str = "he1") -> Arrived:
        return Arrived(headend, f"meter/v1/{headend}/feed/billing", payload)

    def take(self, *payloads: bytes, headend: str = "he1"):
        return self.store.take([self.arrived(payload, headend) for payload in payloads])

    def rows(self, table: str, order: str = "1") -> list[tuple]:
        return self.database.rows(f"SELECT * FROM {table} ORDER BY {order}")

    def values(self) -> dict[tuple[str, str, int], tuple[str | None, int]]:
        """(meter, point, time) -> value, revision."""
        sql = "SELECT meter, point, time_ms, value, revision FROM reading"
        return {tuple(r[:3]): tuple(r[3:]) for r in self.database.rows(sql)}

    def through(self, epoch: str = EPOCH_A, headend: str = "he1") -> int:
        rows = {(r[0], r[1]): r[3] for r in self.rows("feed_cursor")}
        return rows[headend, epoch]

    def empty(self) -> None:
        """As if it had just been made."""
        self.database.execute(*(f"DELETE FROM {table}" for table in TABLES))
        self.store._pairs.clear()

    def close(self) -> None:
        self.store.close()
