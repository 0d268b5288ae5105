"""Runs of the journal's story and cuts through them: what the tests and the long form share."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.powercut.images import Cut, cuts, fingerprint
from tests.powercut.journal_check import Broken, Tally, check_journal
from tests.powercut.journal_story import (
    CHAPTERS,
    NOON_MS,
    Chapter,
    Conditions,
    HandClock,
    Trail,
    live,
    open_journal,
)
from tests.powercut.vfs import recording

CONDITIONS = {
    "as it is": Conditions(),
    "short log": Conditions(log_pages=20),
    "with rests": Conditions(rests=True),
}


@dataclass
class Run:
    """One telling of the story, ready to be cut."""

    folder: Path
    trail: Trail

    @property
    def steps(self) -> int:
        """How many steps its files took."""
        return len(self.trail.recorder.ops)


async def tell(
    folder: Path,
    conditions: Conditions,
    *,
    chapters: Sequence[Chapter] = CHAPTERS,
    lies: bool = False,
) -> Run:
    """Tell the story in a folder of its own."""
    home = folder / "live"
    home.mkdir(parents=True)
    with conditions.made(), recording(home, lies=lies) as recorder:
        trail = await live(home, recorder, chapters=chapters)
    return Run(folder, trail)


def sampled(run: Run, *, seed: int, variants: int, count: int | None) -> Iterator[Cut]:
    """Cuts of a run; `count` of them taken evenly at random, or all. Like ones come once."""
    seen: set[tuple[bytes, tuple[int, int], int]] = set()
    found: list[Cut] = []
    for cut in cuts(run.trail.recorder, seed=seed, variants=variants):
        promised = len(run.trail.promised(cut.at))
        key = (fingerprint(cut.image), run.trail.allowed(cut.at), promised)
        if key not in seen:
            seen.add(key)
            found.append(cut)
    if count is not None and count < len(found):
        picked = Random(f"{seed} sample").sample(range(len(found)), count)
        found = [found[n] for n in sorted(picked)]
    yield from found


@contextmanager
def laid_out(run: Run, cut: Cut) -> Iterator[Path]:
    """The disk of a cut as files; kept when something is wrong with it."""
    folder = run.folder / f"cut-{cut.at}-{cut.nth}"
    cut.lay_out(folder)
    yield folder
    shutil.rmtree(folder)


async def check_cuts(
    run: Run, tally: Tally, wanted: Iterator[Cut], *, stop: Callable[[], bool] = lambda: False
) -> None:
    """Each disk opens and holds what was promised. `Broken` names the first that does not."""
    for cut in wanted:
        if stop():
            return
        with laid_out(run, cut) as folder:
            try:
                await check_journal(folder, run.trail, cut.at, tally)
            except Exception as error:
                msg = f"cut at step {cut.at}, image {cut.nth} in {folder}: {error}"
                raise Broken(msg) from error


async def check_second_cuts(
    run: Run, tally: Tally, first: Cut, *, seed: int, variants: int, count: int | None = None
) -> int:
    """The power goes again while the journal comes up; how many disks were looked at."""
    looked = 0
    with laid_out(run, first) as folder:
        with recording(folder) as recorder:
            async with await open_journal(folder, HandClock(NOON_MS)):
                pass
        again = [*cuts(recorder, seed=seed, variants=variants)]
        if count is not None and count < len(again):
            again = Random(f"{seed} second").sample(again, count)
        for cut in again:
            second = run.folder / f"cut-{first.at}-{first.nth}-then-{cut.at}-{cut.nth}"
            cut.lay_out(second)
            try:
                await check_journal(second, run.trail, first.at, tally)
            except Exception as error:
                msg = f"cut at {first.at}/{first.nth}, again at {cut.at}/{cut.nth}: {error}"
                raise Broken(msg) from error
            shutil.rmtree(second)
            looked += 1
    return looked
