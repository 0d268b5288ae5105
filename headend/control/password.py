"""The password for writing: read when it is needed, never kept, never shown."""

from dataclasses import dataclass, field
from pathlib import Path

from headend.config.secret_files import FileFault, read_secret

KEY = "control.password_file"


@dataclass(frozen=True, slots=True)
class Password:
    """level: 0 (highest) to 9. digits: six. `of` names the file's state, not the password."""

    level: int
    digits: str = field(repr=False)
    of: str


def read_password(path: Path) -> Password:
    """The one line of the file, `04 123456`. FileFault."""
    text = read_secret(path, KEY)
    level, _, digits = text.strip().partition(" ")
    digits = digits.strip()
    good = level.isascii() and level.isdecimal() and len(level) <= 2 and int(level) <= 9
    if not good or len(digits) != 6 or not (digits.isascii() and digits.isdecimal()):
        hint = "one line with the level and six digits: 04 000000"
        raise FileFault(KEY, path, "holds no password of a meter", hint)
    about = path.stat()
    # A number of six digits is found from any hash of it, so the file's state has to name it.
    return Password(int(level), digits, f"{about.st_ino:x}-{about.st_mtime_ns:x}-{about.st_size:x}")
