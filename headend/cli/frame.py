"""`headend frame`: explains frames, byte by byte."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headend.cli.output import add_json, add_lang, colour, language, print_json, say, table
from headend.diagnostics.frame import PROTOCOLS, NoHexError, NotARequestError, explain_text

if TYPE_CHECKING:
    from protocols.modbus.register import DeviceProfile

EXIT_OK = 0
EXIT_NOT_GOOD = 1
EXIT_USAGE = 2

_LABELS = {
    "en": {
        "byte": "byte",
        "raw": "raw",
        "data": "-33H",
        "part": "part",
        "meaning": "meaning",
        "good": "whole and good",
        "bad": "not good",
        "none": "no frame",
        "at": "at byte",
        "values": "values",
        "null": "no value",
    },
    "zh": {
        "byte": "偏移",
        "raw": "原始",
        "data": "-33H",
        "part": "部分",
        "meaning": "含义",
        "good": "完整, 正确",
        "bad": "有错误",
        "none": "不是帧",
        "at": "偏移",
        "values": "数值",
        "null": "无数据",
    },
}

_COLUMNS = ("byte", "raw", "part", "meaning")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "hex",
        nargs="+",
        metavar="HEX",
        help="bytes in hex: spaces, commas, 0x, whole log lines; - reads them from stdin",
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="auto", help="whose frames these are"
    )
    parser.add_argument(
        "--profile", metavar="P", help="Modbus: the device's map of registers, name or file"
    )
    parser.add_argument(
        "--request", metavar="HEX", help="Modbus: the request that the frames answer"
    )
    add_json(parser)
    add_lang(parser)


def run(args: argparse.Namespace) -> int:
    """0 when everything given is whole, good frames; 1 when something is not; 2 without any hex."""
    lang = language(args.lang)
    words = [sys.stdin.read() if word == "-" else word for word in args.hex]
    # Words of the shell are pieces of one line, unless they are lines themselves.
    text = ("\n" if any(len(word.split()) > 1 for word in words) else " ").join(words)
    if args.protocol.startswith("dlt645") and (args.profile or args.request):
        say(f"headend frame: --profile and --request are of Modbus, not of {args.protocol}")
        return EXIT_USAGE
    profile = _profile(args.profile)
    try:
        found = explain_text(
            text, protocol=args.protocol, lang=lang, profile=profile, request=args.request
        )
    except (NoHexError, NotARequestError) as error:
        say(f"headend frame: {error}")
        return EXIT_USAGE
    for index, one in enumerate(found):
        if args.json:
            print_json(one)
        else:
            if index:
                print()
            print(_text(one, lang))
    replies = any(one["direction"] == "reply" for one in found)
    if profile is not None and replies and not any(one["values"] for one in found):
        say(
            "headend frame: which registers a reply holds, its request says: give it with --request"
        )
    good = all(one["valid"] and not one["errors"] for one in found)
    return EXIT_OK if good else EXIT_NOT_GOOD


def _profile(name: str | None) -> "DeviceProfile | None":
    """The named profile; ConfigError with everything that is wrong in it."""
    if name is None:
        return None
    # Only who asks for it pays for reading configuration files.
    from headend.config.profiles import load_profile  # noqa: PLC0415

    return load_profile(name, Path())


def _text(one: dict[str, Any], lang: str) -> str:
    """One object as people read it: a headline, the parts, the values, what is wrong."""
    words = _LABELS[lang]
    lines = [_headline(one, words)]
    if one["parts"]:
        lines.append(_parts(one, words))
    else:
        lines.append(f"  {one['hex']}")
    for value in one["values"]:
        text = words["null"] if value["value"] is None else f"{value['value']} {value['unit']}"
        when = f"  ({value['meter_time']})" if value.get("meter_time") else ""
        past = f"  [{value['snapshot']}]" if value["snapshot"] else ""
        lines.append(f"  {value['point']} = {text.rstrip()}{when}{past}")
    lines += [f"  {colour('!', 'red')} {error['message']}" for error in one["errors"]]
    return "\n".join(lines)


def _headline(one: dict[str, Any], words: dict[str, str]) -> str:
    if one["protocol"] is None:
        return f"{words['none']}, {words['at']} {one['offset']}"
    good = one["valid"] and not one["errors"]
    verdict = colour(words["good"], "green") if good else colour(words["bad"], "red")
    return f"{one['protocol']}, {words['at']} {one['offset']}: {verdict}"


def _parts(one: dict[str, Any], words: dict[str, str]) -> str:
    plain = one["protocol"].startswith("dlt645")  # it adds 33H to data bytes
    names = ("byte", "raw", "data", "part", "meaning") if plain else _COLUMNS
    rows = [
        [
            str(part["offset"]),
            _spaced(part["raw"]),
            *([_spaced(part.get("data", ""))] if plain else []),
            part["name"],
            part["meaning"],
        ]
        for part in one["parts"]
    ]
    text = table([words[name] for name in names], rows, right=frozenset({0}))
    return "\n".join(f"  {line}" for line in text.splitlines())


def _spaced(digits: str) -> str:
    """Hex with a space between bytes; long ones in the middle left out, their count told."""
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    if len(pairs) > 16:
        pairs = [*pairs[:12], f"… ({len(pairs)})"]
    return " ".join(pairs)
