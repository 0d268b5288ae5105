"""A daemon polls no bus whose plan falls behind unless told to. In compressed time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headend.commands import Parts, commands, read_now
from headend.config import Config, load_config
from headend.domain import alarms
from headend.journal import JournalReader
from headend.liveness import status_line
from headend.overload import NOT_POLLED, OVERLOADED
from simulators.schedule import VirtualTimeLoop, run_virtual
from tests.soak.world import EXPORT, IMPORT, Estate, daemon, local_ms

START_MS = local_ms("2026-11-25T12:00:00")
EACH = 8
FULL, CALM = "bus-01", "bus-02"
BOTH = f"points: [{IMPORT}, {EXPORT}]"
# 8 meters need 4.4 s at 2400 Bd: in time within 10 s, not within 2 s.
PLANS = (
    f"  p: {{every: [{{seconds: 30, {BOTH}, tolerance_s: 2}}]}}\n"
    f"  q: {{every: [{{seconds: 30, {BOTH}, tolerance_s: 10}}]}}"
)
Story = Callable[[Estate, Config], Awaitable[None]]


def run(tmp_path: Path, story: Story) -> None:
    """The first bus has plan `p`, the second plan `q`."""

    async def main(loop: VirtualTimeLoop) -> None:
        estate = Estate(loop, buses=2, each=EACH, baud=2400)
        config = estate.configure(tmp_path, PLANS, broker=None)
        meters = tmp_path / "meters.csv"
        lines = meters.read_text().splitlines()
        meters.write_text(
            "\n".join(line.replace(",p,", ",q,") if f",{CALM}," in line else line for line in lines)
            + "\n"
        )
        await story(estate, load_config(config.path))

    run_virtual(main, start_ms=START_MS)


def change(config: Config, **keys: str) -> Config:
    """The first bus with these keys besides."""
    text = config.path.read_text()
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    lines = [
        line.partition('"}')[0] + f'"{more}}}' if line.startswith(f"  {FULL}:") else line
        for line in _without(text)
    ]
    config.path.write_text("\n".join(lines) + "\n")
    return load_config(config.path)


def _without(text: str) -> list[str]:
    lines = text.splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith(f"  {FULL}:"))
    lines[number] = lines[number].partition('", ')[0].removesuffix('"}') + '"}'
    return lines


async def status_of(parts: Parts) -> dict[str, Any]:
    found: dict[str, Any] = await commands(parts)["status"]({})
    return found


async def standing(parts: Parts) -> dict[str, alarms.StandingAlarm]:
    found = alarms.standing(await parts.journal.meter_events(alarms.KINDS))
    return {alarm.name: alarm for alarm in found if alarm.name in (NOT_POLLED, OVERLOADED)}


def readings(estate: Estate, config: Config, bus: str) -> int:
    """Registers read there so far."""
    with JournalReader(config.journal_path) as reader:
        return sum(
            1 for hung in estate.on_bus(bus) for _ in reader.readings(meter=hung.id, point=IMPORT)
        )


def reasons(config: Config, bus: str, until_ms: int) -> Counter[str]:
    with JournalReader(config.journal_path) as reader:
        return Counter(
            line.reason or line.state.value
            for day in reader.due_days()
            for line in reader.due_lines(day, until_ms=until_ms)
            if line.bus == bus
        )


def test_a_bus_whose_plan_falls_behind_is_not_polled_and_the_rest_is(tmp_path: Path) -> None:
    async def story(estate: Estate, config: Config) -> None:
        async with daemon(config, estate) as parts:
            await asyncio.sleep(305)
            assert readings(estate, config, FULL) == 0
            assert readings(estate, config, CALM) >= 9 * EACH
            alarm = (await standing(parts))[NOT_POLLED]
            assert alarm.subject == FULL
            message = str(alarm.fields["message"])
            assert "within 2.0 s" in message
            assert "It would fit with" in message
            assert f"buses.{FULL}.allow_overload: true" in message
            assert alarm.fields["fullest"]["needs_s"] > 4
            assert {advice["change"] for advice in alarm.fields["advice"]} >= {"meters"}
            assert f"not polled: {FULL}" in status_line(
                "he",
                meters=1,
                buses=parts.buses,
                feed_connected=None,
                held_back=parts.engine.held_back,
            )
            shown = {plan["bus"]: plan for plan in (await status_of(parts))["plans"]}
            assert (shown[FULL]["fits"], shown[FULL]["polled"]) == (False, False)
            assert (shown[CALM]["fits"], shown[CALM]["polled"]) == (True, True)
            # Somebody who asks is answered, and that counts.
            answers = await read_now(parts, "M-00001", [IMPORT], 30.0)
            assert answers[0]["value"] is not None
        until_ms = estate.loop.now_ms() - 60_000
        assert set(reasons(config, FULL, until_ms)) <= {"overload", "read"}
        assert set(reasons(config, CALM, until_ms)) == {"read"}

    run(tmp_path, story)


def test_told_to_it_polls_the_bus_and_says_what_it_will_miss(tmp_path: Path) -> None:
    async def story(estate: Estate, config: Config) -> None:
        config = change(config, allow_overload="true")
        async with daemon(config, estate) as parts:
            await asyncio.sleep(125)
            assert readings(estate, config, FULL) > EACH
            alarm = (await standing(parts))[OVERLOADED]
            assert 40 <= alarm.fields["misses_percent"] <= 70
            assert f"about {alarm.fields['misses_percent']} % of what is due" in str(
                alarm.fields["message"]
            )
            assert NOT_POLLED not in await standing(parts)
        until_ms = estate.loop.now_ms() - 60_000
        found = reasons(config, FULL, until_ms)
        assert found["read"] > 0
        missed = 100 * (found.total() - found["read"]) / found.total()
        assert missed == pytest.approx(alarm.fields["misses_percent"], abs=15)

    run(tmp_path, story)


def test_a_reload_holds_a_bus_back_and_lets_it_go_again(tmp_path: Path) -> None:
    async def story(estate: Estate, config: Config) -> None:
        config = change(config, allow_overload="true")
        async with daemon(config, estate) as parts:
            assert parts.reloads is not None
            await asyncio.sleep(65)
            change(config, allow_overload="false")
            assert (await parts.reloads.ask())["outcome"] == "applied"
            assert set(await standing(parts)) == {NOT_POLLED}
            await asyncio.sleep(60)
            held = readings(estate, config, FULL)
            await asyncio.sleep(120)
            assert readings(estate, config, FULL) == held > 0
            # Another plan, which fits: the bus is polled from the next instant on.
            text = config.path.read_text().replace("tolerance_s: 2}", "tolerance_s: 10}")
            config.path.write_text(text)
            assert (await parts.reloads.ask())["outcome"] == "applied"
            assert await standing(parts) == {}
            await asyncio.sleep(125)
            assert readings(estate, config, FULL) - held >= 3 * EACH

    run(tmp_path, story)


def test_measured_answer_times_are_what_a_plan_counts_with(tmp_path: Path) -> None:
    """Meters are told to be slow and are not: once they are known, the bus is polled."""

    async def story(estate: Estate, config: Config) -> None:
        config.path.write_text(
            config.path.read_text().replace("tolerance_s: 2}", "tolerance_s: 10}")
        )
        config = change(config, turnaround_ms="900")
        async with daemon(config, estate) as parts:
            assert set(await standing(parts)) == {NOT_POLLED}
            for _ in range(5):
                for hung in estate.on_bus(FULL):
                    await read_now(parts, hung.id, [IMPORT], 30.0)
            assert parts.plans is not None
            await asyncio.sleep(2)  # attempts ride along with a later commit
            await parts.plans.look_again()
            assert await parts.plans.tell()
            assert await standing(parts) == {}
            shown = {plan["bus"]: plan for plan in (await status_of(parts))["plans"]}
            assert shown[FULL]["measured_meters"] == EACH
            assert shown[FULL]["polled"]
            held = readings(estate, config, FULL)
            await asyncio.sleep(65)
            assert readings(estate, config, FULL) - held >= 2 * EACH

    run(tmp_path, story)


def test_what_stands_is_told_once_over_restarts(tmp_path: Path) -> None:
    async def story(estate: Estate, config: Config) -> None:
        for _start in range(2):
            async with daemon(config, estate) as parts:
                await asyncio.sleep(10)
                assert set(await standing(parts)) == {NOT_POLLED}
        with JournalReader(config.journal_path) as reader:
            events = reader.events(kinds=alarms.KINDS)
        assert [e.kind for e in events if e.fields["alarm"] == NOT_POLLED] == [alarms.RAISED]

    run(tmp_path, story)
