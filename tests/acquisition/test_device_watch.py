"""What a device says against its own values: held or suspect readings, and alarms said once."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

from headend.acquisition.device_watch import DeviceWatch
from headend.acquisition.meter_reader import MeterReader, Wanted
from headend.bus import Priority
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.errors import JournalError
from headend.domain.meter import Event, Meter
from headend.domain.reading import Verdict
from headend.drivers import ModbusSession
from headend.drivers.modbus_check import Notice
from headend.journal import ConsumerSpec, Journal, JournalSettings
from headend.vee import RuleSet
from tests.acquisition.bench_meter import IMPORT, ZONE, HandClock
from tests.support.modbus_device import Device
from tests.support.waiting import eventually

CHINT = load_profile("chint_dtsu666", PACKAGED.parent)
DAY_MS = 86_400_000


def meter(**more):
    return Meter("M-1", "SP-1", "b", "modbus-rtu", "1", "p", profile=CHINT.id, **more)


class MovedClock(HandClock):
    """The monotonic clock goes along."""

    def monotonic(self):
        return super().monotonic() + self.ahead_ms / 1000


class Bench:
    """One meter with its reader, its device and the watch over it."""

    def __init__(self, journal, clock):
        self.journal, self.clock = journal, clock
        self.device = Device(CHINT, clock=clock, ct_ratio=Decimal(40), pt_ratio=Decimal(1))
        self.device.set(IMPORT, Decimal(10))
        self.device.set("voltage_a", Decimal(230))
        self.meter = meter(ct=Decimal(40))
        self.watch = DeviceWatch(journal.append_event, clock, meters=lambda: [self.meter])
        self.reader = MeterReader(
            journal, self.session, clock=clock, rules=RuleSet(), bases={}, alarm=self.no_alarm
        )
        self.sessions = {}

    def session(self, meter):
        key = (meter.id, meter.ct)
        if key not in self.sessions:
            self.sessions[key] = ModbusSession(
                self.device, 1, CHINT, tcp=False, clock=self.clock, ct=meter.ct, pt=meter.pt,
                notice=lambda notice: self.watch.tell(meter, notice),
            )  # fmt: skip
        return self.sessions[key]

    async def no_alarm(self, name, fields):
        raise AssertionError((name, fields))

    async def read(self, *points):
        wanted = [Wanted(point) for point in points]
        return await self.reader.read(self.meter, wanted, priority=Priority.DUE)

    async def alarms(self):
        events = await self.journal.meter_events(("alarm", "alarm_cleared"))
        return [(e.kind, e.fields["alarm"], e.fields["meter"]) for e in events]


@asynccontextmanager
async def bench(folder):
    clock = MovedClock()
    journal = await Journal.open(
        folder / "journal.db", clock=clock, software="test",
        consumers=[ConsumerSpec("billing", frozenset({"billing", "telemetry", "events"}))],
        settings=JournalSettings(zone=ZONE, reserve_bytes_telemetry=1, reserve_bytes_billing=1),
    )  # fmt: skip
    async with journal:
        made = Bench(journal, clock)
        task = asyncio.ensure_future(made.watch.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_ratio_that_differs_holds_the_counter_and_lets_it_go_when_it_is_right(tmp_path):
    async with bench(tmp_path) as made:
        (taken,) = await made.read(IMPORT)
        assert (taken.reading.verdict, taken.reading.flags) == (Verdict.OK, ())
        made.clock.ahead_ms += DAY_MS
        made.device.set("ct_ratio", Decimal(60))
        energy, voltage = await made.read(IMPORT, "voltage_a")
        assert (energy.reading.verdict, energy.reading.flags) == (Verdict.HELD, ("ratio",))
        assert (energy.reason, energy.settled) == ("held", False)
        assert voltage.reading.verdict is Verdict.SUSPECT
        assert made.reader.held == frozenset()  # nothing to be decided about the register itself
        said = [("alarm", "ratio_changed", "M-1"), ("alarm", "ratio_mismatch", "M-1")]
        await eventually(lambda: not made.watch._waiting)
        assert sorted(await made.alarms()) == said
        await made.read(IMPORT)
        made.meter = meter(ct=Decimal(60))  # the configuration was corrected
        (taken,) = await made.read(IMPORT)
        assert (taken.reading.verdict, taken.reading.multiplier) == (Verdict.OK, 60)
        await eventually(lambda: not made.watch._waiting)
        assert sorted(await made.alarms()) == [*said, ("alarm_cleared", "ratio_mismatch", "M-1")]


class Book:
    """Keeps events; fails as often as told."""

    def __init__(self, failures=0):
        self.events = []
        self.failures = failures

    async def append(self, event):
        if self.failures:
            self.failures -= 1
            raise JournalError("not now")
        self.events.append(event)


async def run_until(watch, condition):
    task = asyncio.ensure_future(watch.run())
    await eventually(condition)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


MISMATCH = Notice("ratio_mismatch", stands=True, fields={"reason": "r"})
AGREES = Notice("ratio_mismatch", stands=False)


async def test_an_alarm_that_stands_in_the_journal_is_cleared_after_a_restart():
    book = Book()
    told = [Event("alarm", 1, {"alarm": "ratio_mismatch", "meter": "M-1"})]
    watch = DeviceWatch(book.append, HandClock(), meters=lambda: [meter()], told=told)
    watch.tell(meter(), AGREES)
    watch.tell(meter(), AGREES)
    await run_until(watch, lambda: book.events)
    assert [e.kind for e in book.events] == ["alarm_cleared"]


async def test_an_alarm_of_a_meter_that_is_gone_is_cleared():
    book = Book()
    told = [Event("alarm", 1, {"alarm": "device_changed", "meter": "M-9"})]
    watch = DeviceWatch(book.append, HandClock(), meters=lambda: [meter()], told=told)
    await run_until(watch, lambda: book.events)
    assert book.events[0].fields["meter"] == "M-9"


async def test_an_event_that_cannot_be_written_is_written_later_in_its_order(monkeypatch):
    monkeypatch.setattr("headend.acquisition.device_watch.RETRY_S", 0.01)
    book = Book(failures=2)
    watch = DeviceWatch(book.append, HandClock(), meters=lambda: [meter()])
    watch.tell(meter(), MISMATCH)
    watch.tell(meter(), AGREES)
    await run_until(watch, lambda: len(book.events) == 2)
    assert [e.kind for e in book.events] == ["alarm", "alarm_cleared"]


async def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr("headend.acquisition.device_watch.WAITING_MAX", 3)
    watch = DeviceWatch(Book().append, HandClock(), meters=list)
    for number in range(9):
        watch.tell(Meter(f"M-{number}", "S", "b", "modbus-rtu", "1", "p"), MISMATCH)
    assert len(watch._waiting) == 3
    assert len(watch._stands) == 3


@pytest.mark.parametrize("name", ["ratio_changed", "models_changed"])
async def test_what_has_happened_is_told_each_time_and_never_cleared(name):
    book = Book()
    watch = DeviceWatch(book.append, HandClock(), meters=lambda: [meter()])
    watch.tell(meter(), Notice(name, stands=None, fields={"reason": "r"}))
    await run_until(watch, lambda: book.events)
    assert (book.events[0].kind, watch._stands) == ("alarm", set())
