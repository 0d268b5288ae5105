"""Everything that ever reads bytes of DL/T 645, given one input; what must hold of all of them.

Only errors of `protocols.errors` may come out. What is checked beside that: frames are found the
same however the bytes come, nothing is thrown away silently, what is built again is the same, an
explanation knows the same frames, and everybody who reads a frame agrees on what it is.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import yaml

from headend.diagnostics.frame import NoHexError, explain_text
from protocols.dlt645.catalogue import Item, lookup
from protocols.dlt645.clock import Password, check_written, match_write, parse_clock, write_clock
from protocols.dlt645.explain import explain
from protocols.dlt645.fields import MeterTime
from protocols.dlt645.frame import (
    DELIMITER,
    Frame645,
    build,
    is_sendable,
    parse,
    parse_declared,
)
from protocols.dlt645.items import decode
from protocols.dlt645.learned import NOTHING_LEARNED
from protocols.dlt645.load_profile import class_of, decode_records, missing_times
from protocols.dlt645.master import (
    Assembly,
    ReadRequest,
    address_request,
    answered_by,
    follow_up,
    match,
    read_request,
    reply_address,
    reply_part,
    reply_payload,
)
from protocols.dlt645.meter import (
    addressed,
    asks_address,
    build_address_reply,
    build_parts,
    build_refusal,
    parse_any_read,
    parse_read,
    parse_write,
)
from protocols.dlt645.profile import MeterProfile, profile_from
from protocols.dlt645.status import states, unnamed_bits
from protocols.errors import ErrorReply, LocalProtocolError, ProtocolError
from protocols.framing import Delimiter, Event, FrameFound, Framer, Match
from tests.fuzz645.inputs import OWN

DEVICES = Path(__file__).parents[2] / "config" / "devices" / "dlt645"
EDITIONS = ("dlt645-2007", "dlt645-1997", None)
SLOW_EVERY = 50  # what costs much and is held to the rest by other tests as well


def profiles() -> list[MeterProfile]:
    """Those that come with the product."""
    return [
        profile_from(yaml.safe_load(path.read_text(encoding="utf-8")), name=path.stem)
        for path in sorted(DEVICES.glob("*.yaml"))
    ]


def framed_events(data: bytes, pieces: list[bytes], delimiter: Delimiter) -> list[Event]:
    """What a framer makes of the bytes, come in these pieces; with the line quiet at the end."""
    framer = Framer(delimiter)
    events: list[Event] = []
    for piece in pieces:
        events += framer.feed(piece)
    events += framer.idle()
    assert not framer.pending
    assert b"".join([event.raw for event in events]) == data, "bytes were lost or made up"
    return events


def cut(data: bytes, rng: Random) -> list[bytes]:
    """The bytes in pieces: one by one, of one size, or at three places."""
    size = rng.choice((1, 3, 16, 200, 0, 0))
    if size:
        return [data[at : at + size] for at in range(0, len(data), size)]
    places = sorted(int(rng.random() * len(data)) for _ in range(3))
    return [data[a:b] for a, b in zip((0, *places), (*places, len(data)), strict=True)]


class Targets:
    """Takes inputs one after the other. `counts`: how often each way was gone."""

    def __init__(self) -> None:
        self.profiles = profiles()
        self.counts: dict[str, int] = {}
        self.write = write_clock(
            OWN,
            "0400010C",
            MeterTime(dt.date(2026, 3, 1), dt.time(12)),
            password=Password(2, "000000"),
            operator="00000001",
        )

    def take(self, data: bytes, rng: Random, number: int) -> None:
        """One input through everything. AssertionError and foreign errors are findings."""
        frames = self._frames(data, rng)
        self._alone(data, frames)
        for frame in frames:
            self._count("frames")
            self._meter_side(frame, rng)
            self._master_side(frame, rng)
        self._items(data, rng)
        self._load(data, rng)
        self._explained(data, frames, rng, slow=not number % SLOW_EVERY)
        if not number % SLOW_EVERY:
            for frame in frames:
                assert parse_declared(frame.raw) == frame

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _frames(self, data: bytes, rng: Random) -> list[Frame645]:
        whole = framed_events(data, [data], DELIMITER)
        pieces = framed_events(data, cut(data, rng), DELIMITER)
        found = [event for event in whole if isinstance(event, FrameFound)]
        assert found == [event for event in pieces if isinstance(event, FrameFound)]
        self._marked(data, found, rng)
        frames = []
        for event in found:
            frame = parse(event.raw)
            frames.append(frame)
            if is_sendable(frame.control, frame.data):
                assert build(frame.address, frame.control, frame.data) == frame.raw
            else:
                _refused(lambda f=frame: build(f.address, f.control, f.data))
        self.offsets = [event.offset for event in found]
        return frames

    def _marked(self, data: bytes, found: list[FrameFound], rng: Random) -> None:
        """A frame that holds a byte with a parity error is none; the others are found as before."""
        if not found:
            return
        bad = int(rng.random() * len(data))
        framer = Framer(DELIMITER)
        events = framer.feed(data, (bad,)) + framer.idle()
        good = [event for event in events if isinstance(event, FrameFound)]
        wanted = [f for f in found if not f.offset <= bad < f.offset + len(f.raw)]
        assert [f for f in good if f in found] == wanted
        assert all(not f.offset <= bad < f.offset + len(f.raw) for f in good)

    def _alone(self, data: bytes, frames: list[Frame645]) -> None:
        """The input taken for exactly one frame."""
        with suppress(ProtocolError):
            frame = parse(data)
            assert frames == [frame]
        with suppress(ProtocolError):
            frame = parse(data, check=False)
            assert frame.checksum_ok == (frames == [frame])

    # -- both ends

    def _meter_side(self, frame: Frame645, rng: Random) -> None:
        asked = parse_any_read(frame)
        di = parse_read(frame)
        assert di is None or (asked is not None and asked.di == di)
        written = parse_write(frame)
        assert asked is None or written is None
        repr(written)
        asks_address(frame)
        parse_clock(frame)
        for own in (OWN, frame.address):
            addressed(own, frame.address)
        if asked is not None:
            self._count("reads")
            payload = rng.randbytes(rng.randrange(60))
            with suppress(LocalProtocolError):
                parts = build_parts(OWN, asked.di, payload, data_max=rng.choice((20, 200)))
                assert _put_together(asked.di, parts) in (payload, None)
        with suppress(LocalProtocolError):
            build_refusal(OWN, frame.control, rng.randrange(256))
        with suppress(LocalProtocolError):
            build_address_reply(frame.address)

    def _master_side(self, frame: Frame645, rng: Random) -> None:
        for request in self._requests(frame, rng):
            kind = match(request, frame.raw)
            answered = kind in (Match.REPLY, Match.REFUSAL)
            self._count(f"match {kind.value}")
            if answered and not request.di:
                with suppress(ProtocolError):
                    reply_address(request, frame.raw)
                continue
            learned = NOTHING_LEARNED
            try:
                part = reply_part(request, frame.raw)
                assert kind is Match.REPLY, "a part of what is no reply"
            except ErrorReply as error:
                assert kind is Match.REFUSAL
                learned = learned.after_refusal(request.di, error)
                continue
            except ProtocolError:
                continue
            learned = learned.after_reply(request.di, len(part.payload))
            assert learned.from_json(learned.to_json()) == learned
            with suppress(ProtocolError):
                payload = reply_payload(request, frame.raw)
                assert (payload, False) == (part.payload, part.more)
            with suppress(ProtocolError):
                Assembly(request).take(frame.raw)
            self._values(request.di, part.payload, rng)
        self._written(frame)
        answered_by(frame.raw)

    def _requests(self, frame: Frame645, rng: Random) -> Iterator[ReadRequest]:
        """What it may be an answer to, and what it is none to."""
        width = 2 if frame.control & 0x1F in (0x01, 0x02, 0x03) else 4
        di = frame.data[:width][::-1].hex().upper()
        with suppress(LocalProtocolError):
            request = read_request(frame.address, di)
            yield request
            yield follow_up(request, frame.data[-1] or 1, whole=rng.random() < 0.3)
        address = rng.choice((OWN, frame.address))
        with suppress(LocalProtocolError):
            yield read_request(address, rng.choice(("00010000", "0001FF00", "9010", "06010001")))
        yield address_request()

    def _written(self, frame: Frame645) -> None:
        kind = match_write(self.write, frame.raw)
        try:
            check_written(self.write, frame.raw)
        except ErrorReply:
            assert kind is Match.REFUSAL
        except ProtocolError:
            pass
        else:
            assert kind is Match.REPLY

    # -- content

    def _values(self, di: str, payload: bytes, rng: Random) -> None:
        for item in (lookup(di), rng.choice(self.profiles).item(di)):
            if item is not None:
                self._decoded(item, payload)
        number = class_of(di)
        if number is not None:
            self._records(payload, number)

    def _decoded(self, item: Item, payload: bytes) -> None:
        try:
            values = decode(item, payload)
        except ProtocolError:
            return
        self._count("values decoded")
        for value in values:
            if isinstance(value, str) and item.di.startswith("040005"):
                with suppress(ProtocolError):
                    for state in states(item.di, value):
                        state.text("zh")
                    unnamed_bits(item.di, value)

    def _items(self, data: bytes, rng: Random) -> None:
        """Any item on any bytes."""
        di = rng.choice(("0001FF00", "0201FF00", "0101FF00", "0400010C", "03300001", "04000503",
                         "00900200", "9010", "B611", "A010", "C010"))  # fmt: skip
        item = lookup(di)
        if item is not None:
            self._decoded(item, data[: rng.choice((4, 8, 20, 200))])

    def _load(self, data: bytes, rng: Random) -> None:
        at = data.find(b"\xa0\xa0")
        self._records(data[at:] if at >= 0 else data[:40], rng.randrange(7))

    def _records(self, payload: bytes, number: int) -> None:
        for year_first in (False, True):
            with suppress(ProtocolError):
                records = decode_records(payload, number, year_first=year_first)
                assert b"".join([record.raw for record in records]) == payload
                missing_times([], records)
                self._count("load records decoded")

    # -- for people

    def _explained(self, data: bytes, frames: list[Frame645], rng: Random, *, slow: bool) -> None:
        lang = rng.choice(("en", "zh"))
        profile = rng.choice((None, *self.profiles))
        told = explain(data, lang=lang, edition=rng.choice(EDITIONS), profile=profile)
        good = [one for one in told if one["valid"]]
        assert [one["offset"] for one in good] == self.offsets
        for one, frame in zip(good, frames, strict=True):
            shown, raw = one["hex"], frame.raw.hex().upper()
            assert shown == raw or (len(shown) == len(raw) and "*" in shown)  # secrets are masked
        if slow:
            json.dumps(told)
            text = data.hex(rng.choice((" ", "-"))) if data else ""
            with suppress(NoHexError):
                explain_text(text, lang=lang)


def _refused(work: Callable[[], object]) -> None:
    """What must not be built is not."""
    try:
        work()
    except LocalProtocolError:
        return
    raise AssertionError("something was built that is never to be sent")


def _put_together(di: str, parts: list[bytes]) -> bytes | None:
    """The payload out of the frames of one reply; None where an edition numbers nothing."""
    assembly = Assembly(read_request(OWN, di))
    for raw in parts:
        whole = assembly.take(raw)
        if whole is not None:
            return whole
    return None
