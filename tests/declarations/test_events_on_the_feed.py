"""Events of every kind travel in the shape that the schema promises, in order with the readings."""

import json
from decimal import Decimal
from pathlib import Path

import jsonschema

from headend.domain.lives import METER_EVENTS, id_of
from headend.domain.meter import Event
from headend.messages.records import Batch, encode_batch
from tests.declarations.place_world import IMPORT, WIDTH, World

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs/schemas/feed.schema.json").read_text(encoding="utf-8")
)
WHO = {"by": "Li Ming", "reason": "test"}


async def test_every_kind_of_event_has_its_fields_and_stands_before_what_it_changes(
    tmp_path: Path,
) -> None:
    async with World(tmp_path, registers=(WIDTH - 400, 0)) as world:
        await world.take()
        world.go_on(2, (900, 20))
        await world.take()  # begins anew
        world.new_ratio(40)
        world.go_on(1, (100, 20))
        await world.take()
        assert await world.declare(0)
        world.reset(0)
        assert await world.declare(0)
        declared = world.declarations
        at_ms = world.clock.ms
        await declared.move("M-1", at_ms, area="T-2", **WHO)
        await declared.address("M-1", at_ms, address="000000000077", **WHO)
        await declared.number("M-1", at_ms, number="000000004711", **WHO)
        await declared.rollover("M-1", at_ms, point=IMPORT, digits=6, **WHO)
        world.exchange((5, 5), other_address=True)
        assert await world.declare(0)
        (meter,) = world.registry.all()
        seen = {
            "service_point": "SP-1", "meter": meter.id, "number": "1", "number_before": None,
            "state": "first",
        }  # fmt: skip
        await declared.saw_number(Event("meter_number", world.clock.ms, seen), meter)
        moved = next(
            e for e in await world.journal.meter_events(("area_move",)) if e.fields["area"] == "T-2"
        )
        await declared.take_back(id_of(moved), **WHO)
        found = await world.journal.read_stream("billing", 1, records_max=1000)
        batch = Batch(
            headend="he1", epoch=world.journal.epoch, consumer="billing", first_seq=1,
            last_seq=len(found.records), records=found.records, exchanges=found.exchanges,
        )  # fmt: skip
        told = json.loads(encode_batch(batch))
        jsonschema.validate(told, SCHEMA)
        records = told["records"]
        kinds = [r.get("event") for r in records if r["kind"] == "event"]
        assert set(METER_EVENTS) <= set(kinds)
        at = next(n for n, r in enumerate(records) if r.get("event") == "ratio_change")
        behind = [r for r in records[at:] if r.get("flags") == ["withdrawn"]]
        assert behind
        assert all(Decimal(r["multiplier"]) == 1 for r in behind)
        assert {r["multiplier"] for r in records[:at] if "multiplier" in r} == {"1"}
