"""What commands share for speaking: tables, JSON lines, colour, language, running async code."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

RESET = "\x1b[0m"
COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "dim": "\x1b[2m"}


def add_json(parser: argparse.ArgumentParser) -> None:
    """The `--json` option, the same everywhere."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")


def add_lang(parser: argparse.ArgumentParser) -> None:
    """The `--lang` option, the same everywhere."""
    parser.add_argument("--lang", choices=("en", "zh"), help="language of labels (default: locale)")


def add_config(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The `--config` option, the same everywhere."""
    parser.add_argument("--config", metavar="FILE", required=required, help="configuration file")


def language(chosen: str | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """`en` or `zh`: what was chosen, else what the locale says."""
    if chosen is not None:
        return chosen
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environment.get(name):
            return "zh" if environment[name].lower().startswith("zh") else "en"
    return "en"


def print_json(value: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """One JSON object on one line, flushed: a program may be waiting for it."""
    print(json.dumps(value, ensure_ascii=False), file=stream or sys.stdout, flush=True)


def say(text: str) -> None:
    """Progress or a warning: to stderr, never mixed with results."""
    print(text, file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """Text from a device or a file made safe for a terminal: control characters are shown."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def colour(text: str, name: str, stream: TextIO | None = None) -> str:
    """The text in a colour, when the stream is a terminal that wants it."""
    return f"{COLOURS[name]}{text}{RESET}" if colour_wanted(stream or sys.stdout) else text


def colour_wanted(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """No colour in pipes, with NO_COLOR set, or on a dumb terminal."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return stream.isatty()


def cells(text: str) -> int:
    """Terminal columns a text takes: wide and full-width characters take two."""
    width = 0
    for c in text:
        if unicodedata.combining(c):
            continue
        width += 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1
    return width


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> str:
    """Aligned columns with two spaces between; columns in `right` are right-aligned."""
    lines = [list(headers), *[list(row) for row in rows]]
    widths = [max(cells(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "  ".join(
            " " * (widths[i] - cells(cell)) + cell
            if i in right
            else cell + " " * (widths[i] - cells(cell))
            for i, cell in enumerate(line)
        ).rstrip()
        for line in lines
    )


def run_async(work: Callable[[], Awaitable[int]]) -> int:
    """Run a coroutine to its exit code. SIGTERM cancels it, as Ctrl-C does: ports close first."""

    async def guarded() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        with contextlib.suppress(NotImplementedError):  # no such signals on this platform
            loop.add_signal_handler(signal.SIGTERM, stop)
        try:
            return await work()
        except asyncio.CancelledError:
            if not stopped:
                raise
            return 128 + signal.SIGTERM

    return asyncio.run(guarded())
