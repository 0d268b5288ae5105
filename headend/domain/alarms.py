"""Which alarms there are, in two languages, and which of them stand after a series of events.

An alarm is an event of the journal: kind `alarm` with the field `alarm` (its name), later
`alarm_cleared` with the same name and subject. The table is `alarms.yaml`; what stands is worked
out here, the same way for the status page, the command line, the metrics and the local socket.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

import yaml

from headend.domain.clock import iso
from headend.domain.meter import Event

Severity = Literal["critical", "warning", "notice"]
Owner = Literal["headend", "billing", "both"]

RAISED = "alarm"
CLEARED = "alarm_cleared"
KINDS = (RAISED, CLEARED)  # the events that `standing` needs
SUBJECT_SEPARATOR = " "
SCHEMA = "alarm/1"

_ORDER = {severity: number for number, severity in enumerate(get_args(Severity))}


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """One line of the table. `about`: the fields of an event that name its subject.

    `stands` False: it tells what has happened and is never cleared.
    """

    name: str
    severity: Severity
    about: tuple[str, ...]
    stands: bool
    of: Owner
    label_en: str
    label_zh: str
    do_en: str
    do_zh: str

    def label(self, language: str) -> str:
        """What it is called, in `en` or `zh`."""
        return self.label_zh if language == "zh" else self.label_en

    def advice(self, language: str) -> str:
        """The first thing to do, in `en` or `zh`."""
        return self.do_zh if language == "zh" else self.do_en


@dataclass(frozen=True, slots=True)
class StandingAlarm:
    """An alarm that is raised and not cleared.

    subject: the values of its kind's `about`, separated by a space; empty when there is only one.
    since_ms: when it was raised. fields: the newest event's own, `alarm` included.
    under: name and subject of the alarm that stands for it as well (`bus_down street-a` for a
    meter that was silent before its bus was); None for a cause of its own.
    """

    name: str
    severity: Severity
    subject: str
    since_ms: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    under: str | None = None

    @property
    def kind(self) -> AlarmKind:
        """Its line of the table."""
        return alarm_kind(self.name)


def alarm_kinds() -> tuple[AlarmKind, ...]:
    """Every alarm, in the order of the table."""
    return tuple(_table().values())


def alarm_kind(name: str) -> AlarmKind:
    """The alarm of a name. One that is not in the table (of another release) is a warning."""
    known = _table().get(name)
    if known is not None:
        return known
    return AlarmKind(name, "warning", (), True, "headend", name, name, "", "")  # noqa: FBT003


def subject_of(event: Event) -> str:
    """What the event of an alarm is about, as one text."""
    kind = alarm_kind(str(event.fields.get("alarm")))
    return SUBJECT_SEPARATOR.join(str(event.fields.get(name, "")) for name in kind.about)


def standing(events: Iterable[Event]) -> list[StandingAlarm]:
    """What stands after these events (kinds `alarm` and `alarm_cleared`, others are passed over).

    Events in the order they were recorded. Raised again while it stands, an alarm keeps its
    `since_ms` and takes the newer fields. The most severe first, then the oldest.
    """
    found: dict[tuple[str, str], StandingAlarm] = {}
    for event in events:
        if event.kind not in KINDS:
            continue
        name = str(event.fields.get("alarm"))
        kind = alarm_kind(name)
        if not kind.stands:
            continue
        key = (name, subject_of(event))
        before = found.pop(key, None)
        if event.kind == RAISED:
            since_ms = event.at_ms if before is None else before.since_ms
            found[key] = StandingAlarm(name, kind.severity, key[1], since_ms, event.fields)
    alarms = [_under(alarm, found) for alarm in found.values()]
    return sorted(alarms, key=lambda a: (_ORDER[a.severity], a.since_ms, a.name, a.subject))


def raised_and_standing(events: Iterable[Event]) -> set[int]:
    """The places, from 0, of the events that raised what stands: without them it would be lost."""
    places: dict[tuple[str, str], set[int]] = {}
    for place, event in enumerate(events):
        if event.kind not in KINDS or not alarm_kind(str(event.fields.get("alarm"))).stands:
            continue
        key = (str(event.fields.get("alarm")), subject_of(event))
        if event.kind == RAISED:
            places.setdefault(key, set()).add(place)
        else:
            places.pop(key, None)
    return {place for some in places.values() for place in some}


def happened(events: Iterable[Event], *, since_ms: int = 0) -> list[Event]:
    """The alarms that only tell what has happened, from an instant on, the newest first."""
    told = [
        event
        for event in events
        if event.kind == RAISED
        and event.at_ms >= since_ms
        and not alarm_kind(str(event.fields.get("alarm"))).stands
    ]
    return sorted(told, key=lambda event: event.at_ms, reverse=True)


@dataclass(frozen=True, slots=True)
class Episode:
    """One alarm from its beginning to its end. until_ms None: it stands, or only told something."""

    name: str
    subject: str
    since_ms: int
    until_ms: int | None
    fields: Mapping[str, Any]  # the newest event's that raised it
    ended: Mapping[str, Any] | None = None  # the fields of its clearing


def episodes(events: Iterable[Event]) -> list[Episode]:
    """Every alarm there was, in the order they began; events in the order they were recorded."""
    standing_now: dict[tuple[str, str], Episode] = {}
    found: list[Episode] = []
    for event in events:
        if event.kind not in KINDS:
            continue
        name, subject = str(event.fields.get("alarm")), subject_of(event)
        before = standing_now.pop((name, subject), None)
        if event.kind == RAISED:
            since_ms = event.at_ms if before is None else before.since_ms
            episode = Episode(name, subject, since_ms, None, event.fields)
            if alarm_kind(name).stands:
                standing_now[name, subject] = episode
            else:
                found.append(episode)
        elif before is not None:
            found.append(
                Episode(name, subject, before.since_ms, event.at_ms, before.fields, event.fields)
            )
    found += standing_now.values()
    return sorted(found, key=lambda one: (one.since_ms, one.name, one.subject))


def alarm_json(alarm: StandingAlarm) -> dict[str, Any]:
    """A standing alarm, JSON-ready (`alarm/1`)."""
    return {
        "schema": SCHEMA,
        "alarm": alarm.name,
        "severity": alarm.severity,
        "subject": alarm.subject,
        "since": iso(alarm.since_ms),
        "until": None,
        "standing": True,
        "under": alarm.under,
        "fields": {key: value for key, value in alarm.fields.items() if key != "alarm"},
    }


def episode_json(episode: Episode) -> dict[str, Any]:
    """An alarm that is over, or that told what had happened, JSON-ready (`alarm/1`)."""
    fields = {**episode.fields, **(episode.ended or {})}
    return {
        "schema": SCHEMA,
        "alarm": episode.name,
        "severity": alarm_kind(episode.name).severity,
        "subject": episode.subject,
        "since": iso(episode.since_ms),
        "until": None if episode.until_ms is None else iso(episode.until_ms),
        "standing": False,
        "under": None,
        "fields": {key: value for key, value in fields.items() if key != "alarm"},
    }


def counts(alarms: Iterable[StandingAlarm]) -> dict[tuple[str, Severity], int]:
    """How many stand, by name and severity; every name that can stand is there, with 0 too."""
    result = {(k.name, k.severity): 0 for k in alarm_kinds() if k.stands and k.of != "billing"}
    for alarm in alarms:
        key = (alarm.name, alarm.severity)
        result[key] = result.get(key, 0) + 1
    return result


def _under(alarm: StandingAlarm, found: Mapping[tuple[str, str], StandingAlarm]) -> StandingAlarm:
    """The same alarm with the one that stands for it, if there is one."""
    bus = str(alarm.fields.get("bus", ""))
    if not bus or alarm.name not in ("meter_silent", "meter_refuses", "bus_down"):
        return alarm
    mass = found.get(("mass_silence", ""))
    if mass is not None and bus in mass.fields.get("buses", ()):
        above = "mass_silence"
    elif alarm.name != "bus_down" and ("bus_down", bus) in found:
        above = f"bus_down {bus}"
    else:
        return alarm
    return StandingAlarm(
        alarm.name, alarm.severity, alarm.subject, alarm.since_ms, alarm.fields, above
    )


@cache
def _table() -> dict[str, AlarmKind]:
    text = files("headend.domain").joinpath("alarms.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, AlarmKind] = {}
    for row in yaml.load(text, Loader=loader):  # noqa: S506 - a safe loader, either way
        kind = AlarmKind(**{**row, "about": tuple(row["about"])})
        if (
            kind.name in table
            or kind.severity not in get_args(Severity)
            or kind.of not in get_args(Owner)
        ):
            msg = f"alarms.yaml: {kind.name} stands there twice or has an unknown severity or owner"
            raise ValueError(msg)
        table[kind.name] = kind
    return table
