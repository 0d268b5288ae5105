"""Which protocol goes with which link, address and unit: one place for files and options alike."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from headend.domain.link import LinkSpec, ModbusTcpSpec, Rfc2217Spec, SerialSpec, TcpSpec

PROTOCOLS_KNOWN = (
    "dlt645-2007",
    "dlt645-1997",
    "modbus-rtu",
    "modbus-tcp",
    "qgdw376.1",
    "qgdw376.2",
    "dlt698.45",
)
MODBUS = ("modbus-rtu", "modbus-tcp")
DLT645 = ("dlt645-2007", "dlt645-1997")
PROTOCOLS_NOW = (*DLT645, *MODBUS)

# 0 is the broadcast of a line, 248 to 255 are reserved there; over TCP both mean the device itself.
LINE_UNITS = range(1, 248)
ANY_UNIT = range(256)

_UNIT = re.compile(r"[0-9]{1,3}")
_TWELVE_DIGITS = re.compile(r"[0-9]{12}")

_LINE = (SerialSpec, TcpSpec, Rfc2217Spec)
_LINKS: Mapping[str, tuple[tuple[type[object], ...], str]] = {
    "dlt645-2007": (_LINE, "serial:///dev/... or tcp://host:port"),
    "dlt645-1997": (_LINE, "serial:///dev/... or tcp://host:port"),
    "modbus-rtu": (_LINE, "serial:///dev/... or tcp://host:port"),
    "modbus-tcp": ((ModbusTcpSpec,), "modbus-tcp://host:port"),
}


class RuleProblem(NamedTuple):
    """What does not go together, and what would."""

    message: str
    hint: str


def address_problem(protocol: str, address: str) -> RuleProblem | None:
    """Why a text cannot be a meter's address in a protocol (a Modbus unit as a number's text)."""
    if protocol in MODBUS:
        units = ANY_UNIT if protocol == "modbus-tcp" else LINE_UNITS
        if _UNIT.fullmatch(address) and int(address) in units:
            return None
        return RuleProblem(
            f"{address} is not a Modbus unit", f"{units[0]} to {units[-1]} for {protocol}"
        )
    if _TWELVE_DIGITS.fullmatch(address):
        return None
    return RuleProblem(
        f"{address!r} is not a meter address",
        "twelve digits in quotes; a spreadsheet may have eaten leading zeros",
    )


def link_problem(protocol: str, spec: LinkSpec) -> RuleProblem | None:
    """Why a protocol cannot be spoken over a link; None when it can."""
    kinds, example = _LINKS[protocol]
    if isinstance(spec, kinds):
        return None
    scheme = "modbus-tcp" if isinstance(spec, ModbusTcpSpec) else type(spec).__name__[:-4].lower()
    hint = f"{protocol} needs {example}"
    if protocol == "modbus-rtu" and isinstance(spec, ModbusTcpSpec):
        hint += "; a gateway that speaks Modbus TCP needs the protocol modbus-tcp"
    if protocol == "modbus-tcp" and isinstance(spec, TcpSpec):
        hint += "; a converter that passes the line's bytes on needs the protocol modbus-rtu"
    return RuleProblem(f"{protocol} is not spoken over a {scheme} link", hint)
