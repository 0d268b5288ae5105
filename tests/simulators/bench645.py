"""A meter on an in-memory line and a master that asks it: what the tests here share."""

from collections.abc import Sequence
from functools import partial

from protocols.dlt645.catalogue import lookup
from protocols.dlt645.frame import WAKE_UP, build, parse
from protocols.dlt645.items import Value, decode
from protocols.dlt645.master import match, read_request, reply_payload
from protocols.framing import Match
from simulators.energy import DAY_MS, Timeline
from simulators.faults import parse_fault, seeded
from simulators.measured import Measured
from simulators.meter645 import Meter645, MeterSettings, Served
from simulators.meterbus import MeterBus
from simulators.models import Kind, make_meter
from simulators.wire import WireLink

ADDRESS = "000000000161"
NOW_MS = 1_700_000_000_000  # 2023-11-15 06:13:20 in Shanghai
_SHARED: dict[Kind, Measured] = {}


class Ear:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[int, ...]]] = []
        self.lost: list[Exception | None] = []

    def bytes_received(self, data: bytes, bad: Sequence[int]) -> None:
        self.heard.append((data, tuple(bad)))

    def link_lost(self, reason: Exception | None) -> None:
        self.lost.append(reason)

    def take(self) -> bytes:
        """Everything heard since the last time."""
        data = b"".join(data for data, _ in self.heard)
        self.heard.clear()
        return data


class Bench:
    """One meter, asked in memory without any time passing but what a test lets pass.

    `shared`: meters of a kind measure the same supply, so that its sums are done once; for tests
    that do not touch its timeline.
    """

    def __init__(
        self, kind: Kind = "single", address: str = ADDRESS, *, shared: bool = False, **settings
    ) -> None:
        self.now_ms = NOW_MS
        self.served: list[Served] = []
        self.meter: Meter645 = make_meter(
            kind,
            MeterSettings(address, **settings),
            timeline=Timeline(NOW_MS - 3 * DAY_MS),
            clock=lambda: self.now_ms,
            truth_log=self.served.append,
        )
        if shared:
            made = self.meter
            self.meter = Meter645(
                made.settings,
                _SHARED.setdefault(kind, made.measured),
                clock=made.clock,
                meter_clock=made.meter_clock,
                truth_log=made.truth_log,
            )
        self.bus = MeterBus([self.meter])
        self.ear = Ear()
        self.link = WireLink(self.bus)
        self.link.attach(self.ear)

    def send(self, raw: bytes) -> bytes:
        """What comes back for these bytes."""
        self.link.write(raw)
        return self.ear.take()

    def ask(self, di: str, address: str | None = None) -> bytes:
        """The raw answer to a read."""
        return self.send(read_request(address or self.meter.address, di).raw)

    def read(self, di: str, address: str | None = None) -> tuple[Value, ...] | None:
        """The values of an item; None for silence. ErrorReply for a refusal."""
        request = read_request(address or self.meter.address, di)
        raw = self.send(request.raw).lstrip(WAKE_UP)
        if not raw:
            return None
        assert match(request, raw) in (Match.REPLY, Match.REFUSAL)
        item = lookup(di)
        assert item is not None
        return decode(item, reply_payload(request, raw))

    def fault(self, text: str, seed: int = 1) -> None:
        """Give the meter a fault."""
        self.meter.add_fault(parse_fault(text, rng=seeded(seed)))


def command(address: str, control: int, data: bytes | str = b"") -> bytes:
    """A frame of a master that headend itself can never send."""
    data = bytes.fromhex(data) if isinstance(data, str) else data
    body = b"\x68" + bytes.fromhex(address)[::-1] + bytes((0x68, control, len(data)))
    body += bytes((byte + 0x33) & 0xFF for byte in data)
    return body + bytes((sum(body) & 0xFF, 0x16))


SharedBench = partial(Bench, shared=True)

__all__ = ["ADDRESS", "NOW_MS", "Bench", "Ear", "SharedBench", "build", "command", "parse"]
