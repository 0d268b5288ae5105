"""Each meter against its link, its plan and its profile; loads the profiles that meters name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from headend.config.errors import ConfigErrors
from headend.config.meter_rules import MODBUS, link_problem
from headend.config.meters import MeterList
from headend.config.profiles import load_device, load_meter_profile
from headend.config.sections.buses import BusSection
from headend.config.sections.plans import PlanSection
from headend.config.tree import Key, MarkedMap, error_at
from headend.config.validate import nearest
from headend.domain.errors import ConfigError
from headend.domain.meter import Meter
from protocols.dlt645.catalogue import live_points
from protocols.dlt645.profile import MeterProfile
from protocols.modbus.profile import DeviceProfile

POINTS_SHOWN = 5
CLOCK = "clock"

Profile = DeviceProfile | MeterProfile


def check_protocols(
    found: MeterList,
    buses: Mapping[str, BusSection],
    plans: Mapping[str, PlanSection],
    base: Path,
    root: MarkedMap,
    errors: list[ConfigError],
) -> dict[str, Profile]:
    """The profiles by the names that meters use, every problem appended to `errors`.

    Buses and plans are those without errors of their own. A profile is read once, and what is
    wrong in it told once.
    """
    profiles: dict[str, Profile | None] = {}
    for meter, index in zip(found.meters, found.indexes, strict=True):
        loc: list[Key] = ["meters", index]
        bus = buses.get(meter.bus)
        problem = None if bus is None else link_problem(meter.protocol, bus.link_spec)
        if problem is not None:
            errors.append(error_at(root, [*loc, "protocol"], problem.message, problem.hint))
        profile, plan = None, plans.get(meter.plan)
        if meter.profile is not None:
            if meter.profile not in profiles:
                profiles[meter.profile] = _load(meter, [*loc, "profile"], base, root, errors)
            profile = profiles[meter.profile]
            wanted = DeviceProfile if meter.protocol in MODBUS else MeterProfile
            if profile is not None and not isinstance(profile, wanted):
                message = f"{meter.profile} is no profile of a {meter.protocol} meter"
                errors.append(error_at(root, [*loc, "profile"], message))
                continue
        if plan is not None and meter.protocol != "dlt645-2007":
            _check_freeze(meter, plan, loc, root, errors)
        if isinstance(profile, DeviceProfile):
            _check_ratios(meter, profile, loc, root, errors)
            if plan is not None:
                _check_points(meter, plan, list(profile.registers), loc, root, errors)
        elif meter.protocol == "dlt645-1997":
            _check_edition(meter, profile, loc, root, errors)
            if plan is not None:
                own = [] if profile is None else [i.point for i in profile.items.values()]
                known = [*live_points("dlt645-1997"), *(p for p in own if p), CLOCK]
                _check_points(meter, plan, known, loc, root, errors)
        elif isinstance(profile, MeterProfile):
            _check_edition(meter, profile, loc, root, errors)
    return {name: profile for name, profile in profiles.items() if profile is not None}


def _load(
    meter: Meter, loc: list[Key], base: Path, root: MarkedMap, errors: list[ConfigError]
) -> Profile | None:
    assert meter.profile is not None
    try:
        if meter.protocol in MODBUS:
            return load_device(meter.profile, base)
        return load_meter_profile(meter.profile, base)
    except ConfigErrors as problems:
        for error in problems.errors:
            if error.file is None:  # not of a place in the profile, so of the one that names it
                errors.append(error_at(root, loc, error.message, error.hint))
            else:
                errors.append(error)
        return None


def _check_freeze(
    meter: Meter, plan: PlanSection, loc: list[Key], root: MarkedMap, errors: list[ConfigError]
) -> None:
    if plan.daily is not None and plan.daily.origin == "freeze":
        whose = "a Modbus device" if meter.protocol in MODBUS else f"a {meter.protocol} meter"
        message = f"plan {meter.plan} takes the daily freeze, and {whose} keeps none"
        hint = "use every, or daily with from: live"
        errors.append(error_at(root, [*loc, "plan"], message, hint))


def _check_edition(
    meter: Meter,
    profile: MeterProfile | None,
    loc: list[Key],
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    if profile is not None and profile.edition != meter.protocol:
        message = f"profile {meter.profile} is of {profile.edition}, the meter of {meter.protocol}"
        errors.append(error_at(root, [*loc, "profile"], message))


def _check_ratios(
    meter: Meter,
    profile: DeviceProfile,
    loc: list[Key],
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    """What gives primary values has its ratios in it: applied again they would multiply a bill."""
    if profile.side != "primary":
        return
    for key, ratio in (("ct", meter.ct), ("pt", meter.pt)):
        if ratio != 1:
            message = f"profile {meter.profile} gives primary values: {key} is applied already"
            errors.append(error_at(root, [*loc, key], message, "leave it out; set it in the meter"))


def _check_points(
    meter: Meter,
    plan: PlanSection,
    known: Sequence[str],
    loc: list[Key],
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    missing = [point for point in plan.points() if point not in known]
    if missing:
        shown = ", ".join(missing[:POINTS_SHOWN])
        rest = f" and {len(missing) - POINTS_SHOWN} more" if len(missing) > POINTS_SHOWN else ""
        lacks = f"profile {meter.profile} lacks"
        if meter.profile is None:
            lacks = f"a {meter.protocol} meter does not have"
        message = f"plan {meter.plan} reads {shown}{rest}, which {lacks}"
        hint = nearest(missing[0], known)
        errors.append(error_at(root, [*loc, "plan"], message, hint))
