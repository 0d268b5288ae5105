"""Link URLs: every form of the documentation, and what is said of a wrong one."""

import pytest

from headend.config import parse_link
from headend.domain.errors import ConfigError
from headend.domain.link import ModbusTcpSpec, Rfc2217Spec, SerialSpec, TcpSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("/dev/ttyUSB0", SerialSpec("/dev/ttyUSB0")),
        ("COM3", SerialSpec("COM3")),
        ("/dev/ttyUSB0?baud=9600&parity=none", SerialSpec("/dev/ttyUSB0", 9600, "none")),
        ("COM3?baud=1200", SerialSpec("COM3", 1200)),
        ("serial://COM3?baud=9600", SerialSpec("COM3", baud=9600)),
        (
            "serial:///dev/ttyUSB0?baud=1200&parity=none&stop=2&echo=true&parity_seen=true",
            SerialSpec("/dev/ttyUSB0", 1200, "none", 2, echo=True, parity_seen=True),
        ),
        (
            "serial:///dev/serial/by-path/pci-0000:00:14.0-usb-0:1.2:1.0-port0?baud=2400",
            SerialSpec("/dev/serial/by-path/pci-0000:00:14.0-usb-0:1.2:1.0-port0"),
        ),
        ("serial:///dev/pts/3?parity_seen=false", SerialSpec("/dev/pts/3", parity_seen=False)),
        ("tcp://127.0.0.1:4001", TcpSpec("127.0.0.1", 4001)),
        ("tcp://[::1]:4001?baud=2400", TcpSpec("::1", 4001, baud=2400)),
        ("tcp://gateway:4001?echo=true", TcpSpec("gateway", 4001, echo=True)),
        ("rfc2217://moxa:4001?baud=9600", Rfc2217Spec("moxa", 4001, baud=9600)),
        ("modbus-tcp://127.0.0.1:15020", ModbusTcpSpec("127.0.0.1", 15020)),
        ("modbus-tcp://inverter", ModbusTcpSpec("inverter", 502)),
    ],
)
def test_every_form_of_link_is_understood(text: str, spec: object) -> None:
    assert parse_link(text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttyUSB0", "is not a link"),
        ("http://host:1", "is not a link"),
        ("tcp:host:1", "is not a link"),
        ("serial://dev/ttyUSB0", "three slashes"),
        ("serial:///dev/ttyUSB0?bauds=2400", "did you mean baud?"),
        ("serial:///dev/ttyUSB0?baud=2400&baud=9600", "stands there twice"),
        ("serial:///dev/ttyUSB0?baud=fast", "is not a line speed"),
        ("serial:///dev/ttyUSB0?baud=٢٤٠٠", "is not a line speed"),
        ("serial:///dev/ttyUSB0?parity=E", "one of none, even, odd"),
        ("serial:///dev/ttyUSB0?stop=3", "one of 1, 2"),
        ("serial:///dev/ttyUSB0?echo=yes", "one of true, false"),
        ("tcp://host", "host or port is missing"),
        ("tcp://:4001", "host or port is missing"),
        ("tcp://host:99999", "up to 65535"),
        ("tcp://host:1/path", "means nothing"),
        ("tcp://user@host:1", "no user name"),
        ("modbus-tcp://host:502?baud=9600", "has no option baud"),
    ],
)
def test_a_wrong_link_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_link(text)
    assert said in str(caught.value)
