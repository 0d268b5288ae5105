"""Which link a specification means."""

from headend.domain.errors import ConfigError
from headend.domain.link import LinkSpec, ModbusTcpSpec, SerialSpec, TcpSpec
from headend.transport.link import Link


def make_link(spec: LinkSpec) -> Link:
    """The link of a specification, not yet open. ConfigError for kinds that are not available."""
    # Imported here so that a head-end without serial ports never loads the serial driver.
    if isinstance(spec, SerialSpec):
        from headend.transport.serial_link import SerialLink  # noqa: PLC0415

        return SerialLink(spec)
    if isinstance(spec, TcpSpec | ModbusTcpSpec):
        from headend.transport.tcp_link import TcpLink  # noqa: PLC0415

        return TcpLink(spec)
    kind = type(spec).__name__.removesuffix("Spec").lower()
    msg = f"links of kind {kind} are not available in this version"
    raise ConfigError(msg, hint="use serial://, tcp:// or modbus-tcp://")
