"""Check values of frames."""


def sum8(data: bytes | bytearray) -> int:
    """The sum of all bytes modulo 256."""
    return sum(data) & 0xFF
