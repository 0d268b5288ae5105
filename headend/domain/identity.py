"""What makes a reading the same reading everywhere (contract: the feed, "Identity").

Both ends of the feed compute ids with this module, so compact records need not carry them.
The text that is hashed is fixed for ever; a change would give every old reading a new id.
"""

import json
from decimal import Decimal
from hashlib import sha256
from typing import Any

READ_ID_HEX_CHARS = 32


def canonical_number(value: Decimal | None) -> str:
    """One text for one number: 1, 1.0 and 1.00 are `1`; no exponent; -0 is `0`; None is empty."""
    if value is None:
        return ""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def content_text(
    value: Decimal | None, unit: str, status: str, verdict: str, multiplier: Decimal, side: str
) -> str:
    """The content of a reading as one text: equal text = equal content = no new revision."""
    return "|".join(
        (canonical_number(value), unit, status, verdict, canonical_number(multiplier), side)
    )


def read_id(
    meter: str, point: str, time_ms: int, interval_s: int | None, revision: int, content: str
) -> str:
    """The id of one revision of one reading: 32 hex digits of SHA-256 over key, revision, content.

    The head-end, the way it came and the due point stay out of it.
    """
    interval = "" if interval_s is None else interval_s
    text = f"{meter}\n{point}\n{time_ms}\n{interval}\n{revision}\n{content}"
    return sha256(text.encode()).hexdigest()[:READ_ID_HEX_CHARS]


def event_id(kind: str, at_ms: int, fields: dict[str, Any]) -> str:
    """The identity of an event: 32 hex digits of SHA-256 over what it says."""
    text = json.dumps([kind, at_ms, fields], sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:READ_ID_HEX_CHARS]
