"""A bus port with one Modbus device behind it that answers at once: no line, no time."""

from headend.bus import BusRequest
from headend.config.profiles import PACKAGED, load_profile
from headend.domain.exchange import Exchange, Outcome
from protocols.framing import Match
from protocols.modbus.decode import encode
from protocols.modbus.device import build_exception, build_reply, parse_request

SDM = load_profile("eastron_sdm630", PACKAGED.parent)
ACREL = load_profile("acrel_adl400", PACKAGED.parent)


class HandClock:
    """Time that stands still unless it is moved."""

    def __init__(self):
        self.now_s = 100.0

    def now_ms(self):
        return round(self.now_s * 1000)

    def monotonic(self):
        return self.now_s


class Device:
    """A bus with one device on it that answers at once. Registers it lacks refuse their block."""

    name = "b"
    parity_seen = False

    def __init__(self, profile=SDM, *, tcp=False, clock=None, **values):
        self.tcp = tcp
        self.clock = clock  # None: one second a request, from the beginning of time
        self.profile = profile
        self.requests: list[BusRequest] = []
        self.asked = []
        self.words: dict[int, int] = {}
        self.script = []  # what the next requests meet: an exception code, an error, or None
        for point, value in values.items():
            self.set(point, value)

    def set(self, point, value):
        register = self.profile.register(point)
        for at, word in enumerate(encode(register, value)):
            self.words[register.address + at] = word

    async def exchange(self, request: BusRequest) -> Exchange:
        self.requests.append(request)
        asked = parse_request(request.payload, tcp=self.tcp)
        self.asked.append((asked.function, asked.address, asked.count))
        met = self.script.pop(0) if self.script else None
        if isinstance(met, Exception):
            raise met
        wanted = range(asked.address, asked.address + asked.count)
        if met is None and all(at in self.words for at in wanted):
            raw = build_reply(asked, [self.words[at] for at in wanted])
        else:
            raw = build_exception(asked, met or 2)
        found = request.match(raw)
        assert found in (Match.REPLY, Match.REFUSAL)
        outcome = Outcome.REPLY if found is Match.REPLY else Outcome.REFUSED
        sent_ms = 1000 * len(self.requests) if self.clock is None else self.clock.now_ms() - 100
        return Exchange(
            "b", request.device, request.payload, raw, sent_ms, sent_ms + 100, 100.0, 1, outcome
        )
