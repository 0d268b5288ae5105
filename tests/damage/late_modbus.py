"""Late replies on Modbus RTU by the thousand, through the real bus, codec and session.

On lines of our own, or behind transparent converters (RTU over TCP): of those the speed is not
known, bytes take their time through the network both ways, and come merged and cut anywhere.

Every register of these devices has the same shape (function, count, unit), so that nothing but its
value tells whose answer it is. A time-out runs from the end of the request to the end of the reply;
half of the replies end anywhere up to twice that, some never come, and some callers lose patience.
Each value bears its register and a ticket that grows with every request the device hears: a value
of another register is wrong, and so is one that was said before it was asked for. Time is virtual,
the lines are baud-true, and two that speak at once spoil each other.

    python -m tests.damage.late_modbus --reads 10000 --lines 64 [--link rtu|rtu-over-tcp]
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random

from headend.bus import Bus, BusPort, BusRequest, BusSettings, Late
from headend.bus.timing import allowed_s
from headend.domain.exchange import Exchange, Outcome
from headend.drivers import ModbusSession
from protocols.modbus.master import delimiter_for, match, read_request, reply_length
from protocols.modbus.profile import DeviceProfile, profile_from
from simulators.modbus_line import ModbusBus
from simulators.modbus_meter import ModbusDevice, ModbusSettings
from simulators.schedule import LoopSchedule, VirtualTimeLoop, run_virtual
from simulators.wire import Station, WireLink

BAUD = 9600
CHAR_S = 11 / BAUD
REGISTERS = 63
UNITS = (1, 2)
TICKETS = 10_000
POINTS = tuple(f"active_import_t{n}" for n in range(1, REGISTERS + 1))
QUICK_MS = 20
NETWORK_S = 0.02  # one way through the network and a converter's buffer, at most
LINKS = ("rtu", "rtu-over-tcp")
ASKED = read_request(1, 4, 0, 2)  # the shape of every request here
SETTINGS = BusSettings(dead_after=1_000_000)


def same_shape_profile() -> DeviceProfile:
    """Registers that no request can read together: there is a hole behind each."""
    rows = [
        {"point": point, "address": 4 * n, "type": "uint32", "unit": "kWh"}
        for n, point in enumerate(POINTS)
    ]
    return profile_from(
        {
            "id": "same_shape",
            "device": "registers that look alike",
            "kind": "meter",
            "function": 4,
            "gaps": "refuse",
            "turnaround_ms": 20,
            "registers": rows,
        },
        name="same_shape",
    )


class Tickets:
    """Every answer: which register of which device of which line, and the how-manieth it is."""

    def __init__(self, place: int) -> None:
        self._place = place
        self.given = 0

    def exact(self, point: str, at_ms: int) -> Decimal:
        """The next ticket of a register."""
        self.given += 1
        assert self.given < TICKETS
        return Decimal(self.known(point) * TICKETS + self.given)

    def known(self, point: str) -> int:
        """What tells the register from every other one."""
        return self._place * (REGISTERS + 1) + int(point.rpartition("_t")[2])

    def register_points(self) -> tuple[str, ...]:
        """All."""
        return POINTS


class NamedPort:
    """A port without the rule for anonymous late replies: what happens then shows its worth."""

    def __init__(self, port: BusPort) -> None:
        self._port = port
        self.name = port.name
        self.parity_seen = port.parity_seen

    async def exchange(self, request: BusRequest) -> Exchange:
        """As the bus's, for a request that says it is told from others."""
        return await self._port.exchange(replace(request, late=Late.NAMED))


@dataclass(slots=True)
class Score:
    """What came of a run."""

    reads: int = 0
    values: int = 0
    wrong: list[tuple[str, Decimal]] = field(default_factory=list)
    impatient: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    late_frames: int = 0
    seconds: float = 0.0

    def line(self, name: str) -> str:
        """For people."""
        return (
            f"{name}: reads {self.reads}, values {self.values}, wrong {len(self.wrong)}, "
            f"attempts {sum(self.outcomes.values())}, timed out {self.outcomes[Outcome.SILENCE]}, "
            f"late frames seen {self.late_frames}, callers gone {self.impatient}, "
            f"line time {self.seconds:.0f} s"
        )


class ConverterLink(WireLink):
    """A line behind a converter: its speed is not known here, and packets are not frames."""

    def __init__(self, station: Station, *, loop: VirtualTimeLoop, seed: int) -> None:
        super().__init__(
            station, schedule=LoopSchedule(loop), baud=BAUD, chunk=1, parity_seen=False
        )
        self.char_s = 0.0
        self._loop = loop
        self._rng = Random(seed)
        self._packet = bytearray()  # what the converter holds and has not sent yet

    def write(self, data: bytes) -> None:
        """It reaches the line later."""
        self._loop.call_later(self._rng.random() * NETWORK_S, self.line.send, data)

    def _bytes(self, data: bytes, _bad: Sequence[int]) -> None:
        """One byte of the line, damaged as it may be: what comes soon goes in the same packet."""
        if not self._packet:
            self._loop.call_later(self._rng.random() * NETWORK_S, self._send)
        self._packet += data

    def _send(self) -> None:
        data, self._packet = bytes(self._packet), bytearray()
        super()._bytes(data, ())


def time_out_s(settings: BusSettings, char_s: float = CHAR_S) -> float:
    """From the end of a request on the wire to the end of its reply.

    `char_s` 0.0: from the request's leaving, where the line's speed is not known.
    """
    request = BusRequest(
        "x", ASKED.raw, delimiter_for(ASKED), lambda raw: match(ASKED, raw), reply_length(ASKED)
    )
    return allowed_s(request, settings, char_s) - len(ASKED.raw) * char_s


def latest_s(link: str) -> float:
    """How late the last byte of a reply may leave its device: what comes of it is the time-out."""
    if link == "rtu":
        return 2 * time_out_s(SETTINGS)
    # The request has its time on the wire within the time-out, and the network both ways.
    return 2 * time_out_s(SETTINGS, 0.0) - len(ASKED.raw) * CHAR_S - 2 * NETWORK_S


def devices_of(
    line: int, latest_s: float, *, lost_share: float = 0.03, late_share: float = 0.5
) -> list[ModbusDevice]:
    """The devices of a line: so many replies end anywhere up to `latest_s`, some never come."""
    profile = same_shape_profile()
    jitter_ms = int((latest_s - reply_length(ASKED) * CHAR_S) * 1000) - QUICK_MS
    found = []
    for unit in UNITS:
        device = ModbusDevice(
            ModbusSettings(unit, reply_delay_ms=QUICK_MS),
            profile,
            Tickets(line * len(UNITS) + unit),
            clock=lambda: 0,
        )
        late = f"late_reply:delay_ms=0,jitter_ms={jitter_ms},probability={late_share}"
        device.add_fault_text(late, seed=1000 * line + unit)
        device.add_fault_text(f"silent:probability={lost_share}", seed=2000 * line + unit)
        found.append(device)
    return found


async def read_line(
    bus: Bus, devices: Iterable[ModbusDevice], score: Score, *, reads: int, seed: int, ruled: bool
) -> None:
    """Reads one after the other, each judged at once."""
    rng = Random(seed)
    port: BusPort = bus if ruled else NamedPort(bus)
    profile = same_shape_profile()
    clock = LoopClock(asyncio.get_running_loop())
    sessions = [
        (device.source, ModbusSession(port, device.settings.unit, profile, tcp=False, clock=clock))
        for device in devices
    ]
    for _ in range(reads):
        source, session = rng.choice(sessions)
        assert isinstance(source, Tickets)
        point = rng.choice(POINTS)
        before = source.given
        patience_s = rng.random() * 3 if rng.random() < 0.1 else None
        score.reads += 1
        result = None
        with suppress(TimeoutError):
            (result,) = await asyncio.wait_for(
                session.read([point], attempts=rng.randrange(1, 4)), patience_s
            )
        if result is None:
            score.impatient += 1
        elif result.error is None and result.value is not None:
            score.values += 1
            known, ticket = divmod(int(result.value), TICKETS)
            if known != source.known(point) or ticket <= before:
                score.wrong.append((point, result.value))


class LoopClock:
    """An event loop's time as a clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        """Seconds."""
        return self._loop.time()

    def now_ms(self) -> int:
        """The same, counted from an instant of no meaning."""
        return 1_800_000_000_000 + int(self._loop.time() * 1000)


async def _one_line(
    loop: VirtualTimeLoop,
    number: int,
    score: Score,
    *,
    reads: int,
    seed: int,
    ruled: bool,
    kind: str,
) -> None:
    devices = devices_of(number, latest_s(kind))
    station = ModbusBus(devices)
    link = (
        WireLink(station, schedule=LoopSchedule(loop), baud=BAUD, chunk=8)
        if kind == "rtu"
        else ConverterLink(station, loop=loop, seed=seed + number)
    )

    def observe(exchange: Exchange) -> None:
        score.outcomes[exchange.outcome] += 1

    bus = Bus(f"line-{number}", link, SETTINGS, clock=loop, observer=observe)
    task = asyncio.ensure_future(bus.run())
    try:
        await read_line(bus, devices, score, reads=reads, seed=seed + number, ruled=ruled)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await link.close()
    score.late_frames += bus.statistics().stray_bytes // reply_length(ASKED)


def run_proof(*, reads: int, lines: int, seed: int, ruled: bool = True, link: str = "rtu") -> Score:
    """All lines side by side in virtual time. One seed gives one run."""
    score = Score()
    share = -(-reads // lines)

    async def main(loop: VirtualTimeLoop) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(lines):
                group.create_task(
                    _one_line(loop, number, score, reads=share, seed=seed, ruled=ruled, kind=link)
                )
        score.seconds = loop.time()

    run_virtual(main)
    return score


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description="late replies on Modbus RTU lines")
    parser.add_argument("--reads", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=64)
    parser.add_argument("--link", choices=LINKS, help="one kind of link alone")
    parser.add_argument("--seed", type=int, default=138_077)
    args = parser.parse_args()
    good = True
    for link in LINKS if args.link is None else (args.link,):
        char_s = CHAR_S if link == "rtu" else 0.0
        time_out = time_out_s(SETTINGS, char_s)
        print(f"{link}: time-out {time_out:.3f} s, replies after up to twice as long", flush=True)
        more = {"lines": args.lines, "seed": args.seed, "link": link}
        found = run_proof(reads=args.reads, **more)
        print(found.line("with the rule"), flush=True)
        bare = run_proof(reads=args.reads // 10, ruled=False, **more)
        print(bare.line("without it"), flush=True)
        good = good and not found.wrong and bool(bare.wrong)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
