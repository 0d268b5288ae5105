"""Each meter against its link, its plan and its profile; loads the profiles that meters name."""

from collections.abc import Mapping
from pathlib import Path

from headend.config.errors import ConfigErrors
from headend.config.meter_rules import MODBUS, link_problem
from headend.config.meters import MeterList
from headend.config.profiles import load_profile
from headend.config.sections.buses import BusSection
from headend.config.sections.plans import PlanSection
from headend.config.tree import Key, MarkedMap, error_at
from headend.config.validate import nearest
from headend.domain.errors import ConfigError
from headend.domain.meter import Meter
from protocols.modbus.profile import DeviceProfile

POINTS_SHOWN = 5


def check_protocols(
    found: MeterList,
    buses: Mapping[str, BusSection],
    plans: Mapping[str, PlanSection],
    base: Path,
    root: MarkedMap,
    errors: list[ConfigError],
) -> dict[str, DeviceProfile]:
    """The profiles by the names that meters use, every problem appended to `errors`.

    Buses and plans are those without errors of their own. A profile is read once, and what is
    wrong in it told once.
    """
    profiles: dict[str, DeviceProfile | None] = {}
    for meter, index in zip(found.meters, found.indexes, strict=True):
        loc: list[Key] = ["meters", index]
        bus = buses.get(meter.bus)
        problem = None if bus is None else link_problem(meter.protocol, bus.link_spec)
        if problem is not None:
            errors.append(error_at(root, [*loc, "protocol"], problem.message, problem.hint))
        if meter.protocol not in MODBUS or meter.profile is None:
            continue
        if meter.profile not in profiles:
            profiles[meter.profile] = _load(meter.profile, [*loc, "profile"], base, root, errors)
        profile, plan = profiles[meter.profile], plans.get(meter.plan)
        if plan is not None:
            _check_freeze(meter, plan, loc, root, errors)
        if profile is not None:
            _check_ratios(meter, profile, loc, root, errors)
            if plan is not None:
                _check_points(meter, plan, profile, loc, root, errors)
    return {name: profile for name, profile in profiles.items() if profile is not None}


def _load(
    name: str, loc: list[Key], base: Path, root: MarkedMap, errors: list[ConfigError]
) -> DeviceProfile | None:
    try:
        return load_profile(name, base)
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
        message = f"plan {meter.plan} takes the daily freeze, and a Modbus device keeps none"
        hint = "use every, or daily with from: live"
        errors.append(error_at(root, [*loc, "plan"], message, hint))


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
    profile: DeviceProfile,
    loc: list[Key],
    root: MarkedMap,
    errors: list[ConfigError],
) -> None:
    missing = [point for point in plan.points() if point not in profile.registers]
    if missing:
        shown = ", ".join(missing[:POINTS_SHOWN])
        rest = f" and {len(missing) - POINTS_SHOWN} more" if len(missing) > POINTS_SHOWN else ""
        message = f"plan {meter.plan} reads {shown}{rest}, which profile {meter.profile} lacks"
        hint = nearest(missing[0], list(profile.registers))
        errors.append(error_at(root, [*loc, "plan"], message, hint))
