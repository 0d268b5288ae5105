"""One section's tree through its model: every error in our words, with file, line and key."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headend.config.tree import Key, MarkedMap, error_at, key_text
from headend.domain.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

_SECRETS = ("password", "passwd", "token", "secret")

_SHAPES = {
    "model_type": "must be a mapping (key: value)",
    "dict_type": "must be a mapping (key: value)",
    "tuple_type": "must be a list [a, b]",
    "list_type": "must be a list [a, b]",
    "missing": "is missing",
    "too_short": "must not be empty",
}


def validate(
    model: type[M], value: object, loc: Sequence[Key], root: MarkedMap, errors: list[ConfigError]
) -> M | None:
    """The model of a part of the tree, or None with every error appended to `errors`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        errors.extend(_translate(model, detail, loc, root) for detail in details)
        return None


def unknown_key(
    root: MarkedMap, loc: Sequence[Key], known: Sequence[str], where: str
) -> ConfigError:
    """The error for a key nobody knows, with the nearest one that is."""
    key = str(loc[-1])
    near = difflib.get_close_matches(key, known, n=1)
    if any(s in key for s in _SECRETS) and f"{key}_file" in (*known, "token_file"):
        hint = f"secrets never stand in the configuration: use {key}_file"
    elif near:
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"known here: {', '.join(known)}"
    return error_at(root, loc, f"{key} is not known{where}", hint)


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint that names the nearest known name, or the first few."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    shown = ", ".join(list(known)[:8])
    return f"known: {shown or 'none'}" + (", ..." if len(known) > 8 else "")


def _translate(
    model: type[BaseModel], detail: ErrorDetails, loc: Sequence[Key], root: MarkedMap
) -> ConfigError:
    full: list[Key] = [*loc, *detail["loc"]]
    kind = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        return unknown_key(root, full, known, f" in {key_text(full[:-1])}")
    if kind == "config":
        return error_at(root, full, detail["msg"], context.get("hint") or None)
    if kind == "greater_than_equal":
        return error_at(root, full, f"must be at least {context['ge']}, not {detail['input']}")
    if kind == "less_than_equal":
        return error_at(root, full, f"must be at most {context['le']}, not {detail['input']}")
    return error_at(root, full, _SHAPES.get(kind, f"cannot be used: {detail['msg']}"))


def _known_keys(model: type[BaseModel], loc: Sequence[Key]) -> list[str]:
    """The keys allowed at a place below a model."""
    here: object = model
    for step in loc:
        here = _below(here, step)
    assert isinstance(here, type)
    assert issubclass(here, BaseModel)
    return [field.alias or name for name, field in here.model_fields.items()]


def _below(here: object, step: Key) -> object:
    if isinstance(here, type) and issubclass(here, BaseModel):
        for name, field in here.model_fields.items():
            if step in (name, field.alias):
                return _model_in(field.annotation)
    return here  # an index: the item's model was found when the field was entered


def _model_in(annotation: object) -> object:
    """The model inside an annotation such as `tuple[Model, ...]` or `Model | None`."""
    if get_origin(annotation) is None:
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation
