"""`headend run`: the daemon in the foreground, for systemd and for people."""

import argparse
import asyncio
import faulthandler
import gc
import signal
from pathlib import Path

from headend.cli.output import add_config
from headend.logs import FORMATS, LEVELS, keep_ticking, logging_to
from headend.notify import Notifier

GC_AFTER_OBJECTS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend run`."""
    add_config(parser)
    add_log(parser)


def add_log(parser: argparse.ArgumentParser) -> None:
    """The options of a process that stays: how much it logs, and how."""
    parser.add_argument("--log", choices=LEVELS, default="info", help="how much to log")
    parser.add_argument(
        "--log-format", choices=FORMATS, default="text", help="json: one object a line"
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; a clean end is exit code 0. SIGHUP: a new configuration."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it
    from headend.daemon import run_daemon  # noqa: PLC0415

    # One that comes while we stand up must neither end us nor be lost.
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: early.append(number))
    file = Path(args.config)
    config = load_config(file)
    notifier = service_manager()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        keep_ticking(limit, loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        reload = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        if early:
            reload.set()
        await run_daemon(
            config, stop=stop, ready=_ready, notifier=notifier, reload=reload, config_file=file
        )

    with logging_to(level=args.log, style=args.log_format) as limit:
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
