"""The whole chain is drilled: meters, daemon, mosquitto and billing, each a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headend.journal import JournalReader
from tests.kill.checker import REPLACED, Checker, Report
from tests.kill.journals import read_billing, read_journal, read_only
from tests.kill.world import World, journal_state

ROUND_S = 40.0
READS = 150


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Everything runs, and some readings have gone all the way."""
    with World(tmp_path) as made:
        made.start_daemon()
        made.start_consumer()
        made.wait_ready("daemon")
        made.wait_ready("consumer")
        go_on(made)
        yield made


def go_on(world: World, reads: int = READS, *, receipts: bool = True) -> None:
    """Until so many more readings are written, and what stands there now is receipted."""
    before = world.state()

    def enough() -> bool:
        now = journal_state(world.journal)
        return now is not None and now.readings >= before.readings + reads

    def receipted() -> bool:
        now = journal_state(world.journal)
        return now is not None and (
            now.receipted >= before.last_seq if now.epoch == before.epoch else now.receipted > 0
        )

    world.wait(enough, ROUND_S, "no readings")
    if receipts:
        world.wait(receipted, ROUND_S, "no receipts")


def headend(world: World, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of the product."""
    command = [sys.executable, "-m", "headend.cli.main", *map(str, arguments)]
    return subprocess.run(
        [*command, "--config", str(world.config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def end(world: World, role: str, *, by: Callable[[str], None] | None = None) -> None:
    """A process is to be down."""
    world.resting.add(role)
    (by or world.stop)(role)


def begin(world: World, role: str) -> None:
    """It stands again."""
    world.start_daemon() if role == "daemon" else world.start_consumer()
    world.resting.discard(role)
    world.wait_ready(role)


def checked(world: World) -> Report:
    """Nothing is read any more, everything is delivered, and every journal that ever was, billing
    and the meters' own log agree: nothing that was receipted is missing, nothing is there twice.
    """
    end(world, "daemon")
    world.start_daemon(polling=False)
    world.resting.discard("daemon")
    world.wait_ready("daemon")

    def drained() -> bool:
        now = journal_state(world.journal)
        return now is not None and now.last_seq == now.receipted

    world.wait(drained, ROUND_S, "the backlog does not drain")
    end(world, "daemon")
    end(world, "consumer")
    checker = Checker(world.folder)
    report = checker.check()
    report.take(checker.check_spans(world.billing_spans()))
    assert report.findings == [], "\n".join(map(str, report.findings))
    assert world.deaths_inside() == []
    return report


def ids_in(path: Path) -> set[str]:
    return {kept.said.read_id for kept in read_journal(path).readings.values()}


def ids_at_billing(world: World) -> set[str]:
    found = read_billing(world.open_billing)
    current = {said.read_id for said, _epoch, _ref in found.current}
    return current | {said.read_id for said in found.history}


def epochs_of(path: Path) -> list[tuple[str, str]]:
    with closing(read_only(path)) as db:
        return db.execute("SELECT epoch, reason FROM epochs ORDER BY id").fetchall()


@pytest.mark.timeout(240)
def test_after_a_lost_disk_billing_has_what_was_backed_up_or_delivered_and_nothing_twice(
    world: World,
) -> None:
    backup = world.folder / "usb" / "b.tar.gz"
    done = headend(world, "backup", "--to", backup, "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)["manifest"]
    assert manifest["epoch"] == world.state().epoch
    done = headend(world, "restore", backup)
    assert done.returncode == 5, done.stderr
    assert "a daemon runs" in done.stderr

    # The lost interval: a part of it is delivered, a part is not.
    go_on(world)
    end(world, "consumer", by=world.kill)
    go_on(world, receipts=False)
    end(world, "daemon", by=world.kill)
    lost = world.set_journal_aside("001-lost")
    shutil.rmtree(world.folder / "data")

    done = headend(world, "restore", backup, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["counts"] == manifest["counts"]
    assert told["set_aside"] is None
    restored = ids_in(world.journal)
    assert len(restored) == manifest["counts"]["readings"]
    at_billing = ids_at_billing(world)
    assert ids_in(lost) & at_billing - restored, "nothing was delivered in the lost interval"
    gone = ids_in(lost) - at_billing - restored
    assert gone, "everything had been delivered: the drill shows nothing"

    begin(world, "daemon")
    begin(world, "consumer")
    go_on(world)
    ((_first, _new), (_epoch, reason)) = epochs_of(world.journal)
    assert reason.startswith("the journal was restored from the backup of")
    report = checked(world)
    assert report.counts["appends_acknowledged"] > 4 * READS
    final = ids_at_billing(world)
    assert restored <= final
    assert at_billing <= final
    assert not gone & final
    assert final == ids_in(world.journal) | (at_billing & ids_in(lost))
    # Receipts of the new epoch moved its cursor to the end.
    billing = read_billing(world.open_billing)
    assert billing.cursors[epochs_of(world.journal)[-1][0]] == world.state().receipted > 0


@pytest.mark.timeout(240)
def test_a_billing_database_that_is_brought_back_gets_everything_again_and_nothing_twice(
    world: World,
) -> None:
    backup = world.folder / "usb" / "billing.tar.gz"
    done = headend(world, "billing", "backup", "--to", backup, "--json")
    assert done.returncode == 0, done.stderr
    epoch = world.state().epoch
    (cursor,) = json.loads(done.stdout)["manifest"]["cursors"]
    assert cursor["epoch"] == epoch
    go_on(world)
    assert world.state().receipted > cursor["through_seq"]
    end(world, "consumer", by=world.kill)
    lost = ids_at_billing(world)
    for suffix in ("", "-wal", "-shm"):
        world.billing.with_name(world.billing.name + suffix).unlink(missing_ok=True)
    done = headend(world, "billing", "restore", backup)
    assert done.returncode == 0, done.stderr
    assert len(ids_at_billing(world)) < len(lost)
    begin(world, "consumer")
    go_on(world)
    checked(world)
    assert lost <= ids_at_billing(world)
    assert world.state().epoch == epoch


def older_file(world: World) -> None:
    """`cp` of a copy that was made earlier, while the daemon is down."""
    copy = world.copy_journal("000-copy")
    go_on(world)
    end(world, "daemon")
    world.set_journal_aside(f"001{REPLACED}")
    shutil.copyfile(copy, world.journal)


def without_its_log(world: World) -> None:
    """`cp journal.db` alone, while the daemon runs: the newest readings are in the log."""
    end(world, "daemon")  # brings the log home, so that there is something in the file
    begin(world, "daemon")
    copy = world.folder / "copied.db"
    shutil.copyfile(world.journal, copy)
    go_on(world)
    end(world, "daemon", by=world.kill)
    world.set_journal_aside(f"001{REPLACED}")
    shutil.copyfile(copy, world.journal)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("hand", [older_file, without_its_log])
def test_a_journal_copied_back_behind_the_daemons_back_is_noticed_and_nothing_is_lost_or_doubled(
    world: World, hand: Callable[[World], None]
) -> None:
    hand(world)
    before = epochs_of(world.journal)
    begin(world, "daemon")

    def noticed() -> bool:
        now = journal_state(world.journal)
        return now is not None and now.epochs == len(before) + 1

    world.wait(noticed, ROUND_S, "nobody noticed that the journal was set back")
    go_on(world)
    with JournalReader(world.journal) as reader:
        told = [e.fields for e in reader.events(kinds=("alarm",))]
    (alarm,) = [fields for fields in told if fields["alarm"] == "new_epoch"]
    assert alarm["before"] == before[-1][0]
    assert "billing" in alarm["reason"]  # it had told, or receipted, more than the file knows
    checked(world)


def removed(world: World, _older: Path) -> None:
    world.journal.unlink()


def replaced(world: World, older: Path) -> None:
    older.replace(world.journal)


def copied_over(world: World, older: Path) -> None:
    shutil.copyfile(older, world.journal)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("hand", [removed, replaced, copied_over])
def test_a_journal_changed_under_the_running_daemon_ends_it_and_nothing_acknowledged_is_unknown(
    world: World, hand: Callable[[World, Path], None]
) -> None:
    older = world.copy_journal("000-older")
    go_on(world)
    epoch = world.state().epoch
    world.resting.add("daemon")
    os.kill(world.pid("daemon"), signal.SIGSTOP)
    # What was committed until now, for the checker: not a reading more may be acknowledged.
    whole = world.copy_journal(f"001{REPLACED}")
    hand(world, older)
    os.kill(world.pid("daemon"), signal.SIGCONT)
    world.wait(lambda: world.is_dead("daemon"), ROUND_S, "the daemon writes on for ever")
    assert world.processes["daemon"].returncode == 1
    assert "while the daemon ran" in (world.folder / "daemon.log").read_text()
    if hand is removed:
        assert ids_in(world.journal) == ids_in(whole)
    else:
        (whole.parent / "through_seq").write_text(str(at_billing_of(world, epoch)))
    if hand is replaced:
        (saved,) = (world.folder / "data").glob("journal.db.replaced-*Z")
        assert ids_in(saved) == ids_in(whole)

    begin(world, "daemon")
    go_on(world)
    assert world.state().epoch != epoch
    (world.folder / "daemon.log").write_text("")  # the end by an error is as it should be
    checked(world)
    with closing(world.open_billing()) as db:
        told = [json.loads(fields) for (fields,) in db.execute("SELECT fields FROM event")]
    assert len([f for f in told if f.get("alarm") == "journal_replaced"]) == 1


def at_billing_of(world: World, epoch: str) -> int:
    with closing(world.open_billing()) as db:
        rows = dict(db.execute("SELECT epoch, through_seq FROM feed_cursor").fetchall())
    return int(rows.get(epoch, 0))
