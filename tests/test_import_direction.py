"""Imports go one way. The table below is the map of docs/architecture.md as data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Rooms of `headend` in order; those in one tuple may not import each other.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("domain",),
    ("supervisor", "notify", "durable", "logs", "machine_clock"),
    ("archive",),
    ("config",),
    ("vee", "messages"),
    ("transport",),
    ("bus",),
    ("drivers",),
    ("control",),
    ("journal",),
    ("acquisition",),
    ("timeseries", "feed"),
    ("diagnostics", "status"),
    ("api",),
    ("liveness",),
    ("commands",),
    ("assembly",),
    ("planning",),
    ("overload",),
    ("clock_commands", "declaration_commands", "undated", "backfill_desk"),
    ("reload",),
    ("daemon",),
    ("cli",),
)
BILLING_SEES = {"domain", "supervisor", "archive", "durable", "config", "messages"}
SEE_BILLING = {"billing", "cli"}

# `protocols` is pure: no I/O, no clock, no log of its own.
PROTOCOLS_FORBIDDEN = {
    "asyncio", "logging", "select", "selectors", "serial", "socket", "ssl", "subprocess",
    "threading", "time", "aiomqtt", "paho", "sqlalchemy", "sqlite3", "pydantic",
}  # fmt: skip

LEVEL_OF = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}


def _modules() -> Iterator[tuple[str, Path]]:
    for package in ("headend", "protocols", "simulators"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(p for p in parts if p != "__init__"), path


def _imports(name: str, tree: ast.AST, *, is_package: bool) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, wherever in the file the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".") if is_package else name.split(".")[:-1]
                parents = parents[: len(parents) - (node.level - 1)]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            for alias in node.names:
                # `from headend import bus` names a room in the alias; `__version__` names none.
                names_room = base == "headend" and not alias.name.startswith("__")
                yield (f"{base}.{alias.name}" if names_room else base), node.lineno


def room_of(module: str) -> str | None:
    """The room of a module of `headend`; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def wrong_arrow(importer: str, imported: str) -> str | None:
    """Why one module may not import another; None when it may."""
    here, there = (name.partition(".")[0] for name in (importer, imported))
    if here == "protocols":
        if there in PROTOCOLS_FORBIDDEN:
            return f"protocols is pure and may not import {there}"
        if there in ("headend", "simulators"):
            return f"protocols may not import {there}"
        return None
    if here == "simulators":
        return "simulators imports protocols only" if there == "headend" else None
    room = room_of(importer)
    if there == "simulators":
        return None if room == "cli" else "only headend.cli and tests import simulators"
    if there != "headend":
        return None
    return _wrong_room(room, room_of(imported))


def _wrong_room(room: str | None, other: str | None) -> str | None:
    if room is None or other is None or room == other:
        return None
    if room == "billing":
        return None if other in BILLING_SEES else f"billing may not see {other}"
    if other == "billing":
        return None if room in SEE_BILLING else f"{room} may not import billing"
    for name in (room, other):
        if name not in LEVEL_OF:
            return f"the room {name} is not on the map"
    if LEVEL_OF[other] < LEVEL_OF[room]:
        return None
    return f"{room} comes before {other} or beside it"


def test_every_import_goes_the_one_way() -> None:
    wrong = []
    for name, path in _modules():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for imported, line in _imports(name, tree, is_package=path.name == "__init__.py"):
            reason = wrong_arrow(name, imported)
            if reason:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {imported}: {reason}")
    assert wrong == []


def test_every_room_is_on_the_map() -> None:
    rooms = {room_of(name) for name, _ in _modules() if name.startswith("headend.")}
    assert rooms - {None} <= set(LEVEL_OF) | {"billing"}


def test_the_map_is_the_documents() -> None:
    """The order in docs/architecture.md and the table here are the same."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    line = next(row for row in text.splitlines() if row.startswith("`domain` · "))
    order = line.split("; ")[0]
    levels = tuple(
        tuple(room.strip().strip("`") for room in group.split(",")) for group in order.split(" · ")
    )
    assert levels == LEVELS


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("headend.domain.meter", "headend.config"),
        ("headend.config.loader", "headend.bus"),
        ("headend.vee.register", "headend.messages.records"),
        ("headend.bus.bus", "headend.drivers"),
        ("headend.api.server", "headend.cli.main"),
        ("headend.billing.inbox", "headend.journal"),
        ("headend.daemon", "headend.billing"),
        ("headend.daemon", "simulators.meter"),
        ("headend.unknown.thing", "headend.domain"),
        ("protocols.framing", "asyncio"),
        ("protocols.framing", "headend.domain"),
        ("simulators.meter", "headend.domain"),
    ],
)
def test_a_wrong_arrow_is_seen(importer: str, imported: str) -> None:
    assert wrong_arrow(importer, imported) is not None


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("headend.cli.demo", "simulators.street"),
        ("headend.cli.billing", "headend.billing"),
        ("headend.billing.inbox", "headend.messages.records"),
        ("headend.drivers.dlt645", "protocols.dlt645.master"),
        ("headend.daemon", "headend.acquisition"),
        ("simulators.meter", "protocols.dlt645.meter"),
    ],
)
def test_a_right_arrow_passes(importer: str, imported: str) -> None:
    assert wrong_arrow(importer, imported) is None


def test_imports_inside_functions_and_relative_ones_are_seen() -> None:
    tree = ast.parse("def f():\n    from ..bus import x\n    from headend import journal\n")
    found = set(_imports("headend.domain.meter", tree, is_package=False))
    assert found == {("headend.bus", 2), ("headend.journal", 3)}
