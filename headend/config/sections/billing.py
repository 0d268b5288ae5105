"""`billing`: the consumer process and its database."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from headend.config.sections.base import FeedName, FilePath, Section, Text, problem

_SQLITE = "sqlite:///"


def _database(value: str) -> str:
    try:
        url = urlsplit(value)
    except ValueError:
        url = None
    if url is None or not value.startswith((_SQLITE, "postgresql://", "postgresql+")):
        raise problem(
            f"{value!r} is not a database URL",
            "sqlite:///./data/billing.db or postgresql://user@host/name",
        )
    if url.password is not None:
        raise problem("the database URL holds a password", "use password_file")
    return value


class BillingSection(Section):
    """`name` is the consumer's name at the feed; `headends` are the head-ends it listens to."""

    database: Annotated[Text, AfterValidator(_database)]
    password_file: FilePath | None = None
    name: FeedName = "billing"
    headends: tuple[FeedName, ...] = Field(min_length=1)

    def database_url(self, base: Path) -> str:
        """The URL with a relative SQLite path placed below `base`."""
        if not self.database.startswith(_SQLITE):
            return self.database
        path = self.database.removeprefix(_SQLITE)
        return self.database if path in ("", ":memory:") else f"{_SQLITE}{(base / path).resolve()}"
