"""What PostgreSQL's errors mean for billing, and what to do about each.

The client library keeps no code for what goes wrong before a session stands, so there the
server's own words have to tell. A server that speaks another language than English is told by
what it had asked for; its words are shown either way.
"""

import re

import psycopg
from psycopg import errors as pg

from headend.billing.errors import DatabaseAway
from headend.config.database_url import PostgresPlace

_SETUP = "config/postgresql/setup.sql shows how"
_DATABASE = "billing.database"
_PASSWORD = "billing.password_file"  # noqa: S105 - the name of a key

# Words of a refused connection: what to do, and which key of the configuration is wrong.
_REFUSED: tuple[tuple[str, str, str | None], ...] = (
    (
        r"password authentication failed",
        "look at billing.password_file and at the role's password",
        None,
    ),
    (r"no password supplied", "name the file that holds the role's password", _PASSWORD),
    (r'database ".*" does not exist', f"make it: {_SETUP}", _DATABASE),
    (r'role ".*" does not exist', f"make it: {_SETUP}", _DATABASE),
    (
        r"no pg_hba.conf entry",
        "let role, database and address in, in the server's pg_hba.conf",
        None,
    ),
    (r"permission denied for database", f"GRANT CONNECT ON DATABASE: {_SETUP}", None),
    (r"is not permitted to log in", "ALTER ROLE ... LOGIN", None),
    (r"not currently accepting connections", "ALTER DATABASE ... ALLOW_CONNECTIONS true", None),
    (
        r"certificate verify failed",
        "sslrootcert has to name the authority that signed the server's certificate",
        None,
    ),
    (
        r"does not match host name",
        "name the host in billing.database as its certificate does",
        None,
    ),
    (r"does not support SSL", "switch TLS on at the server (ssl = on, with a certificate)", None),
    (r"(private key|certificate) file .* (has|could|does)", "see sslcert and sslkey", None),
    (r"root certificate file", "see sslrootcert", None),
    (r"requires a valid client certificate|connection requires a valid", "see sslcert", None),
)

# Ours or a message's: asking again would bring the same.
_OUR_FAULT = (pg.IntegrityError, pg.DataError)
_NOT_OUR_FAULT = (pg.InsufficientPrivilege, pg.UndefinedTable, pg.InvalidSchemaName)


def explained(error: psycopg.Error, place: PostgresPlace) -> DatabaseAway | None:
    """What it means; None for a mistake in a statement or in what was to be stored."""
    if isinstance(error, _OUR_FAULT):
        return None
    if isinstance(error, pg.ProgrammingError) and not isinstance(error, _NOT_OUR_FAULT):
        return None
    if error.sqlstate is None:
        return _without_code(error, place)
    said = error.diag.message_primary or type(error).__name__
    if isinstance(error, pg.InsufficientPrivilege):
        hint = f"the role needs more rights: {_SETUP}"
        return DatabaseAway(f"{place.name}: {said}", hint=hint, is_lasting=True)
    # A server that takes no writes may be a primary again by itself; at a start a person looks.
    is_read_only = isinstance(error, pg.ReadOnlySqlTransaction)
    return DatabaseAway(f"{place.name}: {said}", is_lasting=is_read_only)


def _without_code(error: psycopg.Error, place: PostgresPlace) -> DatabaseAway:
    """Before a session stood, or because it broke."""
    said = _one_line(str(error))
    for pattern, hint, setting in _REFUSED:
        if re.search(pattern, said):
            return DatabaseAway(
                f"{place.name}: {said}", hint=hint, is_lasting=True, setting=setting
            )
    tried = getattr(error, "pgconn", None)
    # It asked for a password, so it was up and it was the right kind of server.
    is_refused = tried is not None and bool(tried.used_password or tried.needs_password)
    hint = "look at billing.password_file, and whether role and database exist"
    return DatabaseAway(
        f"{place.name}: {said}", hint=hint if is_refused else "", is_lasting=is_refused
    )


def _one_line(text: str) -> str:
    """The first line that says what happened, without the library's own beginnings."""
    joined = " ".join(text.split())
    joined = re.sub(
        r"^(connection failed: )?(connection to server (at|on) .*? failed: )", "", joined
    )
    return joined.removesuffix(
        " Is the server running on that host and accepting TCP/IP connections?"
    ).removesuffix(" Is the server running locally and accepting connections on that socket?")[:300]
