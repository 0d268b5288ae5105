"""Link URLs: the text that names where a bus's bytes go, into a `LinkSpec`.

serial:///dev/ttyUSB0?baud=2400&parity=even&stop=1&echo=false&parity_seen=true
tcp://host:port?baud=2400         a transparent converter; baud is that of the line behind it
rfc2217://host:port?baud=2400
modbus-tcp://host:port
COM3, /dev/ttyUSB0                a serial port with all defaults; ?baud=9600 may follow
"""

import difflib
import re
from collections.abc import Mapping
from typing import get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from headend.domain.errors import ConfigError
from headend.domain.link import LinkSpec, ModbusTcpSpec, Parity, Rfc2217Spec, SerialSpec, TcpSpec

BAUD_MIN = 50
BAUD_MAX = 4_000_000
MODBUS_TCP_PORT = 502

_KEYS: Mapping[str, tuple[str, ...]] = {
    "serial": ("baud", "parity", "stop", "echo", "parity_seen"),
    "tcp": ("baud", "parity", "echo"),
    "rfc2217": ("baud", "parity", "stop"),
    "modbus-tcp": (),
}
_EXAMPLE = "serial:///dev/ttyUSB0?baud=2400&parity=even, tcp://host:port, /dev/ttyUSB0 or COM3"
_COM = re.compile(r"COM[0-9]{1,3}", re.IGNORECASE)


def parse_link(text: str) -> LinkSpec:
    """The link a text names; ConfigError (without file and line) when it names none."""
    path, question, _ = text.partition("?")
    if path.startswith("/") or _COM.fullmatch(path):
        if not question:
            return SerialSpec(text)
        text = f"serial://{text}"
    try:
        url = urlsplit(text)
    except ValueError as error:
        message = f"{text} is not a link: {error}"
        raise ConfigError(message, hint=f"for example {_EXAMPLE}") from error
    if url.scheme not in _KEYS or "://" not in text:
        raise ConfigError(f"{text} is not a link", hint=f"for example {_EXAMPLE}")
    if url.fragment or url.username is not None:
        message = f"{text}: a link has no # part and no user name"
        raise ConfigError(message, hint=f"for example {_EXAMPLE}")
    options = _Options(url)
    return _BUILDERS[url.scheme](url, options)


class _Options:
    """The part behind the question mark, checked and typed."""

    def __init__(self, url: SplitResult) -> None:
        self._scheme = url.scheme
        known = _KEYS[url.scheme]
        self._values: dict[str, str] = {}
        for key, value in parse_qsl(url.query, keep_blank_values=True):
            if key not in known:
                raise _unknown_option(url.scheme, key, known)
            if key in self._values:
                raise ConfigError(f"the link's option {key} stands there twice")
            self._values[key] = value

    def baud(self, default: int) -> int:
        text = self._values.get("baud")
        if text is None:
            return default
        if not (text.isascii() and text.isdecimal()) or not BAUD_MIN <= int(text) <= BAUD_MAX:
            message = f"baud={text} is not a line speed"
            raise ConfigError(message, hint="usual ones are 1200, 2400, 4800, 9600, 115200")
        return int(text)

    def parity(self, default: Parity = "even") -> Parity:
        return self._one_of("parity", get_args(Parity), default)  # type: ignore[return-value]

    def stop(self) -> int:
        return int(self._one_of("stop", ("1", "2"), "1"))

    def flag(self, key: str) -> bool | None:
        return {"true": True, "false": False, "": None}[
            self._one_of(key, ("true", "false"), "") if key in self._values else ""
        ]

    def _one_of(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self._values.get(key, default)
        if value != default and value not in allowed:
            raise ConfigError(f"{key}={value} is not known", hint=f"one of {', '.join(allowed)}")
        return value


def _unknown_option(scheme: str, key: str, known: tuple[str, ...]) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
    return ConfigError(f"a {scheme} link has no option {key}", hint=hint)


def _serial(url: SplitResult, options: _Options) -> LinkSpec:
    path = unquote(url.path if not url.netloc else url.netloc + url.path)
    if not path.startswith("/") and not _COM.fullmatch(path):
        message = f"{path or 'nothing'} is not a serial port"
        raise ConfigError(message, hint="serial:///dev/ttyUSB0 has three slashes; or serial://COM3")
    return SerialSpec(
        path,
        baud=options.baud(2400),
        parity=options.parity(),
        stop_bits=options.stop(),
        echo=options.flag("echo") or False,
        parity_seen=options.flag("parity_seen"),
    )


def _tcp(url: SplitResult, options: _Options) -> LinkSpec:
    host, port = _host_port(url, None)
    return TcpSpec(
        host, port, options.baud(0), options.parity(), echo=options.flag("echo") or False
    )


def _rfc2217(url: SplitResult, options: _Options) -> LinkSpec:
    host, port = _host_port(url, None)
    return Rfc2217Spec(host, port, options.baud(2400), options.parity(), options.stop())


def _modbus_tcp(url: SplitResult, _options: _Options) -> LinkSpec:
    return ModbusTcpSpec(*_host_port(url, MODBUS_TCP_PORT))


_BUILDERS = {"serial": _serial, "tcp": _tcp, "rfc2217": _rfc2217, "modbus-tcp": _modbus_tcp}


def _host_port(url: SplitResult, default: int | None) -> tuple[str, int]:
    try:
        port = url.port
    except ValueError as error:
        message = f"{url.netloc}: the port is not a number up to 65535"
        raise ConfigError(message, hint=f"{url.scheme}://host:port") from error
    port = default if port is None else port
    if not url.hostname or not port:
        message = f"{url.geturl()}: host or port is missing"
        raise ConfigError(message, hint=f"{url.scheme}://host:port")
    if url.path not in ("", "/"):
        message = f"{url.path} behind the port means nothing"
        raise ConfigError(message, hint=f"{url.scheme}://host:port")
    return url.hostname, port
