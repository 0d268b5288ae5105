"""`meters`: one entry a meter, in the file itself or as rows of a CSV file."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

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

PROTOCOLS_KNOWN = (
    "dlt645-2007",
    "dlt645-1997",
    "modbus-rtu",
    "modbus-tcp",
    "qgdw376.1",
    "qgdw376.2",
    "dlt698.45",
)
PROTOCOLS_NOW = ("dlt645-2007",)

_TWELVE_DIGITS = re.compile(r"[0-9]{12}")


def _address(value: object) -> object:
    """A bare number has lost its leading zeros, so it is refused, not repaired."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise problem(
            f"the address {value} is a bare number, and YAML keeps no leading zeros",
            f'put the twelve digits in quotes: address: "{value:012d}"',
        )
    return value


class MeterSection(Section):
    """One meter. `ct` and `pt` are the instrument transformers' ratios, as text."""

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
    unit: Whole | None = Field(default=None, ge=1, le=247)
    capacity_kw: PositiveDecimal | None = None

    def address_problem(self) -> tuple[str, str, str] | None:
        """Key, message and hint when the address does not fit the protocol."""
        if self.protocol.startswith("dlt645"):
            if self.unit is not None:
                return "unit", "a DL/T 645 meter has no unit number", "give its address"
            if self.address is None:
                return "address", "is missing", "the twelve digits on the meter's plate, in quotes"
            if not _TWELVE_DIGITS.fullmatch(self.address):
                return (
                    "address",
                    f"{self.address!r} is not a meter address",
                    "twelve digits in quotes; a spreadsheet may have eaten leading zeros",
                )
            if self.address == "999999999999":
                return "address", "all nines is the broadcast address; no meter answers it", ""
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
