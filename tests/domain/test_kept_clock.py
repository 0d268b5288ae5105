"""A wall clock that jumps is not followed at once; what it says in the end is."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.domain.kept_clock import BELIEVE_S, KeptClock
from headend.machine_clock import machine_clock

START_MS = 1_780_000_000_000
HOUR_MS = 3_600_000


class Machine:
    """A machine whose wall clock is as wrong as it is told."""

    def __init__(self) -> None:
        self.elapsed_s = 1000.0
        self.wrong_ms = 0
        self.synchronised: int | None = None

    def now_ms(self) -> int:
        return self.right_ms() + self.wrong_ms

    def right_ms(self) -> int:
        return START_MS + round(self.elapsed_s * 1000)

    def monotonic(self) -> float:
        return self.elapsed_s

    def kept(self) -> KeptClock:
        return KeptClock(self, synchronised_ms=lambda: self.synchronised)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, 10_000, -10_000, 400 * 24 * HOUR_MS])
def test_a_jump_that_is_taken_back_has_never_been(jump_ms: int) -> None:
    machine = Machine()
    clock = machine.kept()
    for wrong_ms in (0, jump_ms, jump_ms, 0):
        machine.elapsed_s += 60
        machine.wrong_ms = wrong_ms
        assert clock.now_ms() == machine.right_ms()
        assert clock.away_s == pytest.approx(wrong_ms / 1000)


def test_a_jump_that_stays_is_believed_in_the_end() -> None:
    machine = Machine()
    clock = machine.kept()
    machine.wrong_ms = -HOUR_MS
    assert clock.now_ms() == machine.right_ms()
    machine.elapsed_s += BELIEVE_S - 1
    assert clock.now_ms() == machine.right_ms()
    machine.elapsed_s += 1
    assert clock.now_ms() == machine.now_ms()
    assert clock.away_s == 0.0


def test_a_second_jump_begins_its_own_wait() -> None:
    machine = Machine()
    clock = machine.kept()
    machine.wrong_ms = HOUR_MS
    clock.now_ms()
    machine.elapsed_s += BELIEVE_S - 1
    machine.wrong_ms = 5 * HOUR_MS
    clock.now_ms()
    machine.elapsed_s += 2
    assert clock.now_ms() == machine.right_ms()


def test_a_clock_that_was_synchronised_after_its_jump_is_believed_at_once() -> None:
    machine = Machine()
    clock = machine.kept()
    machine.synchronised = machine.now_ms()  # before the jump: that proves nothing
    machine.elapsed_s += 5
    machine.wrong_ms = HOUR_MS
    assert clock.now_ms() == machine.right_ms()
    machine.elapsed_s += 5
    machine.synchronised = machine.now_ms()
    assert clock.now_ms() == machine.now_ms()


def test_a_file_from_the_future_is_no_synchronisation() -> None:
    machine = Machine()
    clock = machine.kept()
    machine.synchronised = machine.now_ms() + 5 * HOUR_MS
    machine.wrong_ms = HOUR_MS
    assert clock.now_ms() == machine.right_ms()


@given(st.lists(st.tuples(st.floats(0.01, 500), st.integers(-9_000, 9_000)), max_size=30))
def test_small_steps_and_slewing_are_followed(steps: list[tuple[float, int]]) -> None:
    machine = Machine()
    clock = machine.kept()
    for elapsed_s, step_ms in steps:
        machine.elapsed_s += elapsed_s
        machine.wrong_ms += step_ms
        assert clock.now_ms() == machine.now_ms()


@given(st.lists(st.tuples(st.floats(0.01, 30), st.integers(-(10**9), 10**9)), max_size=30))
def test_our_time_goes_on_evenly_while_the_machine_is_not_believed(
    steps: list[tuple[float, int]],
) -> None:
    machine = Machine()
    clock = machine.kept()
    before_ms = clock.now_ms()
    for elapsed_s, wrong_ms in steps:
        machine.elapsed_s += elapsed_s
        machine.wrong_ms = wrong_ms
        now_ms = clock.now_ms()
        away = clock.away_s
        if away:
            assert abs(now_ms - before_ms - elapsed_s * 1000) <= 10_001
        before_ms = now_ms


def test_the_machines_clock_is_followed_and_asks_the_time_service(tmp_path: Path) -> None:
    mark = tmp_path / "synchronized"
    clock = machine_clock(synchronised=mark)
    assert abs(clock.now_ms() - clock.machine.now_ms()) < 1000
    assert clock._synchronised_ms() is None
    mark.touch()
    os.utime(mark, (1_700_000_000, 1_700_000_000))
    assert clock._synchronised_ms() == 1_700_000_000_000
