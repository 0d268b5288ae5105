"""A small world of buses and meters whose truth is known, with the outages it makes."""

from dataclasses import dataclass, field

from headend.acquisition.outage_state import OutageSettings, Seen
from headend.acquisition.outages import Outages
from headend.domain.alarms import StandingAlarm, standing
from headend.domain.meter import Event

START_MS = 1_770_000_000_000
QUICK = OutageSettings(
    port_s=60,
    bus_silent_s=60,
    meter_silent_s=300,
    reads_min=3,
    refusals_min=3,
    clear_s=30,
    clear_s_max=240,
    back_s=1000,
    settle_s=0,
    recent_s=120,
    together_s=60,
    per_minute=20,
)


@dataclass
class World:
    """Time goes on by `tick`; every meter is read once a tick, and then a step is taken."""

    buses: dict[str, list[str]]
    settings: OutageSettings = QUICK
    now_s: float = 0.0
    tick_s: float = 10.0
    events: list[Event] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)  # buses without a port
    cut: set[str] = field(default_factory=set)  # buses whose line is cut
    dead: set[str] = field(default_factory=set)  # meters
    refusing: set[str] = field(default_factory=set)
    opens: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        self.outages = self._fresh()

    def _fresh(self):
        outages = Outages(self.settings)
        outages.topology(self.buses)
        return outages

    @property
    def now_ms(self):
        return START_MS + int(self.now_s * 1000)

    def restart(self):
        """A new life of the process that knows the journal's events alone."""
        self.outages = self._fresh()
        self.outages.restore(self.events, self.now_s)

    def seen(self, bus, meter):
        """What a read of a meter shows now, by the truth."""
        if bus in self.gone:
            return Seen.NO_PORT
        if bus in self.cut or meter in self.dead:
            return Seen.NO_ANSWER
        return Seen.REFUSED if meter in self.refusing else Seen.GOOD

    def tick(self, *, times=1, only=None):
        """Let time go on; `only`: the meters that are read, all when None."""
        new = []
        for _ in range(times):
            self.now_s += self.tick_s
            self.outages.topology(self.buses)
            for bus, meters in self.buses.items():
                is_there = bus not in self.gone
                opens = self.opens.get(bus, 1)
                self.outages.port(bus, opens, "port gone", self.now_s, is_there=is_there)
                for meter in meters:
                    if only is None or meter in only:
                        seen = self.seen(bus, meter)
                        self.outages.saw(meter, seen, seen.value, self.now_s, self.now_ms)
            told = self.outages.step(self.now_s, self.now_ms)
            self.events += told
            new += told
            self.check_told()
        return new

    def run(self, seconds, *, only=None):
        return self.tick(times=int(seconds / self.tick_s), only=only)

    def standing(self) -> list[StandingAlarm]:
        return standing(self.events)

    def names(self):
        """What stands, as `name subject`."""
        return [f"{alarm.name} {alarm.subject}".strip() for alarm in self.standing()]

    def check_told(self):
        """Nothing is raised twice, nothing cleared that did not stand."""
        up = set()
        for event in self.events:
            key = (event.fields["alarm"], event.fields.get("bus"), event.fields.get("meter"))
            if event.kind == "alarm":
                assert key not in up, f"raised twice: {key}"
                up.add(key)
            else:
                assert key in up, f"cleared without standing: {key}"
                up.discard(key)


def street(buses=1, meters=4):
    return World({f"b{b}": [f"b{b}m{m}" for m in range(meters)] for b in range(buses)})


def short(events):
    """Events as `+name subject` and `-name subject`."""
    signs = {"alarm": "+", "alarm_cleared": "-"}
    result = []
    for event in events:
        name = event.fields["alarm"]
        subject = event.fields.get("meter") or (
            event.fields.get("bus") if name == "bus_down" else None
        )
        result.append(f"{signs[event.kind]}{name}{f' {subject}' if subject else ''}")
    return result
