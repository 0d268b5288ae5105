"""`buses`: the media the meters hang on, and how patiently each is asked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from headend.config.link_url import parse_link
from headend.config.sections.base import Flag, Seconds, Section, Text, Whole, problem
from headend.domain.errors import ConfigError
from headend.domain.link import LinkSpec, ModbusTcpSpec, SerialSpec, TcpSpec

# A connection needs no quiet time, and a gateway has a time-out of its own, which must end first.
_MODBUS_TCP = {"gap_ms": 0, "timeout_ms": 3000}
_OF_A_LINE = ("echo", "wakeup", "silence_after_timeout_ms")


def _link(value: str) -> str:
    try:
        parse_link(value)
    except ConfigError as error:
        raise problem(error.message, error.hint or "") from None
    return value


class BusSection(Section):
    """One bus.

    `gap_ms`: quiet time before a request. `timeout_ms`: how long a meter may think before its
    first byte (the time bytes take on the wire is added). `silence_after_timeout_ms`: how long
    the line must be silent after a time-out. `attempts`: requests for one answer. `echo`: our own
    bytes come back. `queue_max`: requests of one priority that may wait. `dead_after`: unanswered
    requests in a row after which a meter is only probed, at most `probe_max_s` apart. `wakeup`:
    FE bytes before a DL/T 645 request. `turnaround_ms`, `loss_percent`: what plans count with (see
    `headend plan`): how long meters usually think, and how many requests get no answer.
    `allow_overload`: poll the bus although its plan falls behind; otherwise it is not polled.

    On a `modbus-tcp` link the gap is 0 and the time-out 3000 ms unless they are given, and what
    belongs to a line has no meaning.
    """

    link: Annotated[Text, AfterValidator(_link)]
    gap_ms: Whole = Field(default=30, ge=0, le=10_000)
    timeout_ms: Whole = Field(default=500, ge=1, le=60_000)
    silence_after_timeout_ms: Whole = Field(default=500, ge=0, le=60_000)
    attempts: Whole = Field(default=3, ge=1, le=10)
    echo: Flag | None = None
    queue_max: Whole = Field(default=256, ge=1, le=1_000_000)
    dead_after: Whole = Field(default=2, ge=1, le=1000)
    probe_max_s: Whole = Field(default=600, ge=1, le=86_400)
    wakeup: Whole = Field(default=4, ge=0, le=8)
    turnaround_ms: Whole = Field(default=100, ge=0, le=60_000)
    loss_percent: Seconds = Field(default=1.0, ge=0.0, le=50.0)
    allow_overload: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_medium(cls, value: object) -> object:
        if isinstance(value, Mapping) and str(value.get("link")).startswith("modbus-tcp:"):
            return {**_MODBUS_TCP, **value}
        return value

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "BusSection":
        given = [key for key in _OF_A_LINE if key in self.model_fields_set]
        if given and isinstance(parse_link(self.link), ModbusTcpSpec):
            raise problem(f"{given[0]} has no meaning on a modbus-tcp link", "leave it out")
        return self

    @property
    def link_spec(self) -> LinkSpec:
        """The link, with this section's `echo` where it is given."""
        spec = parse_link(self.link)
        if self.echo is not None and isinstance(spec, SerialSpec | TcpSpec):
            return replace(spec, echo=self.echo)
        return spec
