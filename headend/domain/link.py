"""Where the bytes of a bus go, as parsed from a link URL. Pure data; `transport` opens it."""

from dataclasses import dataclass
from typing import Literal

Parity = Literal["none", "even", "odd", "mark", "space"]


@dataclass(frozen=True, slots=True)
class SerialSpec:
    """A serial port. `parity_seen` None = find out (a pty or a converter may not tell)."""

    path: str
    baud: int = 2400
    parity: Parity = "even"
    stop_bits: int = 1
    echo: bool = False
    parity_seen: bool | None = None


@dataclass(frozen=True, slots=True)
class TcpSpec:
    """A transparent converter: raw bytes over TCP. Nothing on the way shows a parity error.

    `baud` is the speed of the line behind the converter, for time-outs and plans (0 = unknown).
    """

    host: str
    port: int
    baud: int = 0
    parity: Parity = "even"
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Rfc2217Spec:
    """A serial port behind an RFC 2217 server."""

    host: str
    port: int
    baud: int = 2400
    parity: Parity = "even"
    stop_bits: int = 1


@dataclass(frozen=True, slots=True)
class ModbusTcpSpec:
    """A Modbus TCP server or gateway."""

    host: str
    port: int


LinkSpec = SerialSpec | TcpSpec | Rfc2217Spec | ModbusTcpSpec
