"""What a meter stamped by a clock that was set around then is marked; what we stamp is not."""

from pathlib import Path

from bench_meter import IMPORT, bench, meter_named

from headend.acquisition.meter_reader import Wanted
from headend.bus import Priority
from headend.domain.meter import Event

MINUTE_MS = 60_000


def jump(at_ms: int, before_s: float, after_s: float) -> Event:
    fields = {"meter": "M-1", "before_s": f"{before_s:.1f}", "after_s": f"{after_s:.1f}"}
    return Event("clock_jump", at_ms, fields)


async def test_a_freeze_at_a_midnight_that_the_clock_skipped_is_marked_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as one:
        want = [Wanted(IMPORT)]
        (taken,) = await one.reader.read(meter_named(), want, priority=Priority.DUE, frozen=True)
        assert taken.reading is not None
        assert "clock_jump" not in taken.reading.flags
        midnight_ms = taken.reading.time_ms
        # Set forward from 23:58 to 00:03.
        one.reader.jumps.add(jump(midnight_ms - 2 * MINUTE_MS, 0.0, 300.0))
        (taken,) = await one.reader.read(meter_named(), want, priority=Priority.DUE, frozen=True)
        assert taken.reading is not None
        assert "clock_jump" in taken.reading.flags
        (live,) = await one.read()
        assert live.reading is not None
        assert "clock_jump" not in live.reading.flags
        # A clock that was set an hour later leaves that midnight alone.
        (other,) = await one.reader.read(
            meter_named("M-2"), want, priority=Priority.DUE, frozen=True
        )
        assert other.reading is not None
        assert "clock_jump" not in other.reading.flags
