"""What a plan says a round takes, beside what it takes on a line of that speed."""

from zoneinfo import ZoneInfo

import pytest

from headend.acquisition.bus_plan import LineFacts, plan_bus
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.bus import Bus, BusSettings, Priority
from headend.domain.meter import Meter
from headend.drivers import Dlt645Session
from simulators.energy import Timeline
from simulators.meter645 import MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.schedule import LoopSchedule, VirtualTimeLoop, run_virtual
from simulators.wire import WireLink

METERS = 32
BAUD = 2400
CHAR_S = 11 / BAUD
TD_MS = 100
ZONE = ZoneInfo("Asia/Shanghai")
# Eight items of each meter, which two blocks and two single items give.
POINTS = (
    "active_import_total", "active_export_total", "voltage_a", "voltage_b", "voltage_c",
    "current_a", "current_b", "current_c",
)  # fmt: skip
ENTRY = PlanEntry(POINTS, tolerance_ms=300_000, window_ms=900_000, interval_s=900)
PLANS = {"household": ReadPlan("household", (ENTRY,))}


@pytest.mark.parametrize("parity_seen", [True, False])
def test_a_round_of_32_meters_takes_what_the_plan_says(parity_seen):
    """Measured 0.95 to 1.10 of the plan; the plan at most 1.05 of bytes, turnaround and gaps."""
    settings = BusSettings()
    facts = LineFacts(BAUD, 11, parity_seen, TD_MS / 1000, 0.01, settings, {})
    meters = [
        Meter(f"M-{n}", f"SP-{n}", "line", "dlt645-2007", f"2026000000{n:02d}", "household")
        for n in range(1, METERS + 1)
    ]

    async def measure(loop: VirtualTimeLoop):
        timeline = Timeline(loop.now_ms(), speed=0)
        simulated = [
            make_meter(
                "pv3",
                MeterSettings(meter.address, reply_delay_ms=TD_MS, wakeup=4, seed=n),
                timeline=timeline,
                clock=loop.now_ms,
            )
            for n, meter in enumerate(meters)
        ]
        link = WireLink(
            MeterBus(simulated),
            schedule=LoopSchedule(loop),
            baud=BAUD,
            parity_seen=parity_seen,
        )
        exchanges = []
        bus = Bus("line", link, settings, clock=loop, observer=exchanges.append)
        sessions = {m.id: Dlt645Session(bus, m.address, zone=ZONE) for m in meters}
        plan = plan_bus("line", meters, PLANS, lambda m: sessions[m.id], facts)
        running = loop.create_task(bus.run())
        await sessions[meters[0].id].read(["frequency"], priority=Priority.DUE)
        began, count = loop.time(), len(exchanges)
        for session in sessions.values():
            assert all(result.error is None for result in await session.read(POINTS))
        took_s = loop.time() - began
        running.cancel()
        return plan, took_s, exchanges[count:]

    plan, took_s, exchanges = run_virtual(measure)
    on_the_wire = sum(len(e.request) + 4 + len(e.reply) for e in exchanges)
    least_s = on_the_wire * CHAR_S + len(exchanges) * (TD_MS + settings.gap_ms) / 1000
    print(
        f"parity seen {parity_seen}: measured {took_s:.1f} s, planned {plan.round_s:.1f} s, "
        f"bytes + Td + gaps {least_s:.1f} s, {len(exchanges)} exchanges"
    )
    assert 0.95 <= took_s / plan.round_s <= 1.10
    assert plan.round_s <= 1.05 * least_s
    assert len(exchanges) == METERS * (4 if parity_seen else 6)
