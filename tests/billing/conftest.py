import pytest
from billing_builder import Inbox


@pytest.fixture
def inbox(tmp_path):
    made = Inbox(tmp_path / "billing.db")
    yield made
    made.close()
