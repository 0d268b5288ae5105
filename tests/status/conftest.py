"""One pair of daemons for all tests of this folder."""

from collections.abc import Iterator

import pytest
from status_bench import Bench, Running


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon that is well and one in trouble, with their pages."""
    with Bench(tmp_path_factory.mktemp("status")) as running:
        yield running
