"""The six drills: what each does, what must show itself, what it means for the books."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from headend.cli.drills import books
from headend.cli.drills.odd_daemon import write_odd
from headend.cli.drills.report import DrillReport, Lost
from headend.cli.drills.series import SmallSeries
from headend.cli.drills.world import (
    INTERVAL_S,
    POWER,
    REGISTERS,
    Look,
    Setting,
    World,
    world,
)
from headend.cli.staging import free_port
from headend.journal import JournalReader

CLOCK_WRONG_S = 3600.0
MIB = 1024 * 1024
PLENTY, SCARCE = 1 << 40, 32 * MIB  # between the two reserves of the drill's configuration
RESERVES = "reserve_mb: {telemetry: 64, billing: 16}"


@dataclass(frozen=True, slots=True)
class Options:
    """Of a run. `billing`: arguments of Python for another consumer than ours, for tests."""

    directory: Path
    fault_s: float
    language: str
    billing: tuple[str, ...] | None = None


async def hold(name: str, options: Options) -> DrillReport:
    """Hold a drill by its name; what it came to. KeyError for one there is not."""
    report = DrillReport(name, 0.0)
    await STORIES[name](options, report)
    return report


class Fault:
    """From the moment a fault begins until everything is as before."""

    def __init__(self, on: World, options: Options) -> None:
        self._on = on
        self._options = options
        self.from_ms = 0
        self.until_ms = 0

    def begins(self, detail: str) -> None:
        """Now."""
        self.from_ms = self._on.now_ms()
        self._on.step("fault_begins", detail=detail)

    async def lasts(self) -> None:
        """As long as it was asked for, counted from its beginning, and two rounds of readings."""
        least_s = 2 * INTERVAL_S + 2
        end_ms = self.from_ms + int(max(self._options.fault_s, least_s) * 1000)
        await asyncio.sleep(max(0.0, (end_ms - self._on.now_ms()) / 1000))

    def ends(self, detail: str) -> None:
        """Now."""
        self.until_ms = self._on.now_ms()
        self._on.report.fault_s = (self.until_ms - self.from_ms) / 1000
        self._on.step("fault_ends", detail=detail)

    async def was_read_meanwhile(
        self, points: Iterable[str], but: frozenset[str] = frozenset()
    ) -> bool:
        """Whether the meters (but those of some buses) were read at the instants in between."""
        wanted = frozenset(points)
        look: Look = await self._on.look()
        # The instant that was under way when the fault ended may still be worked on.
        until_ms = self.until_ms - INTERVAL_S * 1000
        asked = [
            line
            for line in look.between(self.from_ms, until_ms)
            if line.key.point in wanted and line.bus not in but
        ]
        read = sum(line.read_id is not None for line in asked)
        return bool(asked) and read >= 0.7 * len(asked)


async def broker_lost(options: Options, report: DrillReport) -> None:
    """The broker is killed and started again."""
    setting = Setting(billing=options.billing)
    async with world(options.directory, report, setting, options.language) as on:
        await on.stand_up(options.fault_s)
        fault = Fault(on, options)
        fault.begins("broker")
        await on.stop_broker()

        async def away() -> bool:
            return (await on.status()).get("feed", {}).get("connected") is False

        async def missing() -> bool:
            return "receipts_missing" in await on.alarms()

        await on.see("feed_away", away)
        await on.see("receipts_missing", missing)
        await fault.lasts()
        fault.ends("broker")
        await on.start_broker()

        async def back() -> bool:
            status = await on.status()
            return bool(
                status.get("feed", {}).get("connected")
                and not status["alarms"]
                and await on.is_read_and_delivered(fault.until_ms)
            )

        await on.recover("feed_back", back)
        on.degraded("delivery", fault.from_ms)
        seen = await fault.was_read_meanwhile(on.points)
        on.tell_seen("reading_goes_on", seen=seen)
        await on.close_books()
        await asyncio.to_thread(books.compare, on)


async def influx_lost(options: Options, report: DrillReport) -> None:
    """The time-series database goes away and comes back."""
    async with SmallSeries(free_port()) as series:
        setting = Setting(
            timeseries=f'{{kind: influxdb1, url: "{series.url}", database: meters}}',
            billing=options.billing,
        )
        async with world(options.directory, report, setting, options.language) as on:
            await on.stand_up(options.fault_s)
            fault = Fault(on, options)
            fault.begins("influxdb")
            await series.stop()

            async def away() -> bool:
                (writer,) = (await on.status()).get("timeseries") or [{}]
                return bool(writer.get("state") == "retrying" and writer["lag_s"] > 0)

            await on.see("series_away", away)
            await fault.lasts()
            fault.ends("influxdb")
            await series.start()

            async def back() -> bool:
                (writer,) = (await on.status()).get("timeseries") or [{}]
                is_well = writer.get("state") == "writing" and not writer["dead_letters"]
                return bool(is_well) and await on.is_read_and_delivered(fault.until_ms)

            await on.recover("series_back", back)
            on.degraded("charts", fault.from_ms)
            on.tell_seen("reading_goes_on", seen=await fault.was_read_meanwhile(on.points))
            (writer,) = (await on.status()).get("timeseries") or [{}]
            await on.close_books()
            await asyncio.to_thread(books.compare, on)
            if writer.get("dead_letters"):
                report.lost.append(Lost("dead_letters", writer["dead_letters"]))
            _compare_series(on, series)


def _compare_series(on: World, series: SmallSeries) -> None:
    """Every reading of the journal is a point of the database."""
    with JournalReader(on.journal) as journal:
        missing = [
            record
            for record in journal.readings()
            if record.value is not None
            and record.verdict not in ("held", "fail")
            and (record.meter, record.point, record.time) not in series.held
        ]
    if missing:
        first = missing[0]
        example = f"{first.meter} {first.point} {first.time}"
        on.report.lost.append(Lost("not_in_series", len(missing), example))


async def disk_full(options: Options, report: DrillReport) -> None:
    """The journal's disk has less room than values for charts may use."""
    odd = options.directory / "odd.json"
    write_odd(odd, free_bytes=PLENTY)
    setting = Setting(headend=RESERVES, daemon=_odd_daemon(odd), billing=options.billing)
    async with world(options.directory, report, setting, options.language) as on:
        await on.stand_up(options.fault_s)
        fault = Fault(on, options)
        fault.begins(f"{SCARCE // MIB} MiB")
        write_odd(odd, free_bytes=SCARCE)

        async def shed() -> bool:
            return "journal_space" in await on.alarms()

        await on.see("telemetry_shed", shed)
        await fault.lasts()
        fault.ends(f"{PLENTY // MIB} MiB")
        write_odd(odd, free_bytes=PLENTY)

        async def room() -> bool:
            alarms = await on.alarms()
            return "journal_space" not in alarms and await on.is_read_and_delivered(fault.until_ms)

        await on.recover("room_again", room)
        refused = [
            line
            for line in (await on.look()).between(fault.from_ms - INTERVAL_S * 1000, on.now_ms())
            if line.key.point == POWER and line.read_id is None and line.reason is not None
        ]
        on.degraded("telemetry", fault.from_ms, f"{len(refused)} points")
        on.tell_seen("billing_kept", seen=await fault.was_read_meanwhile(REGISTERS))
        await on.close_books()
        await asyncio.to_thread(books.compare, on, shed=True)


async def clock_wrong(options: Options, report: DrillReport) -> None:
    """The wall clock is an hour ahead for a while."""
    odd = options.directory / "odd.json"
    write_odd(odd, clock_s=0.0)
    # Instants for a daemon that believes the wrong time too: it would read for them.
    room_s = 1.25 * CLOCK_WRONG_S
    setting = Setting(daemon=_odd_daemon(odd), billing=options.billing, room_s=room_s)
    async with world(options.directory, report, setting, options.language) as on:
        await on.stand_up(options.fault_s)
        fault = Fault(on, options)
        fault.begins(f"+{CLOCK_WRONG_S:.0f} s")
        write_odd(odd, clock_s=CLOCK_WRONG_S)

        async def jumped() -> bool:
            return "clock_jump" in await on.alarms_ever()

        await on.see("clock_alarm", jumped)
        await fault.lasts()
        fault.ends("0 s")
        write_odd(odd, clock_s=0.0)

        async def back() -> bool:
            return await on.is_read_and_delivered(fault.until_ms)

        await on.recover("clock_back", back)
        on.degraded("clock", fault.from_ms)
        await on.close_books()
        await asyncio.to_thread(books.compare, on)


async def mass_silence(options: Options, report: DrillReport) -> None:
    """The meters of two buses out of three say nothing for a while."""
    setting = Setting(billing=options.billing)
    async with world(options.directory, report, setting, options.language) as on:
        await on.stand_up(options.fault_s)
        silent = frozenset(bus.name for bus in on.plan.buses[:2])
        meters = [on.street.meters[m.asset_id] for m in on.plan.meters if m.bus in silent]
        fault = Fault(on, options)
        fault.begins(f"{len(meters)} / {len(on.plan.meters)}")
        for number, meter in enumerate(meters):
            meter.add_fault_text("silent", number)

        async def told() -> bool:
            return "mass_silence" in await on.alarms()

        await on.see("mass_silence", told)
        names = sorted((await on.alarms()).keys() & {"mass_silence", "bus_down", "meter_silent"})
        on.tell_seen("one_alarm", seen=names == ["mass_silence"])
        await fault.lasts()
        fault.ends(f"{len(meters)} / {len(on.plan.meters)}")
        for meter in meters:
            meter.clear_faults()
        await _all_read_again(on, fault, silent)


async def adapter_pulled(options: Options, report: DrillReport) -> None:
    """The device of a serial bus vanishes and returns under the same path."""
    setting = Setting(billing=options.billing)
    async with world(options.directory, report, setting, options.language) as on:
        await on.stand_up(options.fault_s)
        bus = on.plan.buses[0].name
        fault = Fault(on, options)
        fault.begins(bus)
        on.port(bus).unplug()

        async def down() -> bool:
            alarms = await on.alarms()
            return [alarm["subject"] for alarm in alarms.get("bus_down", [])] == [bus]

        await on.see("bus_down", down)
        await fault.lasts()
        fault.ends(bus)
        on.port(bus).plug()
        await _all_read_again(on, fault, frozenset({bus}))


async def _all_read_again(on: World, fault: Fault, away: frozenset[str]) -> None:
    async def back() -> bool:
        return not await on.alarms() and await on.is_read_and_delivered(fault.until_ms)

    await on.recover("meters_back", back)
    unread = [
        line
        for line in (await on.look()).between(fault.from_ms - INTERVAL_S * 1000, on.now_ms())
        if line.bus in away and line.read_id is None
    ]
    on.degraded("reading", fault.from_ms, f"{', '.join(sorted(away))}; {len(unread)} points")
    on.tell_seen("others_read", seen=await fault.was_read_meanwhile(on.points, away))
    await on.close_books()
    await asyncio.to_thread(books.compare, on, excused=away)


def _odd_daemon(odd: Path) -> tuple[str, ...]:
    return ("-m", "headend.cli.drills.odd_daemon", "--odd", str(odd))


Story = Callable[[Options, DrillReport], Awaitable[None]]
STORIES: dict[str, Story] = {
    "broker-lost": broker_lost,
    "influx-lost": influx_lost,
    "disk-full": disk_full,
    "clock-wrong": clock_wrong,
    "mass-silence": mass_silence,
    "adapter-pulled": adapter_pulled,
}
