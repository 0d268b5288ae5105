"""One pair of daemons for the tests of a file; none is left running beside other tests."""

from collections.abc import Iterator

import pytest
from status_bench import Bench, Running


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon that is well and one in trouble, with their pages."""
    with Bench(tmp_path_factory.mktemp("status")) as running:
        yield running
