"""Reads planned as blocks and single items, and what a meter teaches by refusing."""

import itertools
import json
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from jsonschema import Draft202012Validator

from protocols.dlt645.catalogue import FREEZE_TIME, live_points
from protocols.dlt645.items import decode
from protocols.dlt645.learned import NOTHING_LEARNED, SCHEMA, Learned
from protocols.dlt645.master import read_request
from protocols.dlt645.meter import build_reply
from protocols.dlt645.planner import Line, Plan, plan_frozen, plan_requests
from protocols.dlt645.profile import GENERIC, MeterProfile, profile_from
from protocols.errors import ErrorReply, LocalProtocolError

SHAPE = Draft202012Validator(
    json.loads(
        (Path(__file__).parents[2] / "docs" / "schemas" / "dlt645_learned.schema.json").read_text()
    )
)
PHASES = ["voltage_a", "voltage_b", "voltage_c"]
OLD = profile_from({"id": "o", "device": "o", "protocol": "dlt645-1997"}, name="o")


def profile(**keys: object) -> MeterProfile:
    tree = {"id": "x", "device": "x", "protocol": "dlt645-2007", **keys}
    return profile_from(tree, name="x")


def dis(plan: Plan) -> list[str]:
    return [read.di for read in plan.reads]


def refused(*reasons: str) -> ErrorReply:
    return ErrorReply("no", reasons=reasons, error_byte=2)


def test_points_of_one_block_are_read_together() -> None:
    plan = plan_requests([*PHASES, "frequency"])
    assert dis(plan) == ["0201FF00", "02800002"]
    assert plan.reads[0].places == {"voltage_a": 0, "voltage_b": 1, "voltage_c": 2}
    assert (plan.absent, plan.unknown) == ((), ())


def test_one_point_of_a_block_is_read_alone() -> None:
    assert dis(plan_requests(["voltage_a"])) == ["02010100"]
    assert dis(plan_requests(["active_import_t1"])) == ["00010100"]


def test_what_a_read_costs_is_what_is_on_the_line() -> None:
    plan = plan_requests(["active_import_total"], line=Line(2400, reply_delay_ms=100))
    (read,) = plan.reads
    request = read_request("000000000161", "00010000").raw
    reply = build_reply("000000000161", "00010000", bytes(4))
    assert (read.request_bytes, read.reply_bytes) == (4 + len(request), 4 + len(reply)) == (20, 24)
    # 44 bytes of 11 bits at 2400 bit/s, the meter's delay, and a pause.
    assert plan.cost_ms == pytest.approx(44 * 11 / 2.4 + 100 + 30)
    assert (plan.saved_ms, plan.saved_bytes) == (0, 0)


def test_what_blocks_save_is_told_in_time_and_bytes() -> None:
    plan = plan_requests(PHASES)
    three, one = 3 * (20 + 22), 20 + 26
    assert plan.wire_bytes == one
    assert plan.saved_bytes == three - one
    assert plan.saved_ms == pytest.approx((three - one) * 11 / 2.4 + 2 * 130)
    assert plan.rows() == [
        {"di": "0201FF00", "points": PHASES, "frames": 1, "bytes": one,
         "cost_ms": round(one * 11 / 2.4 + 130, 1)},
    ]  # fmt: skip


def test_a_block_is_taken_only_where_it_is_cheaper() -> None:
    # 64 values for two of them: the block is longer than both single reads together.
    two = ["active_import_total", "active_import_t1"]
    assert dis(plan_requests(two)) == ["0001FF00"]
    wide = plan_requests(two, profile(tariffs=63))
    assert dis(wide) == ["00010000", "00010100"]


def test_the_plan_is_the_cheapest_of_all_there_are() -> None:
    points = ["active_import_total", "active_import_t1", "active_import_t4", "voltage_a",
              "voltage_b", "active_power_total", "active_power_a", "active_power_b"]  # fmt: skip
    blocks = {"0001FF00", "0201FF00", "0203FF00"}
    for tariffs, baud, delay in itertools.product((2, 4, 40, 63), (1200, 9600), (20.0, 500.0)):
        line = Line(baud, reply_delay_ms=delay)
        kind = profile(tariffs=tariffs)
        best = min(
            plan_requests(
                points, profile(tariffs=tariffs, refuses=list(without)), line=line
            ).cost_ms
            for size in range(4)
            for without in itertools.combinations(sorted(blocks), size)
        )
        assert plan_requests(points, kind, line=line).cost_ms == pytest.approx(best)


def test_the_order_of_asking_changes_nothing() -> None:
    points = [*live_points()]
    random = Random(7)
    some = random.sample(points, 60)
    plan = plan_requests(some)
    random.shuffle(some)
    assert plan_requests(some) == plan
    assert set(itertools.chain.from_iterable(read.places for read in plan.reads)) == set(some)


def test_a_tariff_that_blocks_do_not_hold_is_read_alone() -> None:
    plan = plan_requests(["active_import_total", "active_import_t1", "active_import_t5"])
    assert dis(plan) == ["00010500", "0001FF00"]
    assert plan.reads[1].places == {"active_import_total": 0, "active_import_t1": 1}


def test_a_demand_in_a_block_stands_beside_its_time() -> None:
    plan = plan_requests(["demand_import_total", "demand_import_t1", "demand_import_t2"])
    assert dis(plan) == ["0101FF00"]
    assert plan.reads[0].places == {
        "demand_import_total": 0, "demand_import_t1": 2, "demand_import_t2": 4,
    }  # fmt: skip


def test_the_values_of_a_block_go_to_their_points() -> None:
    (read,) = plan_requests(["active_import_total", "active_import_t1", "active_import_t2"]).reads
    item = GENERIC.item(read.di)
    assert item is not None
    payload = bytes.fromhex("2901000062000000600000000300000002000000")
    assert read.values(decode(item, payload)) == {
        "active_import_total": Decimal("1.29"),
        "active_import_t1": Decimal("0.62"),
        "active_import_t2": Decimal("0.60"),
    }
    # A meter with fewer tariffs than supposed: what is not there is left out, never guessed.
    assert set(read.values(decode(item, payload[:8]))) == {
        "active_import_total", "active_import_t1",
    }  # fmt: skip


def test_a_block_longer_than_a_frame_counts_its_further_frames() -> None:
    points = [f"active_import_t{n}" for n in range(1, 60)] + ["active_import_total"]
    (read,) = plan_requests(points, profile(tariffs=59)).reads
    # 240 bytes: 196 in the first frame, 44 and a number in the second.
    assert read.frames == 2
    assert read.reply_bytes == 240 + 2 * (4 + 12 + 4) + 1
    assert read.request_bytes == 20 + 21
    never = plan_requests(points, profile(tariffs=59, follow_up="never"))
    assert len(never.reads) == 60


def test_the_old_edition_is_planned_by_its_own_identifiers() -> None:
    plan = plan_requests([*PHASES, "active_import_total", "frequency"], OLD)
    assert dis(plan) == ["9010", "B61F"]
    assert plan.unknown == ("frequency",)
    assert plan.reads[0].request_bytes == 4 + 14


def test_points_that_nobody_knows_are_told() -> None:
    plan = plan_requests(["nothing", "voltage_a"])
    assert (plan.unknown, dis(plan)) == (("nothing",), ["02010100"])


# -- learning


def test_a_block_that_was_refused_is_read_in_single_items() -> None:
    learned = NOTHING_LEARNED.after_refusal("0201FF00", refused("no_data"))
    plan = plan_requests(PHASES, GENERIC, learned)
    assert dis(plan) == ["02010100", "02010200", "02010300"]
    assert plan.absent == ()
    # Other blocks are still tried.
    assert "0202FF00" in dis(plan_requests([*PHASES, "current_a", "current_b"], GENERIC, learned))


@pytest.mark.parametrize("reasons", [("password",), ("other",), (), ("speed",)])
def test_only_a_refusal_that_says_so_teaches_anything(reasons: tuple[str, ...]) -> None:
    assert NOTHING_LEARNED.after_refusal("0201FF00", refused(*reasons)) is NOTHING_LEARNED


def test_a_single_item_is_absent_only_after_a_second_refusal() -> None:
    once = NOTHING_LEARNED.after_refusal("02010200", refused("no_data"))
    assert "02010200" in dis(plan_requests(["voltage_b"], GENERIC, once))
    twice = once.after_refusal("02010200", refused("no_data", "other"))
    # The block may still have it.
    for points in (["voltage_b"], ["voltage_a", "voltage_b"]):
        plan = plan_requests(points, GENERIC, twice)
        assert (dis(plan), plan.absent) == (["0201FF00"], ())
    both = twice.after_refusal("0201FF00", refused("no_data"))
    plan = plan_requests(["voltage_a", "voltage_b"], GENERIC, both)
    assert (dis(plan), plan.absent) == (["02010100"], ("voltage_b",))


def test_a_meter_that_answers_has_the_item() -> None:
    refusal = refused("no_data")
    twice = NOTHING_LEARNED.after_refusal("02010200", refusal).after_refusal("02010200", refusal)
    assert not twice.after_reply("02010200", 2).lacks("02010200", block=False)


def test_a_block_shows_how_many_tariffs_a_meter_has() -> None:
    assert NOTHING_LEARNED.after_reply("0001FF00", 12).tariffs == 2
    assert NOTHING_LEARNED.after_reply("0101FF00", 40).tariffs == 4
    assert NOTHING_LEARNED.after_reply("0201FF00", 6).tariffs is None
    assert NOTHING_LEARNED.after_reply("00010000", 4).tariffs is None
    learned = NOTHING_LEARNED.after_reply("0001FF00", 12)
    points = ["active_import_total", "active_import_t1", "active_import_t3"]
    assert dis(plan_requests(points, GENERIC, learned)) == ["00010300", "0001FF00"]


def test_what_was_learned_is_kept_and_read_again() -> None:
    learned = NOTHING_LEARNED.after_refusal("0201FF00", refused("no_data")).after_reply("901F", 20)
    assert learned.tariffs == 4
    assert Learned.from_json(learned.to_json()) == learned
    assert learned.to_json()["schema"] == SCHEMA
    SHAPE.validate(learned.to_json())


def test_what_is_known_already_changes_nothing() -> None:
    """The very same value: whoever keeps it sees at once that there is nothing to write."""
    learned = NOTHING_LEARNED
    for _ in range(2):
        learned = learned.after_refusal("02010100", refused("no_data"))
    learned = learned.after_reply("0001FF00", 12)
    assert learned.after_refusal("02010100", refused("no_data")) is learned
    assert learned.after_refusal("00010000", refused("password")) is learned
    assert learned.after_reply("0001FF00", 12) is learned
    assert learned.after_reply("00010000", 4) is learned
    assert learned.after_reply("02010100", 2) != learned


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"schema": "x", "refusals": {}, "tariffs": None},
        {"schema": SCHEMA, "refusals": [], "tariffs": None},
        {"schema": SCHEMA, "refusals": {"00010000": 0}, "tariffs": None},
        {"schema": SCHEMA, "refusals": {"00010000": True}, "tariffs": None},
        {"schema": SCHEMA, "refusals": {}, "tariffs": 64},
        {"schema": SCHEMA, "refusals": {}, "tariffs": "4"},
    ],
)  # fmt: skip
def test_a_state_that_was_not_kept_is_refused(tree: dict[str, object]) -> None:
    assert not SHAPE.is_valid(tree)
    with pytest.raises(LocalProtocolError) as caught:
        Learned.from_json(tree)
    assert caught.value.code == "bad_state"


def test_what_is_learned_is_bounded() -> None:
    learned = NOTHING_LEARNED
    for number in range(700):
        learned = learned.after_refusal(f"{number:08X}", refused("no_data"))
    assert len(learned.refusals) == 512
    SHAPE.validate(learned.to_json())
    assert Learned.from_json(learned.to_json()) == learned


def test_a_profile_that_says_no_blocks_gets_none() -> None:
    assert len(plan_requests(PHASES, profile(blocks=False)).reads) == 3
    assert len(plan_requests(PHASES, profile(refuses=["0201FF00"])).reads) == 3


# -- frozen records


def test_a_frozen_record_is_read_between_its_times() -> None:
    points = ["active_import_total", "active_import_t1", "active_export_total", "voltage_a"]
    plan = plan_frozen(points, 2)
    assert dis(plan) == ["05060002", "05060102", "05060202", "05060002"]
    assert plan.reads[1].places == {"active_import_total": 0, "active_import_t1": 1}
    assert plan.reads[0].places == {FREEZE_TIME: 0}
    assert plan.unknown == ("voltage_a",)


def test_a_frozen_item_that_was_refused_twice_is_absent() -> None:
    refusal = refused("no_data")
    learned = NOTHING_LEARNED
    for _ in range(2):
        learned = learned.after_refusal("05060201", refusal)
    plan = plan_frozen(["active_import_total", "active_export_total"], 1, GENERIC, learned)
    assert dis(plan) == ["05060001", "05060101", "05060001"]
    assert plan.absent == ("active_export_total",)
    assert dis(plan_frozen([], 1)) == ["05060001"]
