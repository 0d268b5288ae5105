"""Consumption across dated events, the same from both databases, whatever came first."""

import itertools
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from billing_builder import EXPORT, IMPORT, T0, batch, exchange, read, withdrawn

from headend.billing.differences import Unknown
from headend.billing.views import BillingView
from headend.domain.clock import iso
from headend.domain.identity import event_id
from headend.messages.records import EventRecord

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 3, 1)  # begins at T0
HOUR = 3_600_000
END = T0 + 24 * HOUR
NOON = T0 + 12 * HOUR
WHO = {"by": "fitter", "reason": "test"}


def event(kind: str, at_ms: int, *, declared_ms: int = END, **fields) -> EventRecord:
    told = {"service_point": "SP-1", "meter": "M-1", "declared_at": iso(declared_ms), **WHO}
    return EventRecord(seq=1, event=kind, at=iso(at_ms), fields=told | fields)


def taken_back(record: EventRecord, at_ms: int) -> EventRecord:
    of = event_id(record.event, at_ms, record.fields)
    return event("event_withdrawn", at_ms, of=of, of_kind=record.event)


def ratio(at_ms: int, before: str, after: str, register: str, **more) -> EventRecord:
    return event(
        "ratio_change", at_ms, ct_before=before, pt_before="1", ct=after, pt="1",
        multiplier_before=before, multiplier=after, registers={IMPORT: register, EXPORT: "0.00"},
        **more,
    )  # fmt: skip


def register(value: str, time_ms: int, **more):
    return read(1, value, time_ms=time_ms, **more)


def exports(*times_ms: int, value: str = "0.00", **more):
    return [register(value, t, point=EXPORT, **more) for t in times_ms]


def energies(inbox, records) -> tuple[Decimal | None, Decimal | None, Unknown | None]:
    """The day's import and export, and why import is not known."""
    numbered = []
    for seq, record in enumerate(records, 1):
        record.seq = seq
        numbered.append(record)
    inbox.take(batch(numbered))
    with BillingView(inbox.url) as view:
        point = view.service_point("SP-1")
        found = point.day(DAY, ZONE, "import")
        span = point.span("import")
        assert span.energy == found.energy
        return found.energy, point.day(DAY, ZONE, "export").energy, found.reason


ROLLED = {"digits": 6, "before": "999990.00", "before_at": iso(T0), "after": "5.00"}
OVER_EVERYTHING = {
    "exchange": (
        [register("100.00", T0), register("7.00", END, meter="M-2")],
        [exchange(1, at_ms=NOON, old_final={IMPORT: "150.00"}, new_initial={IMPORT: "2.00"})],
        "55.00",
    ),
    "ratio": (
        [register("100.00", T0, multiplier="40"), register("103.00", END, multiplier="60")],
        [ratio(NOON, "40", "60", "101.00")],
        str(1 * 40 + 2 * 60),
    ),
    "two ratios, the later one declared first": (
        [register("100.00", T0, multiplier="1"), register("106.00", END, multiplier="80")],
        [
            ratio(NOON + HOUR, "1", "80", "103.00", declared_ms=END),
            ratio(NOON, "1", "60", "101.00", declared_ms=END + HOUR),
        ],
        str(1 * 1 + 2 * 60 + 3 * 80),
    ),
    "rollover": (
        [register("999990.00", T0), register("12.00", END)],
        [event("rollover", NOON, point=IMPORT, **ROLLED)],
        "22.00",
    ),
    "rollover noticed twice": (
        [register("999990.00", T0), register("12.00", END)],
        [
            event("rollover", NOON, point=IMPORT, **ROLLED),
            event("rollover", NOON + HOUR, point=IMPORT, **ROLLED),
        ],
        "22.00",
    ),
    "reset": (
        [register("5000.00", T0), register("4.00", END)],
        [event("reset", NOON, before={IMPORT: "5010.00"}, after={IMPORT: "1.00"})],
        "13.00",
    ),
    "another address": (
        [register("1.00", T0), register("3.00", END)],
        [event("address_change", NOON, address_before="1", address="2")],
        "2.00",
    ),
    "another area": (
        [register("1.00", T0), register("3.00", END)],
        [event("area_move", NOON, area_before="T-1", area="T-2")],
        "2.00",
    ),
    "everything on one day": (
        [register("999990.00", T0, multiplier="1"), register("9.00", END, meter="M-2",
                                                              multiplier="60")],
        [
            event("rollover", T0 + 2 * HOUR, point=IMPORT, **ROLLED),
            event("reset", T0 + 3 * HOUR, before={IMPORT: "6.00"}, after={IMPORT: "0.00"}),
            ratio(T0 + 4 * HOUR, "1", "60", "1.00"),
            exchange(1, at_ms=T0 + 5 * HOUR, old_final={IMPORT: "3.00"},
                     new_initial={IMPORT: "0.50"}),
        ],
        str(Decimal(16) + 1 + 2 * 60 + Decimal("8.50") * 60),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OVER_EVERYTHING)
def test_a_day_across_an_event_is_what_was_counted(inbox, what):
    readings, events, import_kwh = OVER_EVERYTHING[what]
    last = readings[-1]
    more = {"meter": last.meter, "multiplier": last.multiplier}
    export = [*exports(T0, multiplier=readings[0].multiplier), *exports(END, **more)]
    for record in events:
        for key in ("old_final", "new_initial"):
            if key in record.fields:
                record.fields[key] = {EXPORT: "0.00", **record.fields[key]}
    found = energies(inbox, [*readings, *export, *events])
    assert found == (Decimal(import_kwh), 0, None)


def test_the_order_in_which_events_arrive_decides_nothing(inbox):
    readings, events, import_kwh = OVER_EVERYTHING["everything on one day"]
    for order in itertools.islice(itertools.permutations([*readings, *events]), 0, None, 97):
        inbox.empty()
        assert energies(inbox, list(order))[0] == Decimal(import_kwh)


def test_an_event_that_was_taken_back_is_as_if_it_had_not_been(inbox):
    wrong = event("reset", NOON, before={IMPORT: "150.00"}, after={IMPORT: "0.00"})
    readings = [register("100.00", T0), register("112.00", END)]
    back = taken_back(wrong, NOON)
    for order in itertools.permutations([wrong, back, *readings]):
        inbox.empty()
        assert energies(inbox, list(order))[0] == Decimal(12)


def test_a_meter_whose_number_changed_is_not_billed_until_somebody_says_what_it_means(inbox):
    readings = [register("100.00", T0), register("112.00", END)]
    number = {"number": "2", "number_before": "1"}
    changed = event("meter_number", END, state="changed", since=iso(NOON), **number)
    assert energies(inbox, [*readings, changed])[::2] == (None, Unknown.METER_CHANGED)
    # the same meter after all
    inbox.empty()
    accepted = event("meter_number", END + HOUR, state="accepted", **number)
    assert energies(inbox, [*readings, changed, accepted])[0] == Decimal(12)
    # another one: declared, and what was read of it is its own
    inbox.empty()
    told = exchange(
        1, at_ms=NOON + HOUR, old_final={IMPORT: "106.00"}, new_initial={IMPORT: "110.00"}
    )
    moved = [withdrawn(1, time_ms=END), register("112.00", END, meter="M-2")]
    assert energies(inbox, [*readings, changed, told, *moved])[0] == Decimal(8)


def test_what_was_read_before_the_number_was_in_doubt_is_billed(inbox):
    readings = [register("100.00", T0), register("112.00", END), register("120.00", END + HOUR)]
    changed = event(
        "meter_number", END + HOUR, state="changed", since=iso(END), number="2", number_before="1"
    )
    for seq, record in enumerate([*readings, changed], 1):
        record.seq = seq
    inbox.take(batch([*readings, changed]))
    with BillingView(inbox.url) as view:
        point = view.service_point("SP-1")
        assert point.day(DAY, ZONE, "import").energy == Decimal(12)
        assert point.span("import").reason is Unknown.METER_CHANGED


def test_a_late_bad_zero_is_no_boundary_and_moves_no_energy(inbox):
    """Judged good when it came: its neighbours still contradict it."""
    noon = date(2026, 3, 2)
    later = END + 24 * HOUR
    readings = [
        register("53700.00", T0), register("0.00", END), register("53712.00", later),
        register("53700.50", T0 + HOUR), register("53711.00", later - HOUR),
    ]  # fmt: skip
    for seq, record in enumerate(readings, 1):
        record.seq = seq
    inbox.take(batch(readings))
    with BillingView(inbox.url) as view:
        point = view.service_point("SP-1")
        for day in (DAY, noon):
            assert point.day(day, ZONE, "import").reason is Unknown.BACKWARD
        assert point.span("import").energy == Decimal(12)
