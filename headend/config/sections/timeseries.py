"""`timeseries`: databases that get every value for charts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from headend.config.sections.base import FilePath, Section, Text, one_of, problem


def _http(value: str) -> str:
    if not value.startswith(("http://", "https://")) or "@" in value:
        raise problem(f"{value!r} is not usable", "http://host:port, without user and password")
    return value


class TimeseriesSection(Section):
    """One database: `influxdb2` has org and bucket, `influxdb1` a database."""

    kind: Annotated[
        Literal["influxdb1", "influxdb2"], BeforeValidator(one_of("influxdb1", "influxdb2"))
    ]
    url: Annotated[Text, AfterValidator(_http)]
    org: Text | None = None
    bucket: Text | None = None
    database: Text | None = None
    username: Text | None = None
    password_file: FilePath | None = None
    token_file: FilePath | None = None

    @model_validator(mode="after")
    def _target_fits_kind(self) -> "TimeseriesSection":
        if self.kind == "influxdb2" and (self.org is None or self.bucket is None):
            raise problem("influxdb2 needs org and bucket")
        if self.kind == "influxdb1" and self.database is None:
            raise problem("influxdb1 needs a database")
        return self
