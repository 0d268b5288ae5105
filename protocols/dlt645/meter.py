"""The meter's side of DL/T 645-2007: what a request asks, and the frames that answer it.

No state and no decisions: which meter answers what is the business of who uses this.
"""

from protocols.dlt645.frame import BROADCAST, WILDCARD, Frame645, address_bytes, build
from protocols.dlt645.master import DI_BYTES, READ, di_bytes
from protocols.errors import LocalProtocolError

READ_ADDRESS = 0x13


def parse_read(frame: Frame645) -> str | None:
    """The identifier a frame asks to read; None when it is no plain read request."""
    if frame.control != READ or len(frame.data) != DI_BYTES:
        return None
    return frame.data[::-1].hex().upper()


def asks_address(frame: Frame645) -> bool:
    """Whether a frame asks who is there."""
    return frame.control == READ_ADDRESS and not frame.data and frame.address == WILDCARD


def addressed(own: str, asked: str) -> bool:
    """Whether a meter with the address `own` answers a request to `asked`.

    Its own address; or a shortened one: AA from the high end down to where the digits begin, never
    below them. The broadcast address is never answered.
    """
    if asked == own:
        return True
    if asked == BROADCAST or not asked.startswith("AA"):
        return False
    mine, given = address_bytes(own)[::-1], address_bytes(asked)[::-1]
    first = next((at for at, byte in enumerate(given) if byte != 0xAA), len(given))
    return mine[first:] == given[first:]


def build_reply(address: str, di: str, payload: bytes) -> bytes:
    """The reply to a read: 91H, the identifier, the payload (33H not yet added)."""
    return build(address, READ | 0x80, di_bytes(di) + payload)


def build_refusal(address: str, control: int, error_byte: int) -> bytes:
    """The refusal of a request that came with `control`: its code + C0H and one error byte."""
    if not 0 <= control <= 0x1F:
        raise LocalProtocolError(f"{control:02X} is no request's control code", code="bad_control")
    if not 0 <= error_byte <= 0xFF:
        raise LocalProtocolError(f"error {error_byte} is not a byte", code="out_of_range")
    return build(address, control | 0xC0, bytes((error_byte,)))


def build_address_reply(address: str) -> bytes:
    """The reply to "who is there": 93H with the address in the header and as data."""
    return build(address, READ_ADDRESS | 0x80, address_bytes(address))
