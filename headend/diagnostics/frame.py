"""Frames out of what people paste: hex in any dress, log lines, several frames at once.

Finds the bytes in the text, and whose frames they are, and hands them to the protocol's `explain`.
"""

import re
from typing import TYPE_CHECKING, Any

from protocols.dlt645.explain import explain as explain_dlt645
from protocols.modbus.explain import explain as explain_modbus
from protocols.modbus.explain import is_request
from protocols.modbus.segments import good_bytes, looks_like_modbus

if TYPE_CHECKING:
    from protocols.dlt645.functions import Edition
    from protocols.dlt645.profile import MeterProfile
    from protocols.modbus.register import DeviceProfile

PROTOCOLS = ("auto", "dlt645-2007", "dlt645-1997", "modbus-rtu", "modbus-tcp")

_FRAME_STARTS = ("68", "FE")
_BREAK = "|"
_BRACKETS = re.compile(r"[\[\](){}<>]")
_BURIED_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){12,}(?![0-9A-Fa-f])")
_DIGITS = re.compile(r"[0-9A-Fa-f]+")
_JOINED = re.compile(r"[0-9A-Fa-f]{2}(?:[:\-_.][0-9A-Fa-f]{2}){5,}")
_LONG = re.compile(r"(?:[0-9A-Fa-f]{2}){5,}")
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
# Of a single word where nothing tells how a frame begins: shorter ones of digits alone are times
# and counters.
_WORD_BYTES_MIN, _WORD_OF_DIGITS_BYTES_MIN = 5, 8


class NoHexError(ValueError):
    """The text holds no bytes that could be a frame."""


class NotARequestError(ValueError):
    """What was given as the request is none."""


def bytes_from_text(text: str, *, any_start: bool = False) -> bytes:
    """The bytes of a paste, in order; NoHexError when there are none or half a byte is left over.

    A line of nothing but hex (with spaces, commas, `0x`, `\\x`, `68H`) is taken whole. In a line of
    other text the runs of hex bytes are taken, from the first that can begin a DL/T 645 frame on;
    dates, times and counters are left out. `any_start`: a frame may begin with any byte.
    """
    taken = bytearray()
    in_dump = False
    for line in text.splitlines():
        if in_dump and _DUMP_END.fullmatch(line):
            continue
        in_dump = _DUMP.fullmatch(line) is not None
        taken += _bytes_of_line(line, any_start=any_start)
    if not taken:
        raise NoHexError("there are no hex bytes in this text")
    return bytes(taken)


def explain_text(
    text: str,
    *,
    protocol: str = "auto",
    lang: str = "en",
    profile: "DeviceProfile | MeterProfile | None" = None,
    request: str | None = None,
) -> list[dict[str, Any]]:
    """The `frame/1` objects of a paste. `protocol` is one of PROTOCOLS.

    `profile`: of a Modbus device, or of a model of DL/T 645 meter. `request` (hex of the read
    request that the frames answer) is of Modbus. With `auto` they decide for their protocol.
    NoHexError; NotARequestError.
    """
    asked = None if request is None else _request_bytes(request)
    device, meter = _told_apart(profile)
    is_modbus = protocol.startswith("modbus") or device is not None or asked is not None
    if protocol == "auto" and not is_modbus and meter is None:
        return _explain_any(text, lang)
    if protocol.startswith("dlt645") or not is_modbus:
        edition = _edition(protocol, meter)
        data = bytes_from_text(text)
        return explain_dlt645(data, lang=lang, edition=edition, profile=meter)
    tcp = None if protocol == "auto" else protocol == "modbus-tcp"
    data = bytes_from_text(text, any_start=True)
    return explain_modbus(data, lang=lang, tcp=tcp, profile=device, request=asked)


def _told_apart(
    profile: "DeviceProfile | MeterProfile | None",
) -> "tuple[DeviceProfile | None, MeterProfile | None]":
    if profile is None:
        return None, None
    from protocols.dlt645.profile import MeterProfile  # noqa: PLC0415 - for those who have one

    return (None, profile) if isinstance(profile, MeterProfile) else (profile, None)


def _edition(protocol: str, meter: "MeterProfile | None") -> "Edition":
    if protocol == "auto" and meter is not None:
        return meter.edition
    return "dlt645-1997" if protocol == "dlt645-1997" else "dlt645-2007"


def _request_bytes(text: str) -> bytes:
    raw = bytes_from_text(text, any_start=True)
    if not is_request(raw):
        raise NotARequestError(
            f"{raw.hex(' ').upper()} is no request to read registers: Modbus RTU has eight bytes, "
            "the last two a CRC, Modbus TCP twelve"
        )
    return raw


def _explain_any(text: str, lang: str) -> list[dict[str, Any]]:
    """As the protocol that explains most of the bytes; DL/T 645 where nothing tells."""
    try:
        modbus = bytes_from_text(text, any_start=True)
    except NoHexError:
        return explain_dlt645(bytes_from_text(text), lang=lang)
    try:
        found = explain_dlt645(bytes_from_text(text), lang=lang)
    except NoHexError:
        return explain_modbus(modbus, lang=lang)
    dlt645_bytes = sum(len(one["hex"]) // 2 for one in found if one["valid"])
    if max(good_bytes(modbus, tcp=tcp) for tcp in (False, True)) > dlt645_bytes:
        return explain_modbus(modbus, lang=lang)
    is_dlt645 = any(one["protocol"] is not None for one in found)
    if not is_dlt645 and looks_like_modbus(modbus):
        return explain_modbus(modbus, lang=lang)
    return found


def _bytes_of_line(line: str, *, any_start: bool) -> bytes:
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
    groups = _any_groups(tokens) if any_start else _groups(tokens)
    return b"".join(bytes.fromhex(group) for group in groups)


def _tokens(line: str) -> list[str]:
    """The words of a line, hex without its dress (`0x`, `\\x`, `H`, marks between bytes)."""
    line = line.replace("\\x", " ").replace("|", " ")
    line = re.sub(r"\bb(?=['\"])", " ", line)  # b'...' of Python
    line = _BRACKETS.sub(f" {_BREAK} ", line)
    return [plain for word in _WORDS.findall(line) if (plain := _plain(word))]


def _plain(word: str) -> str:
    word = word.strip("=.:-_")
    tail = word.rpartition("=")[2]
    if _JOINED.fullmatch(tail) or (_LONG.fullmatch(tail) and not tail.isdecimal()):
        word = tail  # data=0104...
    word = re.sub(r"(?i)0x([0-9a-f](?![0-9a-f]))?", lambda m: f"0{m[1]}" if m[1] else "", word)
    if re.fullmatch(r"[0-9A-Fa-f]{2}[hH]", word):
        word = word[:-1]
    if _JOINED.fullmatch(word):
        word = re.sub(r"[^0-9A-Fa-f]", "", word)
    return word


def _groups(tokens: list[str]) -> list[str]:
    """The runs of hex in a line that also holds other text."""
    runs = _runs(tokens)
    begun = [run for run in map(_from_start, runs) if _size(run) >= _GROUP_BYTES_MIN]
    if begun:
        return ["".join(run) for run in begun]
    # The rest of a frame whose beginning stands in another line.
    others = [run for run in runs if len(run) >= _GROUP_BYTES_MIN or _size(run) >= _TOKEN_BYTES_MIN]
    longest = max(others, key=_size, default=[])
    return ["".join(longest)] if longest else []


def _any_groups(tokens: list[str]) -> list[str]:
    """The same where a frame may begin with any byte."""
    return ["".join(run) for run in _runs(tokens) if _can_be_bytes(run)]


def _can_be_bytes(run: list[str]) -> bool:
    if len(run) >= _GROUP_BYTES_MIN:
        return True
    digits_alone = all(token.isdecimal() for token in run)
    return _size(run) >= (_WORD_OF_DIGITS_BYTES_MIN if digits_alone else _WORD_BYTES_MIN)


def _runs(tokens: list[str]) -> list[list[str]]:
    runs: list[list[str]] = [[]]
    for token in tokens:
        if _DIGITS.fullmatch(token) and len(token) % 2 == 0:
            runs[-1].append(token.upper())
        else:
            runs += [[found.upper()] for found in _BURIED_HEX.findall(token)]
            runs.append([])
    return runs


def _from_start(run: list[str]) -> list[str]:
    """A run from the first token on that can begin a frame; empty when none can."""
    for at, token in enumerate(run):
        if token.startswith(_FRAME_STARTS):
            return run[at:]
    return []


def _size(run: list[str]) -> int:
    return sum(len(token) for token in run) // 2
