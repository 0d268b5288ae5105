"""The power goes while billing takes messages: what it has receipted is there."""

import shutil
from random import Random

import pytest

from tests.powercut.billing_story import check_billing, live, with_pragmas
from tests.powercut.images import cuts
from tests.powercut.journal_check import Broken
from tests.powercut.vfs import recording

SEED = 20261125


def told(folder, **more):
    home = folder / "live"
    home.mkdir()
    with recording(home, **more) as recorder:
        return live(home, recorder)


def check(folder, trail, *, variants, count=None):
    found = [*cuts(trail.recorder, seed=SEED, variants=variants)]
    if count is not None:
        found = sorted(Random(SEED).sample(found, count), key=lambda cut: cut.at)
    for cut in found:
        disk = folder / f"cut-{cut.at}-{cut.nth}"
        cut.lay_out(disk)
        try:
            check_billing(disk, trail, cut.at)
        except Exception as error:
            raise Broken(f"cut at step {cut.at}, image {cut.nth}: {error}") from error
        shutil.rmtree(disk)
    return len(found)


@pytest.mark.parametrize("pragma", ["wal_autocheckpoint=4000", "wal_autocheckpoint=15"])
def test_what_was_receipted_survives_a_power_cut_at_any_step(folder, pragma):
    with with_pragmas(f"PRAGMA {pragma}"):
        trail = told(folder)
    assert len(trail.states) == len(trail.receipts) == 19
    assert check(folder, trail, variants=2, count=150) == 150


@pytest.mark.parametrize("way", ["OFF", "NORMAL", "lies"])
def test_a_store_that_does_not_sync_is_found(folder, way):
    if way == "lies":
        trail = told(folder, lies=True)
    else:
        with with_pragmas(f"PRAGMA synchronous={way}"):
            trail = told(folder)
    with pytest.raises(Broken):
        check(folder, trail, variants=0)
