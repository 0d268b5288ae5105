"""`headend clock list`: what daily measurements say of every meter's clock, from the journal."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headend.acquisition.clock_watch import HISTORY_MS
from headend.acquisition.meter_clocks import policy_of, trend
from headend.cli.output import clean, language, print_json, table
from headend.config import Config
from headend.config.meter_rules import DLT645
from headend.control.clock_policy import Measured, verdict
from headend.domain.clock import SystemClock, iso
from headend.domain.errors import ConfigError
from headend.domain.meter import Meter
from headend.journal import ClockMeasured, JournalReader

SCHEMA = "clock_state/1"
GOOD = frozenset({"leave", "unknown"})

_WORDS = {
    "en": {
        "meter": "meter", "bus": "bus", "offset": "offset", "drift": "s/day", "at": "measured",
        "verdict": "", "policy": "policy", "leave": "right", "sync": "wrong",
        "ticket": "far wrong", "unknown": "not measured yet",
    },
    "zh": {
        "meter": "电表", "bus": "总线", "offset": "偏差", "drift": "秒/天", "at": "测量时间",
        "verdict": "", "policy": "策略", "leave": "正确", "sync": "超差",
        "ticket": "严重超差", "unknown": "尚未测量",
    },
}  # fmt: skip


def run(args: argparse.Namespace, config: Config) -> int:
    """Show the clocks; 0 when none that was measured is wrong, else 1."""
    wanted = set(args.meters)
    known = {meter.id for meter in config.meters}
    from_ms = SystemClock().now_ms() - HISTORY_MS
    with JournalReader(config.journal_path) as reader:
        history = reader.clock_history(from_ms)
    states = [
        state for state in clock_states(config, history) if not wanted or state["meter"] in wanted
    ]
    unknown = sorted(wanted - known)
    if unknown:
        raise ConfigError(f"there is no meter {unknown[0]}", hint="ids as in the configuration")
    if args.json:
        for state in states:
            print_json(state)
    else:
        _show(states, language(args.lang))
    return 0 if all(state["verdict"] in GOOD for state in states) else 1


def clock_states(
    config: Config, history: Mapping[str, Sequence[ClockMeasured]]
) -> Iterator[dict[str, Any]]:
    """Every DL/T 645 meter's clock as `clock_state/1`, in the order of the configuration."""
    for meter in config.meters:
        if meter.protocol in DLT645:
            yield _state(config, meter, history.get(meter.id, ()))


def _state(config: Config, meter: Meter, rows: Sequence[ClockMeasured]) -> dict[str, Any]:
    section = config.control.clock
    plan = config.plans[meter.plan].clock if meter.plan in config.plans else None
    state: dict[str, Any] = {
        "schema": SCHEMA,
        "meter": meter.id,
        "service_point": meter.service_point,
        "bus": meter.bus,
        "policy": policy_of(meter, plan, section),
        "verdict": "unknown",
        "offset_s": None,
        "uncertainty_s": None,
        "measured_at": None,
        "measurements": len(rows),
        "drift_s_per_day": None,
        "set_at": None,
    }
    if rows:
        last = rows[-1]
        look = Measured(last.offset_ms, last.uncertainty_ms, last.at_ms)
        drift = trend(rows)
        began = [row.at_ms for row in rows if row.began]
        state |= {
            "verdict": verdict(look, section).value,
            "offset_s": f"{last.offset_ms / 1000:.2f}",
            "uncertainty_s": f"{last.uncertainty_ms / 1000:.2f}",
            "measured_at": iso(last.at_ms),
            "drift_s_per_day": None if drift is None else f"{drift.ms_per_day / 1000:.2f}",
            "set_at": iso(began[-1]) if began else None,
        }
    return state


def _show(states: Sequence[Mapping[str, Any]], lang: str) -> None:
    words = _WORDS[lang]
    rows = [
        (
            clean(state["meter"]),
            clean(state["bus"]),
            _offset(state),
            state["drift_s_per_day"] or "-",
            state["measured_at"] or "-",
            words[state["verdict"]],
            state["policy"],
        )
        for state in states
    ]
    keys = ("meter", "bus", "offset", "drift", "at", "verdict", "policy")
    print(table(tuple(words[key] for key in keys), rows, right=frozenset({2, 3})))


def _offset(state: Mapping[str, Any]) -> str:
    offset = state["offset_s"]
    if offset is None:
        return "-"
    sign = "" if offset.startswith("-") else "+"
    return f"{sign}{offset} ± {state['uncertainty_s']} s"
