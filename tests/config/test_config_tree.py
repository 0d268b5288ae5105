"""What our YAML reading resolves, what it refuses, and that it remembers lines."""

import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.config.errors import ConfigErrors
from headend.config.tree import key_text, locate, parse_tree
from headend.domain.errors import ConfigError


def value_of(text: str) -> Any:
    root, errors = parse_tree(f"k: {text}\n", "f.yaml")
    assert errors == []
    return root["k"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0.50", Decimal("0.50")),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ('"12"', "12"),
        ("'true'", "true"),
        # Everything YAML would make something else of is the text that stands there.
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        (".5", ".5"),
        (".inf", ".inf"),
        ("2026-01-31", "2026-01-31"),
        ("True", "True"),
        ("٣", "٣"),
    ],
)
def test_only_plain_numbers_and_three_words_are_not_text(text: str, value: object) -> None:
    got = value_of(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["000000000012", "012", "-01", "00", "007.5"])
def test_a_bare_number_with_leading_zeros_is_an_error_that_says_to_quote_it(text: str) -> None:
    root, (error,) = parse_tree(f"a: 1\nk: {text}\n", "f.yaml")
    assert (error.file, error.line, error.key) == ("f.yaml", 2, "k")
    assert error.hint == f'put it in quotes: "{text}"'
    assert root["k"] == text


def test_quoted_digits_keep_their_zeros() -> None:
    assert value_of('"000000000012"') == "000000000012"


def test_a_second_key_is_an_error_and_names_the_first_line() -> None:
    text = "a:\n  b: 1\n  c: 2\n  b: 3\n"
    root, (error,) = parse_tree(text, "f.yaml")
    assert (error.line, error.key) == (4, "a.b")
    assert "first in line 2" in error.message
    assert root["a"]["b"] == 1


def fatal(text: str) -> ConfigError:
    with pytest.raises(ConfigErrors) as caught:
        parse_tree(text, "f.yaml")
    return caught.value.errors[-1]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: &x {b: 1}\nc: *x\n", 1, "anchors are not used"),
        ("a: 1\nc: *x\n", 2, "aliases are not used"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "is not understood"),
        ("a:\n\t- b\n", 2, "spaces, never with tabs"),
        ("a: b: c\n", 1, "a colon is quoted"),
        ("a: [1, 2\nb: 3\n", 2, "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("- a\n", 1, "must be a mapping of sections"),
        ("? [a]\n: 1\n", 1, "a key must be plain text"),
        ("a: \x07\n", None, "is not YAML"),
        ("", None, "is empty"),
        ("# only a comment\n", None, "is empty"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, line: int, said: str) -> None:
    error = fatal(text)
    assert said in str(error)
    assert error.line == line


def test_depth_is_bounded() -> None:
    error = fatal("a: " + "[" * 50 + "]" * 50)
    assert "nested deeper" in error.message


def test_a_path_leads_to_its_line() -> None:
    root, _ = parse_tree("a:\n  - {x: 1}\n  - y: 2\n    z:\n      - 3\n", "f.yaml")
    assert locate(root, ["a", 1, "z", 0]) == ("f.yaml", 5)
    assert locate(root, ["a", 0, "x"]) == ("f.yaml", 2)
    assert locate(root, ["a", 1, "missing"]) == ("f.yaml", 3)
    assert key_text(["a", 1, "z", 0]) == "a[1].z[0]"


@given(st.text(max_size=200))
def test_any_text_gives_a_tree_or_errors_of_ours(text: str) -> None:
    with contextlib.suppress(ConfigErrors):
        parse_tree(text, "f.yaml")


@given(st.text(alphabet='ab: {}[],"\n-&*!#|>012.', max_size=60))
def test_any_near_yaml_gives_a_tree_or_errors_of_ours(text: str) -> None:
    with contextlib.suppress(ConfigErrors):
        parse_tree(text, "f.yaml")
