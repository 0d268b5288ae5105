"""The district's meters on their lines in memory, and the configuration that reads them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headend.config import Config, load_config
from headend.domain.errors import PortGone
from simulators.energy import NWH_A_KWH, WRAP_NWH, Timeline
from simulators.faults import seeded
from simulators.meter645 import KeptSettings, LoadSettings, Meter645, MeterSettings
from simulators.meter645_clock import MeterClock
from simulators.meter645_store import Gap
from simulators.meterbus import MeterBus
from simulators.schedule import LoopSchedule, VirtualTimeLoop
from simulators.wire import WireLink
from tests.district.script import (
    DAY_MS,
    BadLine,
    ClockError,
    Script,
    Swap,
    bus_of,
    has_load,
    names,
)
from tests.district.truth import EXPORT, IMPORT, Household, Life, Place
from tests.soak.world import ZONE, Estate

NAME = "district"
BAUD = 2400
BORN_BEFORE_MS = 3 * DAY_MS
DAYS_KEPT = 62
LOAD = LoadSettings(mode=0b1000)  # class 4: the totals of what is billed
PLANS = (
    f"  daily: {{daily: {{at: '00:00', points: [{IMPORT}, {EXPORT}], from: freeze}}}}\n"
    f"  load: {{daily: {{at: '00:00', points: [{IMPORT}, {EXPORT}], from: freeze}}, "
    f"every: [{{minutes: 15, points: [{IMPORT}, {EXPORT}]}}], backfill: {{load_records: true}}}}"
)


@dataclass(slots=True)
class Hands:
    """What a fitter reads off both devices."""

    final: dict[str, str]
    initial: dict[str, str]
    address: str


class District(Estate):
    """So many meters on so many buses, as the script has them."""

    def __init__(self, loop: VirtualTimeLoop, script: Script) -> None:
        self.loop = loop
        self.baud = BAUD
        self.script = script
        self.places: dict[str, Place] = {}
        self.links: dict[str, WireLink] = {}
        self._stations: dict[str, MeterBus] = {}
        self._rng = seeded(script.seed + 1)
        size = script.size
        for number in range(size.buses):
            bus = f"bus-{number + 1:02d}"
            self._stations[bus] = MeterBus(seed=script.seed + number)
            self.links[bus] = WireLink(
                self._stations[bus],
                name=bus,
                schedule=LoopSchedule(loop),
                baud=BAUD,
                to_station=self._line(2 * number),
                to_master=self._line(2 * number + 1),
                gone=partial(PortGone, bus=bus),
            )
        for number, name in enumerate(names(size)):
            is_load = has_load(size, number)
            place = Place(f"SP-{name}", bus_of(size, number), has_load=is_load)
            self.places[place.name] = place
            born_ms = script.begin_ms - BORN_BEFORE_MS
            life = self._life(name, f"2026{number + 1:08d}", number, born_ms, script.clocks[name])
            self._hang(place, life)

    def _line(self, number: int) -> BadLine | None:
        script = self.script
        if not script.loss and not script.bit_errors:
            return None
        return BadLine(seeded(script.seed * 1000 + number), script.loss, script.bit_errors)

    def _life(self, name: str, address: str, number: int, born_ms: int, error: ClockError) -> Life:
        script = self.script
        initial = {p: self._rng.randrange(50_000 * NWH_A_KWH) for p in (IMPORT, EXPORT)}
        source = Household(script.seed * 10_000 + number, Timeline(born_ms), initial)
        if script.rollover is not None and script.rollover[0] == name:
            counted = source.nwh(IMPORT, script.rollover[1]) - initial[IMPORT]
            initial[IMPORT] = WRAP_NWH - counted
        clock = MeterClock(
            error_ms=error.error_ms, drift_ppm=error.drift_ppm, set_at_ms=script.begin_ms
        )
        gaps = tuple(Gap(s.from_ms, s.until_ms) for s in script.dark if s.name == name)
        settings = MeterSettings(
            address,
            reply_delay_ms=40 + number % 50,
            seed=number,
            kept=KeptSettings(days=DAYS_KEPT, gaps=gaps, load=LOAD),
        )
        device = Meter645(settings, source, clock=self.loop.now_ms, meter_clock=clock)
        if name in script.silent:
            device.add_fault_text("silent", 1)
        for span in script.dark:
            if span.name == name:
                device.add_fault_text(f"silent:from_ms={span.from_ms},until_ms={span.until_ms}", 1)
        return Life(name, device, source, clock, born_ms)

    def _hang(self, place: Place, life: Life) -> None:
        place.lives.append(life)
        self._stations[place.bus].add(life.device)

    def swap(self, swap: Swap) -> Hands:
        """Take one device down and hang another up, now."""
        place = self.places[f"SP-{swap.meter}"]
        old = place.lives[-1]
        now_ms = self.loop.now_ms()
        number = 900_000 + len(self.places) + int(swap.meter[2:])
        address = f"2026{number:08d}"
        new = self._life(swap.new_meter, address, number, now_ms, ClockError(3_000, 10))
        old.until_ms = now_ms
        self._stations[place.bus].remove(old.device)
        self._hang(place, new)
        final, initial = (
            {point: str(one.shown(point, now_ms)) for point in (IMPORT, EXPORT)}
            for one in (old, new)
        )
        return Hands(final, initial, address)

    def pull_out(self) -> None:
        """The head-end's machine is gone, and its ports with it."""
        for link in self.links.values():
            link.unplug()

    def plug_in(self) -> None:
        """It is back; what is away for a reason of its own is not."""
        outage = self.script.outage
        for name, link in self.links.items():
            if outage is None or outage.name != name or not outage.covers(self.loop.now_ms()):
                link.plug()

    def configure_all(self, folder: Path) -> Config:
        """The configuration of it all."""
        rows = ["id,service_point,bus,protocol,address,plan,area,capacity_kw"]
        for place in self.places.values():
            (life,) = place.lives
            plan = "load" if place.has_load else "daily"
            area = f"area-{int(place.bus[4:]) % 5}"
            address = life.device.address
            rows.append(
                f"{life.meter},{place.name},{place.bus},dlt645-2007,{address},{plan},{area},13.2"
            )
        (folder / "meters.csv").write_text("\n".join(rows) + "\n")
        lines = [
            f"headend: {{name: {NAME}, zone: {ZONE.key}, data: data,",
            "  reserve_mb: {telemetry: 1, billing: 1}}",
            "buses:",
            *(
                f'  {name}: {{link: "serial:///wire/{name}?baud={BAUD}&parity=even"}}'
                for name in self.links
            ),
            "meters: {file: meters.csv}",
            f"plans:\n{PLANS}",
            'feed: {broker: "mqtt://127.0.0.1:1883", consumers:',
            "  [{name: billing, classes: [billing, telemetry, events]}]}",
            f'billing: {{database: "sqlite:///billing.db", name: billing, headends: [{NAME}]}}',
        ]
        file = folder / "headend.yaml"
        file.write_text("\n".join(lines) + "\n")
        return load_config(file)
