"""An unbelievable value is held and read again: never dropped, never good, never a new base."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from headend.domain.clock import SystemClock
from headend.domain.reading import Verdict
from headend.drivers import PointResult
from simulators.faults import make_fault
from tests.acquisition.bench_meter import EXPORT, IMPORT, bench, streamed

HOUR_MS = 3_600_000


async def test_one_bad_zero_is_held_then_contradicted_by_the_second_read(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        (first,) = await made.read()
        made.device.add_fault(make_fault("one_bad_zero"))
        (second,) = await made.read(due=made.due_now())
        assert second.reading is not None
        assert second.reading.verdict is Verdict.OK
        assert second.reading.value == first.reading.value
        assert second.settled
        verdicts = [row[2:] for row in made.rows()]
        assert verdicts == [
            (1, "ok", ""),
            (1, "held", "backward"),
            (2, "fail", "backward,contradicted"),
            (1, "ok", ""),
        ]
        assert made.alarms == []
        # published: the good one, the failed one (never billed), the good one; not the held one
        assert streamed(made.journal.path) == 3
        bases = await made.journal.bases()
        assert bases["M-1", IMPORT].value == first.reading.value


async def test_register_that_stays_below_is_held_and_alarmed_once_and_never_the_base(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        (first,) = await made.read()
        made.device.add_fault(make_fault("backward_register", every="1"))
        for _ in range(3):
            (taken,) = await made.read(due=made.due_now())
            assert taken.reading is not None
            assert taken.reading.verdict is Verdict.HELD
            assert not taken.settled
            assert taken.reason == "held"
        assert [name for name, _ in made.alarms] == ["register_held"]
        assert made.alarms[0][1]["last_good"] == str(first.reading.value)
        assert streamed(made.journal.path) == 1
        made.device.clear_faults()
        (again,) = await made.read(due=made.due_now())
        assert again.settled
        assert (await made.journal.bases())["M-1", IMPORT].value == again.reading.value


async def test_a_jump_that_stays_does_not_become_believable_by_waiting(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.read()
        made.device.add_fault(make_fault("jump", kwh="500", every="1"))
        (held,) = await made.read()
        assert held.reading.verdict is Verdict.HELD
        made.clock.ahead_ms += 200 * HOUR_MS  # 13.2 kW x 200 h is far more than the jump
        (later,) = await made.read()
        assert later.reading.verdict is Verdict.HELD


async def test_held_import_does_not_hold_the_export_read_beside_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.read((IMPORT, EXPORT))
        made.device.add_fault(make_fault("backward_register", every="1", di="00010000"))
        held, good = await made.read((IMPORT, EXPORT), due=made.due_now())
        assert held.reading.verdict is Verdict.HELD
        assert good.reading.verdict is Verdict.OK
        assert good.settled


class TwiceTheVoltage:
    """A session with a meter whose voltage transformer was forgotten."""

    async def read(self, points: Sequence[str], **_more: object) -> list[PointResult]:
        now_ms = SystemClock().now_ms()
        value = Decimal("6000.0")
        return [PointResult(p, "02010100", value, "V", now_ms, None, 1, None) for p in points]

    read_frozen = read


async def test_voltage_out_of_range_twice_is_published_as_suspect(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.reader._open_session = lambda _meter: TwiceTheVoltage()
        (taken,) = await made.read(("voltage_a",))
        assert taken.reading.verdict is Verdict.SUSPECT
        assert taken.reading.flags == ("out_of_range",)


async def test_non_bcd_reply_gives_no_value_and_names_the_reason(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.device.add_fault(make_fault("non_bcd", every="1"))
        (taken,) = await made.read(due=made.due_now())
        assert taken.reading is None
        assert taken.reason == "bad_reply:not_bcd"
        assert made.rows() == []
        made.device.clear_faults()
        (good,) = await made.read(due=made.due_now())
        assert good.settled


async def test_clock_that_is_off_makes_registers_suspect_and_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.device.set_clock(made.clock.now_ms() + 8 * HOUR_MS - 400_000)
        clock, register = await made.read(("clock", IMPORT))
        assert clock.reading.value is not None
        assert abs(int(clock.reading.value) * 1000 + 400_000 - made.clock.now_ms()) < 5_000
        assert register.reading.verdict is Verdict.SUSPECT
        assert register.reading.flags == ("clock",)


async def test_import_and_export_keep_their_names_from_the_first_byte(tmp_path: Path) -> None:
    async with bench(tmp_path, parity_seen=False) as made:
        one, two = await made.read((IMPORT, EXPORT))
        truth = made.device.truth(one.reading.time_ms)
        assert one.reading.value == truth[IMPORT].shown
        assert two.reading.value == truth[EXPORT].shown
        assert truth[IMPORT].shown != truth[EXPORT].shown
        assert one.result.exchange is not None
        assert isinstance(one.reading.value, Decimal)
