"""`billing`: the consumer process and its database."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from headend.config.database_url import PostgresPlace, SqlitePlace, parse_database
from headend.config.sections.base import FeedName, FilePath, Flag, Section, Text, problem
from headend.config.sections.identity import BrokerIdentity
from headend.domain.errors import ConfigError


def _database(value: str) -> str:
    try:
        parse_database(value)
    except ConfigError as error:
        raise problem(error.message, error.hint or "") from None
    return value


class BillingSection(Section):
    """`name` is the consumer's name at the feed; `headends` are the head-ends it listens to.

    `broker`: who billing is at the feed's broker. Given, nothing of the head-end's own identity
    is used; where the broker is, and who signed its certificate, stands in `feed` for both.
    """

    database: Annotated[Text, AfterValidator(_database)]
    password_file: FilePath | None = None
    allow_plaintext: Flag = False
    name: FeedName = "billing"
    headends: tuple[FeedName, ...] = Field(min_length=1)
    broker: BrokerIdentity | None = None

    @model_validator(mode="after")
    def _the_database_is_reached_safely(self) -> "BillingSection":
        place = self.database_place
        if isinstance(place, PostgresPlace):
            try:
                place.check_secure(allow_plaintext=self.allow_plaintext)
            except ConfigError as error:
                raise problem(error.message, error.hint or "") from None
        elif self.password_file is not None or self.allow_plaintext:
            raise problem(
                "password_file and allow_plaintext are of no use to a file of SQLite",
                "leave them out; who may read the file is a matter of its mode",
            )
        return self

    @property
    def database_place(self) -> SqlitePlace | PostgresPlace:
        """What the URL says; its paths are relative to the configuration."""
        return parse_database(self.database)

    def database_url(self, base: Path) -> str:
        """The URL with a relative SQLite path placed below `base`."""
        place = self.database_place
        if isinstance(place, SqlitePlace) and place.is_file:
            return f"sqlite:///{(base / place.path).resolve()}"
        return self.database
