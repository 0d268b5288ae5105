"""Secrets that the service manager hands in: `$CREDENTIALS_DIRECTORY/NAME` as a `*_file`.

systemd copies what a unit's LoadCredential= names into a directory that only this service can
read, and tells where it is in an environment variable. Whether a credential is there is therefore
known to the running service alone: when a configuration is read only the name is checked, and
what is missing is told when the service starts.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from headend.domain.errors import ConfigError

VARIABLE = "CREDENTIALS_DIRECTORY"
# As a shell writes it, and as a unit file does.
_SPELLINGS = (f"${VARIABLE}", f"${{{VARIABLE}}}", "%d")
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,255}")
_SHOWN_MAX = 10


def credential_name(path: Path) -> str | None:
    """The name of the credential that a path of the configuration means; None for a plain path.

    ConfigError for one that begins as a credential and is none.
    """
    if not path.parts or path.parts[0] not in _SPELLINGS:
        return None
    name = "/".join(path.parts[1:])
    if not _NAME.fullmatch(name) or set(name) == {"."}:
        raise ConfigError(
            f"{path} names no credential",
            hint=f"one plain name behind it: ${VARIABLE}/secret_mqtt-password",
        )
    return name


def place(path: Path, base: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Where a path of the configuration leads: into the credentials' directory, else from `base`.

    ConfigError for a credential that is not there. A plain path is not looked at.
    """
    name = credential_name(path)
    if name is None:
        return (base / path).resolve()
    folder = (os.environ if environ is None else environ).get(VARIABLE)
    if not folder:
        raise ConfigError(
            f"{path} can be had by a service only: {VARIABLE} is not set here",
            hint="systemd sets it where the unit has LoadCredential=; by hand, as root, while "
            f"the service runs: {VARIABLE}=/run/credentials/headend.service",
        )
    names = _names(folder)
    if name not in names:
        raise ConfigError(f"there is no credential {name} in {folder}", hint=_hint(names))
    return Path(folder) / name


def _names(folder: str) -> list[str]:
    """What was handed in. With nothing to hand in, systemd leaves a directory closed to us."""
    try:
        return sorted(entry.name for entry in Path(folder).iterdir())
    except OSError:
        return []


def _hint(names: list[str]) -> str:
    if not names:
        return "the unit's LoadCredential= gave none"
    more = ", ..." if len(names) > _SHOWN_MAX else ""
    return f"the unit's LoadCredential= gave: {', '.join(names[:_SHOWN_MAX])}{more}"
