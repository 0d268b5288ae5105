"""One installation for all tests of this folder."""

import pytest

from tests.support.installed_tree import Tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Installed once, without a package index: from a directory of wheels fetched before."""
    tree = Tree(tmp_path_factory.mktemp("install"))
    tree.script("wheels", tree.wheels)
    tree.make("install-system", WHEELS=tree.wheels)
    return tree
