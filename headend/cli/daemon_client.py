"""Speaks to the running daemon over its local socket: one request, one reply, JSON lines."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headend.domain.errors import (
    BusError,
    ConfigError,
    HeadendError,
    NoAnswer,
    PolicyError,
    PortBusy,
    PortGone,
    Refused,
)

REPLY_BYTES_MAX = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0


class DaemonError(HeadendError):
    """The daemon answered that it could not do it. `code` is its word for why."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class DaemonAway(PortGone):
    """No daemon answers at the socket."""

    def __init__(self, path: Path, why: str) -> None:
        message = f"no daemon answers at {path} ({why}); start it with: headend run --config FILE"
        super().__init__(message, bus=str(path))


def ask_daemon(
    path: Path, request: Mapping[str, Any], *, timeout_s: float = 120.0
) -> dict[str, Any]:
    """The reply to one request, without `id` and `ok`.

    `DaemonAway` (exit code 4) when none is running; when the daemon says no: an error of the kind
    its code names (`PolicyError`, `NoAnswer`, ...), else `DaemonError`.
    """
    line = json.dumps({"id": 1, **request}, ensure_ascii=False).encode() + b"\n"
    answer = _exchange(path, line, timeout_s)
    try:
        reply = json.loads(answer)
    except ValueError:
        reply = None
    if not isinstance(reply, dict) or "ok" not in reply:
        raise DaemonError(f"{path} answers, but is no headend daemon", code="bad_reply")
    if not reply.pop("ok"):
        raise _error(reply.get("error") or {}, path)
    reply.pop("id", None)
    return reply


def _exchange(path: Path, line: bytes, timeout_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(CONNECT_TIMEOUT_S)
        try:
            client.connect(str(path))
            client.settimeout(timeout_s)
            client.sendall(line)
            with client.makefile("rb") as stream:
                answer = stream.readline(REPLY_BYTES_MAX)
        except TimeoutError as error:
            raise DaemonAway(path, f"no reply within {timeout_s:g} s") from error
        except FileNotFoundError as error:
            raise DaemonAway(path, "there is no socket") from error
        except OSError as error:
            raise DaemonAway(path, error.strerror or str(error)) from error
    if not answer.endswith(b"\n"):
        raise DaemonAway(path, "it hung up without a reply")
    return answer


def _error(error: Mapping[str, Any], path: Path) -> HeadendError:
    code, message = str(error.get("code", "error")), str(error.get("message", "no reason given"))
    bus = str(path)
    match code:
        case "no_answer":
            return NoAnswer(message, bus=bus, waited_ms=0, attempts=0, diagnosis="silence")
        case "port_gone":
            return PortGone(message, bus=bus)
        case "port_busy":
            return PortBusy(message, bus=bus)
        case "bus":
            return BusError(message, bus=bus)
        case "refused":
            return Refused(message, reasons=())
        case "not_allowed":
            return PolicyError(message)
        case "usage":
            return ConfigError(message)
        case _:
            return DaemonError(message, code=code)
