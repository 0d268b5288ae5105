"""`headend clock`: meters' clocks, through the running daemon: looked at, and set."""

import argparse
import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headend.cli.daemon_client import ask_daemon
from headend.cli.output import add_config, add_json, add_lang, clean, language, print_json, table

ASK_S = 120.0  # a meter, in a queue, twice and once more
EPILOG = """examples:
  headend clock list --config headend.yaml
  headend clock read M-0001 M-0002 --config headend.yaml
  headend clock set M-0001 --reason "drifted, ticket 4711" --config headend.yaml
  headend clock broadcast street-a --reason "monthly" --config headend.yaml
  headend clock trust --config headend.yaml

Setting is off until the configuration says `control: {enabled: true, password_file: ...}`. It needs
a reason, is never done near midnight, a full hour or across the edge of an interval, leaves small
differences alone and large ones to a person, and is read back. What was done, by whom and why is in
control_audit.jsonl in the data directory.

`trust` is about this machine's own clock: it says that it is right, where no time service does."""

_WELL = frozenset({"leave", "left", "set", "sync"})
_WORDS = {
    "en": {
        "meter": "meter", "outcome": "", "before": "offset", "after": "afterwards", "message": "",
        "leave": "right", "left": "left alone", "set": "set", "sync": "to be set",
        "ticket": "needs a person", "not_set": "NOT SET", "refused": "REFUSED",
        "password_refused": "PASSWORD REFUSED", "no_answer": "no answer",
        "unreadable": "unreadable", "stopped": "not tried", "interrupted": "interrupted",
    },
    "zh": {
        "meter": "电表", "outcome": "", "before": "偏差", "after": "之后", "message": "",
        "leave": "正确", "left": "无需校时", "set": "已校时", "sync": "需要校时",
        "ticket": "需要人工处理", "not_set": "未生效", "refused": "被拒绝",
        "password_refused": "密码被拒绝", "no_answer": "无应答",
        "unreadable": "读不出", "stopped": "未执行", "interrupted": "中断",
    },
}  # fmt: skip

TRUST_S = 30.0
_TRUST = {
    "en": ("this machine's clock is believed from now on", "it was believed already"),
    "zh": ("本机时钟即刻起视为可信", "本机时钟原已可信"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend clock`."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    read = what.add_parser("read", help="how far off meters' clocks are; looked at twice each")
    read.add_argument("meters", nargs="+", metavar="METER")
    setting = what.add_parser("set", help="set meters' clocks, with the password, one by one")
    setting.add_argument("meters", nargs="+", metavar="METER")
    setting.add_argument(
        "--however-small", action="store_true", help="a difference that the policy leaves alone too"
    )
    broadcast = what.add_parser("broadcast", help="give all 645 meters of a bus the time")
    broadcast.add_argument("bus", metavar="BUS")
    trust = what.add_parser("trust", help="say that this machine's own clock is right")
    listing = what.add_parser("list", help="what the daily measurements say; from the journal")
    listing.add_argument("meters", nargs="*", metavar="METER")
    for sub in (read, setting, broadcast, trust, listing):
        add_config(sub)
        add_json(sub)
        add_lang(sub)
    for sub in (setting, broadcast):
        sub.add_argument("--reason", required=True, help="why; it is kept")
    for sub in (setting, broadcast, trust):
        sub.add_argument("--by", default=getpass.getuser(), help="who does it (default: you)")


def run(args: argparse.Namespace) -> int:
    """Ask the daemon; 0 when every clock is right or was set, 1 otherwise, 5 when not allowed."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    if args.what == "list":
        from headend.cli import clock_list  # noqa: PLC0415 - the parser must not pay for it

        return clock_list.run(args, config)
    if args.what == "trust":
        return _trust(args, config.socket_path)
    request: dict[str, Any] = {"command": f"clock_{args.what}"}
    if args.what == "broadcast":
        request["bus"] = args.bus
        count = sum(meter.bus == args.bus for meter in config.meters)
    else:
        request["meters"] = args.meters
        count = len(args.meters)
    if args.what != "read":
        request |= {"by": args.by, "reason": args.reason}
    if args.what == "set":
        request["however_small"] = args.however_small
    answer = ask_daemon(config.socket_path, request, timeout_s=ASK_S * max(1, count))
    results = answer.get("results", [])
    if args.json:
        for result in results:
            print_json(result)
    else:
        _show(results, language(args.lang))
    good = all(result["outcome"] in _WELL for result in results)
    if args.what == "read":
        good = all(result["outcome"] == "leave" for result in results)
    return 0 if good else 1


def _trust(args: argparse.Namespace, socket: Path) -> int:
    """Vouch for this machine's clock."""
    answer = ask_daemon(socket, {"command": "clock_trust", "by": args.by}, timeout_s=TRUST_S)
    if args.json:
        print_json({key: value for key, value in answer.items() if key not in ("id", "ok")})
        return 0
    words = _TRUST[language(args.lang)]
    print(words[answer["was"] is None])
    return 0


def _show(results: Sequence[Mapping[str, Any]], lang: str) -> None:
    words = _WORDS[lang]
    rows = [
        (
            str(result["meter"]),
            _look(result["before"]),
            _look(result["after"]),
            words.get(str(result["outcome"]), str(result["outcome"])),
            clean(str(result["message"])),
        )
        for result in results
    ]
    head = tuple(words[key] for key in ("meter", "before", "after", "outcome", "message"))
    print(table(head, rows, right=frozenset({1, 2})))


def _look(look: Mapping[str, str] | None) -> str:
    if look is None:
        return "-"
    offset = look["offset_s"]
    sign = "" if offset.startswith("-") else "+"
    return f"{sign}{offset} ± {look['uncertainty_s']} s"
