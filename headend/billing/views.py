"""Looking into billing's database, also while the consumer writes. Changes nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

import msgspec
from sqlalchemy import ColumnElement, Select, func, select

from headend.billing import tables
from headend.billing.database import DatabaseSpec, open_reader
from headend.billing.differences import DIRECTIONS, MeterEvent, RegisterReading, ServicePoint
from headend.billing.inbox import ExchangeRow, Row
from headend.domain.errors import HeadendError
from headend.domain.lives import METER_EVENTS, ROLLOVER


class ReadingIdError(HeadendError):
    """No reading of that id is or was held, or several begin like it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A reading by its id, with the frames it came from (None when none were sent)."""

    row: Row
    is_current: bool
    exchange: ExchangeRow | None


class BillingView:
    """A reader of a database; use as a context manager. BillingDatabaseError, ConfigError.

    It belongs to one thread, and each call sees one moment.
    """

    def __init__(self, database: str | DatabaseSpec) -> None:
        self._database = open_reader(database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session with the database."""
        self._database.close()

    def readings(
        self,
        *,
        meter: str | None = None,
        point: str | None = None,
        service_point: str | None = None,
    ) -> Iterator[Row]:
        """Current values by meter, point and time. What was withdrawn is there, without value."""
        c = tables.reading.c
        query = select(tables.reading).order_by(c.meter, c.point, c.time_ms, c.interval_s)
        if meter is not None:
            query = query.where(c.meter == meter)
        if point is not None:
            query = query.where(c.point == point)
        if service_point is not None:
            query = query.where(c.service_point == service_point)
        with self._database.begin() as connection:
            # Chunk by chunk would hold a reader open and the write-ahead log with it.
            rows = connection.execute(query).fetchall()
        yield from map(Row._make, rows)

    def service_points(self) -> list[str]:
        """Every service point there ever was a reading of."""
        column = tables.metering.c.service_point
        with self._database.begin() as connection:
            return list(connection.execute(select(column).distinct().order_by(column)).scalars())

    def service_point(
        self, name: str, *, from_ms: int | None = None, to_ms: int | None = None
    ) -> ServicePoint:
        """The registers of a service point (between two instants, both inclusive) and its events.

        A service point nobody knows has no readings.
        """
        c = tables.reading.c
        meters = select(tables.metering.c.meter).where(tables.metering.c.service_point == name)
        query = select(tables.reading).where(
            c.meter.in_(meters),
            c.point.in_(DIRECTIONS.values()),
            c.interval_s == 0,
            c.service_point == name,
        )
        if from_ms is not None:
            query = query.where(c.time_ms >= from_ms)
        if to_ms is not None:
            query = query.where(c.time_ms <= to_ms)
        e = tables.event.c
        # Fields are the feed's JSON as `json.dumps` writes it; what is found too much is passed
        # over. Rollovers of older releases do not name their service point.
        spoken_of = e.fields.contains(f'"service_point": {json.dumps(name)}', autoescape=True)
        nameless = (e.kind == ROLLOVER) & ~e.fields.contains('"service_point"')
        events = select(e.event_id, e.kind, e.at_ms, e.fields).where(
            e.kind.in_(METER_EVENTS), spoken_of | nameless
        )
        query = query.order_by(c.meter, c.point, c.time_ms)
        events = events.order_by(e.at_ms, e.event_id, e.headend)
        with self._database.begin() as connection:
            rows = [Row._make(values) for values in connection.execute(query)]
            found = [
                MeterEvent(event_id, kind, at_ms, msgspec.json.decode(fields))
                for event_id, kind, at_ms, fields in connection.execute(events)
            ]
        return ServicePoint(name, map(_register_reading, rows), found)

    def find(self, read_id: str) -> Found:
        """The reading whose id begins so. ReadingIdError when there is not exactly one."""
        with self._database.begin() as connection:
            found: list[tuple[Row, bool]] = []
            for table, is_current in (
                (tables.reading, True),
                (tables.reading_history, False),
                (tables.conflict, False),
            ):
                columns = [table.c[name] for name in Row._fields]
                query = select(*columns).where(_begins(table.c.read_id, read_id)).limit(2)
                found += [(Row._make(values), is_current) for values in connection.execute(query)]
            if len({row.read_id for row, _ in found}) != 1:
                what = "several readings begin" if found else "no reading begins"
                msg = f"{what} with {read_id}"
                raise ReadingIdError(msg)
            row, is_current = found[0]
            c = tables.exchange.c
            frames = connection.execute(
                select(tables.exchange).where(
                    c.headend == row.headend, c.epoch == row.epoch, c.ref == row.evidence
                )
            ).one_or_none()
        return Found(row, is_current, None if frames is None else ExchangeRow._make(frames))

    def status(self) -> dict[str, Any]:
        """Cursors, and how much there is of everything, JSON-ready (times in UTC ms)."""
        counted = {
            "readings": tables.reading,
            "replaced": tables.reading_history,
            "conflicts": tables.conflict,
            "events": tables.event,
            "exchanges": tables.exchange,
            "dead_letters": tables.dead_letter,
        }
        with self._database.begin() as connection:

            def rows(query: Select[Any]) -> list[dict[str, Any]]:
                return [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001

            counts = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in counted.items()
            }
            cursors = tables.feed_cursor
            letters = tables.dead_letter.c
            gaps, alarms = tables.gap.c, tables.alarm.c
            return {
                "counts": counts,
                "cursors": rows(select(cursors).order_by(cursors.c.headend, cursors.c.ordinal)),
                "gaps": rows(select(tables.gap).order_by(gaps.headend, gaps.epoch, gaps.first_seq)),
                "alarms": rows(
                    select(tables.alarm).order_by(
                        alarms.last_ms.desc(), alarms.headend, alarms.kind, alarms.subject
                    )
                ),
                "dead_letters": rows(
                    select(
                        letters.headend,
                        letters.topic,
                        letters.code,
                        letters.reason,
                        letters.size,
                        letters.last_ms,
                        letters.times,
                    )
                    .order_by(letters.last_ms.desc(), letters.headend, letters.hash)
                    .limit(20)
                ),
            }


def _begins(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """As a range, which an index can serve."""
    return (column >= prefix) & (column < prefix + "g")  # ids are hex digits


def _register_reading(row: Row) -> RegisterReading:
    return RegisterReading(
        meter=row.meter,
        service_point=row.service_point,
        point=row.point,
        time_ms=row.time_ms,
        value=None if row.value is None else Decimal(row.value),
        unit=row.unit,
        read_id=row.read_id,
        due_ms=row.due_ms,
        status=row.status,
        verdict=row.verdict,
        flags=tuple(row.flags.split(",")) if row.flags else (),
        multiplier=Decimal(row.multiplier),
        side=row.side,
    )
