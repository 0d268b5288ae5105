"""Binary coded decimals, low byte first: two digits a byte, 34 12 is 1234."""


def digits_of(raw: bytes) -> str | None:
    """The digits, most significant first; None when a nibble is above 9."""
    text = raw[::-1].hex()
    return text if text.isdigit() else None


def bytes_of(digits: str) -> bytes:
    """The bytes of an even number of decimal digits; ValueError for anything else."""
    if len(digits) % 2 or not (digits.isascii() and digits.isdigit()):
        msg = f"not an even number of decimal digits: {digits!r}"
        raise ValueError(msg)
    return bytes.fromhex(digits)[::-1]
