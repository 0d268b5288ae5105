"""The journal's n-th write, sync, open or read fails: it goes on, or the next start does."""

import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

from headend.domain.due import DueState
from headend.domain.errors import HeadendError, JournalDamaged, JournalError
from headend.domain.meter import Event
from headend.journal import Birth, Journal, JournalReader
from headend.messages.records import EventRecord, ReadRecord
from tests.powercut.failures import Nth, Way
from tests.powercut.images import cuts
from tests.powercut.journal_check import Broken, Tally, check_journal
from tests.powercut.journal_story import (
    FILE,
    NOON_MS,
    TODAY,
    Chapter,
    HandClock,
    Teller,
    Trail,
    commits_told,
    due,
    freeze,
    open_journal,
    reading,
    records_of,
)
from tests.powercut.vfs import recording

T = TypeVar("T")
TRIES_MAX = 40


@dataclass
class Persistent(Teller):
    """Tries again whatever the journal could not do, as pollers do; begins it anew when it ended.

    `failures` counts errors by class; `starts` counts starts, failed ones too.
    """

    failures: Counter[str] = field(default_factory=Counter)
    starts: int = 0

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        for _ in range(TRIES_MAX):
            try:
                return await super().do(work)
            except JournalError as error:
                self.failures[type(error).__name__] += 1
                if isinstance(error, JournalDamaged) or self.journal._closed:
                    await self.begin_anew()
        raise Broken(f"not done after {TRIES_MAX} tries: {self.failures}")

    async def begin_anew(self) -> None:
        """Close, and start as a service manager does until it works."""
        await self.journal.close()
        self.journal = await start(self.folder, self.clock, self)


async def start(folder: Path, clock: HandClock, counts: Persistent | None) -> Journal:
    """Open the journal; what prevents it must be told in our words or be the machine's."""
    for _ in range(TRIES_MAX):
        try:
            return await open_journal(folder, clock)
        except (HeadendError, OSError) as error:
            if counts is not None:
                counts.failures[type(error).__name__] += 1
                counts.starts += 1
    raise Broken(f"no start in {TRIES_MAX} tries")


async def a_little_of_everything(t: Teller) -> None:
    """Few steps, so that each of them can fail in its turn."""
    points = [due(meter, 0) for meter in ("M-1", "M-2")]
    await t.do(lambda: t.journal.freeze_due(TODAY, points))
    await t.append(Birth((reading(100, due_ms=NOON_MS),)), freeze(200, NOON_MS + 1000))
    await t.receipt("billing")
    await t.do(lambda: t.journal.append_event(Event("alarm", NOON_MS, {"alarm": "bus_dead"})))
    await t.append(Birth((reading(101),)), Birth((reading(23000, point="voltage_a"),)))
    await t.do(lambda: t.journal.close_due_day(TODAY))


SHORT: Sequence[Chapter] = (a_little_of_everything,)


@dataclass
class Outcome:
    """What came of one n."""

    hits: int
    failures: Counter[str]


async def one_failure(
    folder: Path, template: Path | None, chapters: Sequence[Chapter], nth: Nth, *, cut: bool = True
) -> Outcome:
    """Tell the story with one failure in it, then look at what is there, and at power cuts."""
    home = folder / "live"
    if template is None:
        home.mkdir()
    else:
        shutil.copytree(template, home)
    clock = HandClock()
    with recording(home, judge=nth) as recorder:
        trail = Trail(recorder)
        with commits_told(trail):
            first = await start(home, clock, None)
            async with AsyncExitStack() as stack:
                t = Persistent(home, trail, clock, first)
                stack.push_async_callback(_close, t)
                trail.answered()
                for chapter in chapters:
                    await chapter(t)
                    await look(t)
                epoch = t.journal.epoch
    await check_end(home, trail, epoch)
    if cut and nth.hits:
        await check_power(folder, trail, nth)
    shutil.rmtree(home)
    return Outcome(nth.hits, t.failures)


async def _close(t: Persistent) -> None:
    await t.journal.close()  # whichever it is by then


async def look(t: Persistent) -> None:
    """The streams as the running journal serves them; a read that fails is asked again."""

    async def seen() -> None:
        await t.trail.look(t.journal)

    for _ in range(TRIES_MAX):
        try:
            return await seen()
        except Exception as error:  # noqa: BLE001 - whoever reads is restarted by the supervisor
            t.failures[f"reader: {type(error).__name__}"] += 1
    raise Broken("the streams cannot be read")


async def check_end(home: Path, trail: Trail, epoch: str) -> None:
    """Everything once, in order, in the epoch it was begun in."""
    tally = Tally()
    await check_journal(home, trail, len(trail.recorder.ops), tally, goes_on=False)
    async with await open_journal(home, HandClock()) as journal:
        if journal.epoch != epoch:
            raise Broken("a failure that was survived must not end the epoch")
        records = await records_of(journal, "board")
        ids = [r.read_id for r in records if isinstance(r, ReadRecord)]
        if len(set(ids)) != len(ids):
            raise Broken(f"twice on the stream: {ids}")
        events = [r for r in records if isinstance(r, EventRecord)]
        if sum(e.fields["alarm"] == "bus_dead" for e in events) != 1:
            raise Broken(f"the event once: {events}")
    with JournalReader(home / FILE) as reader:
        states = sorted(line.state for line in reader.due_lines(TODAY))
        if states != [DueState.MISSING, DueState.READ]:
            raise Broken(f"due points: {states}")
        values = sorted(str(r.value) for r in reader.readings(all_revisions=True))
        if values != ["1", "1.01", "2", "2.01", "2.02", "230"]:
            raise Broken(f"readings: {values}")


async def check_power(folder: Path, trail: Trail, nth: Nth) -> None:
    """The power goes behind a failure: what was acknowledged is there all the same."""
    steps = len(trail.recorder.ops)
    at = sorted(Random(nth.n).sample(range(steps + 1), min(4, steps)))
    for cut in cuts(trail.recorder, seed=nth.n, variants=1, at=[*at, steps]):
        disk = folder / f"cut-{cut.at}-{cut.nth}"
        cut.lay_out(disk)
        try:
            await check_journal(disk, trail, cut.at, Tally())
        except Exception as error:
            msg = f"n={nth.n}, then a cut at step {cut.at}, image {cut.nth}: {error}"
            raise Broken(msg) from error
        shutil.rmtree(disk)


async def every_failure(
    folder: Path,
    way: Way,
    *,
    chapters: Sequence[Chapter] = SHORT,
    template: Path | None = None,
    cut_every: int = 1,
) -> tuple[int, Counter[str]]:
    """n = 1, 2, .. until a run passes untouched. How many were touched, and by what errors.

    Behind every `cut_every`-th failure the power is cut as well, at a few steps.
    """
    touched = 0
    failures: Counter[str] = Counter()
    n = 1
    while True:
        nth = way.nth(n)
        try:
            outcome = await one_failure(folder, template, chapters, nth, cut=n % cut_every == 0)
        except Exception as error:
            msg = f"n={n}: {type(error).__name__}: {error}"
            raise Broken(msg) from error
        if not outcome.hits:
            return touched, failures
        touched += 1
        failures += outcome.failures
        n += 1
