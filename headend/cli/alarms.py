"""`headend alarms`: what is wrong now, or was; while the daemon runs or not."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from headend.cli.journal_view import local
from headend.cli.output import (
    add_config,
    add_json,
    add_lang,
    clean,
    language,
    print_json,
    say,
    table,
)
from headend.domain.alarms import (
    KINDS,
    Episode,
    StandingAlarm,
    alarm_json,
    alarm_kind,
    episode_json,
    episodes,
    standing,
)
from headend.domain.meter import Event
from headend.journal import JournalReader

SEVERITIES_ZH = {"critical": "严重", "warning": "警告", "notice": "提示"}
HEADERS = {
    "en": ("SINCE", "UNTIL", "SEVERITY", "ALARM", "ABOUT", "WHAT"),
    "zh": ("开始", "结束", "级别", "告警", "对象", "说明"),
}
NONE = {"en": "no alarm stands", "zh": "当前没有告警"}
NONE_EVER = {"en": "there was no alarm", "zh": "没有任何告警记录"}
DO = {"en": "do", "zh": "处理"}
UNDER = {"en": "part of", "zh": "归于"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `headend alarms`."""
    add_config(parser)
    add_json(parser)
    add_lang(parser)
    parser.add_argument(
        "--all", action="store_true", help="those that are over too, as long as they are kept"
    )


def run(args: argparse.Namespace) -> int:
    """Print the alarms that stand, the most severe first; 0 whether there are any or not."""
    from headend.config import load_config  # noqa: PLC0415 - the parser must not pay for it

    config = load_config(Path(args.config))
    with JournalReader(config.journal_path) as journal:
        events = journal.events(kinds=KINDS)
    now = standing(events)
    before = _before(events) if args.all else []
    if args.json:
        for episode in before:
            print_json(episode_json(episode))
        for alarm in now:
            print_json(alarm_json(alarm))
        return 0
    lang = language(args.lang)
    if not now and not before:
        say((NONE_EVER if args.all else NONE)[lang])
        return 0
    rows = [_past_row(episode, config.zone, lang) for episode in before]
    rows += [_row(alarm, config.zone, lang) for alarm in now]
    print(table(HEADERS[lang], rows))
    for line in _advice(now, lang):
        print(line)
    return 0


def _before(events: Sequence[Event]) -> list[Episode]:
    """What is over, and what only told something."""
    return [
        one
        for one in episodes(events)
        if one.until_ms is not None or not alarm_kind(one.name).stands
    ]


def _row(alarm: StandingAlarm, zone: ZoneInfo, lang: str) -> tuple[str, ...]:
    what = str(alarm.fields.get("message") or alarm.fields.get("reason") or "")
    if alarm.under is not None:
        what = f"{UNDER[lang]} {alarm.under}: {what}"
    return (
        local(alarm.since_ms, zone),
        "",
        _severity(alarm.name, lang),
        f"{alarm.name} {alarm.kind.label(lang)}",
        clean(alarm.subject),
        clean(what),
    )


def _past_row(episode: Episode, zone: ZoneInfo, lang: str) -> tuple[str, ...]:
    fields = {**episode.fields, **(episode.ended or {})}
    more = [f"{key}={fields[key]}" for key in ("count", "flaps") if fields.get(key)]
    what = " ".join([str(fields.get("message") or fields.get("reason") or ""), *more])
    return (
        local(episode.since_ms, zone),
        "" if episode.until_ms is None else local(episode.until_ms, zone),
        _severity(episode.name, lang),
        f"{clean(episode.name)} {alarm_kind(episode.name).label(lang)}",
        clean(episode.subject),
        clean(what.strip()),
    )


def _severity(name: str, lang: str) -> str:
    severity = alarm_kind(name).severity
    return SEVERITIES_ZH[severity] if lang == "zh" else severity


def _advice(alarms: Sequence[StandingAlarm], lang: str) -> list[str]:
    """The first thing to do about each kind that stands."""
    names = dict.fromkeys(alarm.name for alarm in alarms if alarm.under is None)
    advice = [(name, alarm_kind(name).advice(lang)) for name in names]
    return [f"{DO[lang]} {name}: {words}" for name, words in advice if words]
