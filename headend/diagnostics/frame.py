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
_BREAK = "|"
_BRACKETS = re.compile(r"[\[\](){}<>]")
_BURIED_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){12,}(?![0-9A-Fa-f])")
_DIGITS = re.compile(r"[0-9A-Fa-f]+")
_JOINED = re.compile(r"[0-9A-Fa-f]{2}(?:[:\-_.][0-9A-Fa-f]{2}){5,}")
# A line of hexdump -C, xxd and their like: place, bytes, the same as text.
_DUMP = re.compile(
    r"\s*(?:[0-9A-Fa-f]{4,8}:\s*|[0-9A-Fa-f]{8}\s{2,})"
    r"((?:(?:[0-9A-Fa-f]{2}){1,2}\s{1,2})*(?:[0-9A-Fa-f]{2}){1,2})(?:\s{2,}.*)?\s*"
)
_DUMP_END = re.compile(r"\s*[0-9A-Fa-f]{7,8}\s*")
_WORDS = re.compile(r"[0-9A-Za-z_:.=/+-]+|[|\w]+")
# In a line of text shorter runs of hex digits are its numbers, not its bytes.
_GROUP_BYTES_MIN = 4
_TOKEN_BYTES_MIN = 12  # of a single word that does not begin like a frame


class NoHexError(ValueError):
    """The text holds no bytes that could be a frame."""


def bytes_from_text(text: str) -> bytes:
    """The bytes of a paste, in order; NoHexError when there are none or half a byte is left over.

    A line of nothing but hex (with spaces, commas, `0x`, `\\x`, `68H`) is taken whole. In a line of
    other text the runs of hex bytes are taken, from the first that can begin a frame on; dates,
    times and counters are left out.
    """
    taken = bytearray()
    in_dump = False
    for line in text.splitlines():
        if in_dump and _DUMP_END.fullmatch(line):
            continue
        in_dump = _DUMP.fullmatch(line) is not None
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
    dump = _DUMP.fullmatch(line)
    if dump is not None:
        return bytes.fromhex(dump[1])
    tokens = _tokens(line)
    hex_tokens = [token for token in tokens if token != _BREAK]
    if not hex_tokens:
        return b""
    if all(_DIGITS.fullmatch(token) for token in hex_tokens):
        odd = [token for token in hex_tokens if len(token) % 2 and len(token) > 1]
        if odd:
            raise NoHexError(f"{odd[0]!r} has an odd number of hex digits: half a byte is missing")
        return bytes.fromhex("".join(token.zfill(2) for token in hex_tokens))
    return b"".join(bytes.fromhex(group) for group in _groups(tokens))


def _tokens(line: str) -> list[str]:
    """The words of a line, hex without its dress (`0x`, `\\x`, `H`, marks between bytes)."""
    line = line.replace("\\x", " ").replace("|", " ")
    line = re.sub(r"\bb(?=['\"])", " ", line)  # b'...' of Python
    line = _BRACKETS.sub(f" {_BREAK} ", line)
    return [plain for word in _WORDS.findall(line) if (plain := _plain(word))]


def _plain(word: str) -> str:
    word = word.strip("=.:-_")
    word = re.sub(r"(?i)0x([0-9a-f](?![0-9a-f]))?", lambda m: f"0{m[1]}" if m[1] else "", word)
    if re.fullmatch(r"[0-9A-Fa-f]{2}[hH]", word):
        word = word[:-1]
    if _JOINED.fullmatch(word):
        word = re.sub(r"[^0-9A-Fa-f]", "", word)
    return word


def _groups(tokens: list[str]) -> list[str]:
    """The runs of hex in a line that also holds other text."""
    runs: list[list[str]] = [[]]
    for token in tokens:
        if _DIGITS.fullmatch(token) and len(token) % 2 == 0:
            runs[-1].append(token.upper())
        else:
            runs += [[found.upper()] for found in _BURIED_HEX.findall(token)]
            runs.append([])
    begun = [run for run in map(_from_start, runs) if _size(run) >= _GROUP_BYTES_MIN]
    if begun:
        return ["".join(run) for run in begun]
    # The rest of a frame whose beginning stands in another line.
    others = [run for run in runs if len(run) >= _GROUP_BYTES_MIN or _size(run) >= _TOKEN_BYTES_MIN]
    longest = max(others, key=_size, default=[])
    return ["".join(longest)] if longest else []


def _from_start(run: list[str]) -> list[str]:
    """A run from the first token on that can begin a frame; empty when none can."""
    for at, token in enumerate(run):
        if token.startswith(_FRAME_STARTS):
            return run[at:]
    return []


def _size(run: list[str]) -> int:
    return sum(len(token) for token in run) // 2
