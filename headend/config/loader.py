"""`load_config`: one file in, one checked and immutable `Config` out, or every error at once."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from zoneinfo import ZoneInfo

from headend.config import checks, credentials
from headend.config.database_url import PostgresPlace
from headend.config.errors import ConfigErrors
from headend.config.meter_checks import Profile, check_protocols
from headend.config.meters import NOT_YET, effective_meter, load_meters
from headend.config.sections.base import Section
from headend.config.sections.billing import BillingSection
from headend.config.sections.buses import BusSection
from headend.config.sections.control import ControlSection
from headend.config.sections.feed import FeedSection
from headend.config.sections.headend import HeadendSection
from headend.config.sections.plans import PlanSection
from headend.config.sections.retention import RetentionSection
from headend.config.sections.status import StatusSection
from headend.config.sections.timeseries import TimeseriesSection
from headend.config.tree import (
    Key,
    MarkedList,
    MarkedMap,
    error_at,
    key_text,
    locate,
    parse_tree,
    read_text,
)
from headend.config.validate import unknown_key, validate
from headend.domain.errors import ConfigError
from headend.domain.meter import Meter

SECTIONS = (
    "headend",
    "buses",
    "meters",
    "plans",
    "retention",
    "feed",
    "billing",
    "status",
    "timeseries",
    "control",
)
LATER_SECTIONS = ("listeners", "concentrators")

# A Unix socket's path has 108 bytes on Linux, the final zero among them.
SOCKET_PATH_MAX = 100

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. `hash` names its content: comments, order and layout left out."""

    path: Path
    headend: HeadendSection
    buses: Mapping[str, BusSection]
    meters: tuple[Meter, ...]
    profiles: Mapping[str, Profile]  # by what `Meter.profile` says
    plans: Mapping[str, PlanSection]
    retention: RetentionSection
    feed: FeedSection | None
    billing: BillingSection | None
    status: StatusSection | None
    timeseries: tuple[TimeseriesSection, ...]
    control: ControlSection
    hash: str
    lines: Mapping[str, int]  # of keys whose errors can show later: files, what needs a restart
    files: tuple[Path, ...]  # the file itself, and the one with the meters where there is one

    @property
    def base(self) -> Path:
        """The directory that relative paths of the configuration start from."""
        return self.path.parent

    @property
    def name(self) -> str:
        """The head-end's name."""
        return self.headend.name

    @property
    def zone(self) -> ZoneInfo:
        """The zone of billing days."""
        return self.headend.zone_info

    @property
    def data_path(self) -> Path:
        """The data directory, absolute. Nothing here makes it."""
        return (self.base / self.headend.data).resolve()

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.data_path / "journal.db"

    @property
    def socket_path(self) -> Path:
        """The daemon's local socket.

        In the data directory, unless its path is too long for a socket: then in a directory of
        this user below the system's temporary one (the daemon makes it with mode 0700).
        """
        return _socket_in(self.data_path)

    @property
    def billing_database_url(self) -> str | None:
        """The billing database with an absolute SQLite path; None without billing."""
        return None if self.billing is None else self.billing.database_url(self.base)

    def file(self, path: Path) -> Path:
        """A path of the configuration, made absolute. ConfigError: a credential that is away."""
        try:
            return credentials.place(path, self.base)
        except ConfigError as error:
            raise ConfigError(error.message, file=str(self.path), hint=error.hint) from error

    def error(self, key: str, message: str, hint: str | None = None) -> ConfigError:
        """A ConfigError about a key, with the line it stands in where that is known (`lines`)."""
        line = self.lines.get(key)
        return ConfigError(message, file=str(self.path), line=line, key=key, hint=hint)

    def secret(self, path: Path | None) -> str | None:
        """The text of a `*_file`, without the line end; None for None. ConfigError otherwise."""
        if path is None:
            return None
        place = self.file(path)
        return read_text(place, str(place)).strip("\r\n")


def load_config(path: Path | str) -> Config:
    """The configuration in a file. ConfigErrors (a ConfigError) with everything that is wrong.

    Reads files only: nothing is opened, made or started.
    """
    place = Path(path)
    name = str(path)
    try:
        text = read_text(place, name)
    except ConfigError as error:
        raise ConfigErrors([error]) from error
    root, errors = parse_tree(text, name)
    loaded = _Loader(root, place.resolve(), errors).load()
    if loaded is None or errors:
        raise ConfigErrors(errors)
    return loaded


def local_socket(path: Path | str) -> Path:
    """Where the daemon of a configuration listens, by its `headend` section alone.

    The rest of the file may be wrong. ConfigErrors when even that cannot be told.
    """
    place, name = Path(path), str(path)
    try:
        text = read_text(place, name)
    except ConfigError as error:
        raise ConfigErrors([error]) from error
    root, _ = parse_tree(text, name)
    errors: list[ConfigError] = []
    head = validate(HeadendSection, root.get("headend"), ["headend"], root, errors)
    if head is None:
        raise ConfigErrors(errors)
    return _socket_in((place.resolve().parent / head.data).resolve())


def _socket_in(data: Path) -> Path:
    path = data / "headend.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"headend-{os.getuid()}" / f"{digest}.sock"


class _Loader:
    """Checks section by section, so that an error in one hides nothing of the others."""

    def __init__(self, root: MarkedMap, path: Path, errors: list[ConfigError]) -> None:
        self._root = root
        self._path = path
        self._errors = errors

    def load(self) -> Config | None:
        root, errors = self._root, self._errors
        self._check_names()
        head = self._section("headend", HeadendSection, required=True)
        buses = self._named("buses", BusSection)
        plans = self._named("plans", PlanSection)
        retention = self._section("retention", RetentionSection) or RetentionSection()
        feed = self._section("feed", FeedSection)
        billing = self._section("billing", BillingSection)
        status = self._section("status", StatusSection)
        timeseries = self._timeseries()
        control = self._section("control", ControlSection) or ControlSection()
        good_buses = {name: bus for name, bus in buses.items() if bus is not None}
        good_plans = {name: plan for name, plan in plans.items() if plan is not None}
        checks.check_buses(good_buses, root, errors)
        checks.check_plans(good_plans, root, errors)
        found, marked = load_meters(root, self._path.parent, errors)
        checks.check_meters(found, buses, plans, marked, errors)
        profiles = check_protocols(found, good_buses, good_plans, self._path.parent, marked, errors)
        checks.check_feed(feed, billing, head, root, errors)
        self._check_files(feed, billing, timeseries, control)
        if errors or head is None:
            return None
        parts = (head, retention, feed, billing, status, control)
        return Config(
            path=self._path,
            headend=head,
            buses=MappingProxyType(good_buses),
            meters=tuple(found.meters),
            profiles=MappingProxyType(profiles),
            plans=MappingProxyType(good_plans),
            retention=retention,
            feed=feed,
            billing=billing,
            status=status,
            timeseries=timeseries,
            control=control,
            hash=_hash(parts, good_buses, good_plans, timeseries, found.meters, profiles),
            lines=MappingProxyType(_lines(root)),
            files=(self._path, *self._meters_file()),
        )

    def _meters_file(self) -> list[Path]:
        value = self._root.get("meters")
        return [self._path.parent / str(value["file"])] if isinstance(value, MarkedMap) else []

    def _check_names(self) -> None:
        for key in self._root:
            if key in LATER_SECTIONS:
                message = f"{key} {NOT_YET}"
                self._errors.append(error_at(self._root, [key], message, "leave it out"))
            elif key not in SECTIONS:
                self._errors.append(unknown_key(self._root, [key], SECTIONS, " as a section"))

    def _section(self, key: str, model: type[S], *, required: bool = False) -> S | None:
        value = self._root.get(key)
        if value is None:
            if required:
                hint = "headend: {name: he1, zone: Asia/Shanghai, data: ./data}"
                self._errors.append(error_at(self._root, [key], "is missing", hint))
            return None
        return validate(model, value, [key], self._root, self._errors)

    def _named(self, key: str, model: type[S]) -> dict[str, S | None]:
        """The entries of a mapping of named things; None for one that has errors."""
        value = self._root.get(key)
        if value is None:
            return {}
        if not isinstance(value, MarkedMap):
            message = "must be a mapping of names"
            self._errors.append(error_at(self._root, [key], message))
            return {}
        result = {}
        for name, entry in value.items():
            loc: list[Key] = [key, name]
            if not _is_name(name):
                message = f"{name!r} cannot be a name"
                hint = "letters, digits, dot, dash and underscore, at most 64"
                self._errors.append(error_at(self._root, loc, message, hint))
            result[name] = validate(model, entry, loc, self._root, self._errors)
        return result

    def _timeseries(self) -> tuple[TimeseriesSection, ...]:
        value = self._root.get("timeseries")
        if value is None:
            return ()
        if not isinstance(value, MarkedList):
            self._errors.append(error_at(self._root, ["timeseries"], "must be a list"))
            return ()
        sections = (
            validate(TimeseriesSection, entry, ["timeseries", i], self._root, self._errors)
            for i, entry in enumerate(value)
        )
        found = [(i, section) for i, section in enumerate(sections) if section is not None]
        for n, (i, section) in enumerate(found):
            if section.known_as in {other.known_as for _, other in found[:n]}:
                message = f"there is a database named {section.known_as} already"
                hint = "give each a name of its own"
                self._errors.append(error_at(self._root, ["timeseries", i], message, hint))
        return tuple(section for _, section in found)

    def _check_files(
        self,
        feed: FeedSection | None,
        billing: BillingSection | None,
        timeseries: tuple[TimeseriesSection, ...],
        control: ControlSection,
    ) -> None:
        files: list[tuple[list[Key], Path | None]] = []
        identity = ("password_file", "cert_file", "key_file")
        if feed is not None:
            files += [(["feed", k], getattr(feed, k)) for k in (*identity, "ca_file")]
        if billing is not None:
            files.append((["billing", "password_file"], billing.password_file))
            place = billing.database_place
            if isinstance(place, PostgresPlace):
                files += [(["billing", "database"], path) for path in place.files.values()]
            if billing.broker is not None:
                files += [(["billing", "broker", k], getattr(billing.broker, k)) for k in identity]
        for i, series in enumerate(timeseries):
            for key in ("password_file", "token_file", "ca_file"):
                files.append((["timeseries", i, key], getattr(series, key)))
        files.append((["control", "password_file"], control.password_file))
        checks.check_files(files, self._path.parent, self._root, self._errors)
        checks.check_identities(feed, billing, self._path.parent, self._root, self._errors)


def _lines(root: MarkedMap) -> dict[str, int]:
    """The lines of keys that may be spoken of after the file was found to be good."""
    places: tuple[list[Key], ...] = (["feed"], ["billing", "broker"])
    keys = ("password_file", "ca_file", "cert_file", "key_file")
    locs: list[list[Key]] = [[*place, key] for place in places for key in keys]
    locs += [["headend", key] for key in HeadendSection.model_fields]
    locs += [["control", key] for key in ControlSection.model_fields]
    locs.append(["feed"])
    return {key_text(loc): locate(root, loc)[1] for loc in locs}


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= 64
        and name[0].isalnum()
        and name.isascii()
        and all(c.isalnum() or c in "_.-" for c in name)
    )


def _hash(
    parts: tuple[Section | None, ...],
    buses: Mapping[str, BusSection],
    plans: Mapping[str, PlanSection],
    timeseries: tuple[TimeseriesSection, ...],
    meters: list[Meter],
    profiles: Mapping[str, Profile],
) -> str:
    content = {
        "sections": [p and p.model_dump(mode="json") for p in parts],
        "buses": {name: bus.model_dump(mode="json") for name, bus in buses.items()},
        "plans": {name: plan.model_dump(mode="json") for name, plan in plans.items()},
        "timeseries": [series.model_dump(mode="json") for series in timeseries],
        "meters": sorted(json.dumps(effective_meter(meter)) for meter in meters),
    }
    if profiles:
        content["profiles"] = {name: repr(profile) for name, profile in profiles.items()}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
