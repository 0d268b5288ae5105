"""Six DL/T 645 and six Modbus meters on one pair at 9600 Bd, one silent, one noisy.

What the others keep, derived from the bus's rules. W is the time watched, C the length of a round
of all twelve when all are well (from a run of its own), S the most that one unanswered attempt
takes of the line's time: request, time-out, and the silence behind it (Modbus: until twice the
time-out after the request).

- The silent meter takes at most D: `dead_after` requests of `attempts` tries until it counts as
  dead, (dead_after x attempts x S), then `dead_share` of W, with the credit of CREDIT_MAX_S and one
  probe S on top.
- A burst of junk takes at most S + its own time + a gap + Tb: it can spoil the one attempt it falls
  into, which then ends as unanswered at the latest, and it can hold up the next request. (A head
  that it fakes inside a reply is given up after Tb.) The noisy meter's own junk, glued to its
  replies, takes no attempt: only its bytes and a gap each.
- All other time goes to rounds of the eleven living meters, none of which is longer than C, since
  requests of one priority are served in the order in which they came.

So each of the ten others has at least (W - D - N) / C reads, N being the counted bursts and noisy
replies at the prices above, less the one round that is under way at the end. With this noise (one
burst for every 40 transmissions, every reply of the noisy meter framed by junk) that is more than
three quarters of the rate of a line where all are well; both are asserted.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from headend.bus import Bus, BusSettings
from headend.bus.devices import CREDIT_MAX_S
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.exchange import Exchange, Outcome
from headend.drivers import Dlt645Session, ModbusSession, PointResult
from simulators.energy import Timeline
from simulators.meter645 import Meter645, MeterSettings
from simulators.meterbus import MeterBus
from simulators.modbus_line import Babbler, ModbusBus, SharedLine
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.models import make_meter, make_modbus_meter
from simulators.schedule import LoopSchedule, VirtualTimeLoop, run_virtual
from simulators.wire import WireLink, char_seconds

BAUD = 9600
EACH = 6
WATCHED_S = 900.0
SETTINGS = BusSettings()
ATTEMPTS = 3
POINTS = ("active_import_total", "active_export_total")
ZONE = ZoneInfo("Asia/Shanghai")
PROFILE = load_profile("acrel_adl400", PACKAGED.parent)
CHAR_S = char_seconds(BAUD)
BURST_BYTES, BURST_SHARE = 12, 0.025
GLUED = "noise:before=2,behind=6"  # of a Modbus meter; a 645 meter's goes before its reply
GLUED_645 = "noise:bytes=8"
GLUED_BYTES = 8
_ANSWERS = {Outcome.REPLY, Outcome.REFUSED}


@dataclass
class Run:
    """What one run counted."""

    reads: Counter[str] = field(default_factory=Counter)
    failed_reads: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, PointResult]] = field(default_factory=list)
    attempts: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    bursts: int = 0
    dead_s: float = 0.0
    collisions: int = 0

    def spoilt(self, but: str) -> int:
        """Attempts without an answer, of all devices but one."""
        return sum(
            count
            for (device, outcome), count in self.attempts.items()
            if device != but and outcome not in _ANSWERS
        )

    def answers(self, device: str) -> int:
        return sum(c for (name, o), c in self.attempts.items() if name == device and o in _ANSWERS)


def name_of(device: Meter645 | ModbusDevice) -> str:
    """As the bus calls it."""
    return device.address if isinstance(device, Meter645) else f"unit {device.address}"


class Pair:
    """The twelve on their two wires. Registers stand still, and no two are alike."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        timeline = Timeline(loop.now_ms(), speed=0)
        common = {"timeline": timeline, "clock": loop.now_ms}
        self.meters = [
            make_meter("pv", MeterSettings(f"2026000000{n:02d}", 60, seed=n), **common)
            for n in range(1, EACH + 1)
        ]
        self.devices = [
            make_modbus_meter("pv3", ModbusSettings(n, 60, seed=100 + n), PROFILE, **common)
            for n in range(1, EACH + 1)
        ]
        self.all = [*self.meters, *self.devices]

    def session(self, bus: Bus, device: Meter645 | ModbusDevice) -> Dlt645Session | ModbusSession:
        if isinstance(device, Meter645):
            return Dlt645Session(bus, device.address, zone=ZONE, attempts=ATTEMPTS)
        unit = device.settings.unit
        return ModbusSession(bus, unit, PROFILE, tcp=False, clock=self.loop, attempts=ATTEMPTS)

    async def poll(self, bus: Bus, device: Meter645 | ModbusDevice, run: Run) -> None:
        """One read after the other; after a failure a second's pause."""
        session, name = self.session(bus, device), name_of(device)
        truth = {point: r.shown for point, r in device.truth(self.loop.now_ms(), POINTS).items()}
        assert len(truth) == len(POINTS)
        while True:
            for point in POINTS:
                (result,) = await session.read([point])
                if result.error is None:
                    run.reads[name] += 1
                    if result.value != truth[point]:
                        run.wrong.append((name, result))
                else:
                    run.failed_reads[name] += 1
                    await asyncio.sleep(1.0)


async def watch(loop: VirtualTimeLoop, silent: str | None, noisy: str | None) -> Run:
    pair, run = Pair(loop), Run()
    babbler = Babbler(probability=BURST_SHARE, bytes_max=BURST_BYTES, delay_max_ms=300, seed=5)
    stations = [MeterBus(pair.meters), ModbusBus(pair.devices)]
    for device in pair.all:
        if name_of(device) == silent:
            device.add_fault_text("silent", 1)
        elif name_of(device) == noisy:
            device.add_fault_text(GLUED if isinstance(device, ModbusDevice) else GLUED_645, 1)
            stations.append(babbler)
    link = WireLink(
        SharedLine(*stations),
        schedule=LoopSchedule(loop),
        baud=BAUD,
        chunk=8,
        overhear=True,
    )

    def observe(exchange: Exchange) -> None:
        run.attempts[exchange.device, exchange.outcome] += 1

    bus = Bus("pair", link, SETTINGS, clock=loop, observer=observe)
    tasks = [asyncio.ensure_future(bus.run())]
    tasks += [asyncio.ensure_future(pair.poll(bus, device, run)) for device in pair.all]
    await asyncio.sleep(WATCHED_S)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    run.dead_s = bus.statistics().dead_s
    run.bursts = babbler.spoken
    run.collisions = link.line.collisions
    return run


def unanswered_s(*, modbus: bool) -> float:
    """S: the most that an attempt without an answer takes of the line's time."""
    asked, reply = (8, 9) if modbus else (16 + 4, 20)
    own_s = (SETTINGS.reply_timeout_ms + SETTINGS.margin_ms) / 1000 + (reply + 4) * CHAR_S
    silence_s = SETTINGS.silence_after_timeout_ms / 1000
    return asked * CHAR_S + own_s + max(silence_s, own_s if modbus else 0.0)


def silent_costs_s(*, modbus: bool) -> float:
    """D."""
    one_s = unanswered_s(modbus=modbus)
    until_dead_s = SETTINGS.dead_after * ATTEMPTS * one_s
    return until_dead_s + SETTINGS.dead_share * WATCHED_S + CREDIT_MAX_S + one_s


def noise_costs_s(run: Run, noisy: str) -> float:
    """N."""
    gap_s = SETTINGS.gap_ms / 1000
    worst_s = max(unanswered_s(modbus=True), unanswered_s(modbus=False))
    burst_s = worst_s + BURST_BYTES * CHAR_S + gap_s + SETTINGS.inter_byte_ms / 1000
    return run.bursts * burst_s + run.answers(noisy) * (GLUED_BYTES * CHAR_S + gap_s)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("silent_is_modbus", [True, False], ids=["modbus silent", "645 silent"])
def test_the_others_keep_their_rate_beside_a_silent_and_a_noisy_one(silent_is_modbus):
    well = run_virtual(lambda loop: watch(loop, None, None))
    assert well.wrong == []
    assert not well.failed_reads
    assert len(well.reads) == 2 * EACH
    round_s = WATCHED_S / min(well.reads.values())

    units, addresses = "unit 3", "202600000003"
    silent, noisy = (units, addresses) if silent_is_modbus else (addresses, units)
    run = run_virtual(lambda loop: watch(loop, silent, noisy))
    assert run.wrong == []
    assert run.reads[silent] == 0

    dead_s, noise_s = silent_costs_s(modbus=silent_is_modbus), noise_costs_s(run, noisy)
    until_dead_s = SETTINGS.dead_after * ATTEMPTS * unanswered_s(modbus=silent_is_modbus)
    assert run.dead_s <= dead_s - until_dead_s
    assert run.spoilt(silent) <= run.bursts  # a burst spoils one attempt at most
    assert run.bursts > 50

    least = (WATCHED_S - dead_s - noise_s) / round_s - 1
    others = {name: count for name, count in run.reads.items() if name not in (silent, noisy)}
    slowest, rate = min(others.values()), min(well.reads.values())
    print(
        f"{WATCHED_S:.0f} s: well {rate} reads each, beside the two {slowest}, bound {least:.0f}; "
        f"silent one took {run.dead_s:.1f} s (bound {dead_s - until_dead_s:.1f}), bursts "
        f"{run.bursts}, spoilt attempts {run.spoilt(silent)}, collisions {run.collisions}, "
        f"failed reads {dict(run.failed_reads)}"
    )
    assert len(others) == 2 * EACH - 2
    assert slowest >= least
    assert slowest >= Decimal("0.75") * rate
    assert run.reads[noisy] >= least
