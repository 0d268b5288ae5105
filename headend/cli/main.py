"""`headend`: finds the command, imports only its module, turns errors into exit codes.

A command is a module of this package with two functions:

- `add_arguments(parser: argparse.ArgumentParser) -> None`
- `run(args: argparse.Namespace) -> int`: the exit code; errors are raised, never printed there

Nothing heavy may be imported here: `headend --help` and shell completion must be instant.
"""

import argparse
import difflib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import NoReturn

from headend import __version__
from headend.domain.errors import (
    BusError,
    ConfigError,
    DeadlinePassed,
    HeadendError,
    NoAnswer,
    PolicyError,
    PortBusy,
    PortGone,
    Refused,
    ServerAway,
)
from protocols.errors import ErrorReply, ProtocolError

EXIT_OK = 0
EXIT_NOT_GOOD = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3
EXIT_PORT = 4
EXIT_REFUSED = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, the module of this package that holds it, a line for the help."""

    name: str
    module: str
    help: str


COMMANDS = (
    Command("demo", "demo", "a small simulated street with the real daemon and billing"),
    Command("drill", "drill", "an outage on a simulated street, and what it costs"),
    Command("run", "run", "the daemon"),
    Command("reload", "reload", "have the running daemon take its configuration anew"),
    Command("check", "check", "validate a configuration and show what would run"),
    Command("plan", "plan", "whether every bus can read what its plans ask for"),
    Command("frame", "frame", "explain frames byte by byte"),
    Command("read", "read", "read points of one meter now"),
    Command("modbus", "modbus", "put a Modbus device into service: what is wrong, a profile begun"),
    Command("simulate", "simulate", "a simulated meter on a pty or a TCP port"),
    Command("readings", "readings", "what the journal holds"),
    Command("due", "due", "what was due on a day and what became of it"),
    Command("backfill", "backfill", "fetch a meter's past from its own memory"),
    Command("alarms", "alarms", "what is wrong now, and what was"),
    Command("trace", "trace", "the way of one reading back to its bytes"),
    Command("feed", "feed", "cursors of the feed's consumers; set one back"),
    Command("timeseries", "timeseries", "databases for charts: how far each is, what it refused"),
    Command("clock", "clock", "meters' clocks: how far off, and set where control allows it"),
    Command("backup", "backup", "a copy of the journal while the daemon runs"),
    Command("restore", "restore", "bring a copy of the journal back"),
    Command("meter", "meter", "dated events of a meter, and what it was found to lack"),
    Command("billing", "billing", "the consumer side of the feed"),
    Command("vee", "vee", "run a file of validation cases"),
)

# First match wins: a subclass stands before its base.
_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigError, EXIT_USAGE),
    (NoAnswer, EXIT_NO_ANSWER),
    (DeadlinePassed, EXIT_NO_ANSWER),
    (PortGone, EXIT_PORT),
    (PortBusy, EXIT_PORT),
    (BusError, EXIT_PORT),
    (ServerAway, EXIT_PORT),
    (Refused, EXIT_REFUSED),
    (PolicyError, EXIT_REFUSED),
    (ErrorReply, EXIT_REFUSED),
    (HeadendError, EXIT_NOT_GOOD),
    (ProtocolError, EXIT_NOT_GOOD),
    (OSError, EXIT_PORT),
)


def exit_code(error: BaseException) -> int:
    """The exit code an error of ours stands for: 1 for one that has no code of its own."""
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    return EXIT_NOT_GOOD


def common_exit_code(codes: Sequence[int]) -> int:
    """Of several things asked: all alike gives that code, a mixture gives 1."""
    distinct = set(codes) or {EXIT_OK}
    return distinct.pop() if len(distinct) == 1 else EXIT_NOT_GOOD


def available() -> tuple[Command, ...]:
    """The commands whose module is installed."""
    return tuple(c for c in COMMANDS if importlib.util.find_spec(f"{__package__}.{c.module}"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Usage errors leave by SystemExit(2), as argparse does."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser, module = _parser(arguments)
    args = parser.parse_args(arguments)
    if module is None:
        parser.print_help()
        return EXIT_USAGE
    return _run(module, args)


def _parser(arguments: Sequence[str]) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    parser = argparse.ArgumentParser(
        prog="headend",
        description="Meter data head-end: reads electricity meters, keeps every reading, "
        "hands each to billing exactly once.",
        epilog="headend COMMAND --help tells more.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and end")
    commands = available()
    name = next((a for a in arguments if not a.startswith("-")), None)
    if name is not None and name not in {c.name for c in commands}:
        _unknown(parser, name, [c.name for c in commands])
    choices = parser.add_subparsers(metavar="COMMAND", dest="command")
    module = None
    for command in commands:
        sub = choices.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        if command.name == name:
            module = importlib.import_module(f"{__package__}.{command.module}")
            module.add_arguments(sub)
    return parser, module


def _unknown(parser: argparse.ArgumentParser, name: str, known: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
    parser.error(f"there is no command {name}{hint}")


class _Version(argparse.Action):
    """Prints the version and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_ignored: object) -> None:
        print(f"headend {__version__}")
        parser.exit(EXIT_OK)


def _run(module: ModuleType, args: argparse.Namespace) -> int:
    def terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
        # Unwinds like Ctrl-C, so that ports are closed and files are whole.
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        code: int = module.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain(args, "interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`): nothing more to say, and the interpreter
        # must not complain about it when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NOT_GOOD
    except (HeadendError, ProtocolError, OSError) as error:
        _complain(args, str(error) or type(error).__name__)
        return exit_code(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _complain(args: argparse.Namespace, message: str) -> None:
    for line in message.splitlines():
        print(f"headend {args.command}: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
