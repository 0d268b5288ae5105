"""The n-th serial read or write, and the n-th step at the broker, fail; for a few n of every kind.

Every n of every kind: `python -m tests.nth_failure.soak`.
"""

import logging

import pytest

from tests.nth_failure.loops import KINDS, loop_over

# What fails, and how many n at least there are to hit in so short a story.
SERIAL = {
    "serial read: EIO": 32,
    "serial read: adapter pulled": 32,
    "serial write: EIO after half": 8,
    "serial open, three in a row": 2,
}
BROKER = {
    "feed: publish, acknowledgement lost": 8,
    "feed: publish, acknowledged and dropped": 3,
    "billing: message on its way in": 8,
}


@pytest.fixture(autouse=True)
def hushed(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("kind", SERIAL)
def test_whatever_a_port_fails_once_every_point_is_read_once_and_right(kind):
    loop = loop_over(kind, every=False)
    assert loop.findings == []
    assert loop.reached >= SERIAL[kind]


@pytest.mark.parametrize("kind", BROKER)
def test_whatever_fails_at_the_broker_billing_holds_what_the_journal_holds(kind):
    loop = loop_over(kind, every=False)
    assert loop.findings == []
    assert loop.reached >= BROKER[kind]


def test_every_step_of_both_ends_and_of_a_port_has_a_loop():
    assert {*SERIAL, *BROKER} <= {*KINDS}
    assert len(KINDS) == 21
