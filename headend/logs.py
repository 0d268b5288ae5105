"""The log of a process: one line a record, as text or as JSON, and never a storm of one thing.

Rooms write with `logging` alone. A record may carry `extra={"about": subject}`: what it is about,
for a storm to be told from news about another subject. What comes after the record was made is
here: its shape, what must not stand in it, and how often it is said.
"""

import asyncio
import json
import logging
import math
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO

from headend.domain.clock import Clock, SystemClock, iso

Format = Literal["text", "json"]
LEVELS = ("debug", "info", "warning")
FORMATS: tuple[Format, ...] = ("text", "json")

STORM_S = 60.0
STORM_LEVEL = logging.WARNING  # routine below it is not limited: it is left out by its level
KEYS_MAX = 512
TICK_S = 5.0
MESSAGE_CHARS_MAX = 4096

_SECRETS = (
    # the user's part of a URL
    (re.compile(r"(?<=://)[^/\s@]+@"), ""),
    # what is named like a secret; a key that ends in _file names a path and is not
    (
        re.compile(
            r"(?i)\b((?:[a-z]+_)?(?:password|passwd|token|secret|authorization|operator_code))"
            r"(\s*[=:]\s*|'\s*:\s*)('[^']*'|\"[^\"]*\"|(?:Bearer |Token |Basic )?[^\s,;)]+)"
        ),
        r"\1\2***",
    ),
)
_PAIR = re.compile(r"(?<![\w.])([a-z][a-z0-9_]*)=(\"[^\"]*\"|[^\s:;]*(?::[^\s:;]+)*)")
_PLACE = re.compile(r"(?:(?<![\w.])([a-z][a-z0-9_]*)=)?%(?!%)[#0\- +]*\d*(?:\.\d+)?[a-zA-Z]")


def cleaned(text: str) -> str:
    """A message as it may be shown: bounded, control characters visible, no secrets."""
    if len(text) > MESSAGE_CHARS_MAX:
        text = text[: MESSAGE_CHARS_MAX - 1] + "…"
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def without_secrets(text: str) -> str:
    """Several lines (a traceback) without secrets."""
    return "\n".join(cleaned(line) for line in text.splitlines())


class TextLines(logging.Formatter):
    """`time LEVEL logger message`, a traceback behind it.

    `journald`: the service manager's journal stamps lines itself and takes the priority from a
    prefix (`<3>`), one on each line.
    """

    def __init__(self, *, journald: bool = False) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """The lines of one record."""
        message = f"{record.levelname} {record.name} {cleaned(record.getMessage())}"
        trace = _trace(self, record)
        text = f"{message}\n{trace}" if trace else message
        if self._journald:
            prefix = f"<{_priority(record.levelno)}>"
            return "\n".join(prefix + line for line in text.splitlines())
        return f"{_stamp(record)} {text}"


class JsonLines(logging.Formatter):
    """One JSON object a line (docs/schemas/log.schema.json): the message and its pairs apart."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        message = cleaned(record.getMessage())
        shown: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "task": getattr(record, "task", None),
            "message": message,
            "fields": fields_of(record, message),
        }
        repeated = getattr(record, "repeated", None)
        if repeated is not None:
            shown["repeated"] = repeated
        trace = _trace(self, record)
        if trace:
            shown["trace"] = trace
        return json.dumps(shown, ensure_ascii=False)


def fields_of(record: logging.LogRecord, message: str) -> dict[str, object]:
    """The key=value pairs of a record, with whole values where the template names them."""
    fields: dict[str, object] = {}
    for match in _PAIR.finditer(message):
        fields.setdefault(match[1], match[2].strip('"'))
    args = record.args if isinstance(record.args, tuple) else ()
    places = list(_PLACE.finditer(str(record.msg)))
    if len(places) == len(args):
        for place, arg in zip(places, args, strict=True):
            if place[1] is not None:
                fields[place[1]] = _value(place[1], arg)
    return fields


def _value(name: str, arg: object) -> object:
    """A number as a number, where JSON has it; everything else as text."""
    text = f"{name}={arg}"
    shown = cleaned(text)
    if shown == text and isinstance(arg, int | float) and not isinstance(arg, bool):
        return arg if math.isfinite(arg) else str(arg)
    return shown[len(name) + 1 :]


@dataclass(slots=True)
class _Window:
    """A minute of one thing. `last`: the newest that was not said."""

    began_s: float
    count: int = 0
    last: logging.LogRecord | None = None


_Key = tuple[str, int, str, object]


class StormLimit(logging.Handler):
    """Hands records on, the same thing at most once a minute with how often it was repeated.

    The same thing: logger, level, template of the message, and what the record says it is `about`.
    The first is handed on at once; what follows within `every_s` is counted and told as one line
    `... (repeated N times in 60 s)`, at the next record, the next `tick`, or when this is closed.
    Only KEYS_MAX things are remembered: beyond that the oldest is told and forgotten.
    """

    def __init__(self, inner: logging.Handler, clock: Clock, *, every_s: float = STORM_S) -> None:
        super().__init__()
        self._inner = inner
        self._clock = clock
        self._every_s = every_s
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()  # the oldest first
        self._last_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """One record, by whatever thread."""
        record.task = _task_name()
        now_s = self._clock.monotonic()
        self._tell_over(now_s)
        if record.levelno < STORM_LEVEL:
            self._inner.handle(record)
            return
        key = (record.name, record.levelno, str(record.msg), getattr(record, "about", None))
        window = self._windows.get(key)
        if window is not None:
            window.count += 1
            window.last = record
            return
        while len(self._windows) >= KEYS_MAX:
            _key, oldest = self._windows.popitem(last=False)
            self._tell(oldest, now_s)
        self._windows[key] = _Window(now_s)
        self._inner.handle(record)

    def tick(self) -> None:
        """Tell what is over, when nobody has said anything since."""
        with self._held():
            self._tell_over(self._clock.monotonic())

    def close(self) -> None:
        """Tell what was not told yet."""
        with self._held():
            now_s = self._clock.monotonic()
            while self._windows:
                _key, window = self._windows.popitem(last=False)
                self._tell(window, now_s)
            self._inner.flush()
        super().close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _tell_over(self, now_s: float) -> None:
        """Minutes that have ended. Where something was repeated the next one begins with it."""
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now_s - window.began_s < self._every_s:
                return
            del self._windows[key]
            if window.count:
                self._tell(window, now_s)
                self._windows[key] = _Window(now_s)

    def _tell(self, window: _Window, now_s: float) -> None:
        last, count = window.last, window.count
        if last is None:
            return
        seconds = max(1, round(now_s - window.began_s))
        times = "once" if count == 1 else f"{count} times"
        text = f"{last.msg} … (repeated {times} in {seconds} s)"
        summary = logging.makeLogRecord(
            {**last.__dict__, "msg": text, "exc_info": None, "exc_text": None}
        )
        summary.repeated = {"count": count, "seconds": seconds}
        self._inner.handle(summary)


def under_journald(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream goes to the service manager's journal (JOURNAL_STREAM names it)."""
    said = environment.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return said == f"{found.st_dev}:{found.st_ino}"


@contextmanager
def logging_to(
    stream: TextIO | None = None,
    *,
    level: str = "info",
    style: Format = "text",
    clock: Clock | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[StormLimit]:
    """Our own records from `level` on and other libraries' warnings, to a stream (stderr).

    At the end everything that was counted is told, and logging is as it was.
    """
    stream = stream or sys.stderr
    inner = logging.StreamHandler(stream)
    journald = under_journald(stream, environment)
    inner.setFormatter(JsonLines() if style == "json" else TextLines(journald=journald))
    limit = StormLimit(inner, clock or SystemClock())
    root, ours = logging.getLogger(), logging.getLogger("headend")
    before = (root.level, ours.level)
    root.addHandler(limit)
    root.setLevel(logging.WARNING)
    ours.setLevel(level.upper())
    try:
        yield limit
    finally:
        root.removeHandler(limit)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        limit.close()


def keep_ticking(limit: StormLimit, loop: asyncio.AbstractEventLoop) -> None:
    """Have a storm that is over told though nothing else is said, as long as the loop runs."""

    def tick() -> None:
        limit.tick()
        loop.call_later(TICK_S, tick)

    tick()


def _task_name() -> str | None:
    """The task that speaks; outside the event loop the thread, None for the main one."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None:
        return task.get_name()
    thread = threading.current_thread()
    return None if thread is threading.main_thread() else thread.name


def _stamp(record: logging.LogRecord) -> str:
    """UTC with milliseconds, always of the same width."""
    text = iso(int(record.created * 1000))
    return text if "." in text else text.replace("Z", ".000Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return without_secrets(formatter.formatException(record.exc_info))
    return ""


def _priority(level: int) -> int:
    """The syslog priority of a level."""
    for least, priority in ((50, 2), (40, 3), (30, 4), (20, 6)):
        if level >= least:
            return priority
    return 7
