"""Makes `tests.support` importable: the folder of this package is put on the path."""

import logging
import signal
from collections.abc import Iterator

import pytest

# A worker of pytest-xdist ignores Ctrl-C, and its children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_level_is_given_back() -> Iterator[None]:
    """A command that a test runs in this process sets the level as in a process of its own."""
    ours = logging.getLogger("headend")
    level = ours.level
    yield
    ours.setLevel(level)
