"""What the drills say, in English and Chinese: `words.yaml`."""

from functools import cache
from importlib.resources import files

import yaml


@cache
def _words() -> dict[str, dict[str, str]]:
    text = (files(__package__) / "words.yaml").read_text(encoding="utf-8")
    words: dict[str, dict[str, str]] = yaml.safe_load(text)
    return words


def word(key: str, language: str) -> str:
    """A text in `en` or `zh`; KeyError for one that is not there."""
    return _words()[key][language]


def keys() -> frozenset[str]:
    """Every text there is."""
    return frozenset(_words())
