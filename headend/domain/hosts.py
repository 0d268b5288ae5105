"""Which hosts are this machine."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether what goes to this name or address never leaves this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
