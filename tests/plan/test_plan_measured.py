"""What a plan says a round takes, beside what it takes on a line of that speed."""

import json
from zoneinfo import ZoneInfo

import pytest

from headend.acquisition.bus_plan import LineFacts, plan_bus
from headend.acquisition.plans import PlanEntry, ReadPlan
from headend.bus import Bus, BusSettings, Priority
from headend.cli.main import main
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Meter
from headend.drivers import Dlt645Session
from simulators.energy import Timeline
from simulators.meter645 import MeterSettings
from simulators.meterbus import MeterBus
from simulators.models import make_meter
from simulators.schedule import LoopSchedule, VirtualTimeLoop, run_virtual
from simulators.wire import WireLink
from tests.journal.journal_kit import NOON_MS
from tests.journal.journal_kit import Bench as JournalBench

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


async def test_the_command_counts_with_the_answer_times_of_the_journal(tmp_path, capsys):
    """From the newest answers of two days; too few of them, or another bus's, say nothing."""
    file = tmp_path / "headend.yaml"
    file.write_text(CONFIG)
    exchanged = [exchange_of("000000000001", took_ms=620.0) for _ in range(6)]
    exchanged += [exchange_of("000000000002", took_ms=620.0) for _ in range(4)]
    exchanged += [exchange_of("000000000002", bus="other", took_ms=620.0) for _ in range(9)]
    exchanged += [exchange_of("000000000001", took_ms=9000.0, outcome=Outcome.SILENCE)]
    (tmp_path / "data").mkdir()
    async with await JournalBench(tmp_path / "data" / "journal.db").open() as journal:
        for one in exchanged:
            journal.record_exchange(one)
    assert main(["plan", "--config", str(file), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured_meters"] == 1
    needs_s = {read["meter"]: read["needs_s"] for read in plan["reads"]}
    # 20 bytes out and 20 back at 2400 Bd are 183 ms: it thinks for 437 ms, 337 more than usual.
    assert needs_s["M-1"] - needs_s["M-2"] == pytest.approx(0.337, abs=0.002)


CONFIG = """\
headend: {name: he1, zone: Asia/Shanghai, data: ./data}
buses: {line: {link: "serial:///dev/ttyUSB0?baud=2400&parity=even&parity_seen=true"}}
meters:
  - {id: M-1, service_point: SP-1, bus: line, protocol: dlt645-2007,
     address: "000000000001", plan: p}
  - {id: M-2, service_point: SP-2, bus: line, protocol: dlt645-2007,
     address: "000000000002", plan: p}
plans: {p: {every: [{minutes: 15, points: [active_import_total]}]}}
"""


def exchange_of(
    device: str, *, took_ms: float, bus: str = "line", outcome: Outcome = Outcome.REPLY
) -> Exchange:
    reply = bytes(20) if outcome is Outcome.REPLY else None
    return Exchange(
        bus=bus, device=device, request=bytes(20), reply=reply, sent_ms=NOON_MS,
        received_ms=NOON_MS + 1, took_ms=took_ms, attempt=1, outcome=outcome, stray=b"",
    )  # fmt: skip
