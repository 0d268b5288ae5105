"""One DL/T 645 meter, of either edition: points in, a value or a named error for each out.

Which reads give the points is planned (`protocols.dlt645.planner`): blocks where they cost less,
single items where the meter refuses a block. The freeze is read with its time before and after, the
clock across midnight.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

from headend.bus.request import BusPort, Priority
from headend.domain.clock import to_ms
from headend.domain.errors import BadReply, BusError, HeadendError
from headend.drivers.asking import Ask as PlannedAsk
from headend.drivers.dlt645_call import LiveCall
from headend.drivers.dlt645_item import Ask, ItemReader, Read, Trail
from headend.drivers.dlt645_load import LoadReader, LoadWalk, Stretch
from headend.drivers.dlt645_results import failed, no_frozen, refused_before, result_of
from headend.drivers.result import PointResult
from headend.drivers.second_read import CAPACITY_KW_DEFAULT
from headend.drivers.targets import (
    CLOCK,
    CLOCK_DIS,
    RAW_PREFIX,
    READ_TWICE_KINDS,
    Target,
)
from headend.drivers.unasked import end_of_the_talk, not_asked
from protocols.dlt645.catalogue import DAILY_FREEZE, FREEZE_TIME, freeze_time_di
from protocols.dlt645.fields import MeterTime
from protocols.dlt645.learned import NOTHING_LEARNED, Learned
from protocols.dlt645.master import reply_length
from protocols.dlt645.planner import Line, Plan, plan_frozen, plan_requests
from protocols.dlt645.planner import Read as PlannedRead
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.errors import LocalProtocolError, ProtocolError
from protocols.quantities import quantity

FREEZE_ROUNDS_MAX = 2
_PLANS_KEPT = 32


class Dlt645Session:
    """Reads one meter. Errors come per point, never raised. Kept between calls: the requests, and
    what the meter has shown of itself (`learned`).

    `capacity_kw` bounds what the meter's own registers can count (before transformers); None =
    100 kW. `wakeup`: FE bytes before each request; None = as the profile says. `timeout_s`: see
    `BusRequest`. `line`: what plans are made for.
    """

    def __init__(
        self,
        port: BusPort,
        address: str,
        *,
        zone: ZoneInfo,
        profile: MeterProfile = GENERIC,
        capacity_kw: Decimal | None = None,
        wakeup: int | None = None,
        attempts: int = 3,
        timeout_s: float | None = None,
        learned: Learned = NOTHING_LEARNED,
        line: Line | None = None,
    ) -> None:
        self._address = address
        self._zone = zone
        self._profile = profile
        self._attempts = attempts
        self._line = line
        self._port = port
        self._wakeup = profile.wakeup if wakeup is None else wakeup
        self._item = ItemReader(
            port,
            address,
            profile,
            wakeup=self._wakeup,
            capacity_kw=CAPACITY_KW_DEFAULT if capacity_kw is None else capacity_kw,
            timeout_s=timeout_s,
            learned=learned,
        )
        self._plans: dict[tuple[str, ...], tuple[Learned, Plan]] = {}
        self.load = LoadReader(self._item, address, profile, zone, attempts=attempts)

    @property
    def learned(self) -> Learned:
        """What the meter has shown of itself so far."""
        return self._item.learned

    async def read(
        self,
        points: Sequence[str],
        *,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
        attempts: int | None = None,
        twice: frozenset[str] | None = None,
    ) -> list[PointResult]:
        """Live values, one result a point, in order.

        `twice`: the points that are read twice where the link cannot see parity; None = registers
        and demands. `deadline` is on the monotonic clock: nothing is sent after it.
        """
        call = LiveCall(
            self._item,
            self._address,
            self._profile,
            self._zone,
            self.plan,
            Ask(priority, deadline, attempts or self._attempts),
            twice,
        )
        named = [p for p in points if p != CLOCK and not p.startswith(RAW_PREFIX)]
        if named:
            await call.named(named)
        for point in points:
            if point in call.results:
                continue
            await call.single(point)
        return [call.results[point] for point in points]

    async def read_frozen(
        self,
        points: Sequence[str],
        *,
        nth: int = 1,
        kind: str = DAILY_FREEZE,
        priority: Priority = Priority.DUE,
        deadline: float | None = None,
        attempts: int | None = None,
    ) -> list[PointResult]:
        """Values of the `nth` last record of a kind (1 = the newest), stamped with its own time.

        The record's time is read before and after the values: the meter counts them from the
        newest, so one that is made in between would move every number. Where parity is unseen each
        item is read until two replies in a row are equal.
        """
        ask = Ask(priority, deadline, attempts or self._attempts)
        if self._profile.edition == "dlt645-1997" or nth < 1:
            error = LocalProtocolError(
                f"a meter of {self._profile.edition} has no record number {nth}", code="no_freeze"
            )
            return [failed(point, error, []) for point in points]
        plan = plan_frozen(points, nth, self._profile, self.learned, kind=kind, line=self._line)
        for _ in range(FREEZE_ROUNDS_MAX):
            results = await self._read_freeze(points, plan, freeze_time_di(nth, kind), nth, ask)
            if results is not None:
                return results
        moved = BadReply(
            f"meter {self._address} made a new freeze each time one was read", code="freeze_moved"
        )
        return [failed(point, moved, []) for point in points]

    def load_walk(self, number: int, stretches: Sequence[Stretch], *, interval_s: int) -> LoadWalk:
        """A way through the load records of a class (1 to 6) in stretches of time, in order.

        `interval_s`: how far apart the meter makes them (`load.interval_s`).
        """
        return LoadWalk(self.load, number, stretches, interval_s=interval_s)

    def asks(
        self, points: Sequence[str], *, frozen: bool = False, parity_seen: bool | None = None
    ) -> list[PlannedAsk]:
        """What reading these points puts on the line, as far as is known now.

        `parity_seen` None: as the port says.
        """
        seen = self._port.parity_seen if parity_seen is None else parity_seen
        named = [p for p in points if p != CLOCK and not p.startswith(RAW_PREFIX)]
        plan = (
            plan_frozen(named, 1, self._profile, self.learned, line=self._line)
            if frozen
            else self.plan(named)
        )
        asks = []
        for read in plan.reads:
            twice = frozen and FREEZE_TIME not in read.places
            twice |= any(quantity(p).kind in READ_TWICE_KINDS for p in read.places if not frozen)
            asks.append(self._planned(read, 2 if twice and not seen else 1))
        for point in points:
            dis: tuple[str, ...] = CLOCK_DIS[self._profile.edition] if point == CLOCK else ()
            if point.startswith(RAW_PREFIX):
                dis = (point.removeprefix(RAW_PREFIX).upper(),)
            for di in dis:
                wakeup = (self._line or Line()).reply_wakeup
                read = PlannedRead(di, {}, 1, self._profile.wakeup + 16, reply_length(di) + wakeup)
                asks.append(self._planned(read, 1))
        return asks

    def _planned(self, read: PlannedRead, times: int) -> PlannedAsk:
        reply_wakeup = (self._line or Line()).reply_wakeup * read.frames
        return PlannedAsk(
            read.di,
            read.request_bytes + (self._wakeup - self._profile.wakeup) * read.frames,
            read.reply_bytes - reply_wakeup,
            reply_wakeup,
            times,
            quiet_s=self._profile.pause_ms / 1000,
            frames=read.frames,
        )

    # -- what a call needs

    def plan(self, points: Sequence[str], *, anew: bool = False) -> Plan:
        """The reads for these points. `anew`: what was refused as not there is asked for again."""
        learned = self.learned
        if anew:
            # A block that was refused stays one: its points are asked for singly.
            once = Learned(dict.fromkeys(learned.refusals, 1), learned.tariffs)
            return plan_requests(points, self._profile, once, line=self._line)
        key = tuple(points)
        known = self._plans.get(key)
        if known is not None and known[0] is learned:
            return known[1]
        plan = plan_requests(points, self._profile, learned, line=self._line)
        if len(self._plans) >= _PLANS_KEPT:
            self._plans.clear()
        self._plans[key] = (learned, plan)
        return plan

    # -- the daily freeze

    async def _read_freeze(
        self, points: Sequence[str], plan: Plan, time_di: str, nth: int, ask: Ask
    ) -> list[PointResult] | None:
        """One round; None when the meter made a new freeze meanwhile."""
        items = {read.di: read for read in plan.reads if FREEZE_TIME not in read.places}
        trails: dict[str, Trail] = {di: [] for di in items}
        reads: dict[str, Read | Exception] = {}
        time_trail: Trail = []
        try:
            time_ms = await self._freeze_time(time_di, nth, ask, time_trail) if items else 0
            gone: BusError | None = None
            for di in items:
                try:
                    if gone is not None:
                        raise not_asked(gone)
                    reads[di] = await self._item.believed(
                        di, ask, trails[di], twice=True, counts_up=False, named=di
                    )
                except (HeadendError, ProtocolError) as error:
                    reads[di] = error
                    gone = gone or end_of_the_talk(error)
            if any(isinstance(read, Read) for read in reads.values()):
                time_after_ms = await self._freeze_time(time_di, nth, ask, time_trail)
                if time_after_ms != time_ms:
                    return None
        except (HeadendError, ProtocolError) as error:
            reads = dict.fromkeys(items, error)
            time_ms = 0
        place = {point: read for read in items.values() for point in read.places}
        return [
            self._frozen_result(point, place.get(point), plan, reads, trails, time_ms)
            for point in points
        ]

    async def _freeze_time(self, di: str, nth: int, ask: Ask, trail: Trail) -> int:
        message = f"meter {self._address} has no daily freeze number {nth}"
        try:
            read = await self._item.ask_again(di, ask, trail)
        except BadReply as error:
            if error.code == "no_value":
                raise BadReply(message, code="no_freeze") from error
            raise
        when = read.members[0]
        if not isinstance(when, MeterTime):
            raise BadReply(message, code="no_freeze")
        return to_ms(when.at(self._zone))

    def _frozen_result(
        self,
        point: str,
        place: PlannedRead | None,
        plan: Plan,
        reads: Mapping[str, Read | Exception],
        trails: Mapping[str, Trail],
        time_ms: int,
    ) -> PointResult:
        if place is None:
            if point in plan.absent:
                return failed(point, refused_before(self._address, point), [])
            return failed(point, no_frozen(point), [])
        trail, read = trails[place.di], reads[place.di]
        if isinstance(read, Exception):
            return failed(point, read, trail)
        at = place.places[point]
        if at >= len(read.members):
            message = f"the freeze of meter {self._address} holds no {point}"
            return failed(point, BadReply(message, code="not_in_freeze"), trail)
        known = quantity(point)
        members = read.members[at : at + (2 if known.kind == "demand" else 1)]
        target = Target(point, place.di, None, known.unit, known.kind, frozen=True)
        return result_of(target, members, read, trail, time_ms, self._zone)
