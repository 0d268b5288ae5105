"""`meters`: one entry a meter, in the file itself or as rows of a CSV file."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from headend.config.meter_rules import (
    ANY_UNIT,
    LINE_UNITS,
    MODBUS,
    PROTOCOLS_KNOWN,
    PROTOCOLS_NOW,
    address_problem,
)
from headend.config.sections.base import (
    FilePath,
    Identifier,
    Name,
    PositiveDecimal,
    Section,
    Text,
    Whole,
    one_of,
    problem,
)
from headend.domain.meter import Meter

__all__ = ["PROTOCOLS_KNOWN", "PROTOCOLS_NOW", "MeterSection", "MetersFile"]


def _address(value: object) -> object:
    """A bare number has lost its leading zeros, so it is refused, not repaired."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise problem(
            f"the address {value} is a bare number, and YAML keeps no leading zeros",
            f'put the twelve digits in quotes: address: "{value:012d}"',
        )
    return value


class MeterSection(Section):
    """One meter. `ct` and `pt` are the instrument transformers' ratios, as text.

    A DL/T 645 meter has an `address`, and a `profile` where its model does not keep to the
    standard; a Modbus one has a `unit` and the `profile` of its registers.
    """

    id: Identifier
    service_point: Identifier
    bus: Name
    protocol: Annotated[Text, AfterValidator(one_of(*PROTOCOLS_KNOWN))]
    address: Annotated[Text, BeforeValidator(_address)] | None = None
    plan: Name
    area: Identifier | None = None
    ct: PositiveDecimal = Field(default=1, validate_default=True)
    pt: PositiveDecimal = Field(default=1, validate_default=True)
    profile: Text | None = None
    unit: Whole | None = Field(default=None, ge=ANY_UNIT[0], le=ANY_UNIT[-1])
    capacity_kw: PositiveDecimal | None = None

    def address_problem(self) -> tuple[str, str, str] | None:
        """Key, message and hint when the address does not fit the protocol."""
        return self._modbus_problem() if self.protocol in MODBUS else self._dlt645_problem()

    def _dlt645_problem(self) -> tuple[str, str, str] | None:
        if self.unit is not None:
            return "unit", "a DL/T 645 meter has no unit number", "give its address"
        if self.address is None:
            return "address", "is missing", "the twelve digits on the meter's plate, in quotes"
        unfit = address_problem(self.protocol, self.address)
        if unfit is not None:
            return "address", unfit.message, unfit.hint
        if self.address == "999999999999":
            return "address", "all nines is the broadcast address; no meter answers it", ""
        return None

    def _modbus_problem(self) -> tuple[str, str, str] | None:
        units = ANY_UNIT if self.protocol == "modbus-tcp" else LINE_UNITS
        allowed = f"a number from {units[0]} to {units[-1]}"
        if self.address is not None:
            return "address", "a Modbus device has no address but a unit number", "give its unit"
        if self.unit is None:
            return "unit", "is missing", f"the device's number on its bus, {allowed}"
        if self.unit not in units:
            return "unit", f"{self.unit} is no device on a line", f"{allowed} for {self.protocol}"
        if self.profile is None:
            return "profile", "is missing", "the map of its registers, such as eastron_sdm630"
        return None

    def to_meter(self) -> Meter:
        """The meter as the other rooms know it."""
        address = self.address if self.address is not None else str(self.unit)
        return Meter(
            id=self.id,
            service_point=self.service_point,
            bus=self.bus,
            protocol=self.protocol,
            address=address,
            plan=self.plan,
            area=self.area,
            ct=self.ct,
            pt=self.pt,
            profile=self.profile,
            capacity_kw=self.capacity_kw,
        )


class MetersFile(Section):
    """Meters as rows of a CSV file; its columns are the keys of an entry."""

    file: FilePath
