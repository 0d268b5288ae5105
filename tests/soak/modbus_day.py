"""A street of Modbus meters and inverters behind one gateway, a day of it in compressed time.

    python -m tests.soak.modbus_day --hours 24

An Eastron, a Chint behind current transformers, an ABB and a Carlo Gavazzi meter, a Huawei inverter
with its own grid meter and a SunSpec inverter, by Modbus TCP through one gateway over a line of
9600 Bd. The real daemon reads every counter each quarter of an hour; feed, broker and billing are
the real ones. On the way the Carlo Gavazzi meter's import and the SunSpec inverter's yield begin
anew at 0, and the ABB meter is exchanged.

Every reading is held against what the device could show at its instant, every difference of two
readings against what really flowed, and what billing counts across the whole time, exchange and
rollover included, against the truth, each within the resolution of the meter's register. Exit code
0 only when all of it is equal, nothing is negative and no quarter is missing.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from headend.billing.views import BillingView
from headend.commands import Parts
from headend.config import Config, load_config
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.clock import from_iso, iso
from headend.domain.meter import MeterExchange
from headend.journal import JournalReader
from headend.messages.records import ReadRecord
from headend.transport import make_link
from protocols.modbus.counting import counting_of
from simulators.energy import NWH_A_KWH, Channel, Timeline
from simulators.inverter import make_inverter
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.modbus_sunspec import sunspec_device
from simulators.modbus_tcp import ModbusTcpServer
from simulators.models import FACTS, Kind, make_modbus_inverter, make_modbus_meter
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.soak.world import EXPORT, IMPORT, ZONE, Mosquitto, billing_process, daemon, local_ms

NAME = "soak"
START = "2026-06-21T00:00:00"
QUARTER_MS = 900_000
BAUD = 9600
YIELD = "pv_yield_total"
GRID_IMPORT, GRID_EXPORT = "grid_active_import_total", "grid_active_export_total"
CHINT_CT = 30
SLACK_MS = 5000  # a reading's instant is the middle of its exchange
ROLLS = (("GAVAZZI", IMPORT), ("SUNSPEC", YIELD))
EXCHANGED, SUCCESSOR = "ABB", "ABB-2"
# The places of the street: what hangs there first, what it is, and its unit at the gateway.
PLACES = (
    ("EASTRON", "eastron_sdm630", "pv3", 1),
    ("CHINT", "chint_dtsu666", "pv3", 2),
    ("ABB", "abb_b23_b24", "pv3", 3),
    ("GAVAZZI", "carlo_gavazzi_em340", "three", 4),
    ("HUAWEI", "huawei_sun2000", None, 5),
    ("SUNSPEC", "sunspec", None, 6),
)
POINTS = {"HUAWEI": (YIELD, GRID_IMPORT, GRID_EXPORT), "SUNSPEC": (YIELD,)}
METER_POINTS = (IMPORT, EXPORT)


@dataclass(frozen=True, slots=True)
class Exchange:
    """When the meter was exchanged, and what both registers showed."""

    at_ms: int
    final: dict[str, Decimal]
    initial: dict[str, Decimal]


@dataclass
class Result:
    """What a run showed. `faults`: what is not as it was promised, in words."""

    hours: float
    readings: int = 0
    intervals: int = 0
    rollovers: Counter[str] = field(default_factory=Counter)
    flowed_kwh: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    cpu_s: float = 0.0

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "hours": self.hours,
            "readings": self.readings,
            "intervals": self.intervals,
            "rollovers": dict(self.rollovers),
            "flowed_kwh": self.flowed_kwh,
            "faults": self.faults,
            "cpu_s": round(self.cpu_s, 1),
        }


def points_of(meter: str) -> tuple[str, ...]:
    """The counters of a meter that are read."""
    return POINTS.get(meter, METER_POINTS)


def unit_of(meter: str) -> int:
    """At the gateway."""
    return next(unit for name, _, _, unit in PLACES if name == meter)


class Street:
    """The devices and their gateway, and what really was."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.timeline = Timeline(loop.now_ms())
        self.devices = {name: self._device(name, *told) for name, *told in PLACES}
        self.gateway = ModbusTcpServer(self.devices.values(), baud=BAUD)
        self.exchange: Exchange | None = None

    open_link = staticmethod(make_link)

    def _device(self, name: str, profile: str, kind: Kind | None, unit: int) -> ModbusDevice:
        told = ModbusSettings(unit, ct=Decimal(CHINT_CT if name == "CHINT" else 1), seed=unit)
        common = {"clock": self.loop.now_ms}
        if name == "SUNSPEC":
            source = make_inverter(
                timeline=self.timeline, seed=unit, initial_kwh=Decimal("4294967.296") - 2
            )
            return sunspec_device(told, source, **common)
        known = load_profile(profile, PACKAGED.parent)
        if kind is not None:
            # A counter of 31 bits in tenths of a kWh, 7 kWh before its end.
            end = {Channel("import", 1): 2**31 * NWH_A_KWH // 10 - 7 * NWH_A_KWH}
            initial = end if name == "GAVAZZI" else None
            return make_modbus_meter(
                kind, told, known, timeline=self.timeline, initial=initial, **common
            )
        grid = make_modbus_meter(
            "pv3", ModbusSettings(200, seed=99), load_profile("abb_b23_b24", PACKAGED.parent),
            timeline=self.timeline, **common,
        ).source  # fmt: skip
        return make_modbus_inverter(told, known, timeline=self.timeline, grid=grid, **common)

    def shown(self, meter: str, point: str, at_ms: int) -> Decimal:
        """What the register shows, as the primary quantity."""
        return self.devices[meter].truth(at_ms, (point,))[point].shown

    def exact(self, meter: str, point: str, at_ms: int) -> Decimal:
        """What has flowed, without an end."""
        return self.devices[meter].truth(at_ms, (point,))[point].exact

    def limit(self, meter: str, point: str) -> Decimal | None:
        """Where the register begins anew."""
        return counting_of(self.devices[meter].profile.registers[point]).limit

    def step(self, meter: str, point: str) -> Decimal:
        """The resolution of the register, of the primary side; of a float the coarsest here."""
        device = self.devices[meter]
        register = device.profile.registers[point]
        ratio = device.settings.ct if register.ratio is not None else 1
        step = counting_of(register).step
        if register.type == "float32":  # 24 bits hold a number up to 131,072 to a 128th
            step = max(step, Decimal(1) / 128)
        return ratio * step

    def swap(self) -> Exchange:
        """Another meter of the kind in the place of the ABB."""
        name, profile, kind, unit = next(one for one in PLACES if one[0] == EXCHANGED)
        at_ms = self.loop.now_ms()
        told = ModbusSettings(unit, seed=77)
        new = make_modbus_meter(
            kind, told, load_profile(profile, PACKAGED.parent),
            timeline=self.timeline, clock=self.loop.now_ms,
        )  # fmt: skip
        # It hangs where the old one hung: what flows is the same, what it shows is not.
        new.source.model.supply = self.devices[name].source.model.supply
        self.devices[SUCCESSOR] = new
        self.gateway.add(new)
        found = Exchange(
            at_ms,
            {point: self.shown(name, point, at_ms) for point in METER_POINTS},
            {point: self.shown(SUCCESSOR, point, at_ms) for point in METER_POINTS},
        )
        self.exchange = found
        return found

    def configure(self, folder: Path, broker: str) -> Config:
        """The configuration of it all."""
        rows = ["id,service_point,bus,protocol,unit,profile,ct,plan,capacity_kw"]
        for name, profile, kind, unit in PLACES:
            plan = {"HUAWEI": "h", "SUNSPEC": "s"}.get(name, "m")
            ct = CHINT_CT if name == "CHINT" else 1
            capacity = ct * FACTS[kind].capacity_kw if kind is not None else Decimal(50)
            rows.append(f"{name},SP-{name},gate,modbus-tcp,{unit},{profile},{ct},{plan},{capacity}")
        (folder / "meters.csv").write_text("\n".join(rows) + "\n")
        plans = {"m": METER_POINTS, "h": POINTS["HUAWEI"], "s": POINTS["SUNSPEC"]}
        consumer = "{name: billing, classes: [billing, telemetry, events]}"
        reserve = "reserve_mb: {telemetry: 1, billing: 1}"
        lines = [
            f"headend: {{name: {NAME}, zone: {ZONE.key}, data: data, {reserve}}}",
            f'buses: {{gate: {{link: "{self.gateway.where}"}}}}',
            "meters: {file: meters.csv}",
            "plans:",
            *(
                f"  {plan}: {{every: [{{minutes: 15, points: [{', '.join(points)}]}}]}}"
                for plan, points in plans.items()
            ),
            f'feed: {{broker: "{broker}", consumers: [{consumer}]}}',
            f'billing: {{database: "sqlite:///billing.db", name: billing, headends: [{NAME}]}}',
        ]
        file = folder / "headend.yaml"
        file.write_text("\n".join(lines) + "\n")
        return load_config(file)


async def live(loop: VirtualTimeLoop, folder: Path, broker: str, result: Result) -> None:
    """The virtual hours, and the audit."""
    street = Street(loop)
    await street.gateway.start()
    try:
        config = street.configure(folder, broker)
        start_ms = loop.now_ms()
        end_ms = start_ms + round(result.hours * 3_600_000)

        async def until(at_ms: int) -> None:
            await asyncio.sleep((at_ms - loop.now_ms()) / 1000)

        with billing_process(config.path, folder / "billing.log"):
            async with daemon(config, street) as parts:  # type: ignore[arg-type]
                await until((start_ms + end_ms) // 2 + QUARTER_MS // 3)
                await exchange(parts, street.swap())
                await until(end_ms + QUARTER_MS // 2)
                async with asyncio.timeout(600):
                    while parts.journal.cursors()["billing"].backlog:
                        await asyncio.sleep(1)
                restarts = [n for n, state in parts.supervisor.states.items() if state.restarts]
                result.faults += [f"{name} was restarted" for name in restarts]
        audit(street, config, start_ms, end_ms, result)
    finally:
        await street.gateway.close()


async def exchange(parts: Parts, told: Exchange) -> None:
    """It is declared when it has happened."""
    await parts.engine.exchange_meter(
        MeterExchange(
            at_ms=told.at_ms,
            service_point=f"SP-{EXCHANGED}",
            old_meter=EXCHANGED,
            new_meter=SUCCESSOR,
            new_address="",
            old_final=told.final,
            new_initial=told.initial,
            by="test",
            reason="the old one is checked",
        )
    )


def audit(street: Street, config: Config, start_ms: int, end_ms: int, result: Result) -> None:
    """Hold the journal and billing against what really was."""
    with JournalReader(config.journal_path) as reader:
        for meter in street.devices:
            for point in points_of(meter):
                rows = list(reader.readings(meter=meter, point=point))
                result.readings += len(rows)
                _series(street, meter, point, rows, result)
                _quarters(street, meter, point, rows, start_ms, end_ms, result)
    for name in ROLLS:
        if result.rollovers[":".join(name)] != 1:
            found = result.rollovers[":".join(name)]
            result.faults.append(f"{name}: begun anew {found} times, not once")
    with BillingView(f"sqlite:///{config.path.parent / 'billing.db'}") as view:
        for name, _, kind, _ in PLACES:
            for direction, point in (("import", IMPORT), ("export", EXPORT)):
                if kind is not None:
                    billed = view.service_point(f"SP-{name}").span(direction)
                    _billed(street, name, point, billed, result)


def _value(row: ReadRecord) -> Decimal:
    assert row.value is not None
    return Decimal(row.value) * Decimal(row.multiplier)


def _series(street: Street, meter: str, point: str, rows: list[ReadRecord], result: Result) -> None:
    """Every reading against its instant, every difference against what flowed."""
    step, limit = street.step(meter, point), street.limit(meter, point)
    before: tuple[int, Decimal] | None = None
    for row in rows:
        at_ms = from_iso(row.time)
        if row.value is None or row.verdict != "ok":
            result.faults.append(f"{meter} {point} {row.time}: {row.verdict} {row.flags}")
            continue
        value = _value(row)
        low = street.shown(meter, point, at_ms - SLACK_MS)
        high = street.shown(meter, point, at_ms + SLACK_MS)
        if low <= high and not low - step <= value <= high + step:
            result.faults.append(f"{meter} {point} {row.time}: {value} is not {low} to {high}")
        if before is not None:
            flowed = value - before[1]
            if flowed < 0 and limit is not None:
                flowed += limit
                result.rollovers[f"{meter}:{point}"] += 1
            most = street.exact(meter, point, at_ms + SLACK_MS) - street.exact(
                meter, point, before[0] - SLACK_MS
            )
            least = street.exact(meter, point, at_ms - SLACK_MS) - street.exact(
                meter, point, before[0] + SLACK_MS
            )
            if flowed < 0 or not least - step <= flowed <= most + step:
                result.faults.append(f"{meter} {point} {row.time}: {flowed} flowed, not {most}")
            result.intervals += 1
        before = (at_ms, value)


def _quarters(
    street: Street,
    meter: str,
    point: str,
    rows: list[ReadRecord],
    start_ms: int,
    end_ms: int,
    result: Result,
) -> None:
    """No quarter of an hour that the meter hung there is missing."""
    swapped = street.exchange
    assert swapped is not None
    from_ms = swapped.at_ms if meter == SUCCESSOR else start_ms
    until_ms = swapped.at_ms if meter == EXCHANGED else end_ms + 1
    due = set(range(-(-from_ms // QUARTER_MS) * QUARTER_MS, until_ms, QUARTER_MS))
    read = {from_iso(row.due_at) for row in rows if row.due_at is not None}
    due.discard(start_ms)  # the daemon came up with it
    if missing := sorted(due - read):
        result.faults.append(f"{meter} {point}: not read at {[iso(one) for one in missing][:4]}")
    hung = range(from_ms, until_ms + QUARTER_MS)
    strange = [row.time for row in rows if from_iso(row.time) not in hung]
    if strange:
        result.faults.append(f"{meter} {point}: read while it did not hang there, {strange[:4]}")


def _billed(street: Street, name: str, point: str, billed: object, result: Result) -> None:
    """What billing makes of the whole time against what flowed through the place."""
    energy, first_ms, last_ms = (getattr(billed, key) for key in ("energy", "from_ms", "to_ms"))
    if energy is None:
        result.faults.append(f"SP-{name} {point}: unknown, {getattr(billed, 'reason', '')}")
        return
    after = SUCCESSOR if name == EXCHANGED else name

    def flowed(slack_ms: int) -> Decimal:
        from_ms, to_ms = first_ms - slack_ms, last_ms + slack_ms
        if after == name:
            return street.exact(name, point, to_ms) - street.exact(name, point, from_ms)
        swapped = street.exchange
        assert swapped is not None
        return (street.exact(name, point, swapped.at_ms) - street.exact(name, point, from_ms)) + (
            street.exact(after, point, to_ms) - street.exact(after, point, swapped.at_ms)
        )

    slack = street.step(name, point) * (1 if after == name else 2)
    if energy < 0 or not flowed(-SLACK_MS) - slack <= energy <= flowed(SLACK_MS) + slack:
        result.faults.append(f"SP-{name} {point}: {energy} is billed, {flowed(0)} flowed")
    result.flowed_kwh[f"{name}:{point}"] = str(energy)


def run(hours: float, folder: Path, *, start: str = START) -> Result:
    """One run in a folder of its own."""
    result, cpu = Result(hours), time.process_time()
    with Mosquitto(folder / "broker") as broker:
        run_virtual(lambda loop: live(loop, folder, broker.url, result), start_ms=local_ms(start))
    result.cpu_s = time.process_time() - cpu
    return result


def main(say: Callable[[str], None] = print) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--start", default=START, help="local time it begins at")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="headend-modbus-day-") as folder:
        result = run(args.hours, Path(folder), start=args.start)
    say(json.dumps(result.to_json()))
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
