"""Starts the daemon or the consumer as the command line does, with a trap at every window.

`python -m tests.kill.launch ROLE FOLDER ARGUMENT...`: ROLE is `daemon` or `consumer`, the
arguments are those of `headend`. The product knows nothing of this: functions at the borders of
the windows are wrapped before it starts.

A trap is set from outside while the process runs: the file `arm-ROLE.json` in FOLDER, then
SIGUSR1. At the named passage through the named window the victim is killed with SIGKILL: this
process itself, or another one (then this one goes on only when the other is dead, so that it
really died in the window). Before the kill a line is written to `kills.jsonl`.

Whatever the journal says is kept is written to `acks.jsonl` after its append has returned: what
stands there must never be missing afterwards.
"""

import asyncio
import ctypes
import json
import os
import select
import signal
import sqlite3
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.kill.windows import Window

PR_SET_PDEATHSIG = 1
DEATH_WAIT_S = 10.0
SETTLE_S = 1.3  # a receipt is on the disk within a second


@dataclass(slots=True)
class Armed:
    """A trap as it was ordered."""

    order: dict[str, Any]
    window: str
    place: str
    passages_left: int


class Trap:
    """Counts passages and strikes at the ordered one."""

    def __init__(self, role: str, folder: Path) -> None:
        self._role = role
        self._folder = folder
        self._armed: Armed | None = None
        self._lock = threading.Lock()
        self._kills = os.open(folder / "kills.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        signal.signal(signal.SIGUSR1, self._arm)

    def _arm(self, _signal: int, _frame: FrameType | None) -> None:
        order = json.loads((self._folder / f"arm-{self._role}.json").read_text())
        self._armed = Armed(order, order["window"], order["place"], order["passage"])

    def passage(self, window: Window, place: str = "", **facts: object) -> None:
        """Somebody is in `window` now; `place` tells several spots of one window apart."""
        armed = self._armed
        if armed is None or armed.window != window or armed.place not in ("", place):
            return
        with self._lock:
            armed.passages_left -= 1
            if armed.passages_left != 0:
                return
            self._armed = None
        self._strike(armed, place, facts)

    def dies_here_next(self, window: Window) -> bool:
        """Whether the next passage through `window` is the end of this process."""
        armed = self._armed
        return (
            armed is not None
            and armed.window == window
            and armed.passages_left == 1
            and armed.order["victim"] == self._role
        )

    def _strike(self, armed: Armed, place: str, facts: dict[str, object]) -> None:
        time.sleep(armed.order["delay_ms"] / 1000)
        victim = armed.order["victim"]
        pid = os.getpid() if victim == self._role else armed.order["victim_pid"]
        line = {
            "round": armed.order["round"],
            "window": armed.window,
            "place": place,
            "victim": victim,
            "by": self._role,
            "pid": pid,
            "at_ms": time.time_ns() // 1_000_000,
            **facts,
        }
        os.write(self._kills, (json.dumps(line) + "\n").encode())
        if victim == self._role:
            _end_here()
        _kill_and_wait(pid)


def _end_here() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        signal.pause()


def _kill_and_wait(pid: int) -> None:
    """Kill another process; returns when it is dead."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        dead, _, _ = select.select([handle], [], [], DEATH_WAIT_S)
        if not dead:
            raise TimeoutError(f"process {pid} does not die")
    finally:
        os.close(handle)


class CommitWatcher(sqlite3.Connection):
    """A connection that says when it is about to commit readings, and when it has."""

    trap: Trap
    _readings = 0

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        """Count the readings of the transaction."""
        if sql.startswith(("INSERT INTO rb_", "INSERT INTO rt_")):
            self._readings += len(rows)
        return super().executemany(sql, rows)

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Watch for the ends of transactions."""
        if sql == "COMMIT":
            if self._readings:
                self.trap.passage(Window.BEFORE_COMMIT, readings=self._readings)
            self._readings = 0
        elif sql == "ROLLBACK":
            self._readings = 0
        return super().execute(sql, *arguments)


def watch_journal(trap: Trap, folder: Path) -> None:
    """Before a commit; after a receipt came; what was acknowledged as kept."""
    from headend.journal import journal, opening, writer

    acks = os.open(folder / "acks.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    CommitWatcher.trap = trap

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
            factory=CommitWatcher,
        )

    opening.connect = connect
    append_many = journal.Journal.append_many
    receipt = journal.Journal.receipt
    put = writer.Writer._put

    async def append_many_told(self: journal.Journal, births: Any) -> Any:
        appended = await append_many(self, births)
        ids = [one.read_id for birth in appended for one in birth]
        os.write(acks, (json.dumps(ids) + "\n").encode())
        return appended

    async def receipt_watched(self: journal.Journal, consumer: str, through_seq: int) -> None:
        facts = {"epoch": self.epoch, "through_seq": through_seq}
        if consumer.startswith("timeseries:"):
            trap.passage(Window.SERIES_TO_CURSOR, **facts)
        else:
            trap.passage(Window.RECEIPT_TO_CURSOR, "taken", **facts)
        await receipt(self, consumer, through_seq)

    def put_watched(self: writer.Writer, op: Any, *arguments: Any) -> None:
        put(self, op, *arguments)
        if isinstance(op, writer.ReceiptOp) and not op.consumer.startswith("timeseries:"):
            trap.passage(
                Window.RECEIPT_TO_CURSOR, "written", epoch=op.epoch, through_seq=op.through_seq
            )

    journal.Journal.append_many = append_many_told  # type: ignore[method-assign]
    journal.Journal.receipt = receipt_watched  # type: ignore[method-assign]
    writer.Writer._put = put_watched  # type: ignore[method-assign]


def watch_feed(trap: Trap) -> None:
    """Before a batch is handed to the broker, and before its PUBACK is seen."""
    from headend.messages.pipe import Pipe

    send = Pipe.send

    async def send_watched(self: Pipe, topic: str, payload: bytes, *, retain: bool = False) -> Any:
        is_batch = "/feed/" in topic
        if is_batch:
            trap.passage(Window.COMMIT_TO_PUBLISH, size=len(payload))
        acknowledged = await send(self, topic, payload, retain=retain)
        if is_batch and not acknowledged.done():
            trap.passage(Window.PUBLISH_TO_PUBACK, size=len(payload))
        return acknowledged

    Pipe.send = send_watched  # type: ignore[method-assign]


def watch_series(trap: Trap) -> None:
    """Before lines go to the time-series database."""
    from headend.timeseries.influxdb1 import InfluxDB1

    write = InfluxDB1.write

    async def write_watched(self: InfluxDB1, body: bytes) -> Any:
        if trap.dies_here_next(Window.SERIES_TO_SERVER):
            # Whatever was queued for the journal is on the disk when it strikes. A cursor that
            # was moved before its lines were sent would die in the queue and never be noticed.
            await asyncio.sleep(SETTLE_S)
        trap.passage(Window.SERIES_TO_SERVER, size=len(body))
        return await write(self, body)

    InfluxDB1.write = write_watched  # type: ignore[method-assign]


def watch_billing(trap: Trap, folder: Path) -> None:
    """Before billing's commit of a group, and between it and the receipt; what it dropped."""
    from sqlalchemy import event

    from headend.billing.store import Store

    takes = os.open(folder / "takes.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    begin = Store.__init__
    take = Store.take

    def begin_watched(self: Store, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)

        def about_to_commit(_connection: object) -> None:
            if getattr(self, "_is_taking", False):
                trap.passage(Window.BEFORE_BILLING_COMMIT)

        event.listen(self.engine, "commit", about_to_commit)

    def take_watched(self: Store, messages: Any) -> Any:
        self._is_taking = True
        try:
            result = take(self, messages)
        finally:
            self._is_taking = False
        os.write(takes, (json.dumps(asdict(result.counts)) + "\n").encode())
        if result.receipts:
            through = {epoch: seq for (_headend, epoch), seq in result.receipts.items()}
            trap.passage(Window.BILLING_COMMIT_TO_RECEIPT, through=through)
        return result

    Store.__init__ = begin_watched  # type: ignore[method-assign]
    Store.take = take_watched  # type: ignore[method-assign]


def main() -> int:
    """Set the traps, then be the product."""
    role, folder, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    # Whoever started us is gone: nobody is left to end us.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    trap = Trap(role, folder)
    if role == "daemon":
        watch_journal(trap, folder)
        watch_feed(trap)
        watch_series(trap)
    else:
        watch_billing(trap, folder)
    from headend.cli.main import main as headend

    return headend(arguments)


if __name__ == "__main__":
    sys.exit(main())
