"""The meter list: from the file itself or a CSV file, each entry checked on its own."""

import csv
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from headend.config.sections.meters import PROTOCOLS_NOW, MeterSection, MetersFile
from headend.config.tree import Key, MarkedList, MarkedMap, error_at, read_text
from headend.config.validate import nearest, validate
from headend.domain.errors import ConfigError
from headend.domain.meter import Meter

METERS_MAX = 1_000_000
LATER_KEYS = ("concentrator", "point")
NOT_YET = "is not available in this version"


class MeterList:
    """The checked meters and where each one stands in the files."""

    def __init__(self) -> None:
        self.meters: list[Meter] = []
        self.indexes: list[int] = []  # meters[i] is entry indexes[i] of the list


def load_meters(
    root: MarkedMap, base: Path, errors: list[ConfigError]
) -> tuple[MeterList, MarkedMap]:
    """The meters of a configuration, and the tree in which their entries can be located.

    With `meters: {file: ...}` the tree returned has the rows in the place of the list.
    """
    value = root.get("meters")
    if isinstance(value, MarkedMap):
        section = validate(MetersFile, value, ["meters"], root, errors)
        if section is None:
            return MeterList(), root
        path = base / section.file
        try:
            rows = _read_csv(path, str(path), errors)
        except ConfigError as error:
            errors.append(error)
            return MeterList(), root
        root = _with_rows(root, rows)
        value = rows
    if value is None:
        return MeterList(), root
    if not isinstance(value, MarkedList):
        errors.append(error_at(root, ["meters"], "must be a list of meters, or {file: meters.csv}"))
        return MeterList(), root
    return _check_entries(value, root, errors), root


def _with_rows(root: MarkedMap, rows: MarkedList) -> MarkedMap:
    copy = MarkedMap(root.file, root.line)
    copy.update(root)
    copy.key_lines.update(root.key_lines)
    copy["meters"] = rows
    return copy


def _check_entries(value: MarkedList, root: MarkedMap, errors: list[ConfigError]) -> MeterList:
    result = MeterList()
    for index, entry in enumerate(value):
        loc: list[Key] = ["meters", index]
        if isinstance(entry, MarkedMap):
            later = [k for k in LATER_KEYS if k in entry]
            if later:
                message = f"{later[0]} {NOT_YET}"
                errors.append(error_at(root, [*loc, later[0]], message, "give the meter a bus"))
                continue
        section = validate(MeterSection, entry, loc, root, errors)
        if section is None:
            continue
        if section.protocol not in PROTOCOLS_NOW:
            message = f"{section.protocol} {NOT_YET}"
            hint = f"available: {', '.join(PROTOCOLS_NOW)}"
            errors.append(error_at(root, [*loc, "protocol"], message, hint))
            continue
        problem = section.address_problem()
        if problem is not None:
            key, message, hint = problem
            errors.append(error_at(root, [*loc, key], message, hint or None))
            continue
        result.meters.append(section.to_meter())
        result.indexes.append(index)
    return result


def _read_csv(path: Path, name: str, errors: list[ConfigError]) -> MarkedList:
    """The rows of a CSV file as marked mappings; empty cells are absent keys."""
    lines = read_text(path, name).splitlines(keepends=True)
    reader = csv.reader(lines, strict=True)
    rows = MarkedList(name, 1)
    try:
        header = next(reader, None)
        if header is None:
            raise ConfigError("is empty", file=name, hint="the first line names the columns")
        columns = _check_header([c.strip() for c in header], name)
        for cells in _numbered(reader):
            line, values = cells
            if len(values) != len(columns):
                message = f"has {len(values)} cells where the header names {len(columns)} columns"
                errors.append(ConfigError(message, file=name, line=line))
                continue
            rows.append(_row(name, line, columns, values))
            rows.item_lines.append(line)
            if len(rows) > METERS_MAX:
                message = f"more than {METERS_MAX} meters"
                raise ConfigError(message, file=name, line=line)
    except csv.Error as error:
        message = f"is not CSV: {error}"
        raise ConfigError(message, file=name, line=reader.line_num) from error
    return rows


def _check_header(columns: list[str], name: str) -> list[str]:
    known = list(MeterSection.model_fields)
    for i, column in enumerate(columns):
        if column in columns[:i]:
            message = f"the column {column} stands there twice"
            raise ConfigError(message, file=name, line=1)
        if column in LATER_KEYS:
            raise ConfigError(f"the column {column} {NOT_YET}", file=name, line=1)
        if column not in known:
            hint = "columns are separated by commas" if ";" in column else nearest(column, known)
            message = f"the column {column!r} is not known"
            raise ConfigError(message, file=name, line=1, hint=hint)
    return columns


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, with the line each begins in."""
    line = 2
    for values in reader:
        if any(v.strip() for v in values):
            yield line, values
        line = getattr(reader, "line_num", line) + 1


def _row(name: str, line: int, columns: list[str], values: list[str]) -> MarkedMap:
    row = MarkedMap(name, line)
    for column, text in zip(columns, values, strict=True):
        cell = text.strip()
        if not cell:
            continue
        row.key_lines[column] = line
        # A cell has no quotes to tell a number by; only the unit number is one.
        row[column] = int(cell) if column == "unit" and cell.isdecimal() else cell
    return row


def effective_meter(meter: Meter) -> list[str | None]:
    """A meter as plain texts, for the configuration's hash."""

    def text(value: Decimal | None) -> str | None:
        return None if value is None else format(value.normalize(), "f")

    return [
        meter.id,
        meter.service_point,
        meter.bus,
        meter.protocol,
        meter.address,
        meter.plan,
        meter.area,
        text(meter.ct),
        text(meter.pt),
        meter.profile,
        text(meter.capacity_kw),
    ]
