"""Which buses are polled: those whose plan can be kept, and those that are told to be all the same.

A bus whose plan falls behind would miss values every day, and nobody would know which before. So it
is not polled, unless `buses.<name>.allow_overload` says that it is to be; then it is told what it
will miss. Every other bus runs. Decided at the start and whenever the configuration changes, with
the delays that were measured; what is polled is not stopped because delays have grown meanwhile,
but it is told.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headend.acquisition.bus_plan import BusPlan, clock_text
from headend.commands import Parts
from headend.config import Config
from headend.domain import alarms
from headend.domain.errors import JournalError
from headend.domain.meter import Event, Meter
from headend.planning import bus_plans, measured_delays

log = logging.getLogger(__name__)

NOT_POLLED = "bus_not_polled"
OVERLOADED = "bus_overloaded"
LOOK_AGAIN_S = 6 * 3600.0  # delays change slowly
RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """A bus's plan and what follows. `is_allowed`: it may fall behind."""

    plan: BusPlan
    is_allowed: bool

    @property
    def is_held_back(self) -> bool:
        """It falls behind and is not polled."""
        return not (self.plan.load.fits or self.is_allowed)

    @property
    def misses_percent(self) -> int:
        """Of what is due when the line is fullest, about so much is late or missing."""
        load = self.plan.load
        fullest = 0.0 if load.fullest is None else load.fullest.share
        return 0 if load.fits else max(1, round(100 * (1 - 1 / max(load.share, fullest))))

    def arithmetic(self) -> str:
        """Why it does not fit."""
        load = self.plan.load
        text = f"{load.share * 100:.0f} % of the line's time is needed"
        if load.fullest is None:
            return text
        full = load.fullest
        return (
            f"from {clock_text(full.at_s)} on {full.needs_s:.1f} s of the line's time are due"
            f" within {full.within_s:.1f} s; on the whole {text}"
        )

    def remedies(self) -> str:
        """What would make it fit, each by itself."""
        words = {
            "every": "no interval below {}",
            "baud": "{} Bd",
            "parity_seen": "a link that sees parity",
            "meters": "at most {} meters",
        }
        return ", or ".join(words[what].format(value) for what, value in self.plan.advice)

    def to_json(self) -> dict[str, Any]:
        """For the local socket's `status`."""
        return {
            **self.plan.to_json(reads=False),
            "polled": not self.is_held_back,
            "misses_percent": self.misses_percent if self.is_allowed else None,
        }


async def weigh(config: Config, meters: Sequence[Meter]) -> dict[str, Weighed]:
    """Every bus with meters, by the delays measured so far. Others go on meanwhile."""
    return await asyncio.to_thread(_weigh, config, meters)


def _weigh(config: Config, meters: Sequence[Meter]) -> dict[str, Weighed]:
    measured = measured_delays(config, meters)
    return {
        plan.bus: Weighed(plan, config.buses[plan.bus].allow_overload)
        for plan in bus_plans(config, meters, measured)
    }


class PlanWatch:
    """One supervised task: `run`. `told`: alarms and clearings that the journal knows."""

    def __init__(self, parts: Parts, told: Sequence[Event]) -> None:
        self._parts = parts
        self.weighed: Mapping[str, Weighed] = {}
        self._standing = {
            str(alarm.fields.get("bus")): alarm.name
            for alarm in alarms.standing(told)
            if alarm.name in (NOT_POLLED, OVERLOADED)
        }

    async def begin(self) -> None:
        """Before anything is polled."""
        put_in_force = await self.weigh(self._parts.config, self._parts.registry.all())
        put_in_force()

    async def weigh(self, config: Config, meters: Sequence[Meter]) -> Callable[[], None]:
        """Look at other plans; calling what is returned puts them in force. Then `tell`."""
        weighed = await weigh(config, meters)

        def put_in_force() -> None:
            self.weighed = weighed
            self._parts.engine.hold_back([b for b, one in weighed.items() if one.is_held_back])

        return put_in_force

    async def run(self) -> None:
        """Tell what is so, and look at the measured delays again, for ever."""
        while True:
            is_told = await self.tell()
            await asyncio.sleep(LOOK_AGAIN_S if is_told else RETRY_S)
            if is_told:
                await self.look_again()

    async def look_again(self) -> None:
        """Delays have been measured: a bus that fits by now is polled; none is stopped."""
        parts, before = self._parts, self.weighed
        weighed = await weigh(parts.config, parts.registry.all())
        if before is not self.weighed:
            return  # the configuration was changed meanwhile
        self.weighed = weighed
        held = [bus for bus in parts.engine.held_back if bus in weighed]
        parts.engine.hold_back([bus for bus in held if weighed[bus].is_held_back])

    async def tell(self) -> bool:
        """Bring the alarms to what is so; whether they are."""
        wanted = {bus: self._alarm_of(bus, one) for bus, one in self.weighed.items()}
        try:
            for bus in sorted({*self._standing, *wanted}):
                await self._change(bus, wanted.get(bus))
        except JournalError as error:
            log.warning("alarms about plans not kept: %s", error)
            return False
        return True

    def _alarm_of(self, bus: str, one: Weighed) -> str | None:
        if one.plan.load.fits:
            return None
        return NOT_POLLED if bus in self._parts.engine.held_back else OVERLOADED

    async def _change(self, bus: str, wanted: str | None) -> None:
        name = self._standing.get(bus)
        if name == wanted:
            return
        journal, now_ms = self._parts.journal, self._parts.clock.now_ms()
        if name is not None:
            await journal.append_event(Event(alarms.CLEARED, now_ms, {"alarm": name, "bus": bus}))
            del self._standing[bus]
        if wanted is None:
            log.warning("bus=%s its plan fits", bus, extra={"about": (NOT_POLLED, bus)})
            return
        one = self.weighed[bus]
        fields = _not_polled(bus, one) if wanted == NOT_POLLED else _overloaded(bus, one)
        await journal.append_event(Event(alarms.RAISED, now_ms, fields))
        self._standing[bus] = wanted
        about = {"about": (wanted, bus)}
        log.warning("alarm=%s bus=%s: %s", wanted, bus, fields["message"], extra=about)

    def report(self) -> list[dict[str, Any]]:
        """Every bus's plan, for the local socket's `status`."""
        return [self.weighed[bus].to_json() for bus in sorted(self.weighed)]


def _not_polled(bus: str, one: Weighed) -> dict[str, Any]:
    message = (
        f"bus {bus} is not polled: its plan falls behind. {one.arithmetic()}. It would fit with"
        f" {one.remedies()}; buses.{bus}.allow_overload: true polls it all the same"
    )
    return {"alarm": NOT_POLLED, "bus": bus, "message": message, **_figures(one)}


def _overloaded(bus: str, one: Weighed) -> dict[str, Any]:
    message = (
        f"bus {bus} is polled though its plan falls behind: about {one.misses_percent} % of what is"
        f" due when the line is fullest will be late or missing. {one.arithmetic()}. It would fit"
        f" with {one.remedies()}"
    )
    return {"alarm": OVERLOADED, "bus": bus, "message": message, **_figures(one)}


def _figures(one: Weighed) -> dict[str, Any]:
    plan = one.plan.to_json(reads=False)
    shown = {key: plan[key] for key in ("meters", "share", "fullest", "advice")}
    return shown | {"misses_percent": one.misses_percent}
