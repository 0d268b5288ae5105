"""`timeseries`: databases that get every value for charts."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headend.config.sections.base import (
    FeedName,
    FilePath,
    Flag,
    Section,
    Text,
    Whole,
    one_of,
    problem,
)
from headend.domain.hosts import is_loopback


def _http(value: str) -> str:
    if not value.startswith(("http://", "https://")) or "@" in value:
        raise problem(f"{value!r} is not usable", "http://host:port, without user and password")
    try:
        url = urlsplit(value)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:
        has_host = False
    if not has_host or url.query or url.fragment:
        raise problem(f"{value!r} is not usable", "http://host:port")
    return value.rstrip("/")


class TimeseriesSection(Section):
    """One database: `influxdb2` has org and bucket, `influxdb1` a database.

    `name`: what its cursor in the journal is kept under; it must stay (default: the kind). Over
    `max_backlog_days` it is expired and no longer holds back retention.
    """

    kind: Annotated[
        Literal["influxdb1", "influxdb2"], BeforeValidator(one_of("influxdb1", "influxdb2"))
    ]
    name: FeedName = ""
    url: Annotated[Text, AfterValidator(_http)]
    org: Text | None = None
    bucket: Text | None = None
    database: Text | None = None
    username: Text | None = None
    password_file: FilePath | None = None
    token_file: FilePath | None = None
    ca_file: FilePath | None = None
    allow_plaintext: Flag = False
    max_backlog_days: Whole = Field(default=30, ge=1, le=36_600)

    @property
    def known_as(self) -> str:
        """Its name."""
        return self.name or self.kind

    @model_validator(mode="after")
    def _target_fits_kind(self) -> "TimeseriesSection":
        if self.kind == "influxdb2" and (self.org is None or self.bucket is None):
            raise problem("influxdb2 needs org and bucket")
        if self.kind == "influxdb1" and self.database is None:
            raise problem("influxdb1 needs a database")
        if self.kind == "influxdb2" and (self.username or self.password_file):
            raise problem("influxdb2 has no username", "token_file holds its token")
        if (self.username is None) != (self.password_file is None):
            raise problem("username and password_file belong together")
        if self.username is not None and self.token_file is not None:
            raise problem("either username and password_file, or token_file")
        return self

    @model_validator(mode="after")
    def _readings_are_not_sent_in_the_clear(self) -> "TimeseriesSection":
        url = urlsplit(self.url)
        host = url.hostname or ""
        if url.scheme == "http" and not is_loopback(host) and not self.allow_plaintext:
            raise problem(
                f"readings would go to {host} unencrypted",
                "use https://, or say allow_plaintext: true",
            )
        if self.ca_file is not None and url.scheme != "https":
            raise problem("ca_file is for https://")
        return self
