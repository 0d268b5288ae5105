"""Rules that hold for every line of the project."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = ("headend", "protocols", "simulators", "benchmarks", "tests")
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".csv", ".sh", ".sql", ".service"}

# Paths that exist on one machine only. Written in pieces, so that this file passes itself.
LOCAL_PATHS = re.compile("/(?:wo" + "rk/(?:main|shared)|ro" + r"ot/|home/\w+/)")
WALL_CLOCK = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
CLOCK_HOME = "headend/domain/clock.py"
TASK_HOME = "headend/supervisor.py"


def _files() -> Iterator[Path]:
    tops = [ROOT / name for name in (*CODE, "docs", "config", "scripts", "systemd")]
    for top in tops:
        for path in sorted(top.rglob("*")):
            if path.is_file() and path.suffix in TEXT_SUFFIXES:
                yield path
    yield from sorted(p for p in ROOT.glob("*") if p.is_file() and p.suffix in TEXT_SUFFIXES)
    yield from (p for p in (ROOT / "Makefile", ROOT / ".ci" / "run") if p.exists())


def _calls(*packages: str) -> Iterator[tuple[Path, ast.Call]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
                if isinstance(node, ast.Call):
                    yield path, node


def _called(call: ast.Call) -> tuple[str, str]:
    """`time.time()` -> ("time", "time"); `datetime.datetime.now()` -> ("datetime", "now")."""
    if isinstance(call.func, ast.Attribute):
        owner = call.func.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        return name, call.func.attr
    return "", getattr(call.func, "id", "")


def test_no_path_of_one_machine_stands_in_the_project() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if LOCAL_PATHS.search(line)
    ]
    assert found == []


def test_only_the_system_clock_asks_for_the_wall_time() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in _calls("headend", "protocols", "simulators")
        if _called(call) in WALL_CLOCK and str(path.relative_to(ROOT)) != CLOCK_HOME
    ]
    assert found == []


def test_only_the_supervisor_starts_tasks() -> None:
    """A task group owns and awaits its tasks, so `group.create_task` is allowed."""
    found = []
    for path, call in _calls("headend", "simulators"):
        owner, name = _called(call)
        bare = name == "ensure_future" or (
            name == "create_task" and (owner in ("asyncio", "") or "loop" in owner)
        )
        if bare and str(path.relative_to(ROOT)) != TASK_HOME:
            found.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert found == []


def _catches_all(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) and (
        node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception")
    )


def test_only_the_supervisor_catches_every_exception() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for package in ("headend", "protocols", "simulators")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        if _catches_all(node) and str(path.relative_to(ROOT)) != TASK_HOME
    ]
    assert found == []
