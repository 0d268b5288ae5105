"""Which protocol goes with which link, address and unit: one place for files and options alike."""

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
PROTOCOLS_NOW = ("dlt645-2007", *MODBUS)

# 0 is the broadcast of a line, 248 to 255 are reserved there; over TCP both mean the device itself.
LINE_UNITS = range(1, 248)
ANY_UNIT = range(256)

_LINE = (SerialSpec, TcpSpec, Rfc2217Spec)
_LINKS: Mapping[str, tuple[tuple[type[object], ...], str]] = {
    "dlt645-2007": (_LINE, "serial:///dev/... or tcp://host:port"),
    "modbus-rtu": (_LINE, "serial:///dev/... or tcp://host:port"),
    "modbus-tcp": ((ModbusTcpSpec,), "modbus-tcp://host:port"),
}


class RuleProblem(NamedTuple):
    """What does not go together, and what would."""

    message: str
    hint: str


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
