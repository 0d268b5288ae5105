"""The frames of `tests/data/modbus_vectors.yaml` and the profiles of `config/devices`."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from protocols.checksum import crc16
from protocols.framing import Event, FrameFound, Framer, Match
from protocols.modbus.master import ReadRequest, delimiter_for, match, read_request
from protocols.modbus.profile import DeviceProfile, profile_from

ROOT = Path(__file__).parents[2]
READS = (3, 4)


@cache
def vectors() -> list[dict[str, Any]]:
    text = (ROOT / "tests" / "data" / "modbus_vectors.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader)["vectors"]


def vector(name: str) -> dict[str, Any]:
    return next(one for one in vectors() if one["id"] == name)


def raw_of(sample: dict[str, Any]) -> bytes:
    return bytes.fromhex(sample["hex"])


@cache
def profile(name: str) -> DeviceProfile:
    text = (ROOT / "config" / "devices" / f"{name}.yaml").read_text(encoding="utf-8")
    return profile_from(yaml.load(text, Loader=yaml.CSafeLoader), name=f"{name}.yaml")


PROFILES = tuple(sorted(path.stem for path in (ROOT / "config" / "devices").glob("*.yaml")))


def asked(sample: dict[str, Any]) -> ReadRequest:
    """The request that the bytes of a sample answer, as far as the sample tells."""
    told = sample.get("asked", {})
    tcp = sample["transport"] == "tcp"
    raw = raw_of(sample)
    begin = 7 if tcp else 0
    unit = told.get("unit", sample.get("unit", raw[begin - 1] if tcp else raw[0]))
    function = told.get("fc", sample.get("fc", 4))
    transaction = told.get("tid", sample.get("tid", 0)) if tcp else None
    count = told.get("count", sample.get("count", 2))
    return read_request(unit, function, told.get("addr", 0), count, transaction=transaction)


def feeds(data: bytes) -> list[list[bytes]]:
    """Ways the same bytes can come: whole, one by one, in two, in pieces of seven."""
    return [
        [data],
        [data[at : at + 1] for at in range(len(data))],
        [data[: len(data) // 2], data[len(data) // 2 :]],
        [data[at : at + 7] for at in range(0, len(data), 7)],
    ]


def events(request: ReadRequest, pieces: list[bytes], *, idle: bool = True) -> list[Event]:
    framer = Framer(delimiter_for(request))
    found = [event for piece in pieces for event in framer.feed(piece)]
    return found + (framer.idle() if idle else [])


def frames(found: list[Event]) -> list[bytes]:
    return [event.raw for event in found if isinstance(event, FrameFound)]


def answers(
    request: ReadRequest, pieces: list[bytes], *, idle: bool = True
) -> list[tuple[Match, bytes]]:
    """The whole frames of a stream, and what each is to the request."""
    found = frames(events(request, pieces, idle=idle))
    return [(match(request, raw), raw) for raw in found]


def with_crc(data: bytes) -> bytes:
    return data + crc16(data).to_bytes(2, "little")
