"""The quick dataclass is a frozen one in everything but the guard."""

import dataclasses
from typing import TYPE_CHECKING

import pytest

from headend.domain.exchange import Outcome
from headend.domain.reading import Side, Source, Status, Verdict

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from headend.domain.values import dataclass


@dataclass(frozen=True, slots=True)
class Quick:
    """A value."""

    a: int
    b: str = "b"


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """The same, guarded."""

    a: int
    b: str = "b"


def test_equality_hash_and_replace_are_those_of_a_frozen_dataclass() -> None:
    one, same, other = Quick(1), Quick(1), Quick(2)
    assert one == same != other
    assert hash(one) == hash(same) == hash(Frozen(1))
    assert dataclasses.replace(one, a=2) == other
    assert dataclasses.asdict(one) == {"a": 1, "b": "b"}
    assert repr(one) == "Quick(a=1, b='b')"
    assert not hasattr(one, "__dict__")


def test_values_compared_by_identity_hash_by_identity() -> None:
    @dataclass(frozen=True, slots=True, eq=False)
    class ById:
        a: int

    one, other = ById(1), ById(1)
    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize("words", [Outcome, Side, Source, Status, Verdict])
def test_a_word_and_its_text_are_one_key(words: type[Status]) -> None:
    for word in words:
        assert {str(word): 1}[word] == 1
        assert {word: 1}[words(word.value)] == 1
