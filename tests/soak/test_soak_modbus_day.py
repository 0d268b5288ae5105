"""The Modbus street in its short form, and that its audit finds what is wrong."""

from decimal import Decimal
from pathlib import Path

import pytest

from headend.domain.clock import iso
from headend.messages.records import ReadRecord
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.soak.modbus_day import IMPORT, QUARTER_MS, ROLLS, Result, Street, _series, run
from tests.soak.world import local_ms

START = "2026-06-21T15:50:00"


@pytest.mark.timeout(300)
def test_two_hours_with_rollovers_and_an_exchange_are_counted_to_the_last_digit(
    tmp_path: Path,
) -> None:
    found = run(2.0, tmp_path, start=START)
    assert found.faults == []
    assert found.rollovers == {":".join(name): 1 for name in ROLLS}
    assert found.readings >= 12 * 8  # twelve counters, eight quarters
    assert found.intervals >= 12 * 7 - 2
    assert Decimal(found.flowed_kwh[f"CHINT:{IMPORT}"]) > 100
    assert Decimal(found.flowed_kwh["ABB:active_export_total"]) > 0


def row(street: Street, meter: str, point: str, at_ms: int, off: Decimal) -> ReadRecord:
    """A reading as it would be, `off` beside the truth."""
    shown = street.shown(meter, point, at_ms)
    return ReadRecord(
        seq=0, read_id="0" * 32, meter=meter, service_point="SP", point=point, obis=None,
        value=str(shown + off), unit="kWh", time=iso(at_ms), interval_s=None,
        received_at=iso(at_ms), due_at=iso(at_ms), status="actual", verdict="ok", flags=[],
        revision=1, late=False, multiplier="1", side="primary", evidence=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("meter", "off", "is_wrong"),
    [
        ("EASTRON", "0", False),
        ("EASTRON", "0.05", True),
        ("EASTRON", "-60", True),
        ("GAVAZZI", "0.1", False),  # what its register cannot tell
        ("GAVAZZI", "0.4", True),
        ("CHINT", "2", True),  # a step behind its transformers is 0.3
    ],
)
def test_a_reading_that_is_off_by_more_than_the_register_shows_is_found(
    meter: str, off: str, is_wrong: bool
) -> None:
    result = Result(1.0)

    async def look(loop: VirtualTimeLoop) -> None:
        street = Street(loop)
        quarters = [loop.now_ms() + n * QUARTER_MS for n in range(1, 4)]
        rows = [
            row(street, meter, IMPORT, at_ms, Decimal(off) if n == 1 else Decimal(0))
            for n, at_ms in enumerate(quarters)
        ]
        _series(street, meter, IMPORT, rows, result)

    run_virtual(look, start_ms=local_ms("2026-06-21T19:00:00"))
    assert bool(result.faults) is is_wrong, result.faults
