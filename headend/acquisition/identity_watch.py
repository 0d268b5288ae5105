"""Asks meters which meter they are, and notices when another one answers than was declared.

Every meter that shows a number of its own is asked for it once a day, and at once when a register
of it is held. Another number than the known one, shown twice, holds everything that is billed of
that meter until a person says what it means: an exchange, or the same meter with another number.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from headend.acquisition.declarations import Declarations
from headend.acquisition.meter_reader import MeterSession
from headend.acquisition.rejudge import OTHER_METER
from headend.bus import Priority
from headend.domain.clock import Clock, iso
from headend.domain.errors import ConfigError, JournalError
from headend.domain.lives import CHANGED, FIRST, NUMBER, SAME
from headend.domain.meter import Event, Meter
from headend.drivers import Doubt

log = logging.getLogger(__name__)

STEP_S = 5.0
FIRST_AFTER_S = 120.0
EVERY_S = 86_400.0
CONFIRMED_MS = 7 * 86_400_000  # a number that stays is written down again after this
# Modbus devices say what they are by their own registers (`device_watch`).
DI_NUMBER = {"dlt645-2007": "di:04000402", "dlt645-1997": "di:C032"}
EMPTY = frozenset("0F")


class Reader(Protocol):
    """What of the meter reader is needed here."""

    doubts: dict[str, Doubt]

    def turn(self, meter: str) -> asyncio.Lock:
        """Held while a meter is read."""
        ...

    @property
    def held(self) -> frozenset[tuple[str, str]]:
        """Meter and point of every register that is held."""
        ...


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """How often, in seconds."""

    step_s: float = STEP_S
    first_after_s: float = FIRST_AFTER_S
    every_s: float = EVERY_S
    apart_s: float = 1.0


class IdentityWatch:
    """One supervised task: `run`."""

    def __init__(
        self,
        declarations: Declarations,
        reader: Reader,
        open_session: Callable[[Meter], MeterSession],
        *,
        clock: Clock,
        times: WatchTimes | None = None,
    ) -> None:
        self._declarations = declarations
        self._registry = declarations.registry
        self._reader = reader
        self._open_session = open_session
        self._clock = clock
        self._times = times or WatchTimes()
        self._next_s: dict[str, float] = {}
        self._seen_ms: dict[str, int] = {}  # when a meter last showed the number it is known by
        self._asked_about: set[str] = set()  # held meters that were asked already
        self.looks = 0

    async def run(self) -> None:
        """Ask whoever is next, for ever."""
        while True:
            self.take_doubts()
            for meter in self._due():
                await self.look(meter)
            await asyncio.sleep(self._times.step_s)

    def take_doubts(self) -> None:
        """Values of a meter are doubted as long as the journal says that it may be another."""
        for meter in self._registry.all():
            place = self._registry.lives.place(meter.service_point, meter.id)
            known = place.numbered(meter.id) if place.told else None
            if known is None or known.doubted_since_ms is None:
                self._reader.doubts.pop(meter.id, None)
                continue
            why = f"shows the number {known.found} and is known by {known.number}"
            self._reader.doubts[meter.id] = Doubt(OTHER_METER, why, holds=True)

    def _due(self) -> Iterable[Meter]:
        """Those whose time has come, one after the other, and those that are held, at once."""
        now_s = self._clock.monotonic()
        held = {meter for meter, _point in self._reader.held}
        self._asked_about &= held
        meters = [m for m in self._registry.all() if self._point_of(m) is not None]
        for number, meter in enumerate(meters):
            # One after the other: nobody waits for these.
            first_s = now_s + self._times.first_after_s + number * self._times.apart_s
            next_s = self._next_s.setdefault(meter.id, first_s)
            if meter.id in held and meter.id not in self._asked_about:
                self._asked_about.add(meter.id)
            elif next_s > now_s:
                continue
            self._next_s[meter.id] = now_s + self._times.every_s
            yield meter

    def _point_of(self, meter: Meter) -> str | None:
        return DI_NUMBER.get(meter.protocol)

    async def look(self, meter: Meter) -> None:
        """Ask one meter, and tell what it means when it is something else than before."""
        self.looks += 1
        shown = await self._ask(meter)
        if shown is None or not self._registry.holds(meter):
            return
        now_ms = self._clock.now_ms()
        place = self._registry.lives.place(meter.service_point, meter.id)
        known = place.numbered(meter.id)
        if known is None:
            await self._tell(meter, FIRST, shown, None, now_ms)
            return
        if shown == known.number:
            seen_ms = self._seen_ms[meter.id] = now_ms
            is_due = seen_ms - known.at_ms >= CONFIRMED_MS
            if known.doubted_since_ms is not None or is_due:
                await self._tell(meter, SAME, shown, known.number, now_ms)
            return
        if known.doubted_since_ms is not None and shown == known.found:
            return
        if await self._ask(meter) != shown:
            log.warning("meter=%s number=%s was shown once: not believed", meter.id, shown)
            return
        since_ms = max(known.at_ms, self._seen_ms.get(meter.id, 0))
        if known.doubted_since_ms is not None:
            since_ms = known.doubted_since_ms
        await self._tell(meter, CHANGED, shown, known.number, now_ms, since_ms)

    async def _ask(self, meter: Meter) -> str | None:
        """The number that a meter shows now; None when it does not."""
        point = self._point_of(meter)
        assert point is not None
        async with self._reader.turn(meter.id):
            session = self._open_session(meter)
            (result,) = await session.read([point], priority=Priority.EVENTS)
        if result.error is not None:
            return None
        shown = next((text for text in result.texts if text), None)
        if shown is None and result.value is not None:
            shown = format(result.value, "f")
        shown = (shown or "").strip()
        return None if not set(shown) - EMPTY or not shown.isprintable() else shown

    async def _tell(
        self,
        meter: Meter,
        state: str,
        number: str,
        before: str | None,
        now_ms: int,
        since_ms: int | None = None,
    ) -> None:
        fields: dict[str, object] = {
            "service_point": meter.service_point,
            "meter": meter.id,
            "number": number,
            "number_before": before,
            "state": state,
            "declared_at": iso(now_ms),
        }
        if since_ms is not None:
            fields["since"] = iso(since_ms)
            log.warning(
                "alarm=%s meter=%s number=%s known=%s since=%s",
                OTHER_METER, meter.id, number, before, fields["since"],
            )  # fmt: skip
        try:
            await self._declarations.saw_number(Event(NUMBER, now_ms, fields), meter)
        except (ConfigError, JournalError) as error:
            log.warning("meter=%s its number was not kept: %s", meter.id, error)
            return
        self.take_doubts()
