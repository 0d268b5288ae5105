"""What of a reading is kept while it cannot be dated, as the text a journal row holds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from headend.domain.exchange import Exchange
from headend.domain.reading import Side
from headend.drivers import PointResult
from headend.drivers.result import Doubt, Footing
from headend.journal.model import Parked

_TEXTS = ("point", "di", "unit")
_NUMBERS = ("attempts", "meter_time_ms", "occurred_ms")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One exchange with everything that was read by it, dated. `number`: its row."""

    number: int
    meter: str
    at_ms: int
    results: tuple[PointResult, ...]


def payload_of(meter: str, results: Sequence[PointResult]) -> str:
    """Everything but the exchange, which has columns of its own, and the time."""
    return json.dumps(
        {"meter": meter, "results": [_result_json(result) for result in results]},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def waiting_of(row: Parked, at_ms: int) -> Waiting:
    """A row of the journal, now that the time of its exchange's midpoint is known."""
    found = json.loads(row.payload)
    half_ms = row.exchange.took_ms / 2
    exchange = replace(
        row.exchange, sent_ms=round(at_ms - half_ms), received_ms=round(at_ms + half_ms)
    )
    results = tuple(_result(kept, at_ms, exchange) for kept in found["results"])
    return Waiting(row.id, found["meter"], at_ms, results)


def _result_json(result: PointResult) -> dict[str, Any]:
    kept: dict[str, Any] = {key: getattr(result, key) for key in (*_TEXTS, *_NUMBERS)}
    kept["value"] = None if result.value is None else str(result.value)
    kept["texts"] = list(result.texts)
    if result.doubt is not None:
        kept["doubt"] = [result.doubt.flag, result.doubt.reason, result.doubt.holds]
    footing = result.footing
    if footing is not None:
        kept["footing"] = {
            "side": footing.side.value,
            "multiplier": str(footing.multiplier),
            "applied": None if footing.applied is None else str(footing.applied),
            "limit": str(footing.limit),
            "count": str(footing.count),
        }
    return kept


def _result(kept: dict[str, Any], at_ms: int, exchange: Exchange) -> PointResult:
    value, footing, doubt = kept["value"], kept.get("footing"), kept.get("doubt")
    return PointResult(
        point=kept["point"],
        di=kept["di"],
        value=None if value is None else Decimal(value),
        unit=kept["unit"],
        time_ms=at_ms,
        exchange=exchange,
        attempts=kept["attempts"],
        error=None,
        meter_time_ms=kept["meter_time_ms"],
        occurred_ms=kept["occurred_ms"],
        texts=tuple(kept["texts"]),
        exchanges=(exchange,),
        footing=None if footing is None else _footing(footing),
        doubt=None if doubt is None else Doubt(*doubt),
    )


def _footing(kept: dict[str, Any]) -> Footing:
    applied = kept["applied"]
    return Footing(
        side=Side(kept["side"]),
        multiplier=Decimal(kept["multiplier"]),
        applied=None if applied is None else Decimal(applied),
        limit=Decimal(kept["limit"]),
        count=Decimal(kept["count"]),
    )
