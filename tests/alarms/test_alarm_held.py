"""The alarm of a held register is over when a believable value follows or the meter has gone."""

from pathlib import Path

from headend.acquisition.outage_watch import HELD_EVERY_S, OutageWatch
from headend.domain.alarms import KINDS, standing
from headend.domain.meter import Event
from simulators.faults import make_fault
from tests.acquisition.bench_meter import bench


class Clock:
    """Goes on as told."""

    def __init__(self, clock):
        self._clock = clock
        self.ahead_s = 0.0

    def now_ms(self):
        return self._clock.now_ms()

    def monotonic(self):
        return self._clock.monotonic() + self.ahead_s


async def test_it_stands_as_long_as_the_register_is_held_and_no_longer(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        journal, clock = made.journal, Clock(made.clock)
        watch = OutageWatch(
            journal.append_event, clock, buses=dict, meters=tuple,
            journalled=lambda: journal.meter_events(KINDS),
        )  # fmt: skip
        watch.held = lambda: made.reader.held

        async def alarm(name, fields):
            await journal.append_event(Event("alarm", clock.now_ms(), {"alarm": name, **fields}))

        made.reader._alarm = alarm

        async def names():
            clock.ahead_s += HELD_EVERY_S
            await watch.step()
            return [a.subject for a in standing(await journal.meter_events(KINDS))]

        await made.read()
        assert await names() == []
        made.device.add_fault(make_fault("backward_register", every="1"))
        await made.read(due=made.due_now())
        assert await names() == ["M-1 active_import_total"]
        await made.read(due=made.due_now())
        assert await names() == ["M-1 active_import_total"]
        made.device.clear_faults()
        await made.read(due=made.due_now())
        assert made.reader.held == frozenset()
        assert await names() == []
        assert await names() == []
        assert len(await journal.meter_events(("alarm_cleared",))) == 1


async def test_it_is_over_when_the_meter_is_exchanged(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.read()
        made.device.add_fault(make_fault("backward_register", every="1"))
        await made.read(due=made.due_now())
        assert made.reader.held == {("M-1", "active_import_total")}
        made.reader.left("M-1")
        assert made.reader.held == frozenset()
