"""Device profiles by name or by file: read, checked, and every problem told with its line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from headend.config.errors import ConfigErrors
from headend.config.tree import error_at, parse_tree, read_text
from headend.config.validate import nearest
from headend.domain.errors import ConfigError
from protocols.dlt645.profile import MeterProfile
from protocols.dlt645.profile import profile_from as meter_profile_from
from protocols.modbus.profile import DeviceProfile, ProfileError, profile_from
from protocols.modbus.sunspec import any_sunspec

DIRECTORY = "devices"
PACKAGED = Path(__file__).parents[2] / "config" / DIRECTORY
_ENDINGS = (".yaml", ".yml")
_DLT645 = "dlt645"
SUNSPEC = "sunspec"

P = TypeVar("P", DeviceProfile, MeterProfile)


def load_profile(name: str, base: Path) -> DeviceProfile:
    """The Modbus profile that `name` means; ConfigErrors with everything that is wrong.

    A path (with a slash, or ending in .yaml) is relative to `base`. A name is looked for in the
    directory `devices` of `base`, then among those that come with the program.
    """
    return _load(_place(name, base, ""), profile_from)


def load_device(name: str, base: Path) -> DeviceProfile:
    """The same for a device that answers: `sunspec` is what any SunSpec device may have.

    Where its points really stand only the device tells, when its models are walked. A file of that
    name in the directory `devices` of `base` comes first.
    """
    if name == SUNSPEC and not (base / DIRECTORY / f"{name}{_ENDINGS[0]}").is_file():
        return any_sunspec()
    return load_profile(name, base)


def load_meter_profile(name: str, base: Path) -> MeterProfile:
    """The same for a model of DL/T 645 meter; names lie in `devices/dlt645`."""
    return _load(_place(name, base, _DLT645), meter_profile_from)


def _load(place: Path, made: Callable[..., P]) -> P:
    shown = str(place)
    try:
        text = read_text(place, shown)
    except ConfigError as error:
        raise ConfigErrors([error]) from error
    root, errors = parse_tree(text, shown)
    try:
        profile: P = made(root, name=shown)
    except ProfileError as found:
        errors += [error_at(root, p.path, p.message, p.hint) for p in found.problems]
        raise ConfigErrors(errors) from found
    if errors:
        raise ConfigErrors(errors)
    return profile


def profile_names(base: Path) -> list[str]:
    """The names that `load_profile` finds, sorted. (`load_device` also knows `sunspec`.)"""
    return _names(base, "")


def meter_profile_names(base: Path) -> list[str]:
    """The names that `load_meter_profile` finds, sorted."""
    return _names(base, _DLT645)


def _names(base: Path, folder: str) -> list[str]:
    places = (base / DIRECTORY / folder, PACKAGED / folder)
    return sorted({path.stem for place in places for path in place.glob(f"*{_ENDINGS[0]}")})


def _place(name: str, base: Path, folder: str) -> Path:
    if "/" in name or name.endswith(_ENDINGS):
        path = base / name
        if path.is_file():
            return path
        raise _unknown(f"there is no profile {path}", "paths are relative to the configuration")
    for directory in (base / DIRECTORY / folder, PACKAGED / folder):
        path = directory / f"{name}{_ENDINGS[0]}"
        if path.is_file():
            return path
    if name == SUNSPEC:
        hint = "where a SunSpec device has its points only the device itself tells"
        raise _unknown("sunspec is no map of registers", hint)
    known = [*_names(base, folder), *(() if folder else (SUNSPEC,))]
    raise _unknown(f"there is no device profile {name}", nearest(name, known))


def _unknown(message: str, hint: str) -> ConfigErrors:
    return ConfigErrors([ConfigError(message, hint=hint)])
