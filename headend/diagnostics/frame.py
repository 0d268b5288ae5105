"""Frames out of what people paste: hex in any dress, log lines, several frames at once.

Finds the bytes in the text and hands them to the protocol's `explain`.
"""

import re
from typing import TYPE_CHECKING, Any

from protocols.dlt645.explain import explain as explain_dlt645

if TYPE_CHECKING:
    from protocols.dlt645.functions import Edition

PROTOCOLS = ("auto", "dlt645-2007", "dlt645-1997")

_FRAME_STARTS = ("68", "FE")
_BURIED_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){12,}(?![0-9A-Fa-f])")
_DIGITS = re.compile(r"[0-9A-Fa-f]+")
_JOINED = re.compile(r"[0-9A-Fa-f]{2}(?:[:\-_][0-9A-Fa-f]{2}){5,}")
_GROUP_BYTES_MIN = 4  # shorter runs of hex digits in a line of text are its numbers, not its bytes


class NoHexError(ValueError):
    """The text holds no bytes that could be a frame."""


def bytes_from_text(text: str) -> bytes:
    """The bytes of a paste, in order; NoHexError when there are none or half a byte is left over.

    A line of nothing but hex (with spaces, commas, `0x`, `\\x`, `68H`) is taken whole. In a line of
    other text the runs of hex bytes are taken, from the first that can begin a frame on; dates,
    times and counters are left out.
    """
    taken = bytearray()
    for line in text.splitlines():
        taken += _bytes_of_line(line)
    if not taken:
        raise NoHexError("there are no hex bytes in this text")
    return bytes(taken)


def explain_text(text: str, *, protocol: str = "auto", lang: str = "en") -> list[dict[str, Any]]:
    """The `frame/1` objects of a paste. `protocol` is one of PROTOCOLS."""
    edition: Edition | None = None
    if protocol == "dlt645-1997":
        edition = "dlt645-1997"
    elif protocol == "dlt645-2007":
        edition = "dlt645-2007"
    return explain_dlt645(bytes_from_text(text), lang=lang, edition=edition)


def _bytes_of_line(line: str) -> bytes:
    tokens = [_plain(token) for token in re.split(r"[\s,;|]+", line.replace("\\x", " ")) if token]
    tokens = [token for token in tokens if token]
    if not tokens:
        return b""
    if all(_DIGITS.fullmatch(token) for token in tokens):
        digits = "".join(token.zfill(2) for token in tokens)
        odd = [token for token in tokens if len(token) % 2 and len(token) > 1]
        if odd:
            raise NoHexError(f"{odd[0]!r} has an odd number of hex digits: half a byte is missing")
        return bytes.fromhex(digits)
    return b"".join(bytes.fromhex(group) for group in _groups(tokens))


def _plain(token: str) -> str:
    """A token without its dress: brackets, quotes, `0x`, a trailing `H`, marks between bytes."""
    token = token.strip("[](){}<>\"'`=.:")
    token = re.sub(r"(?i)0x([0-9a-f](?![0-9a-f]))?", lambda m: f"0{m[1]}" if m[1] else "", token)
    if re.fullmatch(r"[0-9A-Fa-f]{2}[hH]", token):
        token = token[:-1]
    if _JOINED.fullmatch(token):
        token = re.sub(r"[:\-_]", "", token)
    return token


def _groups(tokens: list[str]) -> list[str]:
    """The runs of hex in a line that also holds other text."""
    groups: list[str] = []
    run: list[str] = []
    for token in [*tokens, ""]:
        if _DIGITS.fullmatch(token) and len(token) % 2 == 0:
            run.append(token.upper())
            continue
        groups += _frame_part(run)
        run = []
        groups += [found.upper() for found in _BURIED_HEX.findall(token)]
    return groups


def _frame_part(run: list[str]) -> list[str]:
    """A run from the first token on that can begin a frame; whole when none can; too short: no."""
    start = next((at for at, token in enumerate(run) if token.startswith(_FRAME_STARTS)), 0)
    digits = "".join(run[start:])
    return [digits] if len(digits) >= 2 * _GROUP_BYTES_MIN else []
