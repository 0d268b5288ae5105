"""What gap closing stands on: the journal, the meters in force, what meters said not to have."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

from headend.acquisition.meter_reader import MeterReader, MeterSession
from headend.acquisition.plans import ReadPlan, instants
from headend.acquisition.registry import Registry
from headend.bus import Priority
from headend.domain.clock import Clock, from_iso, iso
from headend.domain.due import day_bounds_ms, local_day
from headend.domain.lives import Place
from headend.domain.meter import Event, Meter
from headend.drivers import PointResult
from headend.drivers.dlt645_load import LoadGap, LoadReader, LoadWalk
from headend.journal import Journal, Owed
from headend.journal.history import owed_of_day
from headend.vee import RuleSet

GAP_EVENT = "history_gap"
GAP_KEPT_MS = 100 * 86_400_000  # what a gap further back is needed for no fill asks
OWED_MOST = 50_000


@runtime_checkable
class HistorySession(Protocol):
    """A session with a meter that keeps load records and frozen registers."""

    @property
    def load(self) -> LoadReader:
        """Its load records."""
        ...

    def load_walk(
        self, number: int, stretches: Sequence[tuple[int, int]], *, interval_s: int
    ) -> LoadWalk:
        """A way through them."""
        ...

    async def read_frozen(
        self,
        points: Sequence[str],
        *,
        nth: int = 1,
        kind: str = ...,
        priority: Priority = ...,
        deadline: float | None = None,
    ) -> list[PointResult]:
        """The registers of the `nth` last record of a kind, with its time."""
        ...


def history_of(session: MeterSession) -> HistorySession | None:
    """The session that can read the past, behind whatever looks on; None when there is none."""
    found: Any = session
    while not isinstance(found, HistorySession):
        found = getattr(found, "inner", None)
        if found is None:
            return None
    return found


class KnownGaps:
    """What meters have said that they do not have, from the journal's events."""

    def __init__(self, events: Iterable[Event], *, not_before_ms: int = 0) -> None:
        self._gaps: dict[tuple[str, str], list[tuple[int, int, frozenset[str], str]]] = {}
        for event in events:
            self.add(event, not_before_ms=not_before_ms)

    def add(self, event: Event, *, not_before_ms: int = 0) -> None:
        """One more; whatever else is no gap, and one that is over, is left out."""
        fields = event.fields
        if event.kind != GAP_EVENT:
            return
        to_ms = from_iso(str(fields["to"]))
        if to_ms >= not_before_ms:
            gap = (event.at_ms, to_ms, frozenset(fields["points"]), str(fields["reason"]))
            key = (str(fields["meter"]), str(fields["store"]))
            self._gaps.setdefault(key, []).append(gap)

    def of(self, meter: str, store: str, points: Iterable[str]) -> list[tuple[int, int]]:
        """Stretches in which a meter's store has none of these points."""
        wanted = set(points)
        return [
            (a, b) for a, b, having, _ in self._gaps.get((meter, store), ()) if wanted <= having
        ]

    def listed(self, meter: str, store: str, from_ms: int, to_ms: int) -> list[LoadGap]:
        """What a store has said not to have of a stretch, by time, cut to it."""
        found = {
            LoadGap(max(from_ms, a), min(to_ms, b), reason)
            for a, b, _having, reason in self._gaps.get((meter, store), ())
            if a < to_ms and from_ms < b
        }
        return sorted(found)

    def reason(self, meter: str, store: str, point: str, at_ms: int) -> str | None:
        """Why a store has no value of an instant; None when it never said so."""
        for start_ms, end_ms, having, reason in self._gaps.get((meter, store), ()):
            if start_ms <= at_ms < end_ms and point in having:
                return reason
        return None


@dataclass(slots=True)
class Progress:
    """What a fill has done so far. `known`: instants that the journal had already; `born`: readings
    that are new in it; `held`: those of them that are not believed."""

    steps: int = 0
    known: int = 0
    records: int = 0
    born: int = 0
    held: int = 0
    gaps: list[LoadGap] = field(default_factory=list)
    ended: str | None = None  # why it ended early


@dataclass(frozen=True, slots=True)
class Workbench:
    """What fills stand on."""

    journal: Journal
    registry: Registry
    plans: Mapping[str, ReadPlan]
    reader: MeterReader
    open_session: Callable[[Meter], MeterSession]
    zone: ZoneInfo
    clock: Clock
    rules: RuleSet
    gaps: KnownGaps

    def place(self, meter: Meter) -> Place:
        """Where a meter hangs, and what was declared of it."""
        return self.registry.lives.place(meter.service_point, meter.id)

    def hung_since_ms(self, meter: Meter) -> int:
        """Since when what a meter says is this service point's; 0: nobody says otherwise."""
        since = [at_ms for at_ms, name in self.place(meter).spans() if name == meter.id]
        return max(0, *since) if since else 0

    def tolerance_ms(self, meter: Meter, point: str, due_ms: int) -> int | None:
        """How far from a due instant a value may be; None when no line of the plan asks for it."""
        found = [
            entry.tolerance_ms
            for entry in self.plans[meter.plan].entries
            if point in entry.points
            and next(instants(entry, due_ms, due_ms + 1, self.zone), None) is not None
        ]
        return max(found, default=None)

    async def owed(self, meter: Meter, from_ms: int, to_ms: int) -> list[Owed]:
        """What is due in a stretch and has no reading."""
        owed: list[Owed] = []
        at_ms = from_ms
        while at_ms < to_ms:
            day = local_day(at_ms, self.zone)
            found = await self.journal.look(
                partial(
                    owed_of_day,
                    day=day,
                    until_ms=min(to_ms, self.clock.now_ms()),
                    most=OWED_MOST,
                    meters=(meter.id,),
                )
            )
            owed += [one for one in found.owed if one.key.due_ms >= from_ms]
            at_ms = day_bounds_ms(day, self.zone)[1]
        return owed

    async def name_gap(self, meter: Meter, store: str, points: Sequence[str], gap: LoadGap) -> None:
        """Write down what a meter does not have, so that nobody asks again."""
        event = Event(
            GAP_EVENT,
            gap.from_ms,
            {
                "meter": meter.id,
                "service_point": meter.service_point,
                "store": store,
                "points": list(points),
                "from": iso(gap.from_ms),
                "to": iso(gap.to_ms),
                "reason": gap.reason,
            },
        )
        await self.journal.append_event(event)
        self.gaps.add(event)
