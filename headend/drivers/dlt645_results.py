"""What became of points that were asked of a DL/T 645 meter."""

import datetime as dt
from decimal import Decimal

from headend.domain.clock import to_ms
from headend.domain.errors import NoAnswer, Refused
from headend.drivers.dlt645_item import Read, Trail
from headend.drivers.result import PointResult
from headend.drivers.targets import Target, target_of, value_text
from protocols.dlt645.fields import MeterTime, Value
from protocols.dlt645.learned import NO_DATA
from protocols.dlt645.profile import GENERIC, MeterProfile
from protocols.errors import LocalProtocolError
from protocols.quantities import quantity


def result_of(
    target: Target,
    members: tuple[Value, ...],
    read: Read,
    trail: Trail,
    time_ms: int,
    zone: dt.tzinfo,
) -> PointResult:
    """What a reply says of one point. `members`: those that are the point's."""
    exchange = read.exchange
    first = members[0] if members else None
    single = len(members) == 1
    number = first if isinstance(first, Decimal) else None
    occurred_ms = None
    if len(members) == 2 and isinstance(members[1], MeterTime):
        # A maximum demand with the time it occurred is one value.
        single = True
        occurred_ms = to_ms(members[1].at(zone))
    if number is not None and single:
        text = str(number)
        texts: tuple[str | None, ...] = (format(number, "f") if "E" in text else text,)
    else:
        texts = tuple(value_text(member, zone) for member in members)
    return PointResult(
        target.point,
        target.di,
        number if single else None,
        target.unit,
        time_ms,
        exchange,
        exchange.attempt,
        None,  # error
        None,  # meter_time_ms
        occurred_ms,
        texts[:1] if single else texts,
        tuple(trail),
    )


def refused_before(address: str, point: str) -> Refused:
    """The error of a point that the meter has refused often enough not to be asked again."""
    message = f"meter {address} has refused {point} before: it is not asked for it in a plan"
    return Refused(message, reasons=(NO_DATA,))


def failed(
    point: str, error: Exception, trail: Trail, profile: MeterProfile = GENERIC
) -> PointResult:
    """The result of a point that was not had."""
    last = trail[-1] if trail else None
    if isinstance(error, NoAnswer):
        attempts, last = error.attempts, None
    else:
        attempts = 0 if last is None else last.attempt
    return PointResult(
        point=point,
        di="",
        value=None,
        unit=_unit(point, profile),
        time_ms=None,
        exchange=last,
        attempts=attempts,
        error=error,
        exchanges=tuple(trail),
    )


def _unit(point: str, profile: MeterProfile) -> str:
    try:
        return target_of(point, profile).unit
    except LocalProtocolError:
        return ""


def no_such_point(point: str, profile: MeterProfile) -> Exception:
    """The error of a point that a meter of this kind cannot have."""
    try:
        target_of(point, profile)
    except LocalProtocolError as error:
        return error
    message = f"{point} cannot be taken from a reply of {profile.device}"
    return LocalProtocolError(message, code="no_such_point")


def no_frozen(point: str) -> LocalProtocolError:
    """The error of a point that no frozen record holds."""
    try:
        quantity(point)
    except KeyError as error:
        message = str(error.args[0]) if type(error) is KeyError else str(error)
        return LocalProtocolError(message, code="no_such_point")
    return LocalProtocolError(f"no frozen record holds {point}", code="no_such_point")
