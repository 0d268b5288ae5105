"""A meter's clock is set once, read back, and written down before and after."""

import asyncio
import datetime as dt
import json
from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

import pytest

from headend.bus.request import BusRequest
from headend.config.sections.control import ControlSection
from headend.control.clock import ClockControl, Place
from headend.domain.clock import from_iso, to_datetime
from headend.domain.errors import NoAnswer, PolicyError
from headend.domain.exchange import Exchange, Outcome
from headend.domain.meter import Meter
from headend.drivers import Dlt645Session
from protocols.dlt645.clock import parse_clock
from protocols.dlt645.frame import BROADCAST, WAKE_UP, parse
from protocols.dlt645.meter import build_done, build_refusal, build_reply, parse_read, parse_write
from protocols.framing import Match

ZONE = ZoneInfo("Asia/Shanghai")
SECRET = "482913"
TOOK_MS = 200
DATE, TIME = "04000101", "04000102"


@dataclass
class Line:
    """Meters with clocks of their own at the end of a bus, and the time that passes there."""

    now_ms: int = field(default_factory=lambda: from_iso("2026-03-01T10:10:00+08:00"))
    offsets_s: dict[str, int] = field(default_factory=dict)
    wants: str = SECRET
    takes: bool = True  # what it is told
    mute: bool = False  # it sets its clock and says nothing
    name: str = "line"
    parity_seen: bool = True
    writes: list[Exchange] = field(default_factory=list)
    broadcasts: int = 0

    def now(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.now_ms / 1000

    async def exchange(self, request: BusRequest) -> Exchange:
        self.now_ms += 700  # it waited for its turn: what it says of the time must be of now
        if request.at_sending is not None:
            request = request.at_sending()
        frame = parse(request.payload.lstrip(WAKE_UP))
        sent_ms, self.now_ms = self.now_ms, self.now_ms + TOOK_MS
        reply = self.answer(frame)
        shown = request.payload if request.recorded is None else request.recorded
        made = Exchange(
            self.name, request.device, shown, reply or None, sent_ms, self.now_ms, TOOK_MS, 1,
            Outcome.REPLY if reply else Outcome.SILENCE,
        )  # fmt: skip
        if parse_write(frame) is not None:
            self.writes.append(made)
        if not reply and request.attempts > 1:  # as a bus does
            return await self.exchange(replace(request, attempts=request.attempts - 1))
        if not reply:
            raise NoAnswer("no", bus=self.name, waited_ms=1, attempts=1, diagnosis="silence")
        assert request.match(reply) in (Match.REPLY, Match.REFUSAL)
        return made

    def shows(self, address: str) -> dt.datetime:
        at_ms = self.now_ms - TOOK_MS // 2 + self.offsets_s[address] * 1000
        return to_datetime(at_ms).astimezone(ZONE)

    def answer(self, frame) -> bytes:
        if frame.address == BROADCAST:
            self.broadcasts += 1
            told = parse_clock(frame)
            for address, offset_s in self.offsets_s.items():
                if abs(offset_s) <= 300:
                    self.set(address, told.at(ZONE))
            return b""
        di = parse_read(frame)
        if di is not None:
            shown = self.shows(frame.address)
            text = f"{shown:%y%m%d}0{shown.isoweekday() % 7}" if di == DATE else f"{shown:%H%M%S}"
            return build_reply(frame.address, di, bytes.fromhex(text)[::-1])
        asked = parse_write(frame)
        if asked.password[1:][::-1].hex() != self.wants:
            return build_refusal(frame.address, frame.control, 0x04)
        if self.takes:
            digits = asked.payload[::-1].hex()
            shown = self.shows(frame.address)
            if asked.di == DATE:
                day = dt.datetime.strptime(digits[:6], "%y%m%d").date()  # noqa: DTZ007
                shown = dt.datetime.combine(day, shown.time(), tzinfo=ZONE)
            else:
                time = dt.time(int(digits[:2]), int(digits[2:4]), int(digits[4:]))
                shown = dt.datetime.combine(shown.date(), time, tzinfo=ZONE)
            self.set(frame.address, shown)
        return b"" if self.mute else build_done(frame.address, frame.control)

    def set(self, address: str, shown: dt.datetime) -> None:
        self.offsets_s[address] = round(shown.timestamp() - self.now_ms / 1000)


class Desk:
    """A control with its files, a password, and the meters it may be asked for."""

    def __init__(self, folder, offsets_s, **settings):
        addresses = [f"{n:012d}" for n in range(1, len(offsets_s) + 1)]
        self.line = Line(offsets_s=dict(zip(addresses, offsets_s, strict=True)))
        self.folder = folder
        self.events = []
        self.password("04 " + SECRET)
        self.settings = {"enabled": True, **settings}
        self.control = self.made()
        self.places = [
            Place(
                Meter(f"M-{n}", f"SP-{n}", "line", "dlt645-2007", address, "p"),
                Dlt645Session(self.line, address, zone=ZONE),
                self.line,
                4,
                11 / 2400,
            )
            for n, address in enumerate(addresses, 1)
        ]

    def password(self, text):
        path = self.folder / "password"
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o600)

    def made(self):
        async def told(event):
            self.events.append(event)

        clock = type("Clock", (), {"now_ms": self.line.now, "monotonic": self.line.monotonic})
        return ClockControl(
            ControlSection(**self.settings),
            self.folder / "password",
            self.folder / "audit.jsonl",
            clock=clock,
            zone=ZONE,
            told=told,
        )

    async def set(self, **more):
        return await self.control.set(self.places, by="li", reason="drifted", **more)

    def audit(self):
        path = self.folder / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_drifted_clock_is_set_read_back_and_written_down(tmp_path):
    desk = Desk(tmp_path, [90])
    (outcome,) = await desk.set()
    assert outcome.outcome == "set"
    assert abs(desk.line.offsets_s["000000000001"]) <= 1
    assert outcome.before.offset_ms == pytest.approx(90_000, abs=1500)
    intent, ended = desk.audit()
    assert (intent["what"], intent["by"], intent["reason"]) == ("intent", "li", "drifted")
    assert (ended["what"], ended["outcome"], ended["number"]) == ("outcome", "set", 1)
    (event,) = desk.events
    assert (event.kind, event.fields["meter"]) == ("clock_jump", "M-1")


async def test_the_password_is_in_no_record(tmp_path):
    desk = Desk(tmp_path, [90])
    await desk.set()
    desk.line.wants = "000000"
    desk.line.offsets_s["000000000001"] = 90
    await desk.set()
    kept = (tmp_path / "audit.jsonl").read_text() + repr(desk.events)
    assert SECRET not in kept
    wire = bytes((b + 0x33) & 0xFF for b in bytes.fromhex(SECRET)[::-1])
    assert desk.line.writes
    for made in desk.line.writes:
        assert wire not in made.request
        assert made.request[-2] == 0  # the sum would give it away


async def test_nothing_is_sent_while_control_is_off(tmp_path):
    desk = Desk(tmp_path, [90], enabled=False)
    with pytest.raises(PolicyError, match="control is off"):
        await desk.set()
    assert not desk.line.writes
    assert not (tmp_path / "audit.jsonl").exists()


@pytest.mark.parametrize(
    ("offset_s", "outcome"), [(2, "left"), (2000, "ticket"), (86_400, "ticket")]
)
async def test_small_differences_are_left_and_large_ones_go_to_a_person(
    tmp_path, offset_s, outcome
):
    desk = Desk(tmp_path, [offset_s])
    (found,) = await desk.set()
    assert found.outcome == outcome
    assert not desk.line.writes


async def test_nothing_is_set_near_the_hour(tmp_path):
    desk = Desk(tmp_path, [90])
    desk.line.now_ms = from_iso("2026-03-01T10:57:00+08:00")
    (found,) = await desk.set()
    assert found.outcome == "stopped"
    assert "full hour" in found.message
    assert not desk.line.writes


async def test_a_wrong_date_is_set_before_the_time_where_the_policy_allows_it(tmp_path):
    desk = Desk(tmp_path, [-86_400 + 30], clock={"ticket_s": 200_000})
    (found,) = await desk.set()
    assert found.outcome == "set"
    assert len(desk.line.writes) == 2
    assert abs(desk.line.offsets_s["000000000001"]) <= 1


async def test_a_refused_password_is_sent_once_and_never_again_until_it_changes(tmp_path):
    desk = Desk(tmp_path, [90])
    desk.line.wants = "111111"
    assert (await desk.set())[0].outcome == "password_refused"
    assert len(desk.line.writes) == 1
    assert (await desk.set())[0].outcome == "stopped"
    desk.control = desk.made()  # another process
    assert (await desk.set())[0].outcome == "stopped"
    assert len(desk.line.writes) == 1
    desk.password("04 111111")
    assert (await desk.set())[0].outcome == "set"


async def test_a_job_ends_after_so_many_refusals_over_all_meters(tmp_path):
    desk = Desk(tmp_path, [90] * 6, refusals_max=2)
    desk.line.wants = "111111"
    outcomes = [one.outcome for one in await desk.set()]
    assert outcomes == ["password_refused"] * 2 + ["stopped"] * 4
    assert len(desk.line.writes) == 2


async def test_what_the_clock_shows_counts_and_not_what_the_meter_answered(tmp_path):
    desk = Desk(tmp_path, [90])
    desk.line.takes = False
    (found,) = await desk.set()
    assert found.outcome == "not_set"
    desk.line.takes, desk.line.mute = True, True
    (found,) = await desk.set()
    assert found.outcome == "set"
    assert len(desk.line.writes) == 2  # a write without an answer is not repeated


async def test_whoever_goes_away_leaves_a_record_of_what_nobody_knows(tmp_path):
    desk = Desk(tmp_path, [90])
    sent = asyncio.Event()
    real = desk.line.exchange

    async def hangs(request):
        if request.recorded is not None:
            sent.set()
            await asyncio.Event().wait()
        return await real(request)

    desk.line.exchange = hangs
    task = asyncio.ensure_future(desk.set())
    await sent.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [line.get("outcome") for line in desk.audit()] == [None, "interrupted"]


async def test_a_broadcast_is_believed_only_by_what_the_clocks_show(tmp_path):
    desk = Desk(tmp_path, [40, -30, 400])
    outcomes = await desk.control.broadcast(desk.places, by="li", reason="monthly")
    assert [one.outcome for one in outcomes] == ["set", "set", "not_set"]
    assert desk.line.broadcasts == 1
    assert desk.line.offsets_s["000000000003"] == 400
    assert len(desk.events) == 2


async def test_nothing_is_broadcast_where_every_clock_is_right(tmp_path):
    desk = Desk(tmp_path, [1, 0])
    outcomes = await desk.control.broadcast(desk.places, by="li", reason="monthly")
    assert [one.outcome for one in outcomes] == ["left", "left"]
    assert desk.line.broadcasts == 0
