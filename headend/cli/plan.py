"""`headend plan`: whether every bus can read what its plans ask for, with the arithmetic."""

import argparse
from pathlib import Path

from headend.acquisition.bus_plan import BusPlan, PlannedRead, clock_text
from headend.cli.output import add_config, add_json, add_lang, language, print_json, table

EPILOG = """A bus fits when at every moment of the day everything can be read in time: a live value
within the plan's tolerance of its instant, a daily freeze within its window. What counts: the bytes
of each request and reply at the line's speed, the pause before each (gap_ms), what meters think
(as measured, where the journal has answers of the last two days; else turnaround_ms, 100 unless the
bus says otherwise), values read twice where the link cannot see parity, and requests without an
answer (loss_percent, 1 unless the bus says otherwise). The daemon does not poll a bus that does not
fit unless buses.<name>.allow_overload says so."""

_WORDS = {
    "en": {
        "bus": "bus", "meters": "meters", "cycle": "cycle", "needs": "needs", "share": "share",
        "verdict": "", "fits": "fits", "not": "DOES NOT FIT",
        "fullest": "fullest moment: from {at} on {needs} s are due within {within} s",
        "round": "one round {round} s, and {retries} s for requests without an answer",
        "helps": "each of these alone would make it fit:",
        "every": "no interval below {value}", "baud": "{value} Bd",
        "parity_seen": "a link that sees parity (no second reads)",
        "meters_max": "{value} meters on this bus",
        "meter": "meter", "plan": "plan", "when": "when", "requests": "requests", "bytes": "bytes",
        "time": "time", "daily": "daily {at}", "each": "every {every} s", "twice": "twice",
        "blocks": "Modbus requests", "function": "function", "registers": "registers",
        "unused": "unused", "points": "points",
    },
    "zh": {
        "bus": "总线", "meters": "电表", "cycle": "周期", "needs": "所需", "share": "占用",
        "verdict": "", "fits": "够用", "not": "时间不够",
        "fullest": "最忙时刻：{at} 起，{within} 秒内须完成 {needs} 秒的通信",
        "round": "一轮 {round} 秒，无应答请求另需 {retries} 秒",
        "helps": "以下任一改动即可满足：",
        "every": "采集间隔不小于 {value}", "baud": "波特率 {value}",
        "parity_seen": "改用可见校验位的链路（无需读两次）",
        "meters_max": "本总线至多 {value} 块表",
        "meter": "电表", "plan": "方案", "when": "时间", "requests": "请求", "bytes": "字节",
        "time": "用时", "daily": "每日 {at}", "each": "每 {every} 秒", "twice": "两次",
        "blocks": "Modbus 请求", "function": "功能码", "registers": "寄存器",
        "unused": "未用", "points": "点",
    },
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend plan`."""
    add_config(parser)
    add_json(parser)
    add_lang(parser)
    parser.add_argument("--bus", metavar="NAME", help="this bus alone")
    parser.add_argument(
        "--reads", action="store_true", help="every request of every meter as well (--json: always)"
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Print each bus's plan; 1 when one does not fit."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it
    from headend.domain.errors import ConfigError  # noqa: PLC0415
    from headend.planning import bus_plans, measured_delays  # noqa: PLC0415

    config = load_config(Path(args.config))
    if args.bus is not None and args.bus not in config.buses:
        raise ConfigError(f"there is no bus {args.bus}", hint=f"known: {', '.join(config.buses)}")
    measured = measured_delays(config)
    found = bus_plans(config, measured=measured)
    plans = [plan for plan in found if args.bus in (None, plan.bus)]
    if args.json:
        for plan in plans:
            print_json(plan.to_json())
    else:
        _show(plans, language(args.lang), reads=args.reads)
    return 0 if all(plan.load.fits for plan in plans) else 1


def _show(plans: list[BusPlan], lang: str, *, reads: bool) -> None:
    words = _WORDS[lang]
    head = tuple(words[key] for key in ("bus", "meters", "cycle", "needs", "share", "verdict"))
    rows = [
        (
            plan.bus,
            str(plan.meters),
            f"{plan.load.cycle_s} s",
            f"{plan.load.needs_s:.1f} s",
            f"{plan.load.share * 100:.1f} %",
            words["fits"] if plan.load.fits else words["not"],
        )
        for plan in plans
    ]
    print(table(head, rows, right=frozenset({1, 2, 3, 4})))
    for plan in plans:
        if reads or not plan.load.fits:
            _explain(plan, words)
        if reads:
            _requests(plan, words)


def _explain(plan: BusPlan, words: dict[str, str]) -> None:
    print(f"\n{plan.bus}")
    fullest = plan.load.fullest
    if fullest is not None:
        text = words["fullest"].format(
            at=clock_text(fullest.at_s),
            needs=f"{fullest.needs_s:.1f}",
            within=f"{fullest.within_s:.1f}",
        )
        print(f"  {text}")
    retries_s = sum(read.retries_s for read in plan.reads)
    print("  " + words["round"].format(round=f"{plan.round_s:.1f}", retries=f"{retries_s:.1f}"))
    if plan.advice:
        print(f"  {words['helps']}")
        for change, value in plan.advice:
            key = "meters_max" if change == "meters" else change
            print("    - " + words[key].format(value=value))


def _requests(plan: BusPlan, words: dict[str, str]) -> None:
    head = tuple(words[key] for key in ("meter", "plan", "when", "requests", "bytes", "time"))
    rows = [
        (
            read.meter,
            read.plan,
            _when(read, words),
            "  ".join(
                ask.what + (f" ({words['twice']})" if ask.times > 1 else "") for ask in read.asks
            ),
            str(
                sum(
                    ask.times * (ask.request_bytes + ask.reply_bytes + ask.reply_wakeup)
                    for ask in read.asks
                )
            ),
            f"{read.needs_s:.3f} s",
        )
        for read in plan.reads
    ]
    print(table(head, rows, right=frozenset({4, 5})))
    _blocks(plan, words)


def _blocks(plan: BusPlan, words: dict[str, str]) -> None:
    """What each Modbus request reads, and what it costs; nothing where there is none."""
    rows = []
    for read in plan.reads:
        for ask in read.asks:
            if not ask.points:
                continue
            function, address, count = ask.what.split(":")
            last = int(address) + int(count) - 1
            rows.append(
                (
                    read.meter,
                    function,
                    f"{address}..{last}",
                    str(ask.unused),
                    f"{read.pace.ask_s(ask) * 1000:.0f} ms",
                    " ".join(ask.points),
                )
            )
    if rows:
        keys = ("meter", "function", "registers", "unused", "time", "points")
        print(f"\n{words['blocks']}")
        print(table(tuple(words[key] for key in keys), rows, right=frozenset({1, 3, 4})))


def _when(read: PlannedRead, words: dict[str, str]) -> str:
    entry = read.entry
    if entry.interval_s is None:
        return words["daily"].format(at=entry.at.isoformat("minutes"))
    return words["each"].format(every=entry.interval_s)
