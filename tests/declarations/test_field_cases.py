"""What went wrong for others in the field, with inputs of our own: it cannot happen here.

Covered elsewhere as well: a bus with a silent majority in `tests/bus/test_bus_dead_devices.py` and
`tests/soak`, a file saved half in `tests/config/test_config_bad.py` and `tests/reload`.
"""

import random
from decimal import Decimal
from pathlib import Path

import pytest

from headend.billing.store import Arrived, Store
from headend.billing.views import BillingView
from headend.domain.errors import ConfigError
from headend.journal import ConsumerSpec, Journal, JournalBusy
from headend.messages.records import Batch, encode_batch
from headend.reload import load_whole
from tests.declarations.place_world import EXPORT, IMPORT, POINTS, World

FIRST = (5_371_240, 81_007)  # 53712.40 and 810.07 kWh


@pytest.mark.parametrize("zeros", [1, 2, 4])
@pytest.mark.parametrize("restarts", ["before", "between", "after every read"])
async def test_bad_zeros_with_a_restart_in_between_move_no_energy(
    tmp_path: Path, zeros: int, restarts: str
) -> None:
    """FI-09: a failed read gives 0, the head-end restarts, the lifetime total is a quarter hour."""
    async with World(tmp_path, registers=FIRST) as world:
        await world.take()
        world.go_on(1, (412, 35))
        await world.take()
        if restarts == "before":
            await world.restart()
        world.zeros = zeros
        world.go_on(1, (390, 0))
        await world.take()
        if restarts == "between":
            await world.restart()
        for _ in range(3):
            world.go_on(1, (251, 17))
            await world.take()
            if restarts == "after every read":
                await world.restart()
        bases = await world.journal.bases()
        assert {point: bases["M-1", point].value for point in POINTS} == {
            IMPORT: Decimal("53727.95"), EXPORT: Decimal("810.93"),
        }  # fmt: skip
        point = await world.billed()
        for direction, name in (("import", IMPORT), ("export", EXPORT)):
            span = point.span(direction)
            assert span.energy == world.energy(name, span.from_ms, span.to_ms)
        assert all(row.verdict == "fail" for row in world.rows if row.value == "0.00")
        assert world.reader.held == frozenset()


async def test_two_readers_of_one_queue_count_everything_once(tmp_path: Path) -> None:
    """FI-03: one reads ahead while what the other has sent is not yet taken off."""
    rng = random.Random(20261125)
    async with World(tmp_path, registers=FIRST) as world:
        for _ in range(30):
            world.go_on(1, (rng.randrange(400), rng.randrange(40)))
            await world.take()
        store = Store(f"sqlite:///{tmp_path}/billing.db", name="billing", clock=world.clock,
                      software="test")  # fmt: skip
        last = world.journal.cursors()["billing"].last_seq
        positions = [1, 1]
        while min(positions) <= last:
            reader = rng.randrange(2)
            sizes = rng.randrange(1, 9)
            found = await world.journal.read_stream(
                "billing", min(positions[reader], last), records_max=sizes
            )
            through = found.first_seq + len(found.records) - 1
            batch = Batch(
                headend="he1", epoch=world.journal.epoch, consumer="billing",
                first_seq=found.first_seq, last_seq=through, records=found.records,
                exchanges=found.exchanges,
            )  # fmt: skip
            taken = store.take([Arrived("he1", "t", encode_batch(batch))])
            for through_seq in taken.receipts.values():
                await world.journal.receipt("billing", through_seq)
            # a hole is asked for again: both go on from what is durable, or read on regardless
            positions[reader] = through + 1 if rng.random() < 0.7 else positions[1 - reader]
            if through >= last:
                positions[reader] = last + 1
            if taken.resumes:
                positions[reader] = next(iter(taken.resumes.values()))
        store.close()
        with BillingView(f"sqlite:///{tmp_path}/billing.db") as view:
            counts = view.status()["counts"]
            assert counts["readings"] == 60
            assert (counts["replaced"], counts["conflicts"], counts["dead_letters"]) == (0, 0, 0)
            span = view.service_point("SP-1").span("import")
            assert span.energy == world.energy(IMPORT, span.from_ms, span.to_ms)


async def test_a_second_writer_of_one_journal_is_refused(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        with pytest.raises(JournalBusy):
            await Journal.open(
                tmp_path / "journal.db", clock=world.clock, software="test",
                consumers=[ConsumerSpec("billing", frozenset({"billing"}))],
            )  # fmt: skip
        await world.take()


async def test_an_old_value_never_gets_a_new_time(tmp_path: Path) -> None:
    """FI-05: what a meter kept is of then, however often it is fetched; silence is no value."""
    async with World(tmp_path, registers=FIRST) as world:
        world.go_on(1, (100, 10))
        kept_ms = world.clock.ms
        for _ in range(3):
            world.go_on(2, (100, 10))
            await world.take(frozen_ms=kept_ms)
        await world.billed()
        assert {(row.time_ms, row.revision) for row in world.rows} == {(kept_ms, 1)}
        told = world.journal.cursors()["billing"].last_seq
        world.device.address = "000000000099"  # nobody answers
        for _ in range(5):
            world.go_on(3, (0, 0))
            await world.take()
        assert world.journal.cursors()["billing"].last_seq == told
        await world.billed()
        assert {row.time_ms for row in world.rows} == {kept_ms}


CONFIG = """\
headend: {name: he1, zone: Asia/Shanghai, data: data}
buses: {b: {link: "tcp://127.0.0.1:4001", gap_ms: 40}}
meters:
  - {id: M-1, service_point: SP-1, bus: b, protocol: dlt645-2007, address: "000000000012", plan: p}
  - {id: M-2, service_point: SP-2, bus: b, protocol: dlt645-2007, address: "000000000013", plan: p}
plans: {p: {every: [{minutes: 15, points: [active_import_total]}], tolerance_s: 300}}
retention: {billing_days: 410, telemetry_days: 27}
"""


def test_a_configuration_saved_half_is_never_taken(tmp_path: Path) -> None:
    """FI-26: cut at any byte it is refused, or it ends with a whole line."""
    file = tmp_path / "headend.yaml"
    file.write_text(CONFIG)
    whole = load_whole(file)
    taken = []
    ends = {n + 1 for n, char in enumerate(CONFIG[:-1]) if char == "\n"}
    for cut in sorted({*range(0, len(CONFIG), 5), *ends}):
        file.write_text(CONFIG[:cut])
        try:
            found = load_whole(file)
        except ConfigError:
            continue
        taken.append(CONFIG[:cut])
        assert found.hash != whole.hash
    assert all(text.endswith("\n") for text in taken)
    file.write_text(CONFIG.rstrip("\n"))
    with pytest.raises(ConfigError, match="saved half"):
        load_whole(file)
