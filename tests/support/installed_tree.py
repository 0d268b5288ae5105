"""The program installed for a machine, into a tree of its own."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What of a checkout is installed or installs.
CHECKOUT = (
    "Makefile", "scripts", "systemd", "headend", "protocols", "simulators", "config", "docs",
    "requirements.lock", "requirements-run.txt", "README.md", "README.zh-CN.md", "CHANGELOG.md",
)  # fmt: skip


class Tree:
    """A checkout of its own, since nothing may change while it is installed, and a DESTDIR."""

    def __init__(self, folder):
        self.checkout = folder / "checkout"
        self.root = folder / "root"
        self.wheels = folder / "wheels"
        self.checkout.mkdir()
        for name in CHECKOUT:
            source, target = ROOT / name, self.checkout / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        self.home = self.root / "opt" / "headend"
        self.command = self.home / "current" / "bin" / "headend"
        self.config = self.root / "etc" / "headend" / "headend.yaml"

    def make(self, target, **variables):
        """What it said."""
        return self._run("passes", *self._make(target, variables))

    def make_fails(self, target, **variables):
        """What it said when it failed, as it has to."""
        return self._run("fails", *self._make(target, variables))

    def script(self, *arguments):
        return self._run("passes", "scripts/install-system.sh", *arguments)

    def _make(self, target, variables):
        words = [f"{key}={value}" for key, value in variables.items()]
        return ["make", "--no-print-directory", target, f"DESTDIR={self.root}", *words]

    def _run(self, wanted, *command):
        done = subprocess.run(
            command,
            cwd=self.checkout,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert (done.returncode == 0) == (wanted == "passes"), done.stdout + done.stderr
        return done.stderr

    def headend(self, *arguments):
        return subprocess.run(
            [self.command, *arguments],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},  # nothing of this checkout's environment
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
