"""`headend modbus skeleton`: a profile begun from a device's registers, or from a dump of them."""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from headend.cli.main import EXIT_NOT_GOOD, EXIT_OK
from headend.cli.modbus import over_link
from headend.cli.output import language, print_json, say
from headend.domain.errors import ConfigError
from headend.drivers.modbus_commission import Probe, dump, runs_of, stretches
from protocols.modbus.skeleton import DumpRun, skeleton

SCHEMA = "modbus_skeleton/1"
REGISTERS_MAX = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_LINE = re.compile(r"(?:([34]):)?(0x[0-9a-fA-F]+|\d+):\s*(.*)")
_MBPOLL = re.compile(r"\[(\d+)\]:\s*(0x[0-9a-fA-F]+|-?\d+)\b.*")

_WORDS = {
    "en": {
        "came": "{came} registers came, {refused} are refused",
        "guessed": "{rows} rows are guessed; hold them against the maker's table, then give the "
        "others names",
        "nothing": "nothing was guessed: no voltages and no frequency in these registers",
    },
    "zh": {
        "came": "读到 {came} 个寄存器，{refused} 个被拒绝",
        "guessed": "猜出 {rows} 行；请对照厂家寄存器表核对，再为其余寄存器命名",
        "nothing": "没有猜出任何点：这些寄存器中没有电压和频率",
    },
}


def run(args: argparse.Namespace) -> int:
    """0: rows were guessed; 1: none; 2: wrong options; 3: the device fell silent; 4: no port."""
    if not _NAME.fullmatch(args.name):
        hint = "small letters, digits and underscores, such as my_meter"
        raise ConfigError(f"--name {args.name} is no profile's id", hint=hint)
    if args.dump is not None:
        if args.link is not None:
            raise ConfigError("--dump and --link exclude each other")
        runs = read_dump(Path(args.dump), args.function or 3)
        return _finish(args, runs, refused=0)
    if args.link is None or args.first is None or args.last is None:
        hint = "--link L --unit N --from R --to R, or --dump FILE"
        raise ConfigError("which registers?", hint=hint)
    if not 0 <= args.last - args.first < REGISTERS_MAX:
        raise ConfigError(
            f"--from {args.first} --to {args.last}: at most {REGISTERS_MAX} registers, ascending"
        )

    async def work(probe: Probe) -> int:
        function = args.function or 3
        spans = stretches(function, args.first, args.last, args.count)
        found = [one async for one in dump(probe, function, spans)]
        runs = runs_of(found)
        refused = sum(one.span.count for one in found if one.words is None)
        return _finish(args, runs, refused)

    return over_link(args, work)


def _finish(args: argparse.Namespace, runs: list[DumpRun], refused: int) -> int:
    if args.save_dump is not None:
        Path(args.save_dump).write_text(dump_text(runs), encoding="utf-8")
    text = skeleton(runs, name=args.name, device=args.device or args.name)
    rows = sum(line.startswith("  - {point:") for line in text.splitlines())
    came = sum(len(run.words) for run in runs)
    if args.json:
        print_json(
            {
                "schema": SCHEMA,
                "name": args.name,
                "registers": came,
                "refused": refused,
                "guessed": rows,
                "profile": text,
            }
        )
    else:
        print(text, end="")
        words = _WORDS[language(args.lang)]
        say(words["came"].format(came=came, refused=refused))
        say(words["guessed" if rows else "nothing"].format(rows=rows))
    return EXIT_OK if rows else EXIT_NOT_GOOD


def dump_text(runs: Iterable[DumpRun]) -> str:
    """Runs as `read_dump` takes them, at most eight registers a line."""
    lines = []
    for run in runs:
        for at in range(0, len(run.words), 8):
            words = " ".join(f"0x{word:04X}" for word in run.words[at : at + 8])
            lines.append(f"{run.function}:{run.address + at}: {words}")
    return "\n".join(lines) + "\n"


def read_dump(path: Path, function: int) -> list[DumpRun]:
    """The registers of a dump; ConfigError with the line that cannot be read.

    `function`: of lines that name none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=str(path)) from error
    held: dict[tuple[int, int], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.partition("#")[0].strip()
        if not bare or (not bare[0].isdigit() and not bare.startswith("[")):
            continue  # what mbpoll says of itself
        try:
            _take_line(bare, function, held)
        except ValueError as error:
            hint = "4:72: 0x4640 0xE6AE"
            raise ConfigError(str(error), file=str(path), line=number, hint=hint) from error
    if not held:
        raise ConfigError("there is no register in it", file=str(path), hint="4:72: 0x4640 0xE6AE")
    runs: list[DumpRun] = []
    for (of, address), word in sorted(held.items()):
        last = runs[-1] if runs else None
        if last is not None and (last.function, last.address + len(last.words)) == (of, address):
            runs[-1] = DumpRun(of, last.address, (*last.words, word))
        else:
            runs.append(DumpRun(of, address, (word,)))
    return runs


def _take_line(bare: str, function: int, held: dict[tuple[int, int], int]) -> None:
    """The registers of one line; ValueError for what is none."""
    mbpoll = _MBPOLL.fullmatch(bare)
    if mbpoll is not None:
        words, first, of = [mbpoll[2]], int(mbpoll[1]), function
    else:
        line = _LINE.fullmatch(bare)
        if line is None:
            raise ValueError(f"{bare[:40]!r} is no line of registers")
        words, first = line[3].split(), int(line[2], 0)
        of = function if line[1] is None else int(line[1])
    for at, text in enumerate(words, start=first):
        value = int(text, 0)
        if not -0x8000 <= value <= 0xFFFF or not 0 <= at <= 0xFFFF:
            raise ValueError(f"register {at} cannot hold {text}")
        if len(held) >= REGISTERS_MAX:
            raise ValueError(f"more than {REGISTERS_MAX} registers")
        held[of, at] = value & 0xFFFF
