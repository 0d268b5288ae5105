"""Check values of frames."""


def sum8(data: bytes | bytearray) -> int:
    """The sum of all bytes modulo 256."""
    return sum(data) & 0xFF


def _crc16_of_byte(value: int) -> int:
    """What one byte does to a CRC of 0: eight steps of the polynomial, lowest bit first."""
    for _ in range(8):
        value = (value >> 1) ^ (_CRC16_POLYNOMIAL if value & 1 else 0)
    return value


_CRC16_POLYNOMIAL = 0xA001  # x^16 + x^15 + x^2 + 1, lowest bit first
_CRC16_TABLE = tuple(_crc16_of_byte(value) for value in range(256))


def crc16(data: bytes | bytearray) -> int:
    """The CRC of Modbus over serial line: starts at FFFF; travels low byte first."""
    table = _CRC16_TABLE
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc
