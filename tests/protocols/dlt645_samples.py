"""The captured and constructed frames of `tests/data/dlt645_vectors.yaml`."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parent.parent / "data" / "dlt645_vectors.yaml"
WAKE_UP = b"\xfe"


@cache
def document() -> dict[str, Any]:
    return yaml.load(PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def frames() -> list[dict[str, Any]]:
    return document()["frames"]


def negatives() -> list[dict[str, Any]]:
    return document()["negative"]


def by_id() -> dict[str, dict[str, Any]]:
    return {sample["id"]: sample for sample in frames()}


def raw_of(sample: dict[str, Any]) -> bytes:
    """The frame without its wake-up bytes."""
    return bytes.fromhex(sample["hex"])[sample["fe"] :]


def feeds(data: bytes) -> list[list[bytes]]:
    """Ways the same bytes can come: whole, one by one, in two, in pieces of seven."""
    return [
        [data],
        [data[at : at + 1] for at in range(len(data))],
        [data[: len(data) // 2], data[len(data) // 2 :]],
        [data[at : at + 7] for at in range(0, len(data), 7)],
    ]


def forged(address: str, control: int, data: bytes = b"") -> bytes:
    """Any frame at all, those that the codec refuses to build among them."""
    body = b"\x68" + bytes.fromhex(address)[::-1] + bytes((0x68, control, len(data)))
    body += bytes((byte + 0x33) & 0xFF for byte in data)
    return body + bytes((sum(body) & 0xFF, 0x16))
