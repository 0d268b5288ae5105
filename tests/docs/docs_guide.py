"""Reads a document's fenced blocks and does what they say, in order, in a folder of its own.

- A `sh` block's commands are run; `# exit code N` behind one says how it ends (0 otherwise).
- A command that stays (`run`, `billing run`, `simulate`) goes on until the document's end.
- A `yaml` block that begins with `# name.yaml` becomes that file.
- A `text` block right behind a `sh` block of one command shows what that command prints.

`/tmp/` stands for the folder, `READ_ID` for a reading that the journal there holds.
"""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

BIN = Path(sys.executable).parent
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")
STAYS = re.compile(r"^headend (run|billing run|simulate \w+)\b")
COMMAND_TIMEOUT_S = 60
READY_TIMEOUT_S = 60


@dataclass(frozen=True)
class Block:
    """One fenced block; `shown` is the text block that follows it, with nothing between."""

    kind: str
    text: str
    line: int
    shown: str | None = None


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    command: str
    wanted: int
    code: int
    out: str
    err: str


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = path.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    result = []
    for match, behind in zip(found, [*found[1:], None], strict=True):
        shown = None
        if behind is not None and behind[1] == "text":
            between = text[match.end() : behind.start()]
            shown = behind[2] if not between.strip() else None
        line = text.count("\n", 0, match.start()) + 1
        result.append(Block(match[1], match[2], line, shown))
    return result


def commands(block: Block) -> list[tuple[str, int]]:
    """The commands of a `sh` block with the exit code each is said to have."""
    result = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        said = EXIT_CODE.search(line)
        result.append((EXIT_CODE.sub("", line).strip(), int(said[1]) if said else 0))
    return result


@dataclass
class Shell:
    """The folder a document is tried in. A context manager: nothing it started outlives it."""

    folder: Path
    read_id: str = "READ_ID"
    staying: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()

    def do(self, block: Block) -> list[Ran]:
        """Do what a block says; the commands that ended."""
        if block.kind == "yaml" and block.text.startswith("# "):
            name = block.text.splitlines()[0].removeprefix("# ")
            (self.folder / name).write_text(self._here(block.text), encoding="utf-8")
        if block.kind != "sh":
            return []
        ran = []
        for command, wanted in commands(block):
            if STAYS.match(command):
                self._start(command)
            else:
                ran.append(self.run(command, wanted))
        return ran

    def run(self, command: str, wanted: int = 0) -> Ran:
        """Run one command to its end."""
        done = subprocess.run(
            ["bash", "-c", self._here(command)],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return Ran(command, wanted, done.returncode, done.stdout, done.stderr)

    def end(self) -> list[tuple[str, int, str]]:
        """End what stays, the last first: command, exit code and what it said."""
        ended = []
        for command, process, log in reversed(self.staying):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            ended.append((command, code, log.read_text(encoding="utf-8")))
        self.staying.clear()
        return ended

    def _start(self, command: str) -> None:
        log = self.folder / f"said-{len(self.staying)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(command)}"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.staying.append((command, process, log))
        end = time.monotonic() + READY_TIMEOUT_S
        while "READY" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, f"{command} ended: {log.read_text(encoding='utf-8')}"
            assert time.monotonic() < end, f"{command} is not ready: {log.read_text()}"
            time.sleep(0.02)

    def _here(self, text: str) -> str:
        return text.replace("/tmp/", f"{self.folder}/").replace("READ_ID", self.read_id)

    def _environment(self) -> dict[str, str]:
        rest = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LC_MESSAGES")}
        return {**rest, "PATH": f"{BIN}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
