"""Alarms fit to be shown: what others wrote is made short and printable, and holds no credentials.

Which alarms stand, and their words, is `headend.domain.alarms`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headend.domain.alarms import AlarmKind, Severity, StandingAlarm, alarm_kind, subject_of
from headend.domain.meter import Event

FIELDS_MAX = 16
ITEMS_MAX = 16
TEXT_CHARS_MAX = 300
TOLD_FOR_MS = 7 * 86_400_000  # how long something that happened once is shown

_USER_OF_URL = re.compile(r"(?<=://)[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm as it is shown. `subject` is empty when it is about the whole head-end."""

    name: str
    severity: Severity
    subject: str
    since_ms: int
    fields: Mapping[str, str] = field(default_factory=dict)
    under: str | None = None

    @property
    def kind(self) -> AlarmKind:
        """Its words."""
        return alarm_kind(self.name)


def clean(text: str) -> str:
    """Text of others: printable, short, without the user part of a URL."""
    shown = "".join(c if c.isprintable() else "�" for c in text[: 4 * TEXT_CHARS_MAX])
    shown = _USER_OF_URL.sub("", shown)
    return shown if len(shown) <= TEXT_CHARS_MAX else shown[: TEXT_CHARS_MAX - 1] + "…"


def shown_standing(alarm: StandingAlarm) -> Alarm:
    """An alarm that stands."""
    return Alarm(
        clean(alarm.name),
        alarm.severity,
        clean(alarm.subject),
        alarm.since_ms,
        _fields(alarm.fields, alarm.kind),
        None if alarm.under is None else clean(alarm.under),
    )


def shown_event(event: Event) -> Alarm:
    """Something that happened once."""
    kind = alarm_kind(str(event.fields.get("alarm")))
    fields = _fields(event.fields, kind)
    return Alarm(clean(kind.name), kind.severity, clean(subject_of(event)), event.at_ms, fields)


def _fields(fields: Mapping[str, object], kind: AlarmKind) -> dict[str, str]:
    """What an event says beside its name and subject."""
    return {
        clean(str(key)): clean(_text(value))
        for key, value in list(fields.items())[:FIELDS_MAX]
        if key not in ("alarm", *kind.about) and value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        more = ", …" if len(value) > ITEMS_MAX else ""
        return ", ".join(str(part) for part in value[:ITEMS_MAX]) + more
    return str(value)
