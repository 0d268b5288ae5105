"""`feed`: the broker and the consumers that are promised a stream each."""

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headend.config.sections.base import (
    FeedName,
    FilePath,
    Flag,
    Seconds,
    Section,
    Text,
    Whole,
    one_of,
    problem,
)
from headend.config.sections.identity import BrokerIdentity

_PORTS = {"mqtt": 1883, "mqtts": 8883, "embedded": 0}
_EXAMPLE = "mqtt://127.0.0.1:1883, mqtts://broker:8883 or embedded://127.0.0.1:1883"

EventClass = Annotated[
    Literal["billing", "telemetry", "events"],
    BeforeValidator(one_of("billing", "telemetry", "events")),
]


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """Where the broker is. `embedded`: the daemon runs one itself, at this address."""

    scheme: Literal["mqtt", "mqtts", "embedded"]
    host: str
    port: int

    @property
    def tls(self) -> bool:
        """The connection is encrypted and the broker's certificate checked."""
        return self.scheme == "mqtts"

    @property
    def embedded(self) -> bool:
        """The daemon starts the broker in its own process."""
        return self.scheme == "embedded"

    @property
    def loopback(self) -> bool:
        """The bytes never leave this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_broker(text: str) -> BrokerSpec:
    """The broker a URL names; a field problem otherwise."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise problem(f"{text!r} is not a broker", _EXAMPLE) from None
    if url.scheme not in _PORTS or not url.hostname or url.path not in ("", "/") or url.query:
        raise problem(f"{text!r} is not a broker", _EXAMPLE)
    if url.username is not None or url.password is not None:
        raise problem(
            "the broker's URL holds a user name or password", "use username and password_file"
        )
    port = port or _PORTS[url.scheme]
    if not port:
        raise problem("the embedded broker needs a port", "embedded://127.0.0.1:1883")
    spec = BrokerSpec(url.scheme, url.hostname, port)  # type: ignore[arg-type]
    if spec.embedded and not spec.loopback:
        raise problem(
            "the embedded broker takes no passwords, so it listens on this machine only",
            "embedded://127.0.0.1:1883",
        )
    return spec


def _broker(value: str) -> str:
    parse_broker(value)
    return value


class ConsumerSection(Section):
    """One consumer. Over `max_backlog_days` it is expired and no longer holds back retention."""

    name: FeedName
    classes: tuple[EventClass, ...] = Field(min_length=1)
    max_backlog_days: Whole = Field(default=30, ge=1, le=36_600)


class FeedSection(BrokerIdentity):
    """The head-end's end of the feed; where the broker is, for billing's end too.

    `receipt_timeout_s`: without a receipt for this long a batch is sent again.
    `receipts_missing_s`: without a receipt for this long there is an alarm.
    """

    broker: Annotated[Text, AfterValidator(_broker)]
    ca_file: FilePath | None = None
    allow_plaintext: Flag = False
    receipt_timeout_s: Seconds = Field(default=30, ge=0.1, le=3600)
    receipts_missing_s: Seconds = Field(default=600, ge=0.5, le=7 * 86_400)
    consumers: tuple[ConsumerSection, ...] = ()

    @model_validator(mode="after")
    def _readings_are_not_sent_in_the_clear(self) -> "FeedSection":
        spec = self.broker_spec
        if spec.scheme == "mqtt" and not spec.loopback and not self.allow_plaintext:
            raise problem(
                f"readings would go to {spec.host} unencrypted",
                "use mqtts://, or say allow_plaintext: true",
            )
        return self

    @property
    def broker_spec(self) -> BrokerSpec:
        """The broker, parsed."""
        return parse_broker(self.broker)
