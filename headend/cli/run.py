"""`headend run`: the daemon in the foreground, for systemd and for people."""

import argparse
import asyncio
import faulthandler
import gc
import logging
import signal
import sys
from pathlib import Path

from headend.cli.output import add_config
from headend.notify import Notifier

GC_AFTER_OBJECTS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend run`."""
    add_config(parser)
    parser.add_argument(
        "--log", choices=("debug", "info", "warning"), default="info", help="how much to log"
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; a clean end is exit code 0."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it
    from headend.daemon import run_daemon  # noqa: PLC0415

    log_to_stderr(args.log)
    config = load_config(Path(args.config))
    notifier = service_manager()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await run_daemon(config, stop=stop, ready=_ready, notifier=notifier)

    asyncio.run(serve())
    return 0


def _ready() -> None:
    settle_memory()
    print("READY", flush=True)


def service_manager() -> Notifier:
    """The service manager this process was started by, if it was.

    Its watchdog ends a process that hangs with SIGABRT: where every thread was is then told.
    """
    notifier = Notifier.from_environment()
    if notifier.watchdog_s is not None:
        faulthandler.enable()
    return notifier


def settle_memory() -> None:
    """What is there now stays: the collector need not go through it again and again.

    A reading leaves no cycles behind and is dropped by its counts, so the collector runs rarely;
    what it is still for (an exception that holds its own frame) is rare too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_AFTER_OBJECTS, *gc.get_threshold()[1:])


def log_to_stderr(level: str) -> None:
    """Our own log lines at `level`, other libraries' warnings, all to stderr."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("headend").setLevel(level.upper())
