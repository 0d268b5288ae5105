"""The command line's frame: exit codes, help, errors, speed of the start."""

import argparse
import importlib.machinery
import shlex
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from headend.cli import main as cli
from headend.cli.main import COMMANDS, common_exit_code, exit_code, main
from headend.cli.output import cells, clean, colour_wanted, language, run_async, table
from headend.domain.errors import (
    BadReply,
    ConfigError,
    DeadlinePassed,
    NoAnswer,
    PolicyError,
    PortBusy,
    PortGone,
    Refused,
)
from protocols.errors import LocalProtocolError

NO_ANSWER = NoAnswer("none", bus="b", waited_ms=1, attempts=1, diagnosis="silence")


def run_command(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[argparse.Namespace], int],
    *arguments: str,
) -> int:
    """`headend check ...`, where check is a command made for the test."""
    module = types.ModuleType("headend.cli.check")
    module.add_arguments = lambda parser: parser.add_argument("--x")  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("headend.cli.check", None)
    monkeypatch.setitem(sys.modules, "headend.cli.check", module)
    return main(["check", *arguments])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (NO_ANSWER, 3),
        (DeadlinePassed("x", bus="b"), 3),
        (PortGone("x", bus="b"), 4),
        (PortBusy("x", bus="b"), 4),
        (PermissionError(13, "Permission denied"), 4),
        (ConnectionRefusedError(111, "refused"), 4),
        (Refused("x", reasons=("no_data",)), 5),
        (PolicyError("x"), 5),
        (BadReply("x", code="not_bcd"), 1),
        (LocalProtocolError("x", code="y"), 1),
    ],
)
def test_every_error_has_its_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_args: argparse.Namespace) -> int:
        raise error

    assert exit_code(error) == code
    assert run_command(monkeypatch, run) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headend check: ")


def test_an_error_of_ours_that_is_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_args: argparse.Namespace) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run_command(monkeypatch, run)


def test_ctrl_c_ends_with_130_and_a_clean_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    assert run_command(monkeypatch, run) == 130
    assert capsys.readouterr().err == "headend check: interrupted\n"


def test_a_command_gets_its_arguments_and_gives_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command(monkeypatch, lambda args: int(args.x), "--x", "7") == 7


@pytest.mark.parametrize(
    ("codes", "common"),
    [([], 0), ([0, 0], 0), ([3, 3], 3), ([5], 5), ([0, 3], 1), ([3, 4], 1)],
)
def test_failures_alike_give_their_code_and_mixtures_give_one(
    codes: list[int], common: int
) -> None:
    assert common_exit_code(codes) == common


def test_a_mistyped_command_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["raed"])
    assert ended.value.code == 2
    assert "did you mean read?" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown_and_it_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("headend 0.")


@pytest.mark.parametrize("command", [c.name for c in cli.available()])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: headend {command}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    """Shell completion and a look at the help must be instant."""
    code = (
        "import sys; from headend.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'sqlalchemy', 'yaml', 'asyncio', 'construct', 'aiomqtt', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_command_names_stand_once() -> None:
    names = [c.name for c in COMMANDS]
    assert len(names) == len(set(names))


def test_a_reader_that_leaves_is_no_traceback() -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m headend.cli.main --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""


def test_run_async_gives_the_code_of_its_work() -> None:
    async def work() -> int:
        return 5

    assert run_async(work) == 5


# -- output


def test_wide_characters_take_two_columns() -> None:
    assert cells("正向") == 4
    assert cells("a\u0301") == 1
    text = table(("点", "value"), [("正向有功", "1.00"), ("x", "12.00")], right=frozenset({1}))
    assert text.splitlines() == [
        "点        value",
        "正向有功   1.00",
        "x         12.00",
    ]


def test_text_from_devices_cannot_steer_the_terminal() -> None:
    assert clean("ab\x1b[2Jc\n正") == "ab\\x1b[2Jc\\n正"


@pytest.mark.parametrize(
    ("chosen", "environment", "expected"),
    [
        (None, {"LANG": "zh_CN.UTF-8"}, "zh"),
        (None, {"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        (None, {}, "en"),
        ("zh", {"LC_ALL": "C"}, "zh"),
    ],
)
def test_the_language_is_the_locales_unless_chosen(
    chosen: str | None, environment: dict[str, str], expected: str
) -> None:
    assert language(chosen, environment) == expected


class Terminal:
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it() -> None:
    terminal = Terminal()
    assert colour_wanted(terminal, {})  # type: ignore[arg-type]
    assert not colour_wanted(terminal, {"NO_COLOR": "1"})  # type: ignore[arg-type]
    assert not colour_wanted(terminal, {"TERM": "dumb"})  # type: ignore[arg-type]
