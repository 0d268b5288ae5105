"""The real daemon in compressed time: what its outages become for journal, socket and log."""

import asyncio
import io
import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from headend.cli.main import main
from headend.commands import commands
from headend.domain.alarms import KINDS, standing
from headend.journal import JournalReader
from headend.logs import keep_ticking, logging_to
from simulators.schedule import run_virtual
from tests.soak.world import Estate, daemon, local_ms

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "alarm.schema.json").read_text("utf-8")
)
START_MS = local_ms("2026-03-02T10:00:00")
PLAN = "  p: {every: [{minutes: 1, points: [active_import_total]}]}"


def events(config):
    """The alarms and clearings in the journal, as `+name subject`."""
    signs = {"alarm": "+", "alarm_cleared": "-"}
    with JournalReader(config.journal_path) as reader:
        return [
            f"{signs[e.kind]}{e.fields['alarm']} "
            f"{e.fields.get('meter') or e.fields.get('bus') or ''}".strip()
            for e in reader.events(kinds=KINDS)
        ]


def in_virtual_time(story):
    """Run a coroutine that is given the loop, at ten o'clock in the morning."""
    return run_virtual(story, start_ms=START_MS)


def test_a_pulled_adapter_is_one_alarm_that_survives_restarts_and_ends(tmp_path, capsys):
    async def story(loop):
        estate = Estate(loop, buses=3, each=4, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        async with daemon(config, estate) as parts:
            await asyncio.sleep(120)
            estate.links["bus-02"].unplug()
            await asyncio.sleep(600)
            assert events(config) == ["+bus_down bus-02"]
            status = await commands(parts)["status"]({})
            (alarm,) = status["alarms"]
            jsonschema.validate(alarm, SCHEMA)
            assert (alarm["alarm"], alarm["subject"]) == ("bus_down", "bus-02")
            assert alarm["fields"]["meters"] == 4
        async with daemon(config, estate):
            await asyncio.sleep(600)
            assert events(config) == ["+bus_down bus-02"]
            estate.links["bus-02"].plug()
            await asyncio.sleep(300)
            assert events(config) == ["+bus_down bus-02", "-bus_down bus-02"]
        return config

    config = in_virtual_time(story)
    assert main(["alarms", "--config", str(config.path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no alarm stands" in shown.err
    assert main(["alarms", "--config", str(config.path), "--all", "--json"]) == 0
    (alarm,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    jsonschema.validate(alarm, SCHEMA)
    assert alarm["standing"] is False
    assert alarm["until"] > alarm["since"]
    assert alarm["fields"]["count"] > 0


def test_a_silent_meter_is_told_in_both_languages_while_the_daemon_runs(tmp_path, capsys):
    async def story(loop):
        estate = Estate(loop, buses=1, each=5, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        async with daemon(config, estate):
            await asyncio.sleep(120)
            estate.meters["M-00003"].silence()
            await asyncio.sleep(1700)
            assert events(config) == []
            await asyncio.sleep(300)
            for lang in ("en", "zh"):
                main(["alarms", "--config", str(config.path), "--lang", lang])
            estate.meters["M-00003"].speak()
            # It is asked seldom now: at most ten minutes until the next probe.
            await asyncio.sleep(900)
            return config

    config = in_virtual_time(story)
    out = capsys.readouterr().out
    assert "meter_silent Meter silent" in out
    assert "meter_silent 电表无应答" in out
    assert "M-00003" in out
    assert "检查电表供电、接线和通信地址" in out
    assert events(config) == ["+meter_silent M-00003", "-meter_silent M-00003"]


def test_a_cut_line_is_the_buss_alarm_and_no_meters(tmp_path):
    async def story(loop):
        estate = Estate(loop, buses=2, each=4, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        async with daemon(config, estate):
            await asyncio.sleep(120)
            for hung in estate.on_bus("bus-01"):
                hung.silence()
            await asyncio.sleep(2700)
            told = events(config)
            for hung in estate.on_bus("bus-01"):
                hung.speak()
            await asyncio.sleep(1500)
        return told, events(config)

    down, all_told = in_virtual_time(story)
    # Half of all meters on one bus are not many buses.
    assert down == ["+bus_down bus-01"]
    assert all_told == ["+bus_down bus-01", "-bus_down bus-01"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_twenty_pulled_adapters_are_one_alarm_and_few_lines(tmp_path, style):
    stream = io.StringIO()

    async def story(loop):
        estate = Estate(loop, buses=20, each=2, baud=9600)
        config = estate.configure(tmp_path, PLAN, broker=None)
        with logging_to(stream, style=style, clock=loop, environment={}, level="info") as limit:
            keep_ticking(limit, loop)
            async with daemon(config, estate):
                await asyncio.sleep(120)
                before = len(stream.getvalue().splitlines())
                for link in estate.links.values():
                    link.unplug()
                await asyncio.sleep(600)
                gone = stream.getvalue().splitlines()[before:]
                for link in estate.links.values():
                    link.plug()
                await asyncio.sleep(400)
        return gone, events(config)

    gone, told = in_virtual_time(story)
    assert told == ["+mass_silence", "-mass_silence"]
    # One for each port, and one for the alarm; ten minutes add nothing.
    assert len(gone) <= 20 + 1
    everything = stream.getvalue().splitlines()
    assert len(everything) < 120, Counter(line[25:60] for line in everything).most_common(5)


def test_a_journal_without_room_delays_alarms_and_loses_none(tmp_path):
    from headend.acquisition.outage_watch import OutageWatch
    from headend.domain.errors import JournalFull

    async def story(loop):
        kept, tries = [], []

        async def append(event):
            tries.append(event)
            if len(tries) < 4:
                raise JournalFull("no room")
            kept.append(event)
            return len(kept)

        watch = OutageWatch(append, loop, buses=dict, meters=tuple)
        watch.outages.restore([], loop.monotonic())
        watch.outages.step = lambda now_s, now_ms: made.pop(0) if made else []
        from headend.domain.meter import Event

        made = [[Event("alarm", 1, {"alarm": "bus_down", "bus": bus}) for bus in "abc"]]
        await watch.step()
        return kept

    kept = in_virtual_time(story)
    assert [event.fields["bus"] for event in kept] == ["a", "b", "c"]


def test_a_clock_that_is_set_is_told_once(tmp_path):
    from headend.acquisition.outage_watch import OutageWatch

    class Clock:
        wall_ms, mono_s = 1_770_000_000_000, 50.0

        def now_ms(self):
            return self.wall_ms

        def monotonic(self):
            return self.mono_s

    async def story(loop):
        kept, clock = [], Clock()

        async def append(event):
            kept.append(event)
            return 1

        watch = OutageWatch(append, clock, buses=dict, meters=tuple)
        for jump_ms in (0, 0, 3_600_000, 0, -7_200_000, 0, 2000, 0):
            clock.mono_s += 5
            clock.wall_ms += 5000 + jump_ms
            await watch.step()
        return kept

    told = in_virtual_time(story)
    assert [event.fields["jump_s"] for event in told] == [3600, -7200]
    assert standing(told) == []
