"""Inputs that look like DL/T 645 and are wrong in every way: made anew from a seed and a number.

The number alone makes an input again, so a finding is told as one. Most inputs have a check value
that fits, because what is behind the check is what must stand them.
"""

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import yaml

from protocols.dlt645.catalogue import DIGITS_1997, lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VECTORS = Path(__file__).parents[1] / "data" / "dlt645_vectors.yaml"
CATALOGUES = Path(__file__).parents[2] / "protocols" / "dlt645"
INPUT_BYTES_MAX = 2000

OWN = "202600000017"
ADDRESSES = (OWN, OWN, OWN, "202600000018", "AAAAAAAAAAAA", "999999999999", "AAAAAAAA0017",
             "000000000000", "1A2B3C4D5E6F", "AA2600000017")  # fmt: skip
CONTROLS = (
    0x91, 0x91, 0x91, 0x91, 0xB1, 0x92, 0xB2, 0xD1, 0xD2, 0x93, 0x94, 0xD4, 0x11, 0x12, 0x13, 0x14,
    0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x03, 0x83, 0xC3, 0x08, 0x96, 0xD6, 0x97,
    0xD7, 0x98, 0xD8, 0x99, 0xD9, 0x9B, 0xDB, 0x9C, 0xDC, 0x9D, 0x81, 0x81, 0xA1, 0x82, 0xA2, 0xC1,
    0x01, 0x02, 0x04, 0x84, 0xC4, 0x0A, 0x8A, 0x0C, 0x8C, 0xCC, 0x0F, 0x8F, 0xCF, 0x10, 0x90,
)  # fmt: skip
BYTES = bytes.fromhex("00 01 09 0A 10 16 33 66 68 7F 80 91 99 AA B1 CC D1 E0 E5 FE FF")


def catalogue() -> list[str]:
    """Identifiers of both editions, one of each row and every block's neighbours."""
    found = []
    for name in ("catalogue_2007.csv", "catalogue_1997.csv", "records_2007.csv"):
        for line in (CATALOGUES / name).read_text(encoding="utf-8").splitlines()[1:]:
            di = line.split(",", 1)[0].split("[")[0].strip().upper()
            di = di.ljust(DIGITS_1997 if len(di) <= DIGITS_1997 else 8, "0")
            if set(di) <= set("0123456789ABCDEF") and len(di) in (DIGITS_1997, 8):
                found.append(di)
    return sorted(set(found))


def framed(address: str, control: int, data: bytes) -> bytes:
    """Any frame at all, with a check value that fits. `data` without the 33H."""
    body = b"\x68" + bytes.fromhex(address)[::-1] + bytes((0x68, control, len(data) & 0xFF))
    body += bytes((byte + 0x33) & 0xFF for byte in data)
    return body + bytes((sum(body) & 0xFF, 0x16))


class Inputs:
    """`make(number)` gives the same bytes for the same seed, always."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        document = yaml.load(VECTORS.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        self._samples = [bytes.fromhex(one["hex"]) for one in document["frames"]]
        for one in document["negative"]:
            self._samples += [bytes.fromhex(text) for text in _hexes(one)]
        self._dis = catalogue()
        self._lengths = {
            di: item.layout.length or item.layout.round_bytes * 5
            for di in self._dis
            if (item := lookup(di)) is not None and item.layout is not None
        }
        self._kinds: Sequence[Callable[[Random], bytes]] = (
            self._frame, self._frame, self._frame, self._frame, self._sample, self._sample,
            self._sample, self._load, self._load, self._stream, self._stream, _noise,
        )  # fmt: skip

    def rng(self, number: int) -> Random:
        """What decides about an input, and about how it is fed."""
        return Random(self._seed << 40 | number)

    def make(self, rng: Random) -> bytes:
        """One input, at most INPUT_BYTES_MAX long."""
        return rng.choice(self._kinds)(rng)[:INPUT_BYTES_MAX]

    # -- kinds

    def _frame(self, rng: Random) -> bytes:
        """A frame of its own making, content right, nearly right or anything."""
        di = rng.choice(self._dis)
        control = rng.choice(CONTROLS) if rng.random() < 0.95 else rng.randrange(256)
        raw = framed(rng.choice(ADDRESSES), control, self._data(rng, di, control)[:255])
        if rng.random() < 0.2:
            raw = _mended(mutated(rng, raw), rng)
        return b"\xfe" * rng.choice((0, 0, 1, 4)) + raw

    def _data(self, rng: Random, di: str, control: int) -> bytes:
        head = bytes.fromhex(di)[::-1]
        if control & 0x40:  # refusals
            return rng.randbytes(rng.choice((0, 1, 1, 1, 2, 3)))
        if not control & 0x80:  # what a master says: parameters behind the identifier
            return head + _payload(rng, rng.choice((0, 0, 1, 6, 8, 12, 16)))
        length = self._lengths.get(di, rng.randrange(20))
        if rng.random() < 0.25:
            length = max(0, length + rng.choice((-3, -1, 1, 2, 4, 40)))
        tail = rng.randbytes(1) if control & 0x1F in (0x02, 0x12) else b""
        return head + _payload(rng, length) + tail

    def _load(self, rng: Random) -> bytes:
        """Load records: classes of right and wrong length, separators there, missing, doubled."""
        number = rng.randrange(7)
        payload = b"".join(_record(rng, number) for _ in range(rng.choice((0, 1, 1, 2, 3))))
        if rng.random() < 0.3:
            payload = mutated(rng, payload)
        head = bytes((rng.randrange(3), 0x00, number, 0x06))
        control = rng.choice((0x91, 0x91, 0xB1, 0x92, 0xB2))
        tail = rng.randbytes(1) if control & 0x1F == 0x12 else b""
        return framed(rng.choice(ADDRESSES), control, (head + payload)[: 255 - len(tail)] + tail)

    def _sample(self, rng: Random) -> bytes:
        """A captured frame with a few changes."""
        raw = rng.choice(self._samples)
        for _ in range(rng.randrange(5)):
            raw = mutated(rng, raw)
        return _mended(raw, rng)

    def _stream(self, rng: Random) -> bytes:
        """Several things after each other, the ends cut off."""
        kinds = self._kinds[:9]
        pieces = []
        for _ in range(rng.randint(2, 6)):
            pieces.append(rng.choice(kinds)(rng))
            if rng.random() < 0.3:
                pieces.append(_noise(rng)[: rng.randrange(12)])
        stream = b"".join(pieces)
        if rng.random() < 0.3 and stream:
            stream = stream[rng.randrange(len(stream)) :][: rng.randrange(1, len(stream) + 1)]
        return stream


def _hexes(tree: object) -> list[str]:
    """Every text in a sample that is bytes."""
    if isinstance(tree, str):
        text = tree.replace(" ", "")
        is_hex = len(text) >= 8 and len(text) % 2 == 0
        return [text] if is_hex and set(text.upper()) <= set("0123456789ABCDEF") else []
    if isinstance(tree, dict):
        return [text for value in tree.values() for text in _hexes(value)]
    if isinstance(tree, list):
        return [text for value in tree for text in _hexes(value)]
    return []


def _payload(rng: Random, length: int) -> bytes:
    if not length:
        return b""
    how = rng.random()
    if how < 0.55:  # digits
        return _digits(rng, length)
    if how < 0.65:
        return rng.choice((b"\xff", b"\x00", b"\xaa", b"\xee", b"\x99")) * length
    if how < 0.75:
        raw = bytearray(_digits(rng, length))
        raw[rng.randrange(length)] = rng.choice(BYTES)
        return bytes(raw)
    if how < 0.85:  # texts
        return bytes(rng.choices(b" 0AZaz~\x00\x7f\x80", k=length))
    return rng.randbytes(length)


def _digits(rng: Random, length: int) -> bytes:
    return bytes.fromhex(f"{rng.randrange(100**length):0{2 * length}d}")


CLASS_BYTES = (17, 24, 8, 16, 16, 6)


def _record(rng: Random, number: int) -> bytes:
    when = f"{rng.randrange(60):02d}{rng.randrange(24):02d}{rng.randint(1, 31):02d}"
    when += f"{rng.randint(1, 12):02d}26" if rng.random() < 0.9 else "9926"
    body = b""
    for kind, length in enumerate(CLASS_BYTES, 1):
        if number in (0, kind) and rng.random() < 0.9:
            body += _payload(rng, length if rng.random() < 0.95 else rng.randrange(30))
        if number == 0 or rng.random() < 0.5:
            body += b"\xaa"
    start = b"\xa0\xa0" if rng.random() < 0.9 else rng.choice((b"\xe0\xe0", b"\xa0\xe0", b""))
    raw = start + bytes((len(body) & 0xFF,)) + bytes.fromhex(when) + body
    check = sum(raw) & 0xFF if rng.random() < 0.8 else rng.randrange(256)
    return raw + bytes((check, 0xE5 if rng.random() < 0.95 else rng.choice(BYTES)))


def _noise(rng: Random) -> bytes:
    """No frame, or only by chance."""
    how = rng.randrange(4)
    length = rng.choice((0, 1, 7, 20, 60, 300))
    if how == 0:
        return rng.randbytes(length)
    if how == 1:
        return bytes(rng.choices(BYTES, k=length))
    if how == 2:  # heads that ask for more and more
        head = b"\x68" + rng.randbytes(6) + b"\x68\x91" + rng.choice((b"\xff", b"\x68", b"\x10"))
        return head * (length // 10)
    return bytes(rng.choices(b"\x68\x68\x68\x16\xfe", k=length))


def mutated(rng: Random, raw: bytes) -> bytes:
    """One change."""
    if not raw:
        return rng.randbytes(3)
    made = bytearray(raw)
    at = rng.randrange(len(made))
    match rng.randrange(9):
        case 0:
            made[at] ^= 1 << rng.randrange(8)
        case 1:
            made[at] = rng.choice(BYTES)
        case 2:
            made[at:at] = rng.choices(BYTES, k=rng.randint(1, 4))
        case 3:
            del made[at : at + rng.randint(1, 4)]
        case 4:
            made[at:at] = made[at : at + rng.randint(1, 20)]
        case 5:
            made = made[at:] + made[:at]
        case 6:
            del made[at:]
        case 7:
            run = rng.randint(1, 12)
            made[at : at + run] = bytes((rng.choice(BYTES),)) * run
        case _:
            made[min(9, len(made) - 1)] = rng.randrange(256)
    return bytes(made)


def _mended(raw: bytes, rng: Random) -> bytes:
    """Length, check value and end made right again, most of the time: content is what counts."""
    at = raw.find(0x68)
    if rng.random() < 0.3 or at < 0 or len(raw) - at < 12:
        return raw
    body = bytearray(raw[at:-2][: 10 + 255])
    body[7] = 0x68
    body[9] = len(body) - 10
    return raw[:at] + bytes(body) + bytes((sum(body) & 0xFF, 0x16))
