"""`plans`: which points are read when."""

import re
from dataclasses import dataclass
from datetime import time
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headend.config.sections.base import (
    Flag,
    InstantMs,
    Seconds,
    Section,
    Text,
    Whole,
    one_of,
    problem,
)
from headend.config.sections.control import ClockPolicy

DAY_S = 86_400

_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?")
DAILY_TOLERANCE_S = 900.0
DAILY_WINDOW_S = 3600.0
EVERY_TOLERANCE_S = 300.0


def _local_time(value: object) -> time:
    text = str(value)
    try:
        if _TIME.fullmatch(text):
            return time.fromisoformat(text)
    except ValueError:
        pass
    raise problem(f"{text!r} is not a time of day", 'HH:MM in quotes, such as "00:00"')


def _points(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise problem("names no point", "for example [active_import_total]")
    twice = [p for i, p in enumerate(value) if p in value[:i]]
    if twice:
        raise problem(f"names {twice[0]} twice")
    return value


LocalTime = Annotated[time, BeforeValidator(_local_time)]
Points = Annotated[tuple[Text, ...], AfterValidator(_points)]
Origin = Annotated[Literal["live", "freeze"], BeforeValidator(one_of("live", "freeze"))]


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One line of a plan with every default filled in.

    Daily at local time `at` (then `interval_s` is None), or every `interval_s` seconds counted
    from local midnight. `tolerance_s`: a live register this close to the due instant serves it.
    `window_s`: read later than this after the due instant counts as late. `from_ms` (inclusive)
    and `until_ms` (exclusive) bound the plan.
    """

    points: tuple[str, ...]
    at: time | None
    interval_s: int | None
    origin: Literal["live", "freeze"]
    tolerance_s: float
    window_s: float
    from_ms: int | None
    until_ms: int | None


class DailySection(Section):
    """Once a local day. `from: freeze` takes the meter's own daily freeze with its time."""

    at: LocalTime = time(0, 0)
    points: Points
    origin: Origin = Field(default="live", alias="from")
    tolerance_s: Seconds | None = Field(default=None, ge=1, le=DAY_S / 2)
    window_s: Seconds | None = Field(default=None, ge=1, le=3 * DAY_S)


class EverySection(Section):
    """Every so many minutes or seconds of the local day, counted from midnight."""

    minutes: Whole | None = Field(default=None, ge=1, le=1440)
    seconds: Whole | None = Field(default=None, ge=1, le=DAY_S)
    points: Points
    tolerance_s: Seconds | None = Field(default=None, ge=0.1, le=DAY_S / 2)
    window_s: Seconds | None = Field(default=None, ge=0.1, le=3 * DAY_S)

    @model_validator(mode="after")
    def _interval_divides_a_day(self) -> "EverySection":
        if (self.minutes is None) == (self.seconds is None):
            raise problem("needs either minutes or seconds", "for example minutes: 15")
        interval_s = self.interval_s
        if DAY_S % interval_s:
            raise problem(
                f"{interval_s} s does not divide a day, so it would drift against the clock",
                "such as 15, 30 or 60 minutes; 10, 30 or 60 seconds",
            )
        if self.tolerance_s is not None and self.tolerance_s > interval_s / 2:
            raise problem(
                f"tolerance_s {self.tolerance_s:g} is more than half of {interval_s} s",
                "one reading would serve two due instants",
            )
        return self

    @property
    def interval_s(self) -> int:
        """Seconds between two due instants."""
        return self.minutes * 60 if self.minutes is not None else self.seconds or 0


class BackfillSection(Section):
    """What is fetched afterwards from what the plan's meters keep themselves.

    `daily`: daily registers, from their daily and monthly freezes. `load_records`: every point that
    their load records hold. `days`: how far back.
    """

    daily: Flag = True
    load_records: Flag = False
    days: Whole = Field(default=35, ge=1, le=62)


class PlanSection(Section):
    """What meters with this plan owe, and when. `tolerance_s` and `window_s` hold for all lines.

    For an interval line the tolerance is at most half the interval: a reading serves one instant.
    `clock`: what is done about the clock of such a meter; None: what `control.clock` says.
    """

    daily: DailySection | None = None
    every: tuple[EverySection, ...] = ()
    tolerance_s: Seconds | None = Field(default=None, ge=0.1, le=DAY_S / 2)
    window_s: Seconds | None = Field(default=None, ge=0.1, le=3 * DAY_S)
    from_ms: InstantMs | None = Field(default=None, alias="from")
    until_ms: InstantMs | None = Field(default=None, alias="until")
    clock: ClockPolicy | None = None
    backfill: BackfillSection = BackfillSection()

    @model_validator(mode="after")
    def _has_something_to_do(self) -> "PlanSection":
        if self.daily is None and not self.every:
            raise problem("reads nothing", "give it daily or every")
        first, end = self.from_ms, self.until_ms
        if first is not None and end is not None and first >= end:
            raise problem("ends before it begins", "until is the first instant not read")
        return self

    def entries(self) -> tuple[PlanEntry, ...]:
        """Every line of the plan, defaults filled in."""
        result = []
        if self.daily is not None:
            result.append(
                PlanEntry(
                    points=self.daily.points,
                    at=self.daily.at,
                    interval_s=None,
                    origin=self.daily.origin,
                    tolerance_s=self.daily.tolerance_s or self.tolerance_s or DAILY_TOLERANCE_S,
                    window_s=self.daily.window_s or self.window_s or DAILY_WINDOW_S,
                    from_ms=self.from_ms,
                    until_ms=self.until_ms,
                )
            )
        for line in self.every:
            tolerance_s = line.tolerance_s or self.tolerance_s or EVERY_TOLERANCE_S
            result.append(
                PlanEntry(
                    points=line.points,
                    at=None,
                    interval_s=line.interval_s,
                    origin="live",
                    tolerance_s=min(tolerance_s, line.interval_s / 2),
                    window_s=line.window_s or self.window_s or float(line.interval_s),
                    from_ms=self.from_ms,
                    until_ms=self.until_ms,
                )
            )
        return tuple(result)

    def points(self) -> tuple[str, ...]:
        """Every point of the plan, each once, in order."""
        return tuple(dict.fromkeys(p for entry in self.entries() for p in entry.points))
