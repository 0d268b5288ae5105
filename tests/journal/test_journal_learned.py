"""What meters have shown of themselves outlives the daemon, and is in nobody's way."""

from pathlib import Path

import pytest

from headend.journal import STATE_CHARS_MAX, Birth, KeptState
from tests.journal.journal_kit import NOON_MS, Bench, reading

SHOWN = KeptState("dlt645-2007", "000000000001", '{"refusals":{"0001FF00":1}}', NOON_MS)


async def test_what_a_meter_has_shown_is_there_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "journal.db")
    async with await bench.open() as journal:
        assert await journal.learned() == {}
        journal.learn("M-1", SHOWN)
        journal.learn("M-2", SHOWN._replace(protocol="modbus-rtu", device="1 eastron_sdm630"))
    async with await bench.open() as journal:
        found = await journal.learned()
        assert found == {
            "M-1": SHOWN,
            "M-2": SHOWN._replace(protocol="modbus-rtu", device="1 eastron_sdm630"),
        }


async def test_the_newest_state_replaces_the_one_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "journal.db")
    async with await bench.open() as journal:
        for n in range(5):
            journal.learn("M-1", SHOWN._replace(state=str(n), changed_ms=NOON_MS + n))
        assert await journal.learned() == {"M-1": SHOWN._replace(state="4", changed_ms=NOON_MS + 4)}


async def test_forgotten_is_forgotten_for_good(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "journal.db")
    async with await bench.open() as journal:
        journal.learn("M-1", SHOWN)
        journal.learn("M-2", SHOWN)
        assert await journal.forget("M-1", "M-9") == 1
        assert await journal.forget("M-1") == 0
    async with await bench.open() as journal:
        assert list(await journal.learned()) == ["M-2"]


async def test_a_state_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with await Bench(tmp_path / "journal.db").open() as journal:
        with pytest.raises(ValueError, match="at most"):
            journal.learn("M-1", SHOWN._replace(state="x" * (STATE_CHARS_MAX + 1)))
        assert await journal.learned() == {}


async def test_on_a_full_disk_the_state_before_stays_and_nothing_else_suffers(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path / "journal.db")
    async with await bench.open() as journal:
        journal.learn("M-1", SHOWN)
        await journal.learned()
        bench.disk.free = 0
        journal.learn("M-1", SHOWN._replace(state="new"))
        bench.clock.seconds += 100
    bench.disk.free = 1 << 40
    async with await bench.open() as journal:
        assert await journal.learned() == {"M-1": SHOWN}
        (appended,) = await journal.append(Birth((reading("1.00"),)))
        assert appended.new
