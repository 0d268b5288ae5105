"""`headend plan` for a configuration: every bus with its meters, plans and line."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headend.acquisition.bus_plan import BusPlan, LineFacts, plan_bus
from headend.assembly import read_plans
from headend.bus.configured import bus_settings
from headend.bus.request import BusRequest
from headend.config import Config
from headend.config.sections.buses import BusSection
from headend.domain.clock import SystemClock
from headend.domain.errors import PortGone
from headend.domain.exchange import Exchange
from headend.domain.link import ModbusTcpSpec, Rfc2217Spec, SerialSpec, TcpSpec
from headend.domain.meter import Meter
from headend.drivers import bus_device
from headend.drivers.configured import ConfiguredSessions
from headend.journal.answers import answer_times

_PSEUDO = "/dev/pts/"
ANSWERS_MIN = 5


class _NoPort:
    """Stands where a bus would: a plan asks nobody."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parity_seen = False

    async def exchange(self, request: BusRequest) -> Exchange:
        """PortGone: nobody is there."""
        msg = f"a plan asks nobody, {request.device} neither"
        raise PortGone(msg, bus=self.name)


def bus_plans(
    config: Config,
    meters: Sequence[Meter] | None = None,
    measured: Mapping[str, Mapping[str, float]] | None = None,
) -> Iterator[BusPlan]:
    """The plan of each bus that has meters, in the order of the configuration.

    `meters`: those in force; None = as configured. `measured`: by bus and meter, seconds from the
    end of a request to the first byte of its reply.
    """
    plans = read_plans(config)
    sessions = ConfiguredSessions(
        config, {name: _NoPort(name) for name in config.buses}, clock=SystemClock()
    )
    held = config.meters if meters is None else meters
    for name, section in config.buses.items():
        own = [meter for meter in held if meter.bus == name]
        if own:
            known = dict((measured or {}).get(name, {}))
            yield plan_bus(name, own, plans, sessions, line_facts(section, known))


def measured_delays(
    config: Config, meters: Sequence[Meter] | None = None
) -> dict[str, dict[str, float]]:
    """How long each meter really thinks, by bus and meter, for `bus_plans`; reads the journal.

    Seconds from the end of a request to the first byte of its reply, on average over the newest
    answers. A meter with fewer than `ANSWERS_MIN` of them is left out.
    """
    answers = answer_times(config.journal_path)
    found: dict[str, dict[str, float]] = {}
    for meter in config.meters if meters is None else meters:
        known = answers.get((meter.bus, bus_device(meter)))
        if known is None or known.answers < ANSWERS_MIN or meter.bus not in config.buses:
            continue
        char_s = line_facts(config.buses[meter.bus], {}).char_s
        found.setdefault(meter.bus, {})[meter.id] = known.think_s(char_s)
    return found


def line_facts(section: BusSection, measured: dict[str, float]) -> LineFacts:
    """What the configuration says of a bus's line.

    A pseudo terminal and a converter show no damaged bytes; a port is believed to, where it has a
    parity at all.
    """
    baud, bits, seen = 0, 0, False
    match section.link_spec:
        case SerialSpec(path, baud, parity, stop_bits, _, told):
            bits = 1 + 8 + (parity != "none") + stop_bits
            real = not str(Path(path).resolve()).startswith(_PSEUDO)
            seen = (parity != "none" and real) if told is None else told
        case TcpSpec(_, _, baud, parity):
            bits = 1 + 8 + (parity != "none") + 1
        case Rfc2217Spec(_, _, baud, parity, stop_bits):
            bits = 1 + 8 + (parity != "none") + stop_bits
        case ModbusTcpSpec():
            pass
    return LineFacts(
        baud=baud,
        char_bits=bits,
        parity_seen=seen,
        turnaround_s=section.turnaround_ms / 1000,
        lost_share=section.loss_percent / 100,
        settings=bus_settings(section),
        measured_s=measured,
    )
