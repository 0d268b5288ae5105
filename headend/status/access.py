"""Who may ask what: the rules of the page's door. Pure.

A page in somebody's browser can be made to ask any address in any name (DNS rebinding), so only
requests that name this machine by an address, or by a name of the configuration, are answered.
"""

import ipaddress
from collections.abc import Iterable, Mapping

METHODS = ("GET", "HEAD")
HOST_CHARS_MAX = 260

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


def host_is_ours(header: str | None, *, bound_to: str, names: Iterable[str] = ()) -> bool:
    """Whether a Host header names this page. `bound_to`: the address it listens on.

    Bound to this machine only: loopback addresses and `localhost`. Bound to more: any address,
    which nobody can rebind. And the names that the configuration gives.
    """
    if not header or len(header) > HOST_CHARS_MAX:
        return False
    host = _without_port(header).lower().rstrip(".")
    if host == "localhost" or host == bound_to.lower() or host in names:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or not _is_loopback(bound_to)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    host, colon, port = header.rpartition(":")
    return host if colon and port.isdecimal() else header
