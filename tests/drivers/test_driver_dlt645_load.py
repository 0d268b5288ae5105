"""Load records are fetched whole, whatever a make does, and what is not there is named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from headend.bus.request import BusRequest
from headend.domain.clock import from_iso, iso
from headend.domain.errors import BadReply, NoAnswer, Refused
from headend.domain.exchange import Exchange, Outcome
from headend.drivers import Dlt645Session
from headend.drivers.dlt645_load import (
    BAD_RECORD,
    BEFORE_MEMORY,
    CLASS_OFF,
    NO_PROFILE,
    NO_RECORD,
    NOT_RECORDED,
    LoadGap,
    LoadRow,
    meter_time,
)
from protocols.dlt645.fields import MeterTime
from protocols.dlt645.frame import WAKE_UP, build, parse
from protocols.dlt645.load_profile import LoadShape, class_of, encode_record
from protocols.dlt645.meter import build_refusal, build_reply, parse_any_read
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.errors import LocalProtocolError
from protocols.framing import Match
from simulators.meter645 import Gap, KeptSettings, Meter645, MeterClock, MeterSettings
from simulators.meter645_load import LoadSettings, asked_time
from tests.acquisition.fill_bench import Steady

ADDRESS = "000000000001"
ZONE = ZoneInfo("Asia/Shanghai")
ORIGIN_MS = from_iso("2026-03-01T00:00:00+08:00")
NOW_MS = from_iso("2026-03-10T09:07:00+08:00")
FROM_MS, TO_MS = from_iso("2026-03-05T00:00:00+08:00"), from_iso("2026-03-06T00:00:00+08:00")
WEEK_MS = (from_iso("2026-03-03T00:00:00+08:00"), from_iso("2026-03-10T00:00:00+08:00"))
QUARTER_MS = 900_000


def local(text: str) -> int:
    return from_iso(f"2026-03-{text}+08:00")


@dataclass
class Port:
    """Requests go straight to what answers; silence is no answer."""

    answer: Callable[[bytes], bytes | None]
    parity_seen: bool = True
    name: str = "bus-1"
    asked: list[bytes] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)  # the numbers of requests that are not answered
    spoilt: dict[int, Callable[[bytes], bytes]] = field(default_factory=dict)

    async def exchange(self, request: BusRequest) -> Exchange:
        raw = request.payload.lstrip(WAKE_UP)
        self.asked.append(raw)
        reply = None if len(self.asked) in self.lost else self.answer(raw)
        if reply is None:
            raise NoAnswer("no", bus="b", waited_ms=1, attempts=1, diagnosis="silence")
        reply = self.spoilt.get(len(self.asked), bytes)(reply)
        assert request.match(reply) in (Match.REPLY, Match.REFUSAL)
        return Exchange(
            "bus-1", request.device, request.payload, reply, NOW_MS, NOW_MS + 300, 300.0, 1,
            Outcome.REPLY,
        )  # fmt: skip

    def loads(self) -> list[str]:
        """The load records that were asked for from a time on, as DDhhmm."""
        reads = [parse_any_read(parse(raw)) for raw in self.asked]
        return [r.moment[4:] for r in reads if r is not None and r.moment]


def meter(*gaps: Gap, frame: int = 200, **load: object) -> Meter645:
    settings = MeterSettings(
        ADDRESS,
        frame_data_max=frame,
        kept=KeptSettings(gaps=gaps, load=LoadSettings(**load)),
    )
    return Meter645(settings, Steady(ORIGIN_MS), clock=lambda: NOW_MS, meter_clock=MeterClock(480))


def port_of(device: Meter645, **more: object) -> Port:
    def answer(raw: bytes) -> bytes | None:
        sent = device.on_frame(raw)
        return sent[0].data.lstrip(WAKE_UP) if sent else None

    return Port(answer, **more)


async def fetched(
    port: Port,
    number: int = 4,
    stretches: Sequence[tuple[int, int]] = ((FROM_MS, TO_MS),),
    profile: MeterProfile = GENERIC,
) -> tuple[list[LoadRow], list[LoadGap]]:
    session = Dlt645Session(port, ADDRESS, zone=ZONE, profile=profile)
    walk = session.load_walk(number, stretches, interval_s=900)
    rows: list[LoadRow] = []
    gaps: list[LoadGap] = []
    while not walk.is_done:
        step = await walk.step()
        rows += step.rows
        gaps += step.gaps
    return rows, gaps


def whole(
    gap: tuple[int, int] | None = None, span: tuple[int, int] = (FROM_MS, TO_MS)
) -> list[int]:
    """Every quarter of an hour of a day, but those of a gap."""
    return [at for at in range(*span, QUARTER_MS) if gap is None or not gap[0] <= at < gap[1]]


def same_stretch(gap: LoadGap, from_ms: int, to_ms: int, reason: str) -> bool:
    """Whether a gap is about just these instants."""

    def instants(start: int, end: int) -> range:
        return range(-(-start // QUARTER_MS) * QUARTER_MS, end, QUARTER_MS)

    same = list(instants(gap.from_ms, gap.to_ms)) == list(instants(from_ms, to_ms))
    return same and gap.reason == reason


HOLE = (local("05T10:07:00"), local("05T22:10:00"))


async def test_a_week_with_a_hole_comes_whole_and_the_hole_is_named():
    device = meter(Gap(*HOLE))
    port = port_of(device)
    rows, gaps = await fetched(port, stretches=[WEEK_MS])
    assert [row.time_ms for row in rows] == whole(HOLE, WEEK_MS)
    assert len(gaps) == 1
    assert same_stretch(gaps[0], *HOLE, NO_RECORD)
    for row in rows[::7]:
        truth = device.truth(row.time_ms, [v.point for v in row.values])
        for one in row.values:
            if one.point in truth:
                assert one.value == truth[one.point].shown, (iso(row.time_ms), one)
    assert {v.point for v in rows[0].values} == {
        "active_import_total", "active_export_total", "reactive_import_total",
        "reactive_export_total",
    }  # fmt: skip


async def test_a_reply_holds_as_many_records_as_fit_and_none_is_asked_for_twice():
    port = port_of(meter())
    rows, _ = await fetched(port)
    assert len(rows) == 96
    assert len(port.loads()) == len(set(port.loads())) == 16  # six records of 32 bytes a reply


async def test_replies_that_go_on_in_further_frames_are_put_together():
    port = port_of(meter(frame=60))
    rows, gaps = await fetched(port)
    assert [row.time_ms for row in rows] == whole()
    assert not gaps
    assert len(rows[0].exchange.reply or b"") > 200  # the evidence holds all frames


@pytest.mark.parametrize(
    "shape",
    [
        LoadShape("no_leading"),
        LoadShape("data_only"),
        LoadShape(year_first=True),
        LoadShape(count="whole"),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 4, 6])
async def test_every_way_of_writing_records_gives_the_same_instants(
    shape: LoadShape, number: int
) -> None:
    day = [(FROM_MS, FROM_MS + 86_400_000)]
    rows, gaps = await fetched(port_of(meter(shape=shape)), number, day)
    assert [row.time_ms for row in rows] == whole()[:96]
    assert not gaps
    assert all("checksum" not in row.flags for row in rows)


async def test_a_sum_that_is_counted_otherwise_makes_records_suspect_and_loses_none():
    rows, gaps = await fetched(port_of(meter(wrong_sum=7)))
    assert len(rows) == 96
    assert not gaps
    assert all("checksum" in row.flags for row in rows)


async def test_what_is_older_than_the_memory_and_newer_than_now_is_told_without_asking():
    port = port_of(meter(depth=96))
    stretches = [(FROM_MS, NOW_MS + 10 * QUARTER_MS)]
    rows, gaps = await fetched(port, 4, stretches)
    assert len(rows) == 96
    first_ms = rows[0].time_ms
    assert gaps[0] == LoadGap(FROM_MS, first_ms, BEFORE_MEMORY)
    assert gaps[-1].reason == NOT_RECORDED
    assert gaps[-1].from_ms > rows[-1].time_ms
    assert len(port.loads()) == 16


async def test_damaged_records_are_named_and_no_value_is_taken_from_them():
    spell = (local("05T10:00:00"), local("05T11:00:00"))
    rows, gaps = await fetched(port_of(meter(Gap(*spell, effect="bad"))))
    assert [row.time_ms for row in rows] == whole(spell)
    assert [gap.reason for gap in gaps] == [BAD_RECORD] * 4


async def test_records_without_values_are_rows_with_none():
    spell = (local("05T10:00:00"), local("05T11:00:00"))
    rows, gaps = await fetched(port_of(meter(Gap(*spell, effect="ff"))))
    assert len(rows) == 96
    assert not gaps
    empty = [row.time_ms for row in rows if all(v.value is None for v in row.values)]
    assert empty == list(range(*spell, QUARTER_MS))


@pytest.mark.parametrize("empty", ["di_only", "refuse"])
async def test_a_meter_without_this_class_is_asked_a_few_times_and_named(empty: str) -> None:
    port = port_of(meter(mode=0x37, empty=empty))  # class 4 is off
    rows, gaps = await fetched(port)
    assert not rows
    assert gaps[-1].to_ms == TO_MS
    assert gaps[-1].reason == NO_PROFILE
    assert len(port.asked) <= 12


async def test_records_that_are_half_as_often_leave_no_gap_when_the_interval_is_known():
    port = port_of(meter(intervals_min=(15, 15, 15, 30, 15, 15)))
    session = Dlt645Session(port, ADDRESS, zone=ZONE)
    walk = session.load_walk(4, [(FROM_MS, TO_MS)], interval_s=1800)
    rows: list[LoadRow] = []
    while not walk.is_done:
        step = await walk.step()
        assert not step.gaps
        rows += step.rows
    assert len(rows) == 48


async def test_the_interval_is_asked_once_and_guessed_where_the_meter_does_not_say():
    asked: list[str] = []

    def answer(raw: bytes) -> bytes:
        read = parse_any_read(parse(raw))
        assert read is not None
        asked.append(read.di)
        if read.di == "04000A05":
            return build_reply(ADDRESS, read.di, bytes.fromhex("3000"))
        return build_refusal(ADDRESS, 0x11, 0x02)

    session = Dlt645Session(Port(answer), ADDRESS, zone=ZONE)
    assert await session.load.interval_s(4) == 1800
    assert await session.load.interval_s(4) == 1800
    assert await session.load.interval_s(1, default=600) == 600
    assert asked == ["04000A05", "04000A02"]


async def test_silence_in_the_middle_changes_nothing_and_the_step_is_made_again():
    port = port_of(meter(Gap(*HOLE)), lost={4, 5, 8})
    session = Dlt645Session(port, ADDRESS, zone=ZONE)
    walk = session.load_walk(4, [(FROM_MS, TO_MS)], interval_s=900)
    times: list[int] = []
    failures = 0
    while not walk.is_done:
        try:
            times += [row.time_ms for row in (await walk.step()).rows]
        except NoAnswer:
            failures += 1
    assert failures == 3
    assert times == whole(HOLE)


async def test_where_parity_is_unseen_each_reply_is_believed_when_it_comes_twice():
    def other_digit(reply: bytes) -> bytes:
        frame = parse(reply)
        data = bytearray(frame.data)
        data[13] ^= 0x01
        data[14] ^= 0x01
        return build(ADDRESS, frame.control, bytes(data))

    port = port_of(meter(), parity_seen=False, spoilt={8: other_digit})
    rows, gaps = await fetched(port)
    assert not gaps
    assert [row.time_ms for row in rows] == whole()
    assert all(not row.flags for row in rows)


# -- meters that answer exactly what they are asked


def exact(
    have: set[int],
    *,
    most: int = 1,
    ends: bool = True,
    only_together: bool = False,
    all_di: str | None = None,
    refusal: int = 0x02,
) -> Callable[[bytes], bytes]:
    """Gives records only from an instant on that it has; refuses what it has not.

    `most`: it refuses requests for more records. `ends`: knows the earliest and the latest.
    """

    def answer(raw: bytes) -> bytes:
        frame = parse(raw)
        read = parse_any_read(frame)
        assert read is not None
        number = class_of(read.di)
        refuse = build_refusal(ADDRESS, frame.control, refusal)
        if number is None or (only_together and number != 0) or (read.count or 0) > most:
            return refuse
        if all_di and number == 0 and read.di != all_di:
            return refuse
        if read.moment is None:
            found = sorted(have) if ends else []
            found = found[:1] if read.di.endswith("00") else found[-1:]
        else:
            time = asked_time(read.moment)
            assert time is not None
            at_ms = int(time.at(ZONE).timestamp() * 1000)
            found = [at_ms] if at_ms in have else []
        if not found:
            return refuse
        time = session_time(found[0])
        values = {4: (Decimal(found[0] // QUARTER_MS % 10**6), Decimal(1), Decimal(2), Decimal(3))}
        return build_reply(ADDRESS, read.di, encode_record(time, values, number=number))

    return answer


def session_time(at_ms: int) -> MeterTime:
    return meter_time(at_ms, ZONE)


async def test_a_meter_that_refuses_instants_it_has_not_is_walked_over_its_hole():
    have = set(whole(HOLE))
    port = Port(exact(have))
    rows, gaps = await fetched(port)
    assert [row.time_ms for row in rows] == sorted(have)
    assert {gap.reason for gap in gaps} == {NO_RECORD}
    assert gaps[0].from_ms == min(set(whole()) - have)
    assert all(a.to_ms == b.from_ms for a, b in pairwise(gaps))
    assert gaps[-1].to_ms == next(t for t in sorted(have) if t > HOLE[1])
    assert len(port.asked) < 110  # one an instant


async def test_a_meter_that_does_not_tell_its_ends_is_read_all_the_same():
    rows, gaps = await fetched(Port(exact(set(whole(HOLE)), ends=False)))
    holes = {t for gap in gaps for t in range(gap.from_ms, gap.to_ms, QUARTER_MS)}
    assert {row.time_ms for row in rows} | holes >= set(whole())


async def test_a_class_that_comes_with_all_the_others_alone_is_taken_from_them():
    have = set(whole()[:90])
    port = Port(exact(have, only_together=True))
    rows, gaps = await fetched(port, stretches=[(FROM_MS, FROM_MS + 90 * QUARTER_MS)])
    assert [row.time_ms for row in rows] == sorted(have)
    assert not gaps


async def test_a_province_that_asks_for_all_classes_by_another_identifier_is_a_profile():
    have = set(whole()[:8])
    answer = exact(have, only_together=True, all_di="060000FF", ends=False)
    port = Port(answer)
    profile = MeterProfile(id="p", load_all_di="060000FF")
    await fetched(port, stretches=[(FROM_MS, FROM_MS + 8 * QUARTER_MS)], profile=profile)
    reads = [parse_any_read(parse(raw)) for raw in port.asked]
    assert "060000FF" in {read.di for read in reads if read is not None}


async def test_what_the_meter_forbids_is_no_hole():
    with pytest.raises(Refused):
        await fetched(Port(exact(set(whole()), refusal=0x04, most=0)))


async def test_a_reply_that_cannot_be_cut_costs_only_its_own_instant():
    good = exact(set(whole()))
    bad_ms = whole()[40]

    def answer(raw: bytes) -> bytes:
        reply = good(raw)
        read = parse_any_read(parse(raw))
        assert read is not None
        if read.moment and read.moment.endswith(f"{session_time(bad_ms).time:%H%M}"):
            time = asked_time(read.moment)
            if time == session_time(bad_ms):
                return build_reply(ADDRESS, read.di, b"\xa0\xa0\x01\x02")
        return reply

    rows, gaps = await fetched(Port(answer))
    assert [row.time_ms for row in rows] == [t for t in whole() if t != bad_ms]
    assert [gap.reason for gap in gaps] == [BAD_RECORD]


async def test_the_old_edition_has_no_load_records():
    old = MeterProfile(id="o", edition="dlt645-1997")
    with pytest.raises(LocalProtocolError):
        await fetched(Port(exact(set())), profile=old)


async def test_reads_that_never_agree_are_not_believed():
    turn = 0

    def answer(raw: bytes) -> bytes:
        nonlocal turn
        turn += 1
        read = parse_any_read(parse(raw))
        assert read is not None
        values = {4: tuple(Decimal(turn + i) for i in range(4))}
        record = encode_record(session_time(FROM_MS), values, number=4)
        return build_reply(ADDRESS, read.di, record)

    with pytest.raises(BadReply, match="disagree"):
        await fetched(Port(answer, parity_seen=False))


def test_reasons_are_words_of_their_own() -> None:
    assert len({NO_RECORD, BEFORE_MEMORY, NOT_RECORDED, NO_PROFILE, BAD_RECORD, CLASS_OFF}) == 6
