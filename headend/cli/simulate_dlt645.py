"""`headend simulate dlt645`: meters of either edition on one line, with what goes wrong there."""

import argparse
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headend.cli.simulate_options import (
    as_address,
    as_host_port,
    as_kwh,
    as_whole,
    initial_registers,
    offset_min,
    timeline_of,
)
from headend.config.errors import ConfigErrors
from headend.config.profiles import load_meter_profile
from headend.config.tree import parse_tree, read_text
from headend.domain.clock import SystemClock
from headend.domain.errors import ConfigError

if TYPE_CHECKING:
    from simulators.control import ControlServer
    from simulators.damage import Damager
    from simulators.energy import Timeline
    from simulators.meter645 import CommandSettings, KeptSettings, Meter645, MeterSettings, TruthLog
    from simulators.meterbus import MeterBus
    from simulators.serve import Server

_KINDS = ("single", "three", "pv", "pv3")
_EMPTY = ("refuse", "ff", "zero")
_SEPARATORS = ("all", "no_leading", "data_only")
_PTY_BAUD = 2400

EPILOG = """\
FAULTS (--fault NAME[:key=value,...], once for each; of every meter)
  of registers: stuck, backward_register:kwh=, one_bad_zero, jump:kwh=
  of payloads: non_bcd:nibble=, all_ff, short_payload:bytes=, long_payload:bytes=
  of replies: silent, late_reply:delay_ms=, twice:delay_ms=, refuse:err= (one byte, as 2),
    wrong_address:address=, wrong_di, wrong_sequence, wrong_checksum, drop_first_byte,
    short_reply:bytes=, noise:bytes=, echo, spontaneous:delay_ms=,gap_ms=, suffix:hex=,
    parity, two_bits, lost_byte, double_byte, double_start, pause:after=,ms=,baud=
  when: every= (each n-th), nth= with count=, probability=, from_ms=, until_ms= (wall time),
    di= (only reads of that identifier: refuse:di=0201FF00,err=2)

EVENTS (--event KIND:from=TIME[,until=TIME][,phase=1]; TIME of the meter's clock: 2026-11-20T03:00)
  with a phase: loss_of_voltage, undervoltage, overvoltage, phase_failure, loss_of_current,
    overcurrent, current_interrupted, flow_reversed, overload
  without: all_phases_lost, auxiliary_supply_lost, voltage_sequence, current_sequence,
    voltage_unbalance, current_unbalance, power_down, meter_cover_open, terminal_cover_open

GAPS (--gap FROM/UNTIL[,missing|bad|ff][,STORE...]): nothing good was kept of that span; STOREs are
  load, daily_freeze, hourly_freeze, step_freeze, settlement, timed_freeze (none = all)

A FILE FOR EACH METER (--faults FILE, YAML; `all` is for every meter):
  all: {faults: ["noise:every=7"]}
  meters:
    "000000000161":
      faults: ["refuse:di=0201FF00", "late_reply:every=5"]
      events: ["overload:from=2026-11-20T03:00,phase=1"]
      gaps: ["2026-11-20T03:00/2026-11-20T09:15,load"]
"""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a file or the options tell of one meter, as text."""

    faults: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    def __add__(self, other: "_Told") -> "_Told":
        return _Told(self.faults + other.faults, self.events + other.events, self.gaps + other.gaps)


@dataclass(frozen=True, slots=True)
class _File:
    """What `--faults FILE` says: of every meter, and of each."""

    of_all: _Told = field(default_factory=_Told)
    of_each: dict[str, _Told] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend simulate dlt645`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--address", type=as_address, action="append", help="twelve digits; once for each meter")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="PATH", help="a pty, under this symlink")
    where.add_argument("--tcp", type=as_host_port, metavar="HOST:PORT", help="a TCP port (0 = any)")
    add("--kind", choices=_KINDS, default="single", help="connection and what hangs behind it")
    add("--edition", choices=("2007", "1997"), help="of DL/T 645 (default: the profile's, 2007)")
    add("--profile", metavar="P", help="the model: a profile's name or file (generic)")
    add("--baud", type=as_whole(0), help="line speed (pty: 2400; TCP: none)")
    add("--delay-ms", type=as_whole(0), default=100, help="pause before a reply (default 100)")
    add("--jitter-ms", type=as_whole(0), default=0, help="up to so much more, by the seed")
    add("--wakeup", type=as_whole(0), default=0, help="FE bytes before a reply (0..4)")
    add("--speed", type=as_whole(0), default=1, help="energy runs this much faster; 0 = stands")
    add("--import-kwh", type=as_kwh, metavar="KWH", help="active import at the start, in tariff 1")
    add("--export-kwh", type=as_kwh, metavar="KWH", help="active export at the start, in tariff 1")
    add("--past-days", type=as_whole(1), default=3, help="how long it has hung there (default 3)")
    add("--control", type=Path, metavar="SOCKET", help="truth, on, off and faults over this socket")
    _add_makes(parser.add_argument_group("how the make does it"))
    _add_commands(parser.add_argument_group("clock and commands"))
    _add_troubles(parser.add_argument_group("what goes wrong"))


def _add_makes(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--frame-max", type=as_whole(9), metavar="N", help="bytes of data in a frame (200)")
    add("--absolute", action="store_true", help="power and current without sign")
    add("--repeat-wildcard", action="store_true", help="replies bear the address that was asked")
    add("--deaf-to-all", action="store_true", help="1997: no answer to reads sent to 99..99")
    add("--empty", choices=_EMPTY, default=_EMPTY[0], help="a record that is not there")
    add("--load-interval-min", type=as_whole(1), default=15, metavar="N", help="of load records")
    add("--load-mode", type=_hex, default=0x3F, metavar="HEX", help="bit i = class i+1 is on (3F)")
    add("--load-depth", type=as_whole(1), default=3840, metavar="N", help="records kept (3840)")
    add("--load-separators", choices=_SEPARATORS, help="which AA of empty classes are written")
    add("--load-year-first", action="store_true", help="records store the year first")
    add("--load-count", choices=("content", "whole"), help="what n of a record counts")
    add("--load-wrong-sum", type=as_whole(0), default=0, metavar="N", help="added to each sum")
    add("--load-refuse", action="store_true", help="a record that is not there is refused")


def _add_commands(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--drift-ppm", type=int, default=0, help="the meter's clock: + is fast")
    add("--clock-error-s", type=int, default=0, help="the meter's clock: + is ahead")
    add("--clock-reach-s", type=as_whole(0), default=300, help="a broadcast time is taken within")
    add("--clock-single", action="store_true", help="08H is also taken at its own address")
    add(
        "--password", type=_password, action="append", default=[], metavar="LEVEL:DIGITS",
        help="six digits of a level (levels 2 and 4 have 000000)",
    )  # fmt: skip
    add("--lock-after", type=as_whole(1), default=3, metavar="N", help="wrong passwords (3)")
    add("--lock-s", type=as_whole(0), default=3600, help="so long a level is closed then (3600)")
    add("--no-key", action="store_true", help="the programming key is not pressed")
    add("--relay-delay-ms", type=as_whole(0), default=0, help="from command to relay")
    add("--speed-fallback-s", type=as_whole(1), help="back to the old speed when nothing is heard")


def _add_troubles(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--fault", action="append", default=[], metavar="NAME[:key=value,...]", type=_fault)
    add("--faults", type=Path, metavar="FILE", help="faults, events and gaps of each meter (YAML)")
    add("--event", action="append", default=[], metavar="KIND:from=...", help="see below")
    add("--gap", action="append", default=[], metavar="FROM/UNTIL", help="see below")
    add("--damage", metavar="NAME=SHARE,...", help="of the line: flip, lost, doubled, cut, burst")
    add("--echo", action="store_true", help="the line gives back what is sent")
    add(
        "--capture", type=_share, default=0.0, metavar="SHARE",
        help="of collisions in which one meter alone is heard (0)",
    )  # fmt: skip


async def start(args: argparse.Namespace, log: "TruthLog | None") -> AsyncExitStack:
    """Open the pty or port with its meters on it and say READY. ConfigError(s), OSError."""
    from simulators.curves import mix  # noqa: PLC0415 - the parser must not pay for it
    from simulators.meterbus import MeterBus  # noqa: PLC0415

    told = args.import_kwh is not None or args.export_kwh is not None
    timeline = timeline_of(args, SystemClock().now_ms(), told=told, past_days=args.past_days)
    file = _read_file(args.faults)
    addresses = args.address or ["000000000001"]
    unknown = set(file.of_each) - set(addresses)
    if unknown:
        raise ConfigError(f"{args.faults} speaks of {', '.join(sorted(unknown))}: no such meter")
    own = _Told(tuple(args.fault), tuple(args.event), tuple(args.gap)) + file.of_all
    bus = MeterBus(
        (
            _meter(args, address, number, own + file.of_each.get(address, _Told()), timeline, log)
            for number, address in enumerate(addresses)
        ),
        capture=args.capture,
        seed=mix(args.seed, 77),
    )
    for meter in bus:
        meter.warm_up()
    server = _server(args, bus)
    await server.start()
    stack = AsyncExitStack()
    stack.push_async_callback(server.close)
    if args.control is not None:
        try:
            stack.push_async_callback((await _steered(args, bus, timeline)).close)
        except OSError:
            await stack.aclose()
            raise
    print(f"READY {server.where}", flush=True)
    return stack


async def _steered(
    args: argparse.Namespace, bus: "MeterBus", timeline: "Timeline"
) -> "ControlServer":
    from simulators.control import ControlServer  # noqa: PLC0415 - only when it is wanted
    from simulators.steering import Steering  # noqa: PLC0415

    meters = {meter.address: meter for meter in bus}
    clock = SystemClock().now_ms
    steering = Steering(meters, timeline, speed=args.speed, clock=clock, seed=args.seed)
    control = ControlServer(steering, args.control)
    await control.start()
    return control


def _server(args: argparse.Namespace, bus: "MeterBus") -> "Server":
    from simulators.serve import PtyServer, TcpServer  # noqa: PLC0415

    outward, inward = _damage(args, 1), _damage(args, 2)
    if args.tcp is not None:
        host, port = args.tcp
        return TcpServer(
            bus, host, port, baud=args.baud or None, echo=args.echo,
            to_station=outward, to_master=inward,
        )  # fmt: skip
    return PtyServer(
        bus, args.pty, baud=args.baud or _PTY_BAUD, echo=args.echo, on_speed=bus.at_speed,
        to_station=outward, to_master=inward,
    )  # fmt: skip


def _damage(args: argparse.Namespace, number: int) -> "Damager | None":
    if args.damage is None:
        return None
    from simulators.curves import mix  # noqa: PLC0415
    from simulators.faults import seeded  # noqa: PLC0415
    from simulators.meter645_text import parse_damage  # noqa: PLC0415

    try:
        return parse_damage(args.damage, seeded(mix(args.seed, 88, number)))
    except ValueError as error:
        raise ConfigError(f"--damage: {error}") from error


def _meter(
    args: argparse.Namespace,
    address: str,
    number: int,
    told: _Told,
    timeline: "Timeline",
    log: "TruthLog | None",
) -> "Meter645":
    from simulators.curves import mix  # noqa: PLC0415
    from simulators.faults import parse_fault, seeded  # noqa: PLC0415
    from simulators.models import make_initial, make_meter  # noqa: PLC0415

    seed = mix(args.seed, number)
    offset = offset_min(SystemClock().now_ms(), args.zone)
    try:
        meter = make_meter(
            args.kind,
            _settings(args, address, seed, told, offset),
            timeline=timeline,
            clock=SystemClock().now_ms,
            utc_offset_min=offset,
            drift_ppm=args.drift_ppm,
            clock_error_ms=args.clock_error_s * 1000,
            initial=initial_registers(args, make_initial(args.kind, seed)),
            truth_log=log,
        )
        for index, text in enumerate(told.faults):
            meter.add_fault(parse_fault(text, rng=seeded(mix(seed, index))))
    except ValueError as error:
        raise ConfigError(f"meter {address}: {error}") from error
    return meter


def _settings(
    args: argparse.Namespace, address: str, seed: int, told: _Told, offset: int
) -> "MeterSettings":
    from protocols.dlt645.profile import GENERIC  # noqa: PLC0415
    from simulators.meter645 import MeterSettings  # noqa: PLC0415
    from simulators.meter645_text import parse_event  # noqa: PLC0415

    profile = load_meter_profile(args.profile, Path.cwd()) if args.profile else GENERIC
    edition = {"2007": "dlt645-2007", "1997": "dlt645-1997", None: None}[args.edition]
    return MeterSettings(
        address,
        reply_delay_ms=args.delay_ms,
        reply_jitter_ms=args.jitter_ms,
        wakeup=args.wakeup,
        empty_freeze=args.empty,
        seed=seed,
        edition=edition,  # type: ignore[arg-type]  # one of the two, or None
        profile=profile,
        absolute=args.absolute,
        frame_data_max=args.frame_max,
        header="asked" if args.repeat_wildcard else "own",
        hears_all=not args.deaf_to_all,
        kept=_kept(args, told, offset),
        commands=_commands(args),
        events=tuple(parse_event(text, offset) for text in told.events),
    )


def _kept(args: argparse.Namespace, told: _Told, offset: int) -> "KeptSettings":
    from protocols.dlt645.load_profile import LoadShape  # noqa: PLC0415
    from simulators.meter645 import KeptSettings, LoadSettings  # noqa: PLC0415
    from simulators.meter645_text import parse_gap  # noqa: PLC0415

    shape = LoadShape(year_first=args.load_year_first)
    if args.load_separators:
        shape = replace(shape, separators=args.load_separators)
    if args.load_count:
        shape = replace(shape, count=args.load_count)
    minutes = args.load_interval_min
    load = LoadSettings(
        intervals_min=(minutes,) * 6,
        mode=args.load_mode,
        depth=args.load_depth,
        shape=shape,
        wrong_sum=args.load_wrong_sum,
        empty="refuse" if args.load_refuse else "di_only",
    )
    return KeptSettings(gaps=tuple(parse_gap(text, offset) for text in told.gaps), load=load)


def _commands(args: argparse.Namespace) -> "CommandSettings":
    from simulators.meter645 import CommandSettings  # noqa: PLC0415

    return CommandSettings(
        passwords={2: "000000", 4: "000000", **dict(args.password)},
        tries=args.lock_after,
        lock_s=args.lock_s,
        programmable=not args.no_key,
        clock_reach_s=args.clock_reach_s,
        clock_single=args.clock_single,
        relay_delay_ms=args.relay_delay_ms,
        speed_fallback_s=args.speed_fallback_s,
    )


# --- the file -------------------------------------------------------------------------------------


def _read_file(path: Path | None) -> _File:
    """ConfigError(s) with file, line and key of what is wrong in it."""
    if path is None:
        return _File()
    root, errors = parse_tree(read_text(path, str(path)), str(path))
    if errors:
        raise ConfigErrors(errors)
    _known(path, root, "the file", {"all", "meters"})
    meters = _or_empty(root.get("meters"))
    if not isinstance(meters, dict):
        raise ConfigError(f"{path}: meters is a mapping of addresses")
    return _File(
        _told(path, "all", _or_empty(root.get("all"))),
        {address: _told(path, address, _or_empty(tree)) for address, tree in meters.items()},
    )


def _or_empty(tree: Any) -> Any:  # noqa: ANN401 - YAML
    """A key that nothing stands behind says nothing."""
    return {} if tree is None else tree


def _told(path: Path, name: str, tree: Any) -> _Told:  # noqa: ANN401 - YAML
    keys = {"faults", "events", "gaps"}
    _known(path, tree, name, keys)
    for key in keys & set(tree):
        value = tree[key]
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ConfigError(f"{path}: {name}: {key} is a list of texts, not {value!r}")
    return _Told(**{key: tuple(tree[key]) for key in keys & set(tree)})


def _known(path: Path, tree: Any, name: str, keys: set[str]) -> None:  # noqa: ANN401 - YAML
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: {name} is a mapping, not {tree!r}")
    unknown = sorted(set(tree) - keys)
    if unknown:
        hint = f"known: {', '.join(sorted(keys))}"
        raise ConfigError(f"{path}: {name} knows no {', '.join(unknown)}", hint=hint)


# --- types of options -----------------------------------------------------------------------------


def _fault(text: str) -> str:
    from simulators.faults import parse_fault  # noqa: PLC0415 - only when a fault is wanted

    try:
        parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _password(text: str) -> tuple[int, str]:
    level, _, digits = text.partition(":")
    if not (level.isdigit() and int(level) <= 9 and digits.isdigit() and len(digits) == 6):
        raise argparse.ArgumentTypeError("LEVEL:DIGITS is wanted, a level 0..9 and six digits")
    return int(level), digits


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise argparse.ArgumentTypeError(f"a share of 0..1, not {text!r}")
    return share


def _hex(text: str) -> int:
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number <= 0x3F:
        raise argparse.ArgumentTypeError(f"a hex byte up to 3F, not {text!r}")
    return number
