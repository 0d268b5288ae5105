"""What a database's answer means for what was sent. Pure, the same for every dialect."""

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

from headend.domain.clock import to_ms

TEXT_CHARS_MAX = 500
RETRY_AFTER_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class Written:
    """The database says that it has everything."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """A passing fault: the same bytes again, later. `big`: a smaller request may do better."""

    reason: str
    retry_after_s: float | None = None
    big: bool = False


@dataclass(frozen=True, slots=True)
class BadLines:
    """At least one line is refused for good. The others may be there or not."""

    text: str
    status: int


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request is too long; nothing of it is there."""

    text: str
    status: int


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Nothing will be taken until a person changes something."""

    text: str


Outcome = Written | TryAgain | BadLines | TooLarge | Misconfigured


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a write. Header names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def judge(answer: Answer, *, path: str, now_ms: int) -> Outcome:
    """What an answer to a write to `path` means."""
    status = answer.status
    text = answer_text(answer)
    if status == 204:
        return Written()
    if status in (408, 425, 429) or status >= 500:
        return TryAgain(f"answer {status}: {text}", _retry_after_s(answer, now_ms))
    if status == 413:
        return TooLarge(text, status)
    if status in (200, 201, 400, 422):
        if _speaks_of_lines(answer):
            return BadLines(text, status)
        return Misconfigured(
            f"answer {status}, and not as InfluxDB gives it: {text}; look at the url, http or https"
        )
    return Misconfigured(_what_to_do(answer, text, path))


def _speaks_of_lines(answer: Answer) -> bool:
    """A refusal in the database's own form.

    Whatever else stands at an address (a proxy, a TLS port that is spoken to without) may answer
    400 to everything: no reading is to be given up for that. 201 is a partial write.
    """
    if answer.status == 200:
        return False
    headers = answer.headers
    if "x-influxdb-error" in headers or "x-influxdb-version" in headers:
        return True
    try:
        found = json.loads(answer.body)
    except ValueError:
        return False
    return isinstance(found, dict) and bool(found.keys() & {"error", "message"})


def _what_to_do(answer: Answer, text: str, path: str) -> str:
    status = answer.status
    if status == 404 and path.startswith("/api/v2"):
        version = answer.headers.get("x-influxdb-version", "")
        if version.lstrip("v").startswith("1."):
            return f"this server is InfluxDB {version}, which has no {path}: use kind influxdb1"
    if status in (401, 403):
        return f"access refused (answer {status}): {text}"
    if 300 <= status < 400:
        where = answer.headers.get("location", "another address")[:200]
        return f"the server sends us to {where} (answer {status}): put the right url"
    return f"answer {status}: {text}"


def answer_text(answer: Answer) -> str:
    """The server's own words, bounded and printable."""
    text = answer.body.decode(errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        text = str(found.get("error") or found.get("message") or text)
    text = text.strip() or answer.headers.get("x-influxdb-error", "") or "no text"
    return "".join(c if c.isprintable() else " " for c in text[:TEXT_CHARS_MAX])


def _retry_after_s(answer: Answer, now_ms: int) -> float | None:
    """Retry-After in seconds, bounded; a date counts from `now_ms`."""
    told = answer.headers.get("retry-after", "").strip()
    if not told:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(told)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (to_ms(when) - now_ms) / 1000
    if not seconds >= 0:  # NaN too
        return None
    return min(seconds, RETRY_AFTER_MAX_S)
