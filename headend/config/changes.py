"""What differs between two configurations, thing by thing. Pure: nothing is read or changed.

Compared is what is meant, not how it is written: a default that is now spelled out, another order
or another way to write the same link is no difference.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

from headend.config.loader import Config
from headend.config.sections.base import Section
from headend.config.sections.buses import BusSection
from headend.config.sections.timeseries import TimeseriesSection
from headend.domain.meter import Meter

T = TypeVar("T")

# `headend`: the name is in every topic and series, the zone cuts the lists and the journal's days,
# the journal and the local socket lie in `data`. `control`: what may be written to meters begins
# and ends with a process that somebody started, not with a signal.
RESTART_SECTIONS = frozenset({"headend", "control"})
NO_RESTART = frozenset({"headend.alarms"})
# Without this section every consumer would lose its stream: more likely half a file than a wish.
RESTART_WHEN_REMOVED = frozenset({"feed"})
_SECTIONS = ("headend", "retention", "feed", "billing", "status", "control")
BILLING_NOTE = "restart headend-billing to have it there"
_NAMED = ("buses", "plans", "profiles", "meters", "timeseries")
_NOT_CONTENT = ("path", "hash", "lines", "files")


@dataclass(frozen=True, slots=True)
class Differences:
    """Of things with names: which came, which went, and which keys of the others differ."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def gone(self) -> tuple[str, ...]:
        """Those that no longer are what they were: removed or changed."""
        return (*self.removed, *self.changed)

    @property
    def fresh(self) -> tuple[str, ...]:
        """Those that have to be made: added or changed."""
        return (*self.added, *self.changed)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `kind`: bus, meter, plan, profile, consumer, timeseries, or a section's name.

    `name` is empty for a section; `keys` are those that differ, empty for what came or went.
    """

    kind: str
    name: str
    what: str  # added | removed | changed
    keys: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What the daemon cannot do about it; empty when it is in force."""
        return BILLING_NOTE if self.kind == "billing" else ""

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        keys = f": {', '.join(self.keys)}" if self.keys else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind}{name} {self.what}{keys}{note}"


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that differs. `needs_restart` names the keys a running daemon cannot change."""

    buses: Differences
    meters: Differences
    plans: Differences
    profiles: Differences
    consumers: Differences
    timeseries: Differences
    sections: Mapping[str, Change]  # without what has names of its own: feed without its consumers
    needs_restart: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.needs_restart) or any(True for _ in self.each())

    @property
    def feed(self) -> bool:
        """The feed is another one, or serves others."""
        return "feed" in self.sections or bool(self.consumers)

    def each(self) -> Iterator[Change]:
        """Every difference, in the order of the file's sections."""
        yield from self.sections.values()
        for kind, differences in (
            ("bus", self.buses),
            ("meter", self.meters),
            ("plan", self.plans),
            ("profile", self.profiles),
            ("consumer", self.consumers),
            ("timeseries", self.timeseries),
        ):
            for name in differences.added:
                yield Change(kind, name, "added")
            for name in differences.removed:
                yield Change(kind, name, "removed")
            for name, keys in differences.changed.items():
                yield Change(kind, name, "changed", keys)


def diff(old: Config, new: Config) -> Changes:
    """What differs between two configurations that are each good by themselves."""
    sections = dict(_sections(old, new))
    return Changes(
        buses=_named(old.buses, new.buses, _bus),
        meters=_named({m.id: m for m in old.meters}, {m.id: m for m in new.meters}, _meter),
        plans=_named(old.plans, new.plans, _fields),
        profiles=_named(old.profiles, new.profiles, lambda profile: {"registers": profile}),
        consumers=_named(_consumers(old), _consumers(new), _fields),
        timeseries=_named(
            {section.known_as: section for section in old.timeseries},
            {section.known_as: section for section in new.timeseries},
            _database,
        ),
        sections=sections,
        needs_restart=tuple(_needs_restart(old, new, sections)),
    )


def _named(
    old: Mapping[str, T], new: Mapping[str, T], content: Callable[[T], Mapping[str, object]]
) -> Differences:
    changed = {}
    for name in old:
        if name in new:
            keys = _different(content(old[name]), content(new[name]))
            if keys:
                changed[name] = keys
    return Differences(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=changed,
    )


def _different(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(key for key in {**old, **new} if old.get(key) != new.get(key))


def _fields(section: Section) -> dict[str, object]:
    """A section's values by the keys they have in the file."""
    return {
        (info.alias or name): getattr(section, name)
        for name, info in type(section).model_fields.items()
    }


def _bus(section: BusSection) -> dict[str, object]:
    """A bus with its link as it is understood; `echo` is a part of it."""
    values = _fields(section)
    del values["echo"]
    return {**values, "link": section.link_spec}


def _database(section: TimeseriesSection) -> dict[str, object]:
    values = _fields(section)
    del values["name"]
    return values


def _meter(meter: Meter) -> dict[str, object]:
    return {f.name: getattr(meter, f.name) for f in fields(Meter)}


def _consumers(config: Config) -> dict[str, Section]:
    return {} if config.feed is None else {c.name: c for c in config.feed.consumers}


def _sections(old: Config, new: Config) -> Iterator[tuple[str, Change]]:
    for name in _SECTIONS:
        before, after = getattr(old, name), getattr(new, name)
        if before is None and after is None:
            continue
        if before is None:
            yield name, Change(name, "", "added")
        elif after is None:
            yield name, Change(name, "", "removed")
        else:
            keys = list(_different(_fields(before), _fields(after)))
            if name == "feed" and "consumers" in keys:
                keys.remove("consumers")
            if keys:
                yield name, Change(name, "", "changed", tuple(keys))


def _needs_restart(old: Config, new: Config, sections: Mapping[str, Change]) -> Iterator[str]:
    for name, change in sections.items():
        if change.what == "removed" and name in RESTART_WHEN_REMOVED:
            yield name
        if name in RESTART_SECTIONS:
            keys = (f"{name}.{key}" for key in change.keys)
            yield from (key for key in keys if key not in NO_RESTART)
    if old.base != new.base:  # every relative path starts from there
        yield "the directory of the file"
    # A section that a later version brings is not taken for one that is understood here.
    known = {*_SECTIONS, *_NAMED, *_NOT_CONTENT}
    for part in fields(Config):
        if part.name not in known and getattr(old, part.name) != getattr(new, part.name):
            yield part.name
