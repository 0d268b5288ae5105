"""The Modbus side of `headend read`: what its options mean, checked before the line is touched."""

import argparse
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from headend.bus import Bus
from headend.config.meter_rules import address_problem, link_problem
from headend.config.profiles import load_device
from headend.domain.clock import Clock
from headend.domain.errors import ConfigError
from headend.domain.link import LinkSpec
from headend.drivers import ModbusSession
from headend.drivers.modbus import NO_PROFILE
from headend.drivers.modbus_line import line_of
from headend.drivers.modbus_values import RAW_PREFIX
from protocols.errors import LocalProtocolError
from protocols.modbus.profile import DeviceProfile, UnknownPoint, raw_register

OPTIONS = ("profile", "ct", "pt")


@dataclass(frozen=True, slots=True)
class ModbusTarget:
    """Which device is read, and by which map."""

    protocol: str
    unit: int
    profile: DeviceProfile
    ct: Decimal
    pt: Decimal
    link: LinkSpec

    def session(self, bus: Bus, args: argparse.Namespace, clock: Clock) -> ModbusSession:
        """The session on a bus."""
        return ModbusSession(
            bus,
            self.unit,
            self.profile,
            tcp=self.protocol == "modbus-tcp",
            clock=clock,
            ct=self.ct,
            pt=self.pt,
            line=line_of(self.link, self.profile),
            attempts=args.retries + 1,
            timeout_s=args.timeout,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only Modbus has."""
    parser.add_argument(
        "--profile", metavar="P", help="Modbus: a device profile, name or file; sunspec"
    )
    parser.add_argument("--ct", type=_ratio, metavar="N", help="current transformers' ratio (1)")
    parser.add_argument("--pt", type=_ratio, metavar="N", help="voltage transformers' ratio (1)")


def modbus_target(args: argparse.Namespace, spec: LinkSpec, protocol: str) -> ModbusTarget:
    """What is to be read; ConfigError for what cannot be."""
    problem = link_problem(protocol, spec)
    if problem is not None:
        raise ConfigError(problem.message, hint=problem.hint)
    problem = address_problem(protocol, args.address)
    if problem is not None:
        raise ConfigError(problem.message, hint=problem.hint)
    if args.freeze is not None:
        raise ConfigError("a Modbus device keeps no daily freeze", hint="leave --freeze out")
    profile = NO_PROFILE if args.profile is None else load_device(args.profile, Path())
    ct, pt = args.ct or Decimal(1), args.pt or Decimal(1)
    if profile.side == "primary" and (ct, pt) != (1, 1):
        message = f"{profile.id} gives primary values: ct and pt are applied already"
        raise ConfigError(message, hint="leave --ct and --pt out")
    _check_points(args, profile)
    return ModbusTarget(protocol, int(args.address), profile, ct, pt, spec)


def _check_points(args: argparse.Namespace, profile: DeviceProfile) -> None:
    for point in args.points:
        try:
            if point.startswith(RAW_PREFIX):
                raw_register(point)
                continue
            if args.profile is None:
                message = f"{point}: without a profile only raw registers can be read"
                raise ConfigError(message, hint="--profile eastron_sdm630, or reg:4:72:float32")
            profile.register(point)
        except (LocalProtocolError, UnknownPoint) as error:
            raise ConfigError(str(error), hint="or a raw one, such as reg:4:72:2") from error


def _ratio(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None
    if not value.is_finite() or value <= 0:
        raise argparse.ArgumentTypeError("a ratio is above 0")
    return value
