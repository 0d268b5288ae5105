"""`headend frame`: explains frames, byte by byte."""

import argparse
import sys
from typing import Any

from headend.cli.output import add_json, add_lang, colour, language, print_json, say, table
from headend.diagnostics.frame import PROTOCOLS, NoHexError, explain_text

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
    add_json(parser)
    add_lang(parser)


def run(args: argparse.Namespace) -> int:
    """0 when everything given is whole, good frames; 1 when something is not; 2 without any hex."""
    lang = language(args.lang)
    words = [sys.stdin.read() if word == "-" else word for word in args.hex]
    # Words of the shell are pieces of one line, unless they are lines themselves.
    text = ("\n" if any(len(word.split()) > 1 for word in words) else " ").join(words)
    try:
        found = explain_text(text, protocol=args.protocol, lang=lang)
    except NoHexError as error:
        say(f"headend frame: {error}")
        return EXIT_USAGE
    for index, one in enumerate(found):
        if args.json:
            print_json(one)
        else:
            if index:
                print()
            print(_text(one, lang))
    good = all(one["valid"] and not one["errors"] for one in found)
    return EXIT_OK if good else EXIT_NOT_GOOD


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
    rows = [
        (
            str(part["offset"]),
            _spaced(part["raw"]),
            _spaced(part.get("data", "")),
            part["name"],
            part["meaning"],
        )
        for part in one["parts"]
    ]
    headers = (words["byte"], words["raw"], words["data"], words["part"], words["meaning"])
    text = table(headers, rows, right=frozenset({0}))
    return "\n".join(f"  {line}" for line in text.splitlines())


def _spaced(digits: str) -> str:
    """Hex with a space between bytes; long ones in the middle left out, their count told."""
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    if len(pairs) > 16:
        pairs = [*pairs[:12], f"… ({len(pairs)})"]
    return " ".join(pairs)
