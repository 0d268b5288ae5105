"""What the sections share: the model base and field types with messages a field engineer reads."""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StrictBool
from pydantic_core import PydanticCustomError

from headend.domain.clock import from_iso

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FEED_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_ID_BAD = re.compile(r"[\s/+#\x00-\x1f\x7f]")


class Section(BaseModel):
    """A mapping of the configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def problem(message: str, hint: str = "") -> PydanticCustomError:
    """The error a field validator raises: what is wrong, and what would be right."""
    # Braces would be taken for template fields.
    shown = message.replace("{", "(").replace("}", ")")
    return PydanticCustomError("config", shown, {"hint": hint})


def _text(value: object) -> object:
    if isinstance(value, str):
        if value == "":
            raise problem("is empty")
        return value
    if isinstance(value, bool | int | Decimal):
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        raise problem(f"must be text, and {shown} is not", f'put it in quotes: "{shown}"')
    raise problem("must be text")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise problem(
            f"{value!r} cannot be a name",
            "letters, digits, dot, dash and underscore, at most 64, a letter or digit first",
        )
    return value


def _feed_name(value: str) -> str:
    if not _FEED_NAME.fullmatch(value):
        raise problem(
            f"{value!r} cannot be part of the feed's topics",
            "small letters, digits, dash and underscore, at most 64",
        )
    return value


def _identifier(value: str) -> str:
    if len(value) > 64 or _ID_BAD.search(value):
        raise problem(
            f"{value!r} cannot be an id", "at most 64 characters, without spaces and / + #"
        )
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float):
        raise problem(f"must be a number, and {value!r} is not", "a bare number such as 30 or 0.5")
    return value


def _whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise problem(f"must be a whole number, and {value!r} is not", "a bare number such as 30")
    return value


def _decimal(value: object) -> object:
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except InvalidOperation:
            raise problem(f"{value!r} is not a number", 'such as "200" or "0.1"') from None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise problem(f"{value!r} is not a number", 'such as "200" or "0.1"')
    exact = Decimal(value)
    if not exact.is_finite() or exact <= 0:
        raise problem(f"must be above 0, and {exact} is not")
    return exact


def _instant_ms(value: object) -> object:
    try:
        return from_iso(str(value))
    except ValueError:
        raise problem(
            f"{value!r} is not an instant", "with date, time and offset: 2026-01-31T00:00:00+08:00"
        ) from None


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise problem(f"must be true or false, and {value!r} is not")
    return value


def one_of(*allowed: str) -> Callable[[object], object]:
    """A validator for a word out of a few, with the nearest one in the hint."""

    def check(value: object) -> object:
        if value not in allowed:
            raise problem(f"{value!r} is not known here", f"one of {', '.join(allowed)}")
        return value

    return check


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_text), AfterValidator(_name)]
FeedName = Annotated[str, BeforeValidator(_text), AfterValidator(_feed_name)]
Identifier = Annotated[str, BeforeValidator(_text), AfterValidator(_identifier)]
FilePath = Annotated[Path, BeforeValidator(_text)]
Flag = Annotated[StrictBool, BeforeValidator(_flag)]
PositiveDecimal = Annotated[Decimal, BeforeValidator(_decimal)]
Whole = Annotated[int, BeforeValidator(_whole)]
Seconds = Annotated[float, BeforeValidator(_number)]
InstantMs = Annotated[int, BeforeValidator(_instant_ms)]
