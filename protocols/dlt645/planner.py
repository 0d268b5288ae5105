"""Points into reads: which are read together as a block, and what that takes and saves.

A block is taken where it costs less time than the single items that are wanted of it. One that the
meter has refused, or that its profile says it refuses, is not asked for again: its points are read
singly. The plan is a function of its arguments: the same every time, whatever the order of asking.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from protocols.dlt645.catalogue import (
    DAILY_FREEZE,
    FREEZE_TIME,
    Item,
    di_of,
    freeze_di,
    freeze_time_di,
    live_blocks,
)
from protocols.dlt645.fields import Value
from protocols.dlt645.frame import OVERHEAD_BYTES
from protocols.dlt645.learned import NOTHING_LEARNED, Learned
from protocols.dlt645.profile import GENERIC, MeterProfile

CHAR_BITS = 11  # 8E1: start, eight, parity, stop


@dataclass(frozen=True, slots=True)
class Line:
    """What an exchange takes on a line of some speed.

    `reply_delay_ms`: from the last byte of a request to the first of its reply (20 to 500 by the
    standard). `reply_wakeup`: bytes FE a meter sends before its reply (0 to 4).
    """

    baud: int = 2400
    char_bits: int = CHAR_BITS
    reply_delay_ms: float = 100.0
    reply_wakeup: int = 4

    def wire_ms(self, count: int) -> float:
        """What so many bytes take."""
        return 1000 * count * self.char_bits / self.baud


@dataclass(frozen=True, slots=True)
class Read:
    """One identifier to be read, and where each wanted point stands in what `decode` gives of it.

    `frames`: how many exchanges it takes. `request_bytes`, `reply_bytes`: of all of them together,
    wake-up bytes included; a reply whose length is the meter's choice counts with the tariffs that
    are known or supposed.
    """

    di: str
    places: Mapping[str, int]
    frames: int
    request_bytes: int
    reply_bytes: int

    def cost_ms(self, line: Line, pause_ms: float) -> float:
        """What it takes until the next request may go out."""
        wire = line.wire_ms(self.request_bytes + self.reply_bytes)
        return wire + self.frames * (line.reply_delay_ms + pause_ms)

    def values(self, members: tuple[Value, ...]) -> dict[str, Value]:
        """The wanted points out of the members of a reply; one it is too short for is left out."""
        return {point: members[at] for point, at in self.places.items() if at < len(members)}


@dataclass(frozen=True, slots=True)
class Plan:
    """The reads, in the order of their identifiers.

    `absent`: points whose every identifier the meter has refused. `unknown`: points the edition has
    no identifier for. `singly`: the reads there would be without blocks.
    """

    reads: tuple[Read, ...]
    absent: tuple[str, ...]
    unknown: tuple[str, ...]
    singly: tuple[Read, ...]
    line: Line
    pause_ms: float

    @property
    def cost_ms(self) -> float:
        """What all reads take, one after the other."""
        return sum(read.cost_ms(self.line, self.pause_ms) for read in self.reads)

    @property
    def saved_ms(self) -> float:
        """What the blocks save against reading every point singly."""
        alone = sum(read.cost_ms(self.line, self.pause_ms) for read in self.singly)
        return alone - self.cost_ms

    @property
    def wire_bytes(self) -> int:
        """Bytes on the wire, both ways."""
        return _bytes(self.reads)

    @property
    def saved_bytes(self) -> int:
        """Bytes the blocks save; below 0 where they save time by sending more."""
        return _bytes(self.singly) - self.wire_bytes

    def rows(self) -> list[dict[str, Any]]:
        """For people and programs: one row a read, `cost_ms` rounded to tenths."""
        return [
            {
                "di": read.di,
                "points": list(read.places),
                "frames": read.frames,
                "bytes": read.request_bytes + read.reply_bytes,
                "cost_ms": round(read.cost_ms(self.line, self.pause_ms), 1),
            }
            for read in self.reads
        ]


def _bytes(reads: Iterable[Read]) -> int:
    return sum(read.request_bytes + read.reply_bytes for read in reads)


def plan_requests(
    points: Iterable[str],
    profile: MeterProfile = GENERIC,
    learned: Learned = NOTHING_LEARNED,
    *,
    line: Line | None = None,
) -> Plan:
    """The cheapest reads that give the live values of these points."""
    line = line or Line()
    sizes = _Sizes(profile, learned, line)
    wanted = sorted(set(points))
    single = {point: read for point in wanted if (read := _single(point, sizes)) is not None}
    usable = {p: r for p, r in single.items() if not learned.lacks(r.di, block=False)}
    reads: dict[str, Read] = {}
    settled: set[str] = set()
    for di, members in _blocks(profile, learned):
        inside = [point for point in members if point in single]
        block = _block(di, inside, sizes) if len(inside) > 1 or set(inside) - set(usable) else None
        if block is None:
            continue
        alone = [usable[point] for point in block.places if point in usable]
        forced = len(alone) < len(block.places)
        cost = sum(read.cost_ms(line, profile.pause_ms) for read in alone)
        if forced or block.cost_ms(line, profile.pause_ms) < cost:
            reads[di] = block
            settled |= set(block.places)
    for point, read in usable.items():
        if point not in settled:
            reads[read.di] = read
    return Plan(
        reads=tuple(reads[di] for di in sorted(reads)),
        absent=tuple(p for p in wanted if p in single and p not in usable and p not in settled),
        unknown=tuple(p for p in wanted if p not in single),
        singly=tuple(single[p] for p in wanted if p in usable or p in settled),
        line=line,
        pause_ms=profile.pause_ms,
    )


def plan_frozen(
    points: Iterable[str],
    nth: int = 1,
    profile: MeterProfile = GENERIC,
    learned: Learned = NOTHING_LEARNED,
    *,
    kind: str = DAILY_FREEZE,
    line: Line | None = None,
) -> Plan:
    """The reads of the `nth` last frozen record: its time, the items, and its time again.

    The records are counted from the newest: a freeze in between would move every number, and only
    the time tells. The last read, of the time, stands twice in `reads` for that.
    """
    line = line or Line()
    sizes = _Sizes(profile, learned, line)
    places: dict[str, dict[str, int]] = {}
    unknown: list[str] = []
    absent: list[str] = []
    for point in sorted(set(points) - {FREEZE_TIME}):
        try:
            member = freeze_di(point, nth, kind)
        except KeyError:
            unknown.append(point)
            continue
        if learned.lacks(member.di, block=False):
            absent.append(point)
        else:
            places.setdefault(member.di, {})[point] = member.index
    items = tuple(read for di in sorted(places) if (read := sizes.read(di, places[di])) is not None)
    time = sizes.read(freeze_time_di(nth, kind), {FREEZE_TIME: 0})
    assert time is not None
    reads = (time, *items, time) if items else (time,)
    return Plan(reads, tuple(absent), tuple(unknown), reads, line, profile.pause_ms)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How long requests and replies are."""

    profile: MeterProfile
    learned: Learned
    line: Line

    @property
    def tariffs(self) -> int:
        """Of a block, besides the total."""
        told = self.learned.tariffs
        return self.profile.tariffs if told is None else told

    def read(self, di: str, places: Mapping[str, int]) -> Read | None:
        """A read of an identifier; None when its reply cannot be taken from this meter."""
        item = self.profile.item(di)
        if item is None or item.layout is None:
            return None
        profile = self.profile
        head = len(di) // 2
        around = OVERHEAD_BYTES + len(profile.suffix)
        room = profile.data_max - head
        size = self._payload(item)
        numbered = head == 4  # the 1997 edition counts no further frames
        further = -(-max(0, size - room) // (room - numbered))
        if further and profile.follow_up == "never":
            return None
        frames = 1 + further
        request = frames * (profile.wakeup + around + head) + further * numbered
        reply = size + frames * (self.line.reply_wakeup + around + head) + further * numbered
        return Read(di, dict(places), frames, request, reply)

    def _payload(self, item: Item) -> int:
        assert item.layout is not None
        if item.layout.length is not None:
            return item.layout.length
        rounds = min(self.tariffs + 1, item.layout.rounds_max)
        return item.layout.round_bytes * max(rounds, item.layout.rounds_min)


def _single(point: str, sizes: _Sizes) -> Read | None:
    di = sizes.profile.di_of(point)
    if di is None:
        try:
            di = di_of(point, sizes.profile.edition)
        except KeyError:
            return None
    return sizes.read(di, {point: 0})


def _blocks(profile: MeterProfile, learned: Learned) -> list[tuple[str, tuple[str, ...]]]:
    """The blocks that may be asked for, and their points in order."""
    if not profile.blocks:
        return []
    return [
        (di, points)
        for di, points in live_blocks(profile.edition).items()
        if di not in profile.refuses and not learned.lacks(di, block=True)
    ]


def _block(di: str, inside: list[str], sizes: _Sizes) -> Read | None:
    """A block with the wanted points that it holds as far as is known."""
    read = sizes.read(di, {})
    item = sizes.profile.item(di)
    if read is None or item is None or item.layout is None:
        return None
    points = live_blocks(sizes.profile.edition)[di]
    if item.layout.length is None:
        points = points[: sizes.tariffs + 1]
    places = {
        point: item.layout.number_position(at) for at, point in enumerate(points) if point in inside
    }
    return replace(read, places=places) if places else None
