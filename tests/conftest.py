"""Makes `tests.support` importable: the folder of this package is put on the path."""

import logging
import signal
from collections.abc import Iterator

import pytest

# What computes longest begins first, so that no worker is left alone with it, and so that it is
# over when those tests come that go by the machine's own clock.
LONGEST = (
    "tests/kill/test_kill_loop.py",
    "tests/soak/",
    "tests/district/",
    "tests/damage/",
    "tests/powercut/",
    "tests/nth_failure/",
    "tests/backup/test_backup_drill.py",
)

# A worker of pytest-xdist ignores Ctrl-C, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_level_is_given_back() -> Iterator[None]:
    """A command that a test runs in this process sets the level as in a process of its own."""
    ours = logging.getLogger("headend")
    level = ours.level
    yield
    ours.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of `LONGEST`, then as they were found; files stay whole."""

    def rank(item: pytest.Item) -> int:
        for place, start in enumerate(LONGEST):
            if item.nodeid.startswith(start):
                return place
        return len(LONGEST)

    items.sort(key=rank)
