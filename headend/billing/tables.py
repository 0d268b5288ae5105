"""Billing's database: its tables and the steps that bring an older file up to date.

The same tables and steps serve SQLite and PostgreSQL, so types and statements stay plain; text is
compared and ordered by its bytes on both. Everything unique contains the column it would be
partitioned by: `headend` for what belongs to a stream, `meter` for readings (a key's current
value is the same whatever head-end it came from).
"""

from collections.abc import Callable

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text

SCHEMA_VERSION = 1

metadata = MetaData()

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("applied_ms", BigInteger, nullable=False),
    Column("software", Text, nullable=False),
)

# One row for each journal a head-end ever had. `ordinal`: in which order we met them.
feed_cursor = Table(
    "feed_cursor",
    metadata,
    Column("headend", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("through_seq", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)


def _reading_columns(*, in_key: frozenset[str]) -> list[Column[object]]:
    """The columns of a reading, in the order of `inbox.Row`."""
    shapes: tuple[tuple[str, type[Text | BigInteger | Integer], bool], ...] = (
        ("meter", Text, False),
        ("point", Text, False),
        ("time_ms", BigInteger, False),
        ("interval_s", BigInteger, False),
        ("revision", BigInteger, False),
        ("read_id", Text, False),
        ("value", Text, True),
        ("unit", Text, False),
        ("status", Text, False),
        ("verdict", Text, False),
        ("flags", Text, False),
        ("service_point", Text, False),
        ("received_ms", BigInteger, False),
        ("due_ms", BigInteger, True),
        ("late", Integer, False),
        ("final", Integer, False),
        ("multiplier", Text, False),
        ("side", Text, False),
        ("evidence", Text, True),
        ("headend", Text, False),
        ("epoch", Text, False),
        ("seq", BigInteger, False),
    )
    return [
        Column(name, kind(), nullable=nullable, primary_key=name in in_key)
        for name, kind, nullable in shapes
    ]


_KEY = frozenset({"meter", "point", "time_ms", "interval_s"})

# The current value of every key; `interval_s` 0 = none.
reading = Table("reading", metadata, *_reading_columns(in_key=_KEY))

# Revisions that were replaced.
reading_history = Table(
    "reading_history",
    metadata,
    *_reading_columns(in_key=_KEY | {"read_id"}),
    Column("superseded_by", Text, nullable=False),
)

# Readings that were not later than the current one and said something else; not applied.
conflict = Table(
    "conflict",
    metadata,
    *_reading_columns(in_key=_KEY | {"read_id"}),
    Column("current_read_id", Text, nullable=False),
    Column("noticed_ms", BigInteger, nullable=False),
)

# Which meters a service point ever had readings of.
metering = Table(
    "metering",
    metadata,
    Column("service_point", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
)

event = Table(
    "event",
    metadata,
    Column("headend", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("fields", Text, nullable=False),
)

# The raw frames, so that the bytes can be shown even when the head-end is gone.
exchange = Table(
    "exchange",
    metadata,
    Column("headend", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("ref", Text, primary_key=True),
    Column("request", Text, nullable=False),
    Column("reply", Text, nullable=True),
    Column("bus", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("software", Text, nullable=False),
)

# Numbers of a stream that will never come.
gap = Table(
    "gap",
    metadata,
    Column("headend", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("noticed_ms", BigInteger, nullable=False),
)

# What a person has to look at. `times`: how often it was seen.
alarm = Table(
    "alarm",
    metadata,
    Column("headend", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("detail", Text, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("times", BigInteger, nullable=False),
)

# Messages that were refused: the newest few, by hash, with their beginning as hex.
dead_letter = Table(
    "dead_letter",
    metadata,
    Column("headend", Text, primary_key=True),
    Column("hash", Text, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("beginning", Text, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("times", BigInteger, nullable=False),
)

_READING = """
    meter TEXT NOT NULL, point TEXT NOT NULL, time_ms BIGINT NOT NULL, interval_s BIGINT NOT NULL,
    revision BIGINT NOT NULL, read_id TEXT NOT NULL, value TEXT, unit TEXT NOT NULL,
    status TEXT NOT NULL, verdict TEXT NOT NULL, flags TEXT NOT NULL, service_point TEXT NOT NULL,
    received_ms BIGINT NOT NULL, due_ms BIGINT, late INTEGER NOT NULL, final INTEGER NOT NULL,
    multiplier TEXT NOT NULL, side TEXT NOT NULL, evidence TEXT, headend TEXT NOT NULL,
    epoch TEXT NOT NULL, seq BIGINT NOT NULL"""

# Never changed once released: a new shape is a new step.
_STEP_1 = (
    """CREATE TABLE feed_cursor (headend TEXT NOT NULL, epoch TEXT NOT NULL,
    ordinal INTEGER NOT NULL, through_seq BIGINT NOT NULL, updated_ms BIGINT NOT NULL,
    PRIMARY KEY (headend, epoch))""",
    f"CREATE TABLE reading ({_READING}, PRIMARY KEY (meter, point, time_ms, interval_s))",
    "CREATE INDEX reading_by_id ON reading (read_id)",
    f"""CREATE TABLE reading_history ({_READING}, superseded_by TEXT NOT NULL,
    PRIMARY KEY (meter, point, time_ms, interval_s, read_id))""",
    "CREATE INDEX reading_history_by_id ON reading_history (read_id)",
    f"""CREATE TABLE conflict ({_READING}, current_read_id TEXT NOT NULL,
    noticed_ms BIGINT NOT NULL,
    PRIMARY KEY (meter, point, time_ms, interval_s, read_id))""",
    """CREATE TABLE metering (service_point TEXT NOT NULL, meter TEXT NOT NULL,
    PRIMARY KEY (service_point, meter))""",
    """CREATE TABLE event (headend TEXT NOT NULL, event_id TEXT NOT NULL, epoch TEXT NOT NULL,
    seq BIGINT NOT NULL, kind TEXT NOT NULL, at_ms BIGINT NOT NULL, fields TEXT NOT NULL,
    PRIMARY KEY (headend, event_id))""",
    "CREATE INDEX event_by_kind ON event (kind, at_ms)",
    """CREATE TABLE exchange (headend TEXT NOT NULL, epoch TEXT NOT NULL, ref TEXT NOT NULL,
    request TEXT NOT NULL, reply TEXT, bus TEXT NOT NULL, received_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL, software TEXT NOT NULL, PRIMARY KEY (headend, epoch, ref))""",
    """CREATE TABLE gap (headend TEXT NOT NULL, epoch TEXT NOT NULL, first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL, reason TEXT NOT NULL, noticed_ms BIGINT NOT NULL,
    PRIMARY KEY (headend, epoch, first_seq))""",
    """CREATE TABLE alarm (headend TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    detail TEXT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL,
    times BIGINT NOT NULL, PRIMARY KEY (headend, kind, subject))""",
    """CREATE TABLE dead_letter (headend TEXT NOT NULL, hash TEXT NOT NULL, topic TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, size BIGINT NOT NULL, beginning TEXT NOT NULL,
    first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, times BIGINT NOT NULL,
    PRIMARY KEY (headend, hash))""",
)


Execute = Callable[[str], None]


def _run(statements: tuple[str, ...]) -> Callable[[Execute], None]:
    def step(execute: Execute) -> None:
        for statement in statements:
            execute(statement)

    return step


# Step n brings a database of version n - 1 to version n.
MIGRATIONS: tuple[Callable[[Execute], None], ...] = (_run(_STEP_1),)

assert len(MIGRATIONS) == SCHEMA_VERSION
