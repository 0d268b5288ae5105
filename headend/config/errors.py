"""All that is wrong with a configuration, reported at once."""

from collections.abc import Sequence

from headend.domain.errors import ConfigError

SHOWN_MAX = 50


class ConfigErrors(ConfigError):
    """Several `ConfigError`s of one configuration, in the order of its lines.

    `errors` holds every one; the text shows the first 50, one a line.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        assert errors
        self.errors = tuple(sorted(errors, key=lambda e: (e.file or "", e.line or 0)))
        super().__init__(self.errors[0].message)

    def _text(self) -> str:
        lines = [str(e) for e in self.errors[:SHOWN_MAX]]
        if len(self.errors) > SHOWN_MAX:
            lines.append(f"and {len(self.errors) - SHOWN_MAX} more errors")
        return "\n".join(lines)
