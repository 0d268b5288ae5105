"""Options of `headend simulate`: their types, and what the devices make of them."""

import argparse
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headend.config.profiles import PACKAGED, load_profile
from headend.domain.clock import to_datetime
from protocols.modbus.profile import DeviceProfile

if TYPE_CHECKING:
    from simulators.energy import Channel, Direction, Timeline
    from simulators.street import StreetPlan


def initial_registers(
    args: argparse.Namespace, initial: "dict[Channel, int]"
) -> "dict[Channel, int]":
    """The seed's registers, or those the user wants: all of it in tariff 1."""
    from simulators.energy import NWH_A_KWH, Channel  # noqa: PLC0415

    wanted: dict[Direction, Decimal | None] = {
        "import": args.import_kwh,
        "export": args.export_kwh,
    }
    for direction, kwh in wanted.items():
        if kwh is not None:
            for tariff in range(1, 5):
                initial[Channel(direction, tariff)] = int(kwh * NWH_A_KWH) if tariff == 1 else 0
    return initial


def offset_min(at_ms: int, zone: ZoneInfo) -> int:
    """The zone's present offset: a meter keeps one, and knows no summer time."""
    offset = to_datetime(at_ms).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(minutes=1)


def midnight_ms(at_ms: int, zone: ZoneInfo) -> int:
    """The latest local midnight at the zone's present offset."""
    local_ms = at_ms + offset_min(at_ms, zone) * 60_000
    return at_ms - local_ms % 86_400_000


def as_zone(text: str) -> ZoneInfo:
    """A time zone by name."""
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no time zone {text!r}") from None


def as_address(text: str) -> str:
    """A 645 address."""
    if len(text) != 12 or not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"an address has twelve digits, not {text!r}")
    return text


def as_host_port(text: str) -> tuple[str, int]:
    """HOST:PORT; no host is this machine."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"HOST:PORT is wanted, not {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def as_whole(least: int) -> Callable[[str], int]:
    """A whole number, not below `least`."""

    def parse(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least} on, not {text!r}")
        return int(text)

    return parse


def as_kwh(text: str) -> Decimal:
    """A register's content."""
    try:
        kwh = Decimal(text)
    except InvalidOperation:
        kwh = Decimal(-1)
    if not 0 <= kwh < 1_000_000:
        raise argparse.ArgumentTypeError(f"kWh from 0 to below 1000000, not {text!r}")
    return kwh


def timeline_of(
    args: argparse.Namespace, now_ms: int, *, told: bool, past_days: int | None = None
) -> "Timeline":
    """The time that drives the energy: `told` registers hold as told when the device is ready.

    `past_days`: how long the device has hung there; None = as long as those of a street.
    """
    from simulators.energy import Timeline  # noqa: PLC0415
    from simulators.street import PAST_DAYS  # noqa: PLC0415

    origin_ms = midnight_ms(now_ms, args.zone) - (past_days or PAST_DAYS) * 86_400_000 - 1
    timeline = Timeline(origin_ms, speed=0 if told else 1)  # nothing flowed before
    timeline.change(now_ms, args.speed)
    return timeline


def street_profiles(plan: "StreetPlan") -> dict[str, DeviceProfile]:
    """The profiles of a street's Modbus devices: those that come with the program."""
    names = {meter.profile for meter in plan.meters if meter.profile is not None}
    return {name: load_profile(name, PACKAGED.parent) for name in names}
