"""Thirty rounds of the kill loop: nothing acknowledged is missing, nothing counts twice."""

import itertools
import time
from pathlib import Path

import pytest

from tests.kill.harness import (
    ASIDE_AT,
    READS_A_ROUND,
    KillLoop,
    describe,
    schedule,
    windows_and_victims,
)
from tests.kill.windows import SERIES_WINDOWS, SERVERS, SPINE_WINDOWS, VICTIMS, Window
from tests.kill.world import World

ROUNDS = 30


def test_every_window_and_victim_comes_by_turns_and_a_seed_repeats_itself() -> None:
    rounds = list(schedule(7, 1000))
    assert rounds == list(schedule(7, 1000))
    assert rounds != list(schedule(8, 1000))
    assert [one.number for one in rounds] == list(range(1, 1001))
    for window in SPINE_WINDOWS:
        for victim in VICTIMS:
            times = sum((one.window, one.victim) == (window, victim) for one in rounds)
            assert times >= 55


@pytest.mark.timeout(600)
def test_kills_in_every_window_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Daemon, consumer and broker by turns; a journal set aside and one set back are among it."""
    with World(tmp_path) as world:
        tally = KillLoop(world, seed=int(time.time()), say=print).run(ROUNDS)
    print(describe(tally))
    assert tally.rounds == ROUNDS
    assert tally.reads_least is not None
    assert tally.reads_least >= READS_A_ROUND
    assert {window for window, _victim in tally.kills} == set(SPINE_WINDOWS)
    assert {victim for _window, victim in tally.kills} == set(VICTIMS)
    assert (tally.set_aside, tally.set_back) == (1, 1)
    assert tally.last is not None
    assert tally.last.counts["at_billing"] >= ROUNDS * READS_A_ROUND


SERVER_ROUNDS = ASIDE_AT + 1  # a journal is set back and one set aside among them


def test_with_servers_every_window_and_victim_comes_by_turns() -> None:
    windows, victims = windows_and_victims(servers=True)
    assert set(windows) == set(Window)
    rounds = list(schedule(7, len(windows) * len(victims), servers=True))
    assert {(one.window, one.victim) for one in rounds} == {
        (window, victim) for window in windows for victim in victims
    }
    assert set(SERVERS) < set(victims)


def comes_by_everything(seed: int) -> bool:
    """Whether so few rounds have every window and victim, and the writer's own death in both."""
    windows, victims = windows_and_victims(servers=True)
    rounds = [(one.window, one.victim) for one in schedule(seed, SERVER_ROUNDS, servers=True)]
    return (
        {window for window, _victim in rounds} == set(windows)
        and {victim for _window, victim in rounds} == set(victims)
        and all((window, "daemon") in rounds for window in SERIES_WINDOWS)
    )


@pytest.mark.timeout(600)
def test_kills_with_postgresql_and_influxdb_lose_nothing_and_double_nothing(
    tmp_path: Path,
) -> None:
    """The same with real servers behind both ways, which are killed by turns as well."""
    seed = next(filter(comes_by_everything, itertools.count(int(time.time()))))
    with World(tmp_path, servers=True) as world:
        tally = KillLoop(world, seed, say=print).run(SERVER_ROUNDS)
    print(describe(tally))
    assert tally.rounds == SERVER_ROUNDS
    assert {window for window, _victim in tally.kills} == set(Window)
    assert {victim for _window, victim in tally.kills} == {*VICTIMS, *SERVERS}
    assert (tally.set_aside, tally.set_back) == (1, 1)
    assert tally.last is not None
    assert tally.last.counts["at_billing"] >= SERVER_ROUNDS * READS_A_ROUND
    assert tally.last.counts["in_time_series"] >= SERVER_ROUNDS * READS_A_ROUND
