"""Billing's n-th write, sync, open or read fails, for every n until none is left to fail."""

import pytest

from headend.billing.store import Store
from tests.powercut.billing_failures import every_failure
from tests.powercut.billing_story import open_store
from tests.powercut.failures import WAYS
from tests.powercut.journal_check import Broken

HITS = {
    "a write": 40,
    "a sync": 5,
    "a sync that forgets": 5,
    "everything for a while": 60,
    "a read": 10,
}


@pytest.fixture
def template(folder):
    made = folder / "template"
    made.mkdir()
    open_store(made).close()
    return made


@pytest.mark.parametrize("name", HITS)
def test_whatever_fails_once_everything_is_taken_once(name, folder, template):
    touched, failures = every_failure(folder, WAYS[name], template, cut_every=3)
    assert touched >= HITS[name]
    assert failures


def test_a_store_that_says_it_is_done_when_it_is_not_is_found(folder, template, monkeypatch):
    """The loop bites: the first failure is taken for a success."""
    real = Store._write

    def write(self, connection, work):
        if work.cursors and any(c.through_seq == 3 for c in work.cursors.values()):
            return set()
        return real(self, connection, work)

    untouched, _failures = every_failure(folder, WAYS["a sync"], template, cut_every=100)
    assert untouched
    monkeypatch.setattr(Store, "_write", write)
    with pytest.raises(Broken):
        every_failure(folder, WAYS["a sync"], template)
