"""Facts of a small head-end that is well, and of what may be wrong with it."""

from decimal import Decimal
from zoneinfo import ZoneInfo

from headend.bus import BOUNDS_S, BusState, BusStatistics, LatencyCounts
from headend.domain.due import DueState, local_day
from headend.domain.exchange import Outcome
from headend.status.facts import (
    BusFacts,
    DayFacts,
    Facts,
    FeedFacts,
    FromJournal,
    Good,
    JournalFacts,
    MeterFacts,
    MeterState,
    ProcessFacts,
    StreamFacts,
    TaskFacts,
)

ZONE = ZoneInfo("Asia/Shanghai")
NOW_MS = 1_782_885_600_000  # 2026-07-01T06:00:00Z
GIB = 1024**3


def a_meter(name: str = "M-1", *, bus: str = "b1", state=MeterState.ANSWERS) -> MeterFacts:
    good = Good(Decimal("12.34"), NOW_MS - 1000)
    return MeterFacts(
        name, f"SP-{name}", bus, "000000000001", "dlt645-2007", None, Decimal(1), state, 3, 0, 0.0,
        good, good, None,
    )  # fmt: skip


def a_bus(*, state: BusState = BusState.OPEN) -> BusFacts:
    counts = [0] * (len(BOUNDS_S) + 1)
    counts[3], counts[-1] = 9, 1
    statistics = BusStatistics(
        state=state, exchanges=10, outcomes={Outcome.REPLY: 10}, answered=10, failed=0,
        refused_full=0, deadline_passed=0, dead_waiting=0, stray_bytes=0,
        observer_failures=0, opens=1, queue_len=0, steps=10, busy_s=1.0, elapsed_s=10.0,
        dead_s=0.0, devices={}, latency=LatencyCounts(tuple(counts), 9.0),
    )  # fmt: skip
    return BusFacts(
        "b1", "/dev/x", statistics, 0.1, {MeterState.ANSWERS: 1}, 10, 0, 0, parity_seen=True
    )


def a_day(back: int, *, missing: int = 0, overdue: int = 0) -> DayFacts:
    counts = dict.fromkeys(DueState, 0) | {DueState.READ: 10, DueState.MISSING: missing}
    day = local_day(NOW_MS - back * 86_400_000, ZONE)
    return DayFacts(day, 20, counts, 10, overdue, {}, [], is_closed=False)


def facts(
    *, missing: int = 0, overdue: int = 0, connected: bool = True, waits_s: float = 0.0,
    free_bytes: int = 50 * GIB,
) -> Facts:  # fmt: skip
    """A head-end that is well but for what is asked for."""
    oldest_ms = NOW_MS - int(waits_s * 1000) if waits_s else None
    stream = StreamFacts("billing", 7, 6 if waits_s else 7, expired=False, oldest_ms=oldest_ms)
    return Facts(
        at_ms=NOW_MS,
        headend="he1",
        zone=ZONE.key,
        configuration="0" * 64,
        clock_away_s=0.0,
        process=ProcessFacts("0.1.0", 60.0, NOW_MS - 60_000, 10**8, 20, 1024, 1.0, 12, 0.0, 0.0),
        tasks=[TaskFacts("journal", running=True, restarts=0, error=None)],
        buses=[a_bus()],
        meters=[a_meter()],
        feed=FeedFacts("127.0.0.1:1883", connected, NOW_MS, None, 0, [stream], {}),
        databases=[],
        journal=JournalFacts("e" * 36, 5, 0, 0, 0, 10**6, free_bytes, 512 << 20, 128 << 20, 1.0),
        kept=FromJournal(today=a_day(0, missing=missing, overdue=overdue), yesterday=a_day(1)),
    )
