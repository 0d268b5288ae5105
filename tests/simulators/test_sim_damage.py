"""Damage is what it says, and parity marks are honest."""

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.damage import (
    Damaged,
    OneDamage,
    RandomDamage,
    burst,
    cut_tail,
    double_byte,
    flip_bits,
    flip_positions,
    lose_byte,
)

FRAME = bytes(range(0x40, 0x58))


def test_one_flipped_bit_is_marked():
    for bit in range(9):
        seen = flip_positions(FRAME, [9 * 3 + bit])
        assert seen.bad == (3,)
        assert (seen.data == FRAME) is (bit == 8)  # the ninth bit is parity itself


def test_two_flipped_bits_in_one_character_are_not_marked_though_data_is_wrong():
    seen = flip_positions(FRAME, [9 * 3, 9 * 3 + 1])
    assert seen.bad == ()
    assert seen.data[3] == FRAME[3] ^ 0b11


def test_a_data_bit_and_its_parity_bit_together_are_not_marked():
    seen = flip_positions(FRAME, [9 * 3 + 4, 9 * 3 + 8])
    assert seen.bad == ()
    assert seen.data[3] == FRAME[3] ^ 0b10000


def test_two_flips_in_two_characters_are_both_marked():
    assert flip_positions(FRAME, [0, 9]).bad == (0, 1)


def test_without_parity_nothing_is_marked():
    seen = flip_positions(FRAME, [8], parity=False)
    assert seen.bad == ()
    assert seen.data[1] == FRAME[1] ^ 1


def even_parity(byte: int) -> int:
    return byte.bit_count() % 2


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_marks_are_what_a_receiver_computes(seed, bits):
    """Recompute: sent parity bit against received data, flips of the parity bit known."""
    rng = Random(seed)
    positions = rng.sample(range(len(FRAME) * 9), bits)
    seen = flip_positions(FRAME, positions)
    expected = []
    for index, (sent, got) in enumerate(zip(FRAME, seen.data, strict=True)):
        parity_received = even_parity(sent) ^ (9 * index + 8 in positions)
        if parity_received != even_parity(got):
            expected.append(index)
    assert list(seen.bad) == expected


@given(st.integers(0, 2**32))
def test_each_kind_does_its_one_thing(seed):
    rng = Random(seed)
    assert len(lose_byte(FRAME, rng).data) == len(FRAME) - 1
    doubled = double_byte(FRAME, rng).data
    assert len(doubled) == len(FRAME) + 1
    assert sum(a == b for a, b in itertools.pairwise(doubled)) == 1
    cut = cut_tail(FRAME, rng).data
    assert 1 <= len(cut) < len(FRAME)
    assert FRAME.startswith(cut)
    for count in (1, 2, 3):
        flipped = flip_bits(FRAME, rng, count)
        wrong = sum((a ^ b).bit_count() for a, b in zip(FRAME, flipped.data, strict=True))
        assert wrong <= count


@given(st.integers(0, 2**32), st.integers(1, 50))
def test_a_burst_stays_inside_its_span(seed, bits):
    seen = burst(FRAME, Random(seed), bits)
    touched = [i for i, (a, b) in enumerate(zip(FRAME, seen.data, strict=True)) if a != b]
    hit = sorted({*touched, *seen.bad})
    assert not hit or hit[-1] - hit[0] <= (bits - 1) // 9 + 1


def test_a_seed_gives_one_run():
    def run(seed: int) -> list[Damaged]:
        damage = OneDamage(Random(seed), OneDamage.KINDS)
        return [damage(FRAME) for _ in range(200)]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_one_damage_uses_every_kind_it_is_given_and_refuses_others():
    damage = OneDamage(Random(1), ("lost", "burst"))
    seen = set()
    for _ in range(50):
        damage(FRAME)
        seen.add(damage.last)
    assert seen == {"lost", "burst"}
    with pytest.raises(ValueError, match="known: flip1"):
        OneDamage(Random(1), ("flop",))


def test_rates_of_zero_leave_everything_whole():
    assert RandomDamage(Random(1))(FRAME) == Damaged(FRAME)


def test_rates_come_out_about_as_told():
    damage = RandomDamage(Random(5), flip_rate=0.01, lost_rate=0.02, doubled_rate=0.01)
    seen = [damage(FRAME) for _ in range(2000)]
    characters = 2000 * len(FRAME)
    marked = sum(len(one.bad) for one in seen)
    assert 0.06 < marked / characters < 0.10  # 9 bits at 1 % each, odd counts only
    length = sum(len(one.data) for one in seen)
    assert 0.985 < length / characters < 0.995


def test_cut_and_burst_rates_act_and_marks_stay_inside():
    damage = RandomDamage(Random(5), cut_rate=0.5, burst_rate=0.5)
    seen = [damage(FRAME) for _ in range(300)]
    assert any(len(one.data) < len(FRAME) for one in seen)
    assert any(one.bad for one in seen)
    assert all(at < len(one.data) for one in seen for at in one.bad)
