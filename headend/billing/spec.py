"""Which database, and the file its secret stands in."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from headend.config import Config
from headend.config.database_url import PostgresPlace, SqlitePlace, parse_database
from headend.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    """Everything that opening the database needs to know. No secret is kept in it.

    ConfigError for a server beyond this machine whose certificate would not be checked, unless
    `allow_plaintext`.
    """

    place: SqlitePlace | PostgresPlace
    password_file: Path | None = None
    allow_plaintext: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.place, PostgresPlace):
            self.place.check_secure(allow_plaintext=self.allow_plaintext)

    @classmethod
    def of(cls, database: "str | DatabaseSpec") -> "DatabaseSpec":
        """The spec of a URL; one that is a spec already is left as it is. ConfigError."""
        return cls(parse_database(database)) if isinstance(database, str) else database

    @property
    def name(self) -> str:
        """For messages: nothing secret."""
        return self.place.name


def configured_database(config: Config) -> DatabaseSpec:
    """The configuration's database, with every path made absolute; ConfigError without billing."""
    section = config.billing
    if section is None:
        raise ConfigError("there is no billing section", file=str(config.path), key="billing")
    place = section.database_place
    if isinstance(place, SqlitePlace):
        if place.is_file:
            place = SqlitePlace(str(config.file(Path(place.path))))
        return DatabaseSpec(place)
    place = dataclasses.replace(
        place, files={key: config.file(path) for key, path in place.files.items()}
    )
    password = section.password_file
    return DatabaseSpec(
        place,
        password_file=None if password is None else config.file(password),
        allow_plaintext=section.allow_plaintext,
    )
