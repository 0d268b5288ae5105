"""Gap closing in the daemon: its task, what the local socket can ask of it, how far it is."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from headend.acquisition.backfill import LoadFill, classes_of
from headend.acquisition.backfill_freeze import FreezeFill
from headend.acquisition.gap_closer import Fill, GapCloser, is_daily
from headend.acquisition.workbench import GAP_EVENT, GAP_KEPT_MS, KnownGaps, Workbench, history_of
from headend.api import ApiError, Command
from headend.assembly import Assembly
from headend.domain.clock import from_iso, iso
from headend.domain.meter import Meter
from headend.drivers.dlt645_load import NOT_RECORDED, LoadGap
from headend.vee import RuleSet
from protocols.quantities import quantity

SCHEMA = "backfill/1"
SECONDS_DEFAULT, SECONDS_MAX = 10.0, 60.0
SPAN_MAX = timedelta(days=400)
CHUNK_MS = 7 * 86_400_000  # of one fill: what it knows of the past is kept in memory
GAPS_SHOWN_MAX = 1000


class BackfillDesk:
    """One for a daemon: `begin` once the time is known."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._bench: Workbench | None = None

    async def begin(self) -> GapCloser:
        """What has to be fetched afterwards can be worked out from now on."""
        parts = self._assembly.parts
        told = await parts.journal.meter_events((GAP_EVENT,))
        oldest_ms = parts.clock.now_ms() - GAP_KEPT_MS
        self._bench = Workbench(
            parts.journal,
            parts.registry,
            self._assembly.plans,
            parts.engine.reader,
            self._assembly.sessions,
            parts.config.zone,
            parts.clock,
            RuleSet(),
            KnownGaps(told, not_before_ms=oldest_ms),
        )
        parts.backfill = GapCloser(self._bench, is_busy=self._is_busy)
        return parts.backfill

    def _is_busy(self, bus: str) -> bool:
        poller = self._assembly.parts.engine.pollers.get(bus)
        return poller is not None and poller.is_busy

    def commands(self) -> dict[str, Command]:
        """`backfill`."""
        return {"backfill": self._fetch}

    async def _fetch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Go through a stretch of a meter's past for so many seconds, from `at` on.

        What was fetched is in the journal. `next`: where to go on; None when everything is told.
        `gaps`: all that is known to be missing of the stretch, whenever the meter said so.
        """
        if self._bench is None:
            msg = "the head-end does not know the time yet: nothing can be fetched for an instant"
            raise ApiError(msg, code="refused")
        bench = self._bench
        meter = self._meter(str(request["meter"]))
        from_ms, to_ms = self._span(request)
        points = self._points(meter, request.get("points"))
        again = bool(request.get("again", False))
        seconds = min(float(request.get("seconds", SECONDS_DEFAULT)), SECONDS_MAX)
        until = bench.clock.monotonic() + seconds
        total: dict[str, int] = dict.fromkeys(("steps", "known", "records", "born", "held"), 0)
        fresh: list[tuple[str, LoadGap]] = []
        stores: dict[str, None] = {}
        at_ms = max(from_ms, _instant(request, "at")) if "at" in request else from_ms
        while at_ms < to_ms:
            end_ms = min(to_ms, at_ms + CHUNK_MS)
            is_whole = True
            for fill, store in await self._fills(meter, points, at_ms, end_ms, again=again):
                while not fill.is_done and bench.clock.monotonic() < until:
                    await fill.step()
                for name in total:
                    total[name] += getattr(fill.progress, name)
                stores[store] = None
                fresh += [(store, gap) for gap in fill.progress.gaps if gap.reason == NOT_RECORDED]
                is_whole = is_whole and fill.is_done
            if not is_whole:
                break
            at_ms = end_ms
        known = [
            (store, gap)
            for store in stores
            for gap in bench.gaps.listed(meter.id, store, from_ms, to_ms)
        ]
        gaps = [_gap_json(store, gap) for store, gap in known + fresh]
        return {
            "schema": SCHEMA,
            "meter": meter.id,
            "points": list(points),
            "from": iso(from_ms),
            "to": iso(to_ms),
            **total,
            "gaps": gaps[:GAPS_SHOWN_MAX],
            "next": None if at_ms >= to_ms else iso(at_ms),
        }

    async def _fills(
        self, meter: Meter, points: Sequence[str], from_ms: int, to_ms: int, *, again: bool
    ) -> list[tuple[Fill, str]]:
        """Frozen registers for what is owed daily, then load records for all of the stretch."""
        bench = self._bench
        assert bench is not None
        owed = await bench.owed(meter, from_ms, to_ms)
        days = [
            one
            for one in owed
            if one.key.point in points and is_daily(bench, meter, one.key.point, one.key.due_ms)
        ]
        fills: list[tuple[Fill, str]] = []
        if days:
            freeze = FreezeFill(bench, meter, days)
            fills.append((freeze, freeze.kind))
        for number, own in classes_of(points).items():
            load = LoadFill(bench, meter, number, own, from_ms, to_ms, again=again)
            fills.append((load, load.store))
        return fills

    def _meter(self, name: str) -> Meter:
        assert self._bench is not None
        try:
            meter = self._bench.registry.get(name)
        except KeyError:
            msg = f"there is no meter {name} in force"
            raise ApiError(msg) from None
        session = history_of(self._bench.open_session(meter))
        if session is None or session.load.is_without:
            msg = f"meter {name} speaks {meter.protocol}: its past cannot be read"
            raise ApiError(f"{msg}; meters of dlt645-2007 keep one")
        return meter

    def _span(self, request: dict[str, Any]) -> tuple[int, int]:
        assert self._bench is not None
        from_ms, to_ms = _instant(request, "from"), _instant(request, "to")
        to_ms = min(to_ms, self._bench.clock.now_ms())
        if to_ms <= from_ms:
            msg = f"{iso(from_ms)} is not before {iso(to_ms)}: nothing of it has passed"
            raise ApiError(msg)
        if to_ms - from_ms > SPAN_MAX.total_seconds() * 1000:
            msg = f"at most {SPAN_MAX.days} days can be fetched in one go"
            raise ApiError(msg)
        return from_ms, to_ms

    def _points(self, meter: Meter, asked: Sequence[str] | None) -> tuple[str, ...]:
        """The points to fetch: those asked for, or all of the meter's plan that are kept."""
        assert self._bench is not None
        planned = [p for e in self._bench.plans[meter.plan].entries for p in e.points]
        wanted = list(dict.fromkeys(planned if asked is None else map(str, asked)))
        for point in wanted:
            try:
                quantity(point)
            except KeyError as error:
                raise ApiError(str(error.args[0])) from None
        kept = {point for points in classes_of(wanted).values() for point in points}
        left = [p for p in wanted if p not in kept and quantity(p).kind != "register"]
        if asked is not None and left:
            msg = f"{', '.join(left)}: neither load records nor frozen registers hold that"
            raise ApiError(msg)
        found = tuple(point for point in wanted if point not in left)
        if not found:
            msg = f"nothing of the plan of meter {meter.id} is kept by it"
            raise ApiError(msg)
        return found


def _instant(request: dict[str, Any], name: str) -> int:
    try:
        return from_iso(str(request[name]))
    except (KeyError, ValueError):
        msg = f"{name} is {request.get(name)!r}, not an instant such as 2026-01-31T00:00:00+08:00"
        raise ApiError(msg) from None


def _gap_json(store: str, gap: LoadGap) -> dict[str, str]:
    return {
        "store": store,
        "from": iso(gap.from_ms),
        "to": iso(gap.to_ms),
        "reason": gap.reason,
    }
