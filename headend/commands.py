"""The parts of a running daemon, and the commands its local socket takes for them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from headend import __version__
from headend.acquisition.clock_watch import ClockWatch
from headend.acquisition.device_watch import DeviceWatch
from headend.acquisition.engine import Engine
from headend.acquisition.gap_closer import GapCloser
from headend.acquisition.memory import MeterMemory
from headend.acquisition.meter_reader import Taken
from headend.acquisition.outage_watch import OutageWatch
from headend.acquisition.registry import Registry
from headend.acquisition.waiting_room import WaitingRoom
from headend.api import ApiError, Command
from headend.bus import Bus, Priority
from headend.config import Config
from headend.domain import alarms
from headend.domain.clock import Clock, from_iso, iso
from headend.domain.meter import Meter, MeterExchange
from headend.drivers import reading_json
from headend.feed.publisher import Publisher
from headend.journal import Journal, is_feed_consumer
from headend.machine_clock import OwnClock
from headend.supervisor import Supervisor
from headend.timeseries.service import TimeSeries
from protocols.quantities import quantity


class Reloads(Protocol):
    """What takes a new configuration."""

    @property
    def file(self) -> Path:
        """The file it reads."""
        ...

    @property
    def last(self) -> dict[str, Any] | None:
        """What came of the last reload (`reload/1`); None when there was none."""
        ...

    def reads(self, file: str) -> bool:
        """Whether it is this file that it reads."""
        ...

    async def ask(self) -> dict[str, Any]:
        """Reload now; what came of it."""
        ...


class Plans(Protocol):
    """Who decides which buses are polled, by whether their plans fit."""

    async def begin(self) -> None:
        """Decide, before anything is polled."""
        ...

    async def weigh(self, config: Config, meters: Sequence[Meter]) -> Callable[[], None]:
        """Look at other plans; calling what is returned puts them in force."""
        ...

    async def tell(self) -> bool:
        """Bring the alarms to what is so; whether they are."""
        ...

    async def run(self) -> None:
        """The task."""
        ...

    def report(self) -> list[dict[str, Any]]:
        """Every bus's plan, for `status`."""
        ...


@dataclass(slots=True)
class Parts:
    """What the running daemon consists of, for the commands of the local socket."""

    config: Config
    clock: Clock
    journal: Journal
    registry: Registry
    engine: Engine
    buses: dict[str, Bus]
    supervisor: Supervisor
    outages: OutageWatch
    memory: MeterMemory
    devices: DeviceWatch | None = None
    publisher: Publisher | None = None
    timeseries: TimeSeries | None = None
    reloads: Reloads | None = None
    plans: Plans | None = None
    clocks: ClockWatch | None = None
    backfill: GapCloser | None = None
    own_clock: OwnClock | None = None  # None: a clock that is simply right
    waiting: WaitingRoom | None = None  # where is read what cannot be dated


def commands(parts: Parts) -> dict[str, Command]:
    """Every command of the local socket, by its name."""

    async def read(request: dict[str, Any]) -> dict[str, Any]:
        timeout_s = float(request.get("timeout_s", 60))
        points = [str(point) for point in request["points"]]
        return {"results": await read_now(parts, str(request["meter"]), points, timeout_s)}

    async def meter_exchange(request: dict[str, Any]) -> dict[str, Any]:
        exchange = MeterExchange(
            at_ms=from_iso(str(request["at"])),
            service_point=str(request.get("service_point", "")),
            old_meter=str(request["old_meter"]),
            new_meter=str(request["new_meter"]),
            new_address=str(request.get("new_address") or ""),
            old_final={str(p): Decimal(v) for p, v in request["old_final"].items()},
            new_initial={str(p): Decimal(v) for p, v in request["new_initial"].items()},
            by=str(request["by"]),
            reason=str(request["reason"]),
        )
        new, touched = await parts.engine.exchange_meter(exchange)
        return {"meter": new.id, "service_point": new.service_point, "readings": touched}

    async def feed_replay(request: dict[str, Any]) -> dict[str, Any]:
        if parts.publisher is None:
            msg = "this head-end has no feed"
            raise ApiError(msg)
        consumer, from_seq = str(request["consumer"]), int(request["from_seq"])
        if not is_feed_consumer(consumer):
            msg = f"{consumer} is no consumer of the feed"
            raise ApiError(msg)
        await parts.journal.set_cursor(consumer, from_seq)
        parts.publisher.wake()
        return {"consumer": consumer, "from_seq": from_seq}

    async def timeseries_replay(request: dict[str, Any]) -> dict[str, Any]:
        name, from_seq = str(request["database"]), int(request["from_seq"])
        if parts.timeseries is None or name not in parts.timeseries.names:
            msg = f"no database is named {name}"
            raise ApiError(msg)
        return {"database": name, "from_seq": await parts.timeseries.replay(name, from_seq)}

    async def reload(request: dict[str, Any]) -> dict[str, Any]:
        if parts.reloads is None:
            msg = "the daemon is not up yet"
            raise ApiError(msg, code="refused")
        wanted = request.get("file")
        if wanted is not None and not parts.reloads.reads(str(wanted)):
            msg = f"the daemon runs with {parts.reloads.file}, which is another file"
            raise ApiError(msg)
        return await parts.reloads.ask()

    async def status(_request: dict[str, Any]) -> dict[str, Any]:
        told = await parts.journal.meter_events(alarms.KINDS)
        return _status(parts) | {"alarms": [alarms.alarm_json(a) for a in alarms.standing(told)]}

    return {
        "read": read,
        "meter_exchange": meter_exchange,
        "meter_forget": partial(_meter_forget, parts),
        "feed_replay": feed_replay,
        "timeseries_replay": timeseries_replay,
        "reload": reload,
        "status": status,
    }


async def _meter_forget(parts: Parts, request: dict[str, Any]) -> dict[str, Any]:
    meter = str(request["meter"])
    try:
        parts.registry.get(meter)
    except KeyError:
        msg = f"there is no meter {meter} in force"
        raise ApiError(msg) from None
    return {"meter": meter, "forgot": await parts.memory.forget(meter)}


async def read_now(
    parts: Parts, meter_id: str, points: Sequence[str], timeout_s: float
) -> list[dict[str, Any]]:
    """Read a meter before everything else on its bus; what `headend read --json` prints.

    Raises ApiError for a point or a meter that is not there.
    """
    for point in points:
        with contextlib.suppress(KeyError):
            quantity(point)
            continue
        msg = f"there is no point named {point}"
        raise ApiError(msg)
    if parts.waiting is not None and parts.own_clock is not None and parts.own_clock.distrusted:
        return await _read_undated(parts, parts.waiting, meter_id, points, timeout_s)
    try:
        taken = await parts.engine.read_now(meter_id, points, timeout_s=timeout_s)
    except KeyError:
        msg = f"there is no meter {meter_id} in force"
        raise ApiError(msg) from None
    return [_taken_json(meter_id, outcome) for outcome in taken]


async def _read_undated(
    parts: Parts, waiting: WaitingRoom, meter_id: str, points: Sequence[str], timeout_s: float
) -> list[dict[str, Any]]:
    """What a meter says while nobody knows what time it is: kept, and shown without a time."""
    try:
        meter = parts.registry.get(meter_id)
    except KeyError:
        msg = f"there is no meter {meter_id} in force"
        raise ApiError(msg) from None
    deadline = parts.clock.monotonic() + timeout_s
    results = await waiting.read(meter, points, priority=Priority.ON_DEMAND, deadline=deadline)
    if not results:
        msg = "the time has just become known: ask again"
        raise ApiError(msg)
    return [reading_json(meter_id, r) | {"time": None, "received_at": None} for r in results]


def _taken_json(meter_id: str, taken: Taken) -> dict[str, Any]:
    if taken.result is None:
        what = "was exchanged" if taken.reason == "exchanged" else "has changed"
        msg = f"meter {meter_id} {what} just now"
        raise ApiError(msg)
    shown = reading_json(meter_id, taken.result)
    if taken.reading is not None:
        shown["verdict"] = taken.reading.verdict.value
        shown["flags"] = list(taken.reading.flags)
    return shown


def _clock_status(parts: Parts) -> dict[str, Any]:
    """Whether the head-end's own clock is believed, and what waits until it is."""
    distrusted = None if parts.own_clock is None else parts.own_clock.distrusted
    shown: dict[str, Any] = {"trusted": distrusted is None}
    if distrusted is not None:
        shown["reason"] = distrusted
        shown["waiting"] = 0 if parts.waiting is None else parts.waiting.counts.kept
    return shown


def _status(parts: Parts) -> dict[str, Any]:
    tasks = {
        name: {"running": state.running, "restarts": state.restarts, "error": state.last_error}
        for name, state in parts.supervisor.states.items()
    }
    return {
        "headend": parts.config.headend.name,
        "version": __version__,
        "epoch": parts.journal.epoch,
        "at": iso(parts.clock.now_ms()),
        "clock": _clock_status(parts),
        "configuration": parts.config.hash,
        "reload": None if parts.reloads is None else parts.reloads.last,
        "tasks": tasks,
        "plans": [] if parts.plans is None else parts.plans.report(),
        "backfill": [] if parts.backfill is None else parts.backfill.report(),
        "feed": None if parts.publisher is None else parts.publisher.report(),
        "timeseries": [] if parts.timeseries is None else parts.timeseries.report(),
    }
