"""Reads line protocol back, written from InfluxDB's description of it and not from our encoder."""

from decimal import Decimal
from typing import Any, NamedTuple


class Parsed(NamedTuple):
    """One line. A value is an int (`5i`) or the Decimal of its digits: their types differ."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Any]
    time: int


class NotALine(ValueError):
    """The text is no line of this protocol."""


def parse_line(text: str) -> Parsed:
    """One line without its end."""
    if any(ord(c) < 32 or c == "\x7f" for c in text):
        raise NotALine(f"a control character: {text!r}")
    head, fields, time = _three(text)
    measurement, *tags = _split(head, ",")
    return Parsed(
        _plain(measurement, ", "),
        dict(_pair(tag) for tag in tags),
        {name: _number(value) for name, value in (_pair(one) for one in _split(fields, ","))},
        int(time),
    )


def parse_body(body: bytes) -> list[Parsed]:
    """Every line of a request."""
    return [parse_line(line) for line in body.decode().split("\n") if line]


def _three(text: str) -> tuple[str, str, str]:
    parts = _split(text, " ")
    if len(parts) != 3 or not all(parts):
        raise NotALine(f"{len(parts)} parts: {text!r}")
    return parts[0], parts[1], parts[2]


def _split(text: str, at: str) -> list[str]:
    """At a character that no backslash stands in front of."""
    parts, start = [], 0
    for i, char in enumerate(text):
        if char == at and (i == 0 or text[i - 1] != "\\"):
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts


def _pair(text: str) -> tuple[str, str]:
    parts = _split(text, "=")
    if len(parts) != 2 or not all(parts):
        raise NotALine(f"no name and value: {text!r}")
    return _plain(parts[0], ",= "), _plain(parts[1], ",= ")


def _plain(text: str, escaped: str) -> str:
    for char in escaped:
        text = text.replace("\\" + char, char)
    return text


def _number(text: str) -> int | Decimal:
    if text.endswith("i"):
        return int(text[:-1])
    if not text.lstrip("-").replace(".", "", 1).isdigit():
        raise NotALine(f"no plain number: {text!r}")
    return Decimal(text)
