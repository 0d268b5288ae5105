"""Billing's database on a PostgreSQL server.

A writer's session holds the writer's lock of the schema for as long as it lives, so there is one
writer, and a session that takes over from a lost one begins when the server has ended that one:
what its last transaction came to is decided by then.

Text is declared with the collation "C": compared and ordered by its bytes, as SQLite does it,
whatever the database's own collation is.
"""

import contextlib
import logging
import os
import re
import secrets
import socket
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, bindparam, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from headend.billing.errors import BillingDatabaseError, DatabaseAway, DatabaseBusy
from headend.billing.postgresql_errors import explained
from headend.billing.spec import DatabaseSpec
from headend.billing.tables import dead_letter, metadata
from headend.config.database_url import PostgresPlace
from headend.config.secret_files import FileFault, read_secret

log = logging.getLogger(__name__)

SERVER_VERSION_MIN = 130000
CONNECT_TIMEOUT_S = 5
LOCK_WAIT_S = 5  # a writer that was killed leaves its session behind for a moment
SILENT_LINE_MS = 20_000  # bytes on their way and nothing acknowledged: the line is dead
_LOCK_CLASS = 0x68656164

# What both kinds of session need to know of the server.
_ABOUT = """SELECT pg_backend_pid(), pg_catalog.getdatabaseencoding(),
    pg_catalog.current_schema(), pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('fsync')"""
# A transaction whose client is gone must not hold its locks until somebody finds it.
_SETTINGS = {
    "lock_timeout": f"{LOCK_WAIT_S}s",
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
_RELATIONS = """SELECT c.relname FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = pg_catalog.current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e'
        AND d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid)"""
_LOCK_KEY = "pg_catalog.hashtext(pg_catalog.current_schema()) & 2147483647"
_HOLDER = f"""SELECT a.client_addr, a.pid, a.backend_start FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {_LOCK_CLASS}
    AND l.objid = ({_LOCK_KEY})::oid AND l.database = (
        SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"""  # noqa: S608 - own constants


class PostgresHome:
    """The database at `place`, for one session at a time."""

    is_remote = True

    def __init__(self, spec: DatabaseSpec, place: PostgresPlace, *, writes: bool) -> None:
        self.name = spec.name
        self._spec = spec
        self._place = place
        self._writes = writes
        # Who we are at the server, so that a lost session of ours is told from another process.
        self._label = f"headend billing {'writer' if writes else 'reader'} {secrets.token_hex(8)}"
        self._line: socket.socket | None = None
        self._had_session = False
        self.engine: Engine = create_engine(
            "postgresql+psycopg://",
            creator=self._open_session,
            poolclass=NullPool,
            use_native_hstore=False,
        )

    def explained(self, error: BaseException, *, at_start: bool = False) -> BaseException:  # noqa: ARG002
        """The error in our words."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, psycopg.Error):
            return error
        return explained(cause, self._place) or error

    def ddl(self, statement: str) -> str:
        """With the collation of bytes."""
        return re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', statement)

    def relations(self, connection: Connection) -> set[str]:
        """Tables, views and sequences of our schema, but for those of extensions."""
        return set(connection.exec_driver_sql(_RELATIONS).scalars())

    def check(self, connection: Connection) -> None:
        """The server looks after its files itself."""

    def check_rights(self, connection: Connection) -> None:
        """Whether the role may read and write each table, and make the temporary ones."""
        query = text(
            "SELECT t || ': ' || r FROM pg_catalog.unnest(CAST(:tables AS text[])) t, "
            "pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) r "
            "WHERE (r <> 'DELETE' OR t = :deleted) "
            "AND NOT pg_catalog.has_table_privilege(pg_catalog.quote_ident(t), r) "
            "UNION ALL SELECT 'temporary tables' WHERE NOT pg_catalog.has_database_privilege("
            "pg_catalog.current_database(), 'TEMPORARY')"
        ).bindparams(bindparam("tables", sorted(metadata.tables)), deleted=dead_letter.name)
        lacking = sorted(connection.execute(query).scalars())
        if lacking:
            raise DatabaseAway(
                f"{self.name}: the role lacks rights ({', '.join(lacking[:4])})",
                hint="let it own the tables, as config/postgresql/setup.sql does",
                is_lasting=True,
            )

    def let_go(self) -> None:
        """Forget the session's line."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def cut(self) -> None:
        """Break the line of the session: whoever waits behind it learns so at once."""
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    # -- one session

    def _open_session(self) -> "psycopg.Connection[tuple[Any, ...]]":
        session = psycopg.connect(**self._parameters())
        try:
            # A descriptor of our own: its number cannot be given to somebody else under our hands.
            self._line = socket.socket(fileno=os.dup(session.fileno()))
            self._prepare(session)
        except BaseException:
            session.close()
            self.let_go()
            raise
        self._had_session = True
        return session

    def _parameters(self) -> dict[str, Any]:
        place = self._place
        given = {
            "user": place.user,
            "host": place.host,
            "password": self._password(),
            **{key: str(path) for key, path in place.files.items()},
        }
        return {
            **{key: value for key, value in given.items() if value is not None},
            "dbname": place.database,
            "port": place.port,
            "sslmode": place.sslmode_used,
            "gssencmode": "disable",
            "application_name": self._label,
            "client_encoding": "UTF8",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": SILENT_LINE_MS,
        }

    def _password(self) -> str | None:
        """Read for each session and not kept."""
        if self._spec.password_file is None:
            return None
        try:
            return read_secret(self._spec.password_file)
        except FileFault as fault:
            raise DatabaseAway(
                f"{fault.path} {fault.message}", hint=fault.hint, setting="billing.password_file"
            ) from fault

    def _prepare(self, session: "psycopg.Connection[tuple[Any, ...]]") -> None:
        version = session.info.server_version
        if version < SERVER_VERSION_MIN:
            raise BillingDatabaseError(
                f"{self.name} runs PostgreSQL {_version_text(version)}, and billing needs "
                f"{_version_text(SERVER_VERSION_MIN)} or later. Nothing was changed"
            )
        row = session.execute(_ABOUT).fetchone()
        assert row is not None
        pid, encoding, schema, is_standby, synchronous_commit, fsync = row
        if encoding != "UTF8":
            raise BillingDatabaseError(
                f"{self.name} has the encoding {encoding}, and billing needs UTF8. Nothing was "
                "changed: make it anew, as config/postgresql/setup.sql does"
            )
        if schema is None:
            raise DatabaseAway(
                f"{self.name}: the role may use no schema of its search_path",
                hint="make it as config/postgresql/setup.sql does",
                is_lasting=True,
            )
        session.execute(
            "SELECT pg_catalog.set_config('search_path', "
            "pg_catalog.quote_ident(pg_catalog.current_schema()), false)"
        )
        if self._writes:
            if is_standby:
                raise DatabaseAway(
                    f"{self.name} is a standby and takes no writes",
                    hint="name the primary in billing.database",
                    is_lasting=True,
                )
            self._prepare_to_write(session, pid, synchronous_commit)
            self._warn_of_lies(fsync)
        else:
            session.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            session.commit()
            # What is counted and what is listed come from one moment.
            session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            session.read_only = True

    def _prepare_to_write(
        self, session: "psycopg.Connection[tuple[Any, ...]]", pid: int, synchronous_commit: str
    ) -> None:
        if pid != session.info.backend_pid:
            raise DatabaseAway(
                f"{self.name} is reached through a connection pooler",
                hint="the writer's lock needs a session of its own: name the server itself",
                is_lasting=True,
            )
        settings = dict(_SETTINGS)
        if synchronous_commit != "remote_apply":  # which promises more
            settings["synchronous_commit"] = "on"
        for name, value in settings.items():
            session.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        session.commit()
        self._lock(session)

    def _lock(self, session: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """The writer's lock, held by the session until its end. DatabaseBusy."""
        if self._had_session:
            # The server may not have noticed yet that our last session is over.
            session.execute(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
                "WHERE application_name = %s AND pid <> pg_catalog.pg_backend_pid() "
                "AND usename = current_user",
                (self._label,),
            )
        try:
            session.execute(f"SELECT pg_catalog.pg_advisory_lock({_LOCK_CLASS}, {_LOCK_KEY})")
        except LockNotAvailable:
            session.rollback()
            holder = session.execute(_HOLDER).fetchone()
            raise self._busy(holder) from None
        session.commit()

    def _busy(self, holder: tuple[Any, ...] | None) -> DatabaseBusy:
        where = ""
        if holder is not None:
            address, pid, since = holder
            where = f" (from {address or 'this machine'}, since {since}, server process {pid})"
        return DatabaseBusy(
            f"{self.name}: another `headend billing run` writes to it{where}",
            hint="a database has one writer: end that one, or give this one a database of its own",
            is_lasting=not self._had_session,
        )

    def _warn_of_lies(self, fsync: str) -> None:
        if fsync != "on" and not self._had_session:
            log.warning(
                "%s runs with fsync=%s: after a power cut it may lack what was receipted",
                self.name,
                fsync,
            )


def _version_text(number: int) -> str:
    return str(number // 10000)
