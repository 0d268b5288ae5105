"""What is shown comes in the same order from both databases, whatever sorts beside them."""

import pytest
from billing_builder import MINUTE, T0, batch, read

from headend.billing.views import BillingView

# A collation of words puts these in another order than their bytes.
NAMES = ("a", "B", "C", "b", "-a", "_A", "É", "e", "Z-9", "Z-10", "z", "M.1", "M-1")


@pytest.fixture
def shown(inbox):
    records = [
        read(n, f"{n}", meter=name, service_point=f"SP{name}") for n, name in enumerate(NAMES, 1)
    ]
    inbox.take(batch(records))
    with BillingView(inbox.url) as view:
        yield view


def test_readings_and_service_points_are_ordered_by_the_bytes_of_their_names(shown):
    by_bytes = sorted(NAMES, key=str.encode)
    assert [row.meter for row in shown.readings()] == by_bytes
    assert shown.service_points() == [f"SP{name}" for name in by_bytes]


def test_a_part_of_an_id_finds_its_reading_and_no_neighbour(shown, inbox):
    for row in list(shown.readings()):
        for length in (8, 20, 32):
            assert shown.find(row.read_id[:length]).row == row


def test_a_view_changes_nothing_and_sees_one_moment(inbox):
    inbox.take(batch([read(1, "1")]))
    with BillingView(inbox.url) as view, view._database.begin() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM reading").scalar_one()
        inbox.take(batch([read(2, "2", time_ms=T0 + MINUTE)]))
        after = connection.exec_driver_sql("SELECT count(*) FROM reading").scalar_one()
        assert (before, after) == (1, 1)
        with pytest.raises(Exception, match=r"readonly|read-only"):
            connection.exec_driver_sql("DELETE FROM reading")
    assert len(inbox.rows("reading")) == 2


def test_a_view_is_as_good_as_new_after_an_error(inbox):
    inbox.take(batch([read(1, "1")]))
    with BillingView(inbox.url) as view:
        with pytest.raises(Exception, match="nowhere"), view._database.begin() as connection:
            connection.exec_driver_sql("SELECT * FROM nowhere")
        assert view.status()["counts"]["readings"] == 1


def test_a_look_never_waits_for_the_writer_nor_it_for_a_look(inbox):
    inbox.take(batch([read(1, "1")]))
    with BillingView(inbox.url) as view, inbox.store._transaction() as connection:
        connection.exec_driver_sql("DELETE FROM reading")
        assert view.status()["counts"]["readings"] == 1
