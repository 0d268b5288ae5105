"""`buses`: the media the meters hang on, and how patiently each is asked."""

from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field

from headend.config.link_url import parse_link
from headend.config.sections.base import Flag, Section, Text, Whole, problem
from headend.domain.errors import ConfigError
from headend.domain.link import LinkSpec, SerialSpec, TcpSpec


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
    bytes come back. `queue_max`: requests that may wait. `dead_after`: unanswered requests in a
    row after which a meter is only probed, at most `probe_max_s` apart. `wakeup`: FE bytes before
    a DL/T 645 request.
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

    @property
    def link_spec(self) -> LinkSpec:
        """The link, with this section's `echo` where it is given."""
        spec = parse_link(self.link)
        if self.echo is not None and isinstance(spec, SerialSpec | TcpSpec):
            return replace(spec, echo=self.echo)
        return spec
