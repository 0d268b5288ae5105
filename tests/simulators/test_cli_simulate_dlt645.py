"""`headend simulate dlt645`: what its options and its file say is what the meters do."""

import argparse
import asyncio
import os
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise

import pytest

from headend.cli import simulate_dlt645
from headend.cli.main import main
from headend.cli.simulate_options import as_zone
from protocols.dlt645.formats import MeterTime
from protocols.dlt645.frame import DELIMITER, WAKE_UP, Frame645, parse
from protocols.dlt645.load_profile import decode_records, load_request
from protocols.dlt645.master import read_request
from protocols.framing import FrameFound, Framer
from simulators.control import StreetControl
from simulators.faults import FAULT_NAMES
from simulators.meter645_events import KINDS
from simulators.meter645_text import STORES
from tests.simulators.bench645 import ADDRESS, command
from tests.simulators.test_sim_serve import PtyClient

OTHER = "000000000777"


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    simulate_dlt645.add_arguments(parser)
    parser.set_defaults(seed=1, zone=as_zone("Asia/Shanghai"))
    return parser.parse_args(["--address", ADDRESS, "--delay-ms", "0", *arguments])


class Master:
    """Asks over a TCP port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, raw: bytes) -> Frame645:
        """The first whole frame that comes."""
        self._writer.write(raw)
        framer = Framer(DELIMITER)
        async with asyncio.timeout(30):
            while True:
                for event in framer.feed(await self._reader.read(4096)):
                    if isinstance(event, FrameFound):
                        return parse(event.raw)

    async def read(self, di: str, address: str = ADDRESS) -> Frame645:
        return await self.ask(read_request(address, di).raw)


@asynccontextmanager
async def simulated(capsys, *arguments: str) -> AsyncIterator[Master]:
    async with await simulate_dlt645.start(parsed("--tcp", "127.0.0.1:0", *arguments), None):
        word, where = capsys.readouterr().out.split()
        assert word == "READY"
        host, _, port = where.removeprefix("tcp://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield Master(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()


async def test_load_records_of_a_week_with_a_hole_are_served(capsys):
    hole = "2020-01-01T00:00/2099-01-01T00:00,bad,load"
    async with simulated(capsys, "--past-days", "7", "--gap", hole) as master:
        frame = await master.ask(load_request(ADDRESS, 4, which="latest", count=2).raw)
        first, second = decode_records(frame.data[4:], 4)
        assert first.is_bad
        assert isinstance(second.time, MeterTime)
        frame = await master.ask(load_request(ADDRESS, 4, which="earliest", count=2).raw)
        earliest = decode_records(frame.data[4:], 4)[0].time
        assert (second.time.date - earliest.date).days == 7


async def test_the_makes_options_are_those_of_its_replies(capsys):
    options = (
        "--edition", "2007", "--frame-max", "30", "--absolute", "--repeat-wildcard",  "--empty",
        "ff",
        "--load-interval-min", "60", "--load-mode", "08", "--load-separators", "data_only",
        "--load-count", "whole", "--load-wrong-sum", "1", "--load-year-first", "--wakeup", "2",
        "--jitter-ms", "1", "--kind", "pv3",
    )  # fmt: skip
    async with simulated(capsys, *options) as master:
        frame = await master.read("0101FF00", "AAAAAAAAAAAA")
        assert (frame.address, frame.control, len(frame.data)) == ("AAAAAAAAAAAA", 0xB1, 30)
        assert (await master.read("0506013E")).data[4:] == b"\xff" * 20
        frame = await master.ask(load_request(ADDRESS, 4, which="latest", count=1).raw)
        kept = frame.data[4:] + (await further(master))
        (record,) = decode_records(kept, 4, year_first=True)
        assert set(record.flags) == {"checksum", "no_separators", "year_first"}
        assert record.time.time.minute == 0


async def further(master: Master) -> bytes:
    frame = await master.ask(command(ADDRESS, 0x12, "02000406 01"))
    return frame.data[4:-1]


async def test_a_meter_of_the_old_edition_by_option_and_by_profile(capsys):
    async with simulated(capsys, "--edition", "1997", "--import-kwh", "12.34") as master:
        assert (await master.read("9010", "999999999999")).data == bytes.fromhex("109034120000")
    async with simulated(capsys, "--profile", "frequency_1997", "--speed", "0") as master:
        assert (await master.read("B660")).control == 0x81
    async with simulated(capsys, "--profile", "iot_three_phase", "--kind", "three") as master:
        assert len((await master.read("0203FF00")).data) == 4 + 16


async def test_commands_are_taken_and_refused_as_the_options_say(capsys):
    options = ("--password", "4:123456", "--lock-after", "1", "--lock-s", "600", "--clock-single")
    time = "02010004", "12345678", "000007"
    async with simulated(capsys, *options) as master:
        right = command(ADDRESS, 0x14, f"{time[0]} 04563412 {time[1]} {time[2]}")
        wrong = command(ADDRESS, 0x14, f"{time[0]} 04000000 {time[1]} {time[2]}")
        answers = [(await master.ask(raw)).control for raw in (right, wrong, right)]
        assert answers == [0x94, 0xD4, 0xD4]
    async with simulated(capsys, "--no-key") as master:
        answer = await master.ask(command(ADDRESS, 0x14, f"{time[0]} 04000000 {time[1]} {time[2]}"))
        assert answer.data == b"\x04"


async def test_a_file_tells_each_meter_its_own_troubles(tmp_path, capsys):
    file = tmp_path / "troubles.yaml"
    file.write_text(
        "all: {faults: ['wrong_checksum:every=50']}\n"
        "meters:\n"
        f"  '{ADDRESS}': {{faults: ['refuse:di=00010000,err=4']}}\n"
        f"  '{OTHER}': {{events: ['overload:from=2026-01-01T00:00,phase=1'], gaps: []}}\n"
    )
    async with simulated(capsys, "--address", OTHER, "--faults", str(file)) as master:
        assert (await master.read("00010000")).data == b"\x04"
        assert (await master.read("00010000", OTHER)).control == 0x91
        counted = await asyncio.gather(master.read("030F0000", OTHER))
        assert counted[0].data[4:7] == b"\x01\x00\x00"
        assert (await master.read("030F0000")).data[4:7] == bytes(3)


async def test_a_running_meter_is_steered_over_its_socket(tmp_path, capsys):
    path = tmp_path / "control"
    async with simulated(capsys, "--control", str(path)) as master:
        control = StreetControl(path)
        since = await control.switch_off()
        truth = await control.truth(at_ms=since, points=["active_import_total"])
        shown = truth[ADDRESS]["active_import_total"].shown
        payload = (await master.read("00010000")).data[4:]
        assert Decimal(payload[::-1].hex()) / 100 == shown
        await control.command("fault", meter=ADDRESS, fault="refuse:err=2")
        assert (await master.read("00010000")).control == 0xD1
        await control.close()
    assert not path.exists()


async def test_a_damaged_line_damages_and_an_echo_comes_first(capsys):
    async with simulated(capsys, "--damage", "lost=0.0,flip=0.0", "--echo") as master:
        request = read_request(ADDRESS, "00010000").raw
        assert (await master.ask(request)).raw == request


async def test_a_speed_changed_on_a_pty_is_the_one_the_meter_hears(tmp_path, capsys):
    path = tmp_path / "meter"
    async with await simulate_dlt645.start(parsed("--pty", str(path), "--wakeup", "1"), None):
        assert capsys.readouterr().out.startswith("READY serial://")
        client = PtyClient(path)
        set_speed(client.fd, termios.B2400)
        answers = []
        for speed, raw in (
            (termios.B2400, command(ADDRESS, 0x17, "20")),
            (termios.B9600, read_request(ADDRESS, "04000703").raw),
        ):
            set_speed(client.fd, speed)
            client.data.clear()
            os.write(client.fd, raw)
            answers.append(parse((await client.frame()).lstrip(WAKE_UP)).data)
        assert answers == [b"\x20", bytes.fromhex("0307000420")]
        client.close()


def set_speed(fd: int, speed: int) -> None:
    settings = termios.tcgetattr(fd)
    settings[4] = settings[5] = speed
    termios.tcsetattr(fd, termios.TCSANOW, settings)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gap", "yesterday"], "a gap is FROM/UNTIL"),
        (["--gap", "2026-01-01T00:00/2026-01-02T00:00,nowhere"], "daily_freeze"),
        (["--gap", "2026-01-02T00:00/2026-01-01T00:00"], "ends after it begins"),
        (["--gap", "2026-01-02T00:00+08:00/2026-01-03T00:00"], "no offset"),
        (["--event", "overlord:from=2026-01-01T00:00"], "overload"),
        (["--event", "overload"], "KIND:from="),
        (["--event", "overload:from=2026-01-01T00:00"], "of a phase"),
        (["--damage", "flip=2"], "a share of 0..1"),
        (["--damage", "flap=0.1"], "names: flip"),
        (["--load-interval-min", "7"], "divides a day"),
        (["--profile", "iot_three_fase"], "iot_three_phase"),
        (["--faults", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_a_usage_error_that_says_what_can(arguments, told, capsys):
    assert main(["simulate", "dlt645", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("al: {}", "known: all, meters"),
        ("all: {fault: []}", "known: events, faults, gaps"),
        ("all: {faults: noise}", "list of texts"),
        ("all: {faults: [noize]}", "no fault is called 'noize'"),
        ("meters: [1]", "mapping of addresses"),
        ("meters: {'000000000009': {}}", "no such meter"),
        ("all: []", "is a mapping"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_told_apart(text, told, tmp_path, capsys):
    file = tmp_path / "troubles.yaml"
    file.write_text(text)
    assert main(["simulate", "dlt645", "--faults", str(file)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--password", "4"], ["--capture", "2"], ["--load-mode", "FF"], ["--frame-max", "8"]],
)
def test_an_option_that_cannot_be_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "dlt645", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_help_names_every_fault_event_and_store(capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "dlt645", "--help"])
    said = capsys.readouterr().out
    for name in (*FAULT_NAMES, *KINDS, *STORES):
        assert name in said, name
    assert all(a < b for a, b in pairwise(said.index(w) for w in ("FAULTS", "EVENTS", "GAPS")))
