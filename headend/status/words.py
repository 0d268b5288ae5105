"""The page's words in two languages, and how numbers, times and durations are written.

`words.yaml` is the table. A word that is not in it is a mistake and raises KeyError.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Literal
from zoneinfo import ZoneInfo

import yaml

from headend.domain.clock import to_datetime
from protocols.quantities import quantity

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
HTML_LANGUAGE: Mapping[Language, str] = {"en": "en", "zh": "zh-CN"}

_ACCEPTED = re.compile(r"([a-zA-Z]{1,8})(?:-[a-zA-Z0-9-]{1,32})?\s*(?:;\s*q=([0-9.]{1,6}))?\Z")
ACCEPT_PARTS_MAX = 16


@cache
def table() -> Mapping[str, Mapping[str, str]]:
    """Every word: name -> language -> text."""
    text = files("headend.status").joinpath("words.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load(text)
    return found


def preferred(accept: str) -> Language:
    """The language of an Accept-Language header; English when it names neither."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept.split(",")[:ACCEPT_PARTS_MAX]:
        match = _ACCEPTED.match(part.strip())
        if match is None or match[1].lower() not in LANGUAGES:
            continue
        try:
            weight = float(match[2] or 1)
        except ValueError:
            continue
        if weight > best[0]:
            best = (weight, "zh" if match[1].lower() == "zh" else "en")
    return best[1]


@dataclass(frozen=True, slots=True)
class Words:
    """How things are said to one reader. `now_ms`: what ages are counted from."""

    language: Language
    zone: ZoneInfo
    now_ms: int

    def say(self, name: str, /, **values: object) -> str:
        """A text with what belongs into it."""
        text = table()[name][self.language]
        return text.format(**values) if values else text

    # -- times

    def local(self, time_ms: int) -> datetime:
        """An instant in the head-end's zone."""
        return to_datetime(time_ms).astimezone(self.zone)

    def when(self, time_ms: int, *, seconds: bool = True) -> str:
        """An instant: the time alone on this local day, else with its date."""
        local, now = self.local(time_ms), self.local(self.now_ms)
        clock = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
        if local.date() == now.date():
            return clock
        return f"{local:%m-%d} {clock}" if local.year == now.year else f"{local:%Y-%m-%d} {clock}"

    def stamp(self, time_ms: int) -> str:
        """An instant for machines: ISO 8601 with its offset."""
        return self.local(time_ms).isoformat(timespec="seconds")

    def full(self, time_ms: int) -> str:
        """An instant with date and offset."""
        return f"{self.local(time_ms):%Y-%m-%d %H:%M:%S} {self._offset(time_ms)}"

    def _offset(self, time_ms: int) -> str:
        offset = self.local(time_ms).utcoffset() or timedelta(0)
        minutes = int(offset.total_seconds()) // 60
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"

    def hour(self, time_ms: int) -> str:
        """The hour that begins at an instant."""
        return f"{self.local(time_ms):%H:%M}"

    def age(self, time_ms: int) -> str:
        """How long ago an instant was; 0 for what lies ahead."""
        return self.span(max(0, self.now_ms - time_ms) / 1000)

    def span(self, seconds: float) -> str:
        """A duration with its two most telling units."""
        zh = self.language == "zh"
        whole = int(seconds)
        if whole < 60:
            return f"{whole} 秒" if zh else f"{whole} s"
        minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
        if hours < 1:
            return f"{minutes} 分钟" if zh else f"{minutes} min"
        if days < 1:
            rest = minutes % 60
            return f"{hours} 小时 {rest} 分" if zh else f"{hours} h {rest} min"
        rest = hours % 24
        return f"{days} 天 {rest} 小时" if zh else f"{days} d {rest} h"

    # -- numbers

    def count(self, number: int) -> str:
        """A count."""
        return f"{number:,}"

    def share(self, part: float) -> str:
        """A part of one."""
        return f"{100 * part:.1f} %"

    def bytes(self, number: int) -> str:
        """A size."""
        size = float(number)
        for unit in ("B", "KiB", "MiB", "GiB"):
            if size < 1024 or unit == "GiB":
                return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
            size /= 1024
        raise AssertionError(unit)

    def brief(self, seconds: float | None) -> str:
        """A short time: milliseconds below a second. None and infinity have words of their own."""
        if seconds is None:
            return "–"
        if seconds == float("inf"):
            return "> 5 s"
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:g} s"

    def power(self, kw: float) -> str:
        """A mean power for people: three digits that mean something."""
        return f"{kw:.0f}" if kw >= 100 else f"{kw:.1f}" if kw >= 10 else f"{kw:.2f}"

    def energy(self, kwh: Decimal) -> str:
        """An energy, every digit."""
        return format(kwh, "f")

    def point(self, name: str) -> str:
        """What a point is called."""
        try:
            known = quantity(name)
        except KeyError:
            return name
        return known.label_zh if self.language == "zh" else known.label_en


def words_for(language: Language, zone: ZoneInfo | None, now_ms: int) -> Words:
    """The words of one answer."""
    return Words(language, zone or ZoneInfo("UTC"), now_ms)
