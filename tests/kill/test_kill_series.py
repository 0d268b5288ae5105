"""The comparison with a time-series database finds what it is there to find."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kill.journals import BILLING_KIND, JournalView, Kept, Said, StreamRecord
from tests.kill.series import Place, compare, place_of, read_series

POINT = "active_import_total"
MS = 1_900_000_000_000


def said(rid: int, value: str | None, *, verdict: str = "ok", revision: int = 1) -> Said:
    """A reading of meter `rid`."""
    return Said(
        f"M-{rid}", POINT, MS, 0, revision, f"{rid:032x}", value, "kWh", "actual", verdict, "",
        "SP", MS, None, 0, 0, "1", "secondary",
    )  # fmt: skip


def journal(*readings: Said, written: int = 100) -> JournalView:
    """A journal with these readings, one record each."""
    view = JournalView(Path("journal.db"), written=written)
    for rid, one in enumerate(readings, 1):
        view.readings[BILLING_KIND, rid] = Kept(BILLING_KIND, rid, one, 0)
        view.series.append(StreamRecord(rid, BILLING_KIND, rid, 1))
    return view


def kinds(found: dict[Place, Decimal], *views: JournalView) -> list[str]:
    """The kinds of what is found."""
    return [finding.kind for finding in compare(found, views).findings]


GOOD = said(1, "12.50")
FOUND = {place_of(GOOD): Decimal("12.5")}


def test_what_agrees_is_found_to_agree() -> None:
    assert kinds(FOUND, journal(GOOD, said(2, "1.00", verdict="held"), said(3, None))) == []


def test_a_value_that_is_not_there_is_missing() -> None:
    assert kinds({}, journal(GOOD)) == ["series_missing"]


def test_what_the_writer_had_not_written_may_be_missing() -> None:
    assert kinds({}, journal(GOOD, written=0)) == []


@pytest.mark.parametrize("value", ["12.51", "0"])
def test_another_value_differs_and_is_foreign(value: str) -> None:
    assert kinds({place_of(GOOD): Decimal(value)}, journal(GOOD)) == [
        "series_differs",
        "series_foreign",
    ]


def test_a_value_no_journal_ever_had_is_foreign() -> None:
    elsewhere = {place_of(said(9, "1")): Decimal(1)}
    assert kinds(FOUND | elsewhere, journal(GOOD)) == ["series_foreign"]


def test_the_last_revision_must_stand() -> None:
    later = said(1, "13.00", revision=2)
    assert kinds(FOUND, journal(GOOD, later)) == ["series_differs"]
    assert kinds({place_of(GOOD): Decimal(13)}, journal(GOOD, later)) == []


def test_a_refused_value_among_the_readings_is_found() -> None:
    refused = said(1, "12.50", verdict="fail")
    assert kinds(FOUND, journal(refused)) == ["series_missing", "series_foreign"]


class FakeServer:
    """Answers as the database does."""

    def measurements(self) -> set[str]:
        return {"register", "bus"}

    def rows(self, text: str) -> list[dict[str, Any]]:
        assert "register" in text
        common = {"name": "register", "time": MS, "service_point": "SP", "headend": "he"}
        return [
            {**common, "meter": "M-1", POINT: Decimal("12.5"), f"{POINT}_quality": 0, "x": None},
            {**common, "meter": "M-2", POINT: 7, f"{POINT}_quality": 9, "x_quality": None},
        ]


def test_withdrawn_values_and_statistics_are_not_counted() -> None:
    assert read_series(FakeServer()) == FOUND
