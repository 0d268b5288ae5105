"""The encoder: what is written can be read back exactly, whatever a meter or a name is like."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.domain.reading import Reading, Status, Verdict
from headend.journal import Birth
from headend.journal.model import Kept
from headend.timeseries.batch import Batch
from headend.timeseries.lines import EncodeError, LineEncoder, split_fields
from tests.journal.journal_kit import NOON_MS, Bench, exchange, reading
from tests.timeseries.line_parser import Parsed, parse_line
from tests.timeseries.series_kit import CONSUMER, STEP_MS, World

NO_DEADLINE = settings(deadline=None)  # the machine is shared; the table is read at the first use
NAMES = st.text(min_size=1, max_size=12)
NUMBERS = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=Decimal("-1e20"), max_value=Decimal("1e20")
)
POINTS = {
    "active_import_total": "register",
    "active_power_total": "instantaneous",
    "active_import_interval": "other",  # the table has none: kept all the same
    "demand_import_total": "demand",
    "relay_state": "other",  # the table does not know it: kept all the same
    "of_no_table": "other",
}


def kept(one: Reading, revision: int = 1) -> Kept:
    """As the journal hands it out."""
    return (one, "ID", revision, 0)


def encoded(*items: Kept) -> list[Parsed]:
    return [parse_line(line.text()) for line in LineEncoder("he1").encode(items)]


@NO_DEADLINE
@given(value=NUMBERS, point=st.sampled_from(sorted(POINTS)))
def test_a_value_is_read_back_by_its_digits_as_a_float(value: Decimal, point: str) -> None:
    interval_s = 900 if point.endswith("interval") else None
    one = replace(reading(point=point, interval_s=interval_s), value=value)
    (line,) = encoded(kept(one))
    assert line.measurement == POINTS[point]
    assert line.fields[point] == value
    assert type(line.fields[point]) is Decimal  # never alternates with a whole number
    assert line.fields[f"{point}_quality"] == 0
    assert type(line.fields[f"{point}_quality"]) is int
    assert line.time == NOON_MS
    assert line.tags.get("interval_s") == (None if interval_s is None else "900")


@NO_DEADLINE
@given(headend=NAMES, meter=NAMES, service_point=st.text(max_size=12), point=NAMES)
def test_any_name_is_read_back(headend: str, meter: str, service_point: str, point: str) -> None:
    one = replace(reading("1.5"), meter=meter, service_point=service_point, point=point)
    (line,) = LineEncoder(headend).encode([kept(one)])
    found = parse_line(line.text())
    wanted = {"headend": headend, "meter": meter, "service_point": service_point}
    assert {k: unquote(v) for k, v in found.tags.items()} == {k: v for k, v in wanted.items() if v}
    name = "time_of_day" if point == "time" else point
    assert {unquote(k) for k in found.fields} == {name, f"{point}_quality"}
    assert "\n" not in line.text()


@NO_DEADLINE
@given(first=NAMES, second=NAMES)
def test_two_names_never_become_one(first: str, second: str) -> None:
    def head(meter: str) -> str:
        return LineEncoder("he1").encode([kept(replace(reading(), meter=meter))])[0].head

    assert (head(first) == head(second)) == (first == second)


@pytest.mark.parametrize(
    ("more", "measurement", "quality"),
    [
        ({}, "register", 0),
        ({"verdict": Verdict.SUSPECT, "flags": ("jump",)}, "register", 1),
        ({"status": Status.ESTIMATED}, "register_estimated", 0),
        ({"status": Status.SUBSTITUTED}, "register_estimated", 0),
        ({"status": Status.MANUAL}, "register_estimated", 0),
        ({"verdict": Verdict.FAIL, "flags": ("backwards",)}, "register_rejected", 2),
        ({"status": Status.ESTIMATED, "verdict": Verdict.FAIL}, "register_rejected", 2),
    ],
)
def test_estimates_and_rejected_values_have_measurements_of_their_own(
    more: dict, measurement: str, quality: int
) -> None:
    (line,) = encoded(kept(reading("5.5", **more)))
    assert line.measurement == measurement
    wanted = {"active_import_total": Decimal("5.5"), "active_import_total_quality": quality}
    assert line.fields == wanted


@pytest.mark.parametrize(("flags", "quality"), [((), 8), (("withdrawn",), 9)])
def test_no_value_leaves_the_field_alone_and_says_so(flags: tuple, quality: int) -> None:
    (line,) = encoded(kept(reading(None, status=Status.NULL, flags=flags)))
    assert line.measurement == "register"
    assert line.fields == {"active_import_total_quality": quality}


def test_a_later_revision_marks_every_other_place_as_withdrawn() -> None:
    lines = encoded(kept(reading("5.5", status=Status.ESTIMATED), revision=2))
    assert {line.measurement: line.fields["active_import_total_quality"] for line in lines} == {
        "register_estimated": 0,
        "register": 9,
        "register_rejected": 9,
    }


@pytest.mark.parametrize(
    "one",
    [
        reading(verdict=Verdict.HELD),
        replace(reading(), meter=""),
        replace(reading(), value=Decimal("NaN")),
        replace(reading(), value=Decimal("Infinity")),
        replace(reading(), value=Decimal("1e400")),
    ],
)
def test_what_has_no_line_is_an_error_and_never_nothing(one: Reading) -> None:
    with pytest.raises(EncodeError):
        LineEncoder("he1").encode([kept(one)])


@NO_DEADLINE
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_a_batch_says_nothing_twice_and_keeps_the_order(said: list[tuple[int, int, int]]) -> None:
    points = sorted(POINTS)
    batch = Batch(10)
    encoder = LineEncoder("he1")
    taken = []
    for seq, (meter, n, point) in enumerate(said, 1):
        one = reading(f"{seq}.5", meter=f"M-{meter}", point=points[point], time_ms=NOON_MS + n)
        if not batch.add(seq, encoder.encode([kept(one)])):
            break
        taken.append((f"M-{meter}", points[point], NOON_MS + n, Decimal(f"{seq}.5")))
    lines = [
        parse_line(pending.encoded().decode().removesuffix("\n")) for pending in batch.pending()
    ]
    found = [
        (line.tags["meter"], name, line.time, value)
        for line in lines
        for name, value in line.fields.items()
        if not name.endswith("_quality")
    ]
    assert sorted(found) == sorted(taken)
    assert len({one[:3] for one in found}) == len(found)
    seqs = [pending.seq for pending in batch.pending()]
    assert seqs == sorted(seqs)


def test_the_points_of_a_line_can_be_sent_one_by_one() -> None:
    items = [kept(reading("1.5")), kept(reading("2.5", point="active_export_total"))]
    (line,) = LineEncoder("he1").encode(items)
    parts = [parse_line(one.text()) for one in split_fields(line)]
    assert [sorted(part.fields) for part in parts] == [
        ["active_export_total", "active_export_total_quality"],
        ["active_import_total", "active_import_total_quality"],
    ]


async def test_live_and_backfilled_readings_give_the_same_bytes(tmp_path: Path) -> None:
    """One journal gets a day as it comes, the other afterwards, otherwise grouped, with due points,
    other frames and other arrival times."""

    def day(live: bool) -> list[Birth]:
        births = []
        for n in range(20):
            at = NOON_MS + n * STEP_MS
            pair = [
                reading(f"{n}.5", time_ms=at, unit="kWh"),
                reading(f"{n}.25", point="active_export_total", time_ms=at),
            ]
            if live:
                births.append(Birth(tuple(pair)))
            else:
                late = exchange(77, at_ms=at + 86_400_000)
                births += [
                    Birth((replace(one, received_ms=at + 86_400_000, exchange=late, late=True),))
                    for one in pair
                ]
        return births if live else births[::-1]

    async def lines(folder: Path, births: list[Birth]) -> list[bytes]:
        spec = World(folder, target=None).bench.consumers  # type: ignore[arg-type]
        bench = Bench(folder / "journal.db", consumers=spec)
        encoder = LineEncoder("he1")
        journal = await bench.open()
        async with journal:
            await journal.append_many(births)
            found = await journal.read_entries(CONSUMER, 1, records_max=1000)
            batch = Batch(1000)
            for seq, entry in found.entries:
                assert batch.add(seq, encoder.encode(entry.items))
            return sorted(pending.encoded() for pending in batch.pending())

    live = await lines(tmp_path / "live", day(live=True))
    assert len(live) == 20
    assert await lines(tmp_path / "late", day(live=False)) == live
