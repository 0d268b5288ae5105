"""What a request to a device costs on its link: the figure that its requests are planned by."""

from headend.domain.link import LinkSpec, ModbusTcpSpec, Rfc2217Spec, SerialSpec, TcpSpec
from protocols.modbus.line_cost import Line
from protocols.modbus.register import DeviceProfile


def line_of(spec: LinkSpec, profile: DeviceProfile) -> Line:
    """The line between us and the device.

    Of a gateway nobody knows the speed of the line behind it: a device that has a serial port is
    taken to hang on one at the speed it is delivered with; other devices answer for themselves.
    """
    match spec:
        case SerialSpec() | Rfc2217Spec():
            bits = 1 + 8 + (spec.parity != "none") + spec.stop_bits
            return Line.serial(spec.baud, char_bits=bits, turnaround_ms=profile.turnaround_ms)
        case TcpSpec() if spec.baud:
            bits = 1 + 8 + (spec.parity != "none") + 1
            return Line.serial(spec.baud, char_bits=bits, turnaround_ms=profile.turnaround_ms)
        case TcpSpec():
            return Line.of(profile)
        case ModbusTcpSpec() if profile.serial is not None:
            return Line.of(profile)
        case _:
            return Line.tcp(turnaround_ms=profile.turnaround_ms)
