"""Billing's n-th write, sync, open or read fails: what is asked again is taken once."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from headend.billing.errors import BillingDatabaseError, DatabaseAway
from headend.billing.store import Store
from tests.powercut.billing_story import (
    EPOCH_A,
    BillingTrail,
    check_billing,
    open_store,
    reads,
    state_in,
    take,
)
from tests.powercut.failures import Nth, Way
from tests.powercut.images import cuts
from tests.powercut.journal_check import Broken
from tests.powercut.journal_story import State
from tests.powercut.vfs import recording

TRIES_MAX = 40
STREAM = ("he1", EPOCH_A)
GROUPS = (
    [reads(1, 3)],
    [reads(4, 6)],
    [reads(2, 6), reads(7, 7)],
    [reads(8, 9)],
)


@dataclass
class Asking:
    """A store that is asked until it is done, and opened again when that is the way back."""

    folder: Path
    store: Store
    failures: Counter[str]

    def take(self, payloads: list[bytes]) -> dict[tuple[str, str], int]:
        """One group."""
        for _ in range(TRIES_MAX):
            try:
                return take(self.store, payloads).receipts
            except DatabaseAway:
                self.failures["away"] += 1  # the store lets go of its session by itself
            except BillingDatabaseError:
                self.failures["ended"] += 1  # the process ends; the service manager starts it
                self.store.close()
                self.store = opened(self.folder, self.failures)
        raise Broken(f"not taken in {TRIES_MAX} tries")


def opened(folder: Path, failures: Counter[str]) -> Store:
    """As the process does at its start: once more until it works."""
    for _ in range(TRIES_MAX):
        try:
            return open_store(folder)
        except BillingDatabaseError:
            failures["not opened"] += 1
    raise Broken(f"no start in {TRIES_MAX} tries")


def one_failure(
    folder: Path, template: Path, nth: Nth, untouched: State | None, *, cut: bool
) -> tuple[State, Counter[str]]:
    """Take every group with one failure among the steps; the state at the end."""
    home = folder / "live"
    shutil.copytree(template, home)
    failures: Counter[str] = Counter()
    with recording(home, judge=nth) as recorder:
        trail = BillingTrail(recorder)
        asking = Asking(home, opened(home, failures), failures)
        with recorder.unjudged():
            trail.answered(home, {})
        for payloads in GROUPS:
            receipts = asking.take(payloads)
            with recorder.unjudged():
                trail.answered(home, receipts)
        asking.store.close()
    state = state_in(home)
    if untouched is not None and state != untouched:
        raise Broken(f"lost {untouched - state}, invented {state - untouched}")
    if trail.receipts[-1] != {STREAM: 9}:
        raise Broken(f"receipts {trail.receipts[-1]}")
    if cut and nth.hits:
        _power_goes(folder, trail, nth)
    shutil.rmtree(home)
    return state, failures


def _power_goes(folder: Path, trail: BillingTrail, nth: Nth) -> None:
    steps = len(trail.recorder.ops)
    at = Random(nth.n).sample(range(steps + 1), min(3, steps))
    for cut in cuts(trail.recorder, seed=nth.n, variants=1, at=[*at, steps]):
        disk = folder / f"cut-{cut.at}-{cut.nth}"
        cut.lay_out(disk)
        check_billing(disk, trail, cut.at)
        shutil.rmtree(disk)


def every_failure(
    folder: Path, way: Way, template: Path, *, cut_every: int = 1
) -> tuple[int, Counter[str]]:
    """n = 1, 2, .. until a run passes untouched. How many were touched, and what was raised."""
    untouched, _none = one_failure(folder, template, way.nth(1 << 40), None, cut=False)
    failures: Counter[str] = Counter()
    n = 1
    while True:
        nth = way.nth(n)
        try:
            _state, some = one_failure(folder, template, nth, untouched, cut=n % cut_every == 0)
        except Exception as error:
            raise Broken(f"n={n}: {type(error).__name__}: {error}") from error
        if not nth.hits:
            return n - 1, failures
        failures += some
        n += 1
