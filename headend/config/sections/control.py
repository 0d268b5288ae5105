"""`control`: what may be written to meters. Nothing, unless this section says so."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from headend.config.sections.base import (
    FilePath,
    Flag,
    Seconds,
    Section,
    Text,
    Whole,
    one_of,
    problem,
)


def _operator(value: str) -> str:
    if len(value) != 8 or not (value.isascii() and value.isdecimal()):
        raise problem(f"{value!r} is not an operator code", 'eight digits in quotes: "00000000"')
    return value


def _settlement(value: str) -> str:
    found = _SETTLEMENT.fullmatch(value)
    if found is None or not (1 <= int(found[1]) <= 28 and int(found[2]) < 24):
        raise problem(f"{value!r} is no moment of every month", 'day 01 to 28, HH:MM: "01 00:00"')
    return value


_SETTLEMENT = re.compile(r"([0-9]{2}) ([0-9]{2}):[0-5][0-9]")
ClockPolicy = Annotated[
    Literal["leave", "sync", "ticket"], BeforeValidator(one_of("leave", "sync", "ticket"))
]


class ClockControlSection(Section):
    """Which differences of a meter's clock are set right. Seconds.

    leave_s: below this a clock is left alone. ticket_s: above this it is not set either, because
    something else is wrong with the meter; a person has to look. midnight_guard_s, hour_guard_s:
    nothing is set so close to midnight or a full hour, by the head-end's clock or by the meter's:
    freezes and settlements happen there. interval_s: nor across the edge of
    such an interval, where the difference is shorter than one. settlements: moments of a month,
    `DD HH:MM`, that nothing is set within settlement_guard_s of.

    policy: what the daily measurement does about a clock that is wrong: `leave` it (a person is
    told only above ticket_s), `ticket`: a person is told, `sync`: it is set. models: the same for
    the meters of a profile; a plan's own `clock` comes before both.
    """

    policy: ClockPolicy = "leave"
    models: dict[Text, ClockPolicy] = Field(default_factory=dict)

    leave_s: Seconds = Field(default=5.0, ge=2.0, le=3600)
    ticket_s: Seconds = Field(default=900.0, ge=10.0, le=10 * 365 * 86_400)
    midnight_guard_s: Seconds = Field(default=600.0, ge=300.0, le=3600.0)
    hour_guard_s: Seconds = Field(default=300.0, ge=60.0, le=1200.0)
    interval_s: Whole = Field(default=900, ge=60, le=3600)
    settlements: tuple[Annotated[Text, AfterValidator(_settlement)], ...] = ()
    settlement_guard_s: Seconds = Field(default=600.0, ge=300.0, le=3600.0)

    def settlement_moments(self) -> tuple[tuple[int, int, int], ...]:
        """Day of the month, hour and minute of every settlement."""
        return tuple((int(m[:2]), int(m[3:5]), int(m[6:])) for m in self.settlements)


class ControlSection(Section):
    """Off unless `enabled`.

    password_file: one line, the level and the password, `04 123456`. operator: what meters keep in
    their logs. refusals_max: after so many refused passwords in one job nothing more is sent.
    """

    enabled: Flag = False
    password_file: FilePath | None = None
    operator: Annotated[Text, AfterValidator(_operator)] = "00000000"
    refusals_max: Whole = Field(default=3, ge=1, le=100)
    clock: ClockControlSection = ClockControlSection()
