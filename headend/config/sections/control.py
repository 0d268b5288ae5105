"""`control`: what may be written to meters. Nothing, unless this section says so."""

from typing import Annotated

from pydantic import AfterValidator, Field

from headend.config.sections.base import FilePath, Flag, Seconds, Section, Text, Whole, problem


def _operator(value: str) -> str:
    if len(value) != 8 or not (value.isascii() and value.isdecimal()):
        raise problem(f"{value!r} is not an operator code", 'eight digits in quotes: "00000000"')
    return value


class ClockControlSection(Section):
    """Which differences of a meter's clock are set right. Seconds.

    leave_s: below this a clock is left alone. ticket_s: above this it is not set either, because
    something else is wrong with the meter; a person has to look. midnight_guard_s, hour_guard_s:
    nothing is set so close to midnight or a full hour, by the head-end's clock or by the meter's:
    freezes and settlements happen there. interval_s: nor across the edge of
    such an interval, where the difference is shorter than one.
    """

    leave_s: Seconds = Field(default=5.0, ge=2.0, le=3600)
    ticket_s: Seconds = Field(default=900.0, ge=10.0, le=10 * 365 * 86_400)
    midnight_guard_s: Seconds = Field(default=600.0, ge=300.0, le=3600.0)
    hour_guard_s: Seconds = Field(default=300.0, ge=60.0, le=1200.0)
    interval_s: Whole = Field(default=900, ge=60, le=3600)


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
