"""The serial link on real pseudo terminals."""

import asyncio
import contextlib
import os
import pty
import termios
import tty
from pathlib import Path

import pytest

from headend.domain.errors import PortBusy, PortGone
from headend.domain.link import SerialSpec
from headend.transport import Returning, make_link
from headend.transport import serial_link as module


class Collector:
    def __init__(self):
        self.data = bytearray()
        self.bad: list[int] = []
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()

    def bytes_received(self, data, bad):
        self.bad += [len(self.data) + index for index in bad]
        self.data += data
        self.changed.set()

    def link_lost(self, reason):
        self.lost.append(reason)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def pair():
    """A pseudo terminal: our end and the path of the other."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    path = os.ttyname(theirs)
    os.set_blocking(ours, False)
    try:
        yield ours, path
    finally:
        for fd in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(fd)


def held_open(path):
    """How many of our descriptors are this terminal."""
    links = [f for f in Path("/proc/self/fd").iterdir() if f.is_symlink()]
    return sum(str(f.readlink()).removesuffix(" (deleted)") == path for f in links)


def write_often(link, block, times):
    for _ in range(times):
        link.write(block)


async def read_from(fd, count):
    got = bytearray()
    async with asyncio.timeout(5):
        while len(got) < count:
            with contextlib.suppress(BlockingIOError):
                got += os.read(fd, 65536)
            await asyncio.sleep(0)
    return bytes(got)


@pytest.mark.parametrize("parity", ["none", "even", "odd"])
async def test_every_byte_passes_both_ways_whatever_the_parity(pair, parity):
    ours, path = pair
    everything = bytes(range(256)) * 2 + b"\xff\x00\xff\xff\x00\x00"
    link = make_link(SerialSpec(path, parity=parity))
    got = Collector()
    await link.open(got)
    os.write(ours, everything)
    await got.until(lambda: len(got.data) == len(everything))
    assert bytes(got.data) == everything
    assert got.bad == []
    link.write(everything)
    assert await read_from(ours, len(everything)) == everything
    await link.close()
    assert got.lost == []


@pytest.mark.parametrize("parity", ["none", "even", "odd"])
async def test_a_port_opens_again_and_again_with_the_same_settings(pair, parity):
    ours, path = pair
    link = make_link(SerialSpec(path, parity=parity))
    for n in range(3):
        got = Collector()
        await link.open(got)
        os.write(ours, b"\xff" + bytes([n]))
        await got.until(lambda got=got: len(got.data) == 2)
        assert got.data == b"\xff" + bytes([n])
        await link.close()
        await link.close()


async def test_a_pseudo_terminal_that_refuses_parity_is_opened_without(pair, monkeypatch):
    ours, path = pair
    real = module.serial.Serial
    asked = []

    def picky(*args, **kwargs):
        asked.append(kwargs["parity"])
        if kwargs["parity"] != "N":
            raise termios.error(22, "Invalid argument")
        return real(*args, **kwargs)

    monkeypatch.setattr(module.serial, "Serial", picky)
    link = make_link(SerialSpec(path, parity="even"))
    got = Collector()
    await link.open(got)
    os.write(ours, b"ok")
    await got.until(lambda: got.data == b"ok")
    assert asked == ["E", "N"]
    await link.close()


async def test_a_pseudo_terminal_does_not_claim_to_see_parity(pair):
    link = make_link(SerialSpec(pair[1], parity="even"))
    await link.open(Collector())
    assert not link.parity_seen
    await link.close()


async def test_what_the_configuration_says_of_parity_counts(pair):
    link = make_link(SerialSpec(pair[1], parity="even", parity_seen=True))
    assert link.parity_seen
    await link.open(Collector())
    assert link.parity_seen
    await link.close()


def test_a_character_has_eleven_bits_with_parity_and_ten_without():
    assert make_link(SerialSpec("/dev/x", baud=2400, parity="even")).char_s == 11 / 2400
    assert make_link(SerialSpec("/dev/x", baud=9600, parity="none")).char_s == 10 / 9600


async def test_a_second_opener_is_told_that_the_port_is_in_use(pair):
    first, second = (make_link(SerialSpec(pair[1], parity="none")) for _ in range(2))
    await first.open(Collector())
    with pytest.raises(PortBusy, match="in use by another program"):
        await second.open(Collector())
    await first.close()
    await second.open(Collector())
    await second.close()


async def test_a_missing_port_and_one_that_is_none_say_what_to_do(tmp_path):
    with pytest.raises(PortGone, match="is not there: plug the adapter in"):
        await make_link(SerialSpec(str(tmp_path / "none"))).open(Collector())
    plain = tmp_path / "file"
    plain.write_text("")
    with pytest.raises(PortGone, match="cannot be opened as a serial port"):
        await make_link(SerialSpec(str(plain))).open(Collector())


async def test_a_port_without_permission_names_the_group(pair, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.serial, "Serial", refuse)
    with pytest.raises(PortGone, match="group dialout"):
        await make_link(SerialSpec(pair[1])).open(Collector())


async def test_a_port_that_the_unit_keeps_from_the_service_names_the_unit(pair, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.serial, "Serial", refuse)
    with pytest.raises(PortGone, match="DeviceAllow= in the unit"):
        await make_link(SerialSpec(pair[1])).open(Collector())


async def test_a_hang_up_is_told_once_and_the_port_is_closed_at_once(pair):
    ours, path = pair
    link = make_link(SerialSpec(path, parity="none"))
    got = Collector()
    await link.open(got)
    os.close(ours)
    await got.until(lambda: got.lost)
    assert len(got.lost) == 1
    assert held_open(path) <= 1  # the fixture's own
    with pytest.raises(PortGone):
        link.write(b"x")
    await link.close()


async def test_a_full_port_never_blocks_and_what_waits_is_bounded(pair):
    ours, path = pair
    link = make_link(SerialSpec(path, parity="none"))
    got = Collector()
    await link.open(got)
    sent = bytearray()
    block = bytes(range(256)) * 4
    while not link._unsent:
        link.write(block)
        sent += block
    link.write(block)
    sent += block
    assert await read_from(ours, len(sent)) == sent
    assert not link._unsent
    with pytest.raises(PortGone, match="takes no bytes"):
        write_often(link, block, 100)
    assert got.lost == []
    await link.close()


async def test_a_cancelled_open_leaves_nothing_open(pair):
    link = make_link(SerialSpec(pair[1], parity="none"))
    opening = asyncio.create_task(link.open(Collector()))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(5):
        while True:  # the thread may still be at it: the lock is free as soon as it is through
            try:
                await link.open(Collector())
                break
            except PortBusy:
                await asyncio.sleep(0.01)
    await link.close()


def test_a_serial_link_can_tell_whether_its_path_is_there(pair, tmp_path):
    link = make_link(SerialSpec(pair[1]))
    assert isinstance(link, Returning)
    assert link.present()
    assert not make_link(SerialSpec(str(tmp_path / "none"))).present()
