"""YAML text into plain values that remember where they stood.

Ours instead of the library's loader, because YAML itself reads a meter address 000000000012 as 10
(octal), 12:30 as 750 and `no` as false, and takes a key twice. Here a bare word is text, except
plain decimal integers, decimal fractions (as Decimal), `true`, `false` and `null`. A bare number
with leading zeros is an error: nobody can know what was meant. Duplicate keys, anchors, aliases
and tags are errors; size and depth are bounded.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from yaml._yaml import CParser

from headend.config.errors import ConfigErrors
from headend.domain.errors import ConfigError

FILE_BYTES_MAX = 32 * 1024 * 1024
DEPTH_MAX = 16

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")
_LEADING_ZEROS = re.compile(r"[-+]?0[0-9]+(\.[0-9]+)?")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}

Key = str | int


class MarkedMap(dict[str, Any]):
    """A mapping that knows its file, its line and the lines of its keys (1-based)."""

    __slots__ = ("file", "key_lines", "line")

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line
        self.key_lines: dict[str, int] = {}


class MarkedList(list[Any]):
    """A list that knows its file, its line and the lines of its items (1-based)."""

    __slots__ = ("file", "item_lines", "line")

    def __init__(self, file: str, line: int) -> None:
        super().__init__()
        self.file = file
        self.line = line
        self.item_lines: list[int] = []


def key_text(loc: Sequence[Key]) -> str:
    """A dotted key path for messages: `meters[3].address`."""
    text = ""
    for step in loc:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def locate(root: MarkedMap, loc: Sequence[Key]) -> tuple[str, int]:
    """File and line of a key path; of the deepest part of it that exists."""
    node: Any = root
    file, line = root.file, root.line
    for step in loc:
        if isinstance(node, MarkedMap) and isinstance(step, str) and step in node.key_lines:
            line = node.key_lines[step]
            node = node.get(step)
        elif isinstance(node, MarkedList) and isinstance(step, int) and step < len(node):
            line = node.item_lines[step]
            node = node[step]
        else:
            break
        if isinstance(node, MarkedMap | MarkedList):
            file = node.file
            if node.file != root.file:
                line = node.line
    return file, line


def error_at(
    root: MarkedMap, loc: Sequence[Key], message: str, hint: str | None = None
) -> ConfigError:
    """A ConfigError for a key path of a tree."""
    file, line = locate(root, loc)
    return ConfigError(message, file=file, line=line, key=key_text(loc) or None, hint=hint)


def read_text(path: Path, name: str) -> str:
    """The text of a configuration file; ConfigError when it cannot be had."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            message = f"the file has {size} bytes; at most {FILE_BYTES_MAX} are read"
            raise ConfigError(message, file=name)
        data = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise ConfigError(message, file=name, hint="check the path and its permissions") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte {data[error.start]:02X} is not UTF-8 text"
        raise ConfigError(
            message, file=name, line=line, hint="save the file as UTF-8 (it may be GBK now)"
        ) from error


def parse_tree(text: str, file: str) -> tuple[MarkedMap, list[ConfigError]]:
    """The marked tree of a YAML text, and the errors after which it can still be looked at.

    Raises ConfigErrors when there is nothing to look at (broken syntax, anchors, tags).
    """
    builder = _Builder(text, file)
    try:
        root = builder.document()
    except yaml.MarkedYAMLError as error:
        raise ConfigErrors([*builder.errors, _syntax_error(error, file)]) from error
    except yaml.YAMLError as error:
        raise ConfigErrors([ConfigError(f"is not YAML: {error}", file=file)]) from error
    return root, builder.errors


def _syntax_error(error: yaml.MarkedYAMLError, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    problem = error.problem or "cannot be understood"
    hint = None
    if r"'\t'" in problem or "cannot start any token" in problem:
        hint = "YAML is indented with spaces, never with tabs; text with special signs is quoted"
    elif "mapping values are not allowed" in problem:
        hint = "text that contains a colon is quoted; or a line is indented wrongly"
    elif "expected" in problem:
        hint = "a bracket, brace or quote may be open, or a line is indented wrongly"
    return ConfigError(f"is not valid YAML: {problem}", file=file, line=line, hint=hint)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1


class _Builder:
    """Turns the parser's events into marked values."""

    def __init__(self, text: str, file: str) -> None:
        self._parser = CParser(text)
        self._file = file
        self._path: list[Key] = []
        self.errors: list[ConfigError] = []

    def document(self) -> MarkedMap:
        """The one document of the text, which must be a mapping."""
        next_event = self._next
        next_event()  # stream start
        event = next_event()
        if isinstance(event, yaml.StreamEndEvent):
            raise ConfigErrors([ConfigError("is empty", file=self._file)])
        event = next_event()
        if not isinstance(event, yaml.MappingStartEvent):
            raise ConfigErrors([self._error(event, "must be a mapping of sections")])
        root = self._value(event)
        assert isinstance(root, MarkedMap)
        next_event()  # document end
        event = next_event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise ConfigErrors([self._error(event, "a second document begins; one is allowed")])
        return root

    def _next(self) -> yaml.Event:
        event = self._parser.get_event()
        assert event is not None  # the stream's end was not passed
        return event

    def _error(self, event: yaml.Event, message: str, hint: str | None = None) -> ConfigError:
        return ConfigError(
            message,
            file=self._file,
            line=_line(event),
            key=key_text(self._path) or None,
            hint=hint,
        )

    def _value(self, event: yaml.Event) -> Any:  # noqa: ANN401 - any YAML value
        if isinstance(event, yaml.AliasEvent):
            hint = "write the value out at each place"
            raise ConfigErrors([*self.errors, self._error(event, "aliases are not used", hint)])
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor is not None:
            hint = "write the value out at each place"
            raise ConfigErrors([*self.errors, self._error(event, "anchors are not used", hint)])
        tag = getattr(event, "tag", None)
        if tag is not None:
            message = f"the tag {tag} is not understood"
            raise ConfigErrors([*self.errors, self._error(event, message, "leave it out")])
        if len(self._path) > DEPTH_MAX:
            message = f"is nested deeper than {DEPTH_MAX} levels"
            raise ConfigErrors([*self.errors, self._error(event, message)])
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event)
        return self._sequence(event)

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | Decimal | bool | None:
        text = str(event.value)
        if not event.implicit[0]:  # quoted or a text block
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text) if len(text) <= 30 else text
        if _FRACTION.fullmatch(text):
            return Decimal(text)
        if _LEADING_ZEROS.fullmatch(text):
            message = f"the number {text} begins with zeros, which a bare number cannot keep"
            self.errors.append(self._error(event, message, f'put it in quotes: "{text}"'))
        return text

    def _mapping(self, start: yaml.Event) -> MarkedMap:
        result = MarkedMap(self._file, _line(start))
        next_event = self._next
        while not isinstance(event := next_event(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
                raise ConfigErrors([*self.errors, self._error(event, "a key must be plain text")])
            key = str(event.value)
            self._path.append(key)
            line = _line(event)
            if key in result:
                message = f"stands here a second time, first in line {result.key_lines[key]}"
                self.errors.append(self._error(event, message, "keep one of the two"))
                self._value(next_event())
            else:
                result.key_lines[key] = line
                result[key] = None
                result[key] = self._value(next_event())
            self._path.pop()
        return result

    def _sequence(self, start: yaml.Event) -> MarkedList:
        result = MarkedList(self._file, _line(start))
        next_event = self._next
        while not isinstance(event := next_event(), yaml.SequenceEndEvent):
            self._path.append(len(result))
            line = _line(event)
            result.append(self._value(event))
            result.item_lines.append(line)
            self._path.pop()
        return result
