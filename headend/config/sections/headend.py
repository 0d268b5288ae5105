"""`headend`: the name, the zone and the data directory of this head-end."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headend.config.sections.base import (
    FeedName,
    FilePath,
    Seconds,
    Section,
    Text,
    Whole,
    one_of,
    problem,
)


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise problem(
            f"{value!r} is not a time zone", "a name such as Asia/Shanghai or Europe/Berlin"
        ) from None
    return value


class ReserveSection(Section):
    """Free disk space (MiB) below which the journal sheds entries, telemetry first."""

    telemetry: Whole = Field(default=512, ge=1, le=1_000_000)
    billing: Whole = Field(default=128, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _telemetry_goes_first(self) -> "ReserveSection":
        if self.telemetry < self.billing:
            raise problem(
                "telemetry would be kept longer than billing values",
                f"telemetry at least {self.billing}",
            )
        return self


class AlarmsSection(Section):
    """How long something on the field side is so before it is an alarm, and before it is over.

    port_s: a port is absent; bus_silent_s: nobody on a bus answers; meter_silent_s: one meter gives
    no good answer while its bus lives; clear_s: it is well again.
    """

    port_s: Seconds = Field(default=60.0, ge=1, le=86_400)
    bus_silent_s: Seconds = Field(default=120.0, ge=1, le=86_400)
    meter_silent_s: Seconds = Field(default=1800.0, ge=1, le=604_800)
    clear_s: Seconds = Field(default=120.0, ge=1, le=86_400)


class OwnClockSection(Section):
    """When this machine's clock is believed at the start. Until then nothing that is read is dated.

    trust: `synchronised`: once a time service says so; `machine`: always; `auto`: once a time
    service says so where one runs and no battery keeps the clock, else always. Whatever it says, a
    clock that shows an earlier time than the journal was written at is not believed.
    synchronised_file: it is enough that this file is there; it must lie where nothing survives a
    start of the machine.
    """

    trust: Annotated[
        Literal["auto", "synchronised", "machine"],
        BeforeValidator(one_of("auto", "synchronised", "machine")),
    ] = "auto"
    synchronised_file: FilePath | None = None


class HeadendSection(Section):
    """`zone` keeps the billing day; `data` is relative to the configuration file."""

    name: FeedName
    zone: Annotated[Text, AfterValidator(_zone)]
    data: FilePath
    reserve_mb: ReserveSection = ReserveSection()
    alarms: AlarmsSection = AlarmsSection()
    clock: OwnClockSection = OwnClockSection()

    @property
    def zone_info(self) -> ZoneInfo:
        """The zone itself."""
        return ZoneInfo(self.zone)
