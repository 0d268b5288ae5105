"""A damaged reply never becomes a value: counted, not hoped."""

import pytest

from tests.damage.proof import SIMPLE, burst_bound, last_count, run_proof


@pytest.mark.timeout(300)
def test_no_false_value_from_100_000_damaged_replies_on_a_line_with_parity_marks() -> None:
    score = run_proof(SIMPLE, replies=100_000, seed=645, parity_seen=True)
    print(score.line("parity marks"))
    assert score.damaged >= 100_000
    assert score.false == []


def test_random_bursts_on_a_marked_line_stay_below_the_computed_bound() -> None:
    score = run_proof(("burst",), replies=20_000, seed=646, parity_seen=True)
    residual = len(score.false) / score.damaged
    print(score.line("bursts"), f"residual {residual:.2e} bound {burst_bound():.2e}")
    assert residual <= burst_bound()


def test_second_read_keeps_false_live_registers_within_the_last_count() -> None:
    score = run_proof(SIMPLE, replies=25_000, seed=647, parity_seen=False, share=0.5)
    assert score.right > 5_000
    assert all(abs(distance) <= last_count() for distance in score.false)


def test_second_read_lets_no_false_frozen_register_through() -> None:
    score = run_proof(SIMPLE, replies=25_000, seed=648, parity_seen=False, frozen=True, share=0.5)
    assert score.right > 5_000
    assert score.false == []


def test_without_marks_and_without_the_second_read_false_values_do_come() -> None:
    score = run_proof(SIMPLE, replies=10_000, seed=649, parity_seen=False, share=0.5, once=True)
    assert score.false, "then the second read would prove nothing"
