"""Which of the locked packages the installed program needs, and which only its development.

    .venv/bin/python scripts/run_packages.py > requirements-run.txt

Asks the packages installed in this environment what each of them needs, beginning with headend
itself without its extras.
"""

import sys
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEADER = (
    "# The packages of requirements.lock that the installed program needs; versions and hashes\n"
    "# stand there. Made by scripts/run_packages.py.\n"
)


def needed(package: str = "headend") -> list[str]:
    """The names of everything `package` needs, directly or through another, sorted."""
    found: set[tuple[str, frozenset[str]]] = set()
    _collect(package, frozenset(), found)
    return sorted({name for name, _extras in found})


def _collect(package: str, extras: frozenset[str], found: set[tuple[str, frozenset[str]]]) -> None:
    for line in distribution(package).requires or ():
        wanted = Requirement(line)
        marker = wanted.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        one = (str(canonicalize_name(wanted.name)), frozenset(wanted.extras))
        if one not in found:
            found.add(one)
            _collect(*one, found)


if __name__ == "__main__":
    sys.stdout.write(HEADER + "".join(f"{name}\n" for name in needed()))
