"""The feed's messages: golden bytes, schemas, and what is refused."""

import json
import math
from decimal import Decimal
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.domain.errors import FeedError
from headend.domain.identity import content_text, read_id
from headend.messages import records as m
from headend.messages.ids import identify
from headend.messages.requests import (
    Fault,
    PointAnswer,
    ReadReply,
    ReadRequest,
    decode_read_reply,
    decode_read_request,
)
from headend.messages.topics import Topics, check_filter, check_name

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data"
SCHEMAS = ROOT / "docs" / "schemas"
EPOCH = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

COMMON = {
    "meter": "M-0001",
    "service_point": "SP-1",
    "received_at": "2026-11-25T00:00:01.250Z",
    "status": "actual",
    "verdict": "ok",
    "flags": [],
    "revision": 0,
    "late": False,
    "multiplier": "1",
    "side": "secondary",
}
MIDNIGHT_MS = 1_795_564_800_000
READ_ID = read_id(
    "M-0001",
    "active_import_total",
    MIDNIGHT_MS,
    None,
    0,
    content_text(Decimal("12345.67"), "kWh", "actual", "ok", Decimal(1), "secondary"),
)


def batch():
    return m.Batch(
        headend="he1",
        epoch=EPOCH,
        consumer="billing",
        first_seq=1,
        last_seq=54,
        records=[
            m.ExpiredRecord(first_seq=1, last_seq=50),
            m.ReadRecord(
                seq=51,
                read_id=READ_ID,
                point="active_import_total",
                obis="1.8.0",
                value="12345.67",
                unit="kWh",
                time="2026-11-25T00:00:00Z",
                interval_s=None,
                due_at="2026-11-25T00:00:00Z",
                evidence="x7",
                **COMMON,
            ),
            m.FreezeRecord(
                seq=52,
                values={"active_import_total": "12345.67", "active_export_total": None},
                time="2026-11-25T00:00:00Z",
                due_at="2026-11-25T00:00:00Z",
                evidence="x8",
                **{**COMMON, "flags": ["late_clock"], "verdict": "suspect", "late": True},
            ),
            m.SeriesRecord(
                seq=53,
                point="active_import_interval",
                unit="kWh",
                start="2026-11-24T16:00:00+00:00",
                interval_s=900,
                values=["0.12", None, "-0.05"],
                evidence=None,
                **{**COMMON, "status": "estimated", "revision": 2},
            ),
            m.EventRecord(
                seq=54,
                event="meter_exchange",
                at="2026-11-25T08:30:00+08:00",
                fields={
                    "service_point": "SP-1",
                    "old_meter": "M-0001",
                    "new_meter": "M-0002",
                    "new_address": "000000000002",
                    "old_final": {"active_import_total": "12345.67"},
                    "new_initial": {"active_import_total": "0.26"},
                    "by": "wang",
                    "reason": "\u8868\u574f\u4e86",
                },
            ),
        ],
        exchanges=[
            m.ExchangeEvidence(
                ref="x7",
                request="FEFEFEFE68010000000000681104333334333316",
                reply=None,
                bus="street-a",
                received_at="2026-11-25T00:00:01.250Z",
                attempts=2,
                software="0.1.0",
            )
        ],
    )


EXAMPLES = {
    "feed": (batch(), m.encode_batch, m.decode_batch),
    "receipt": (m.Receipt(epoch=EPOCH, through_seq=54), m.encode, m.decode_from_consumer),
    "resume": (m.Resume(epoch=EPOCH, from_seq=55), m.encode, m.decode_from_consumer),
    "resume_refused": (
        m.ResumeRefused(headend="he1", epoch=EPOCH, consumer="billing", from_seq=3, oldest_seq=51),
        m.encode,
        m.decode_to_consumer,
    ),
    "status": (
        m.Status(
            headend="he1",
            online=True,
            version="0.1.0",
            epoch=EPOCH,
            configuration="c0ffee",
            consumers={"billing": m.ConsumerStatus(last_seq=54, oldest_seq=51, backlog=3)},
        ),
        m.encode,
        m.decode_status,
    ),
    "read_request": (
        ReadRequest(
            id="q1",
            reply_to="meter/v1/he1/replies/desk",
            meter="M-0001",
            points=["active_import_total", "clock"],
            deadline="2026-11-25T00:01:00Z",
        ),
        m.encode,
        decode_read_request,
    ),
    "read_reply": (
        ReadReply(
            id="q1",
            headend="he1",
            meter="M-0001",
            results=[
                PointAnswer(
                    point="active_import_total",
                    value="12345.67",
                    unit="kWh",
                    time="2026-11-25T00:00:00Z",
                    received_at="2026-11-25T00:00:01.250Z",
                    took_ms=212.5,
                    attempts=1,
                    request="FEFEFEFE68010000000000681104333334333316",
                    reply="6801",
                ),
                PointAnswer(
                    point="clock",
                    value=None,
                    unit="",
                    time=None,
                    error=Fault(code="no_answer", message="nothing came"),
                ),
            ],
        ),
        m.encode,
        decode_read_reply,
    ),
}


def schema_of(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_message_is_written_and_read_to_the_byte(name):
    message, encode, decode = EXAMPLES[name]
    golden = (GOLDEN / f"golden_feed_{name}.json").read_bytes()
    assert encode(message) == golden
    assert decode(golden) == message
    schema_of(name).validate(json.loads(golden))


def test_event_fields_stand_beside_its_name():
    wire = json.loads(m.encode_batch(batch()))["records"][4]
    assert wire["old_meter"] == "M-0001"
    assert "fields" not in wire


def test_unknown_fields_are_ignored_because_shapes_are_added_to():
    wire = json.loads(m.encode_batch(batch()))
    wire["later"] = {"a": [1]}
    wire["records"][1]["later"] = 1
    assert m.decode_batch(json.dumps(wire).encode()) == batch()


def change(**more):
    wire = json.loads(m.encode_batch(batch()))
    return {**wire, **more}


def record(index, **more):
    wire = json.loads(m.encode_batch(batch()))
    wire["records"][index].update(more)
    return wire


def without(index, key):
    wire = json.loads(m.encode_batch(batch()))
    del wire["records"][index][key]
    return wire


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"x": value}
    return value


BAD_BATCHES = {
    "not json": (b"\x00\x01", "not_json"),
    "cut": (m.encode_batch(batch())[:-7], "not_json"),
    "trailing": (m.encode_batch(batch()) + b"x", "not_json"),
    "nan": (m.encode_batch(batch()).replace(b'"first_seq":1', b'"first_seq":NaN'), "not_json"),
    "not utf-8": (m.encode_batch(batch()).replace(b"he1", b"\xff\xfe1"), "not_json"),
    "huge": (b" " * (256 * 1024) + m.encode_batch(batch()), "too_large"),
    "deep": (
        m.encode_batch(batch()).replace(b'"by":"wang"', b'"by":' + b"[" * 9999 + b"]" * 9999),
        "bad_record",
    ),
    "deep but parseable": (record(4, by=nested(20)), "bad_record"),
    "another schema": (change(schema="feed/2"), "wrong_schema"),
    "no schema": ({k: v for k, v in change().items() if k != "schema"}, "wrong_schema"),
    "schema no text": (change(schema=1), "wrong_schema"),
    "bad epoch": (change(epoch="yesterday"), "bad_record"),
    "epoch with a newline": (change(epoch=EPOCH + "\n"), "bad_record"),
    "bad consumer": (change(consumer="Billing/x"), "bad_record"),
    "no records": (change(records=[]), "bad_seq"),
    "records no list": (change(records={}), "bad_record"),
    "seq hole": (record(2, seq=53), "bad_seq"),
    "seq twice": (record(2, seq=51), "bad_seq"),
    "seq negative": (record(1, seq=-51), "bad_record"),
    "seq zero": (change(first_seq=0), "bad_record"),
    "seq text": (record(1, seq="51"), "bad_record"),
    "seq float": (record(1, seq=51.0001), "bad_record"),
    "seq astronomic": (record(1, seq=10**30), "bad_record"),
    "seq true": (record(1, seq=True), "bad_record"),
    "expired backwards": (record(0, last_seq=0), "bad_record"),
    "expired from elsewhere": (record(0, first_seq=2), "bad_seq"),
    "last_seq too far": (change(last_seq=55), "bad_seq"),
    "last_seq too near": (change(last_seq=53), "bad_seq"),
    "first_seq elsewhere": (change(first_seq=2), "bad_seq"),
    "unknown kind": (record(1, kind="secret"), "bad_record"),
    "no kind": (without(1, "kind"), "bad_record"),
    "no value": (without(1, "value"), "bad_record"),
    "value a number": (record(1, value=12345.67), "bad_record"),
    "value with an exponent": (record(1, value="1E+2"), "bad_record"),
    "value nan": (record(1, value="NaN"), "bad_record"),
    "value with a newline": (record(1, value="1\n"), "bad_record"),
    "value in other digits": (record(1, value="\u0661\u0662"), "bad_record"),
    "time without an offset": (record(1, time="2026-11-25T00:00:00"), "bad_record"),
    "time that cannot be": (record(1, time="2026-11-31T00:00:00Z"), "bad_record"),
    "time of an event that cannot be": (record(4, at="2026-02-30T00:00:00Z"), "bad_record"),
    "status of its own": (record(1, status="perfect"), "bad_record"),
    "side of its own": (record(1, side="left"), "bad_record"),
    "late no flag": (record(1, late=1), "bad_record"),
    "flags no list": (record(1, flags="suspect"), "bad_record"),
    "values empty": (record(2, values={}), "bad_record"),
    "values mixed": (record(3, values=["1", 2]), "bad_record"),
    "interval zero": (record(3, interval_s=0), "bad_record"),
    "meter empty": (record(1, meter=""), "bad_record"),
    "meter endless": (record(1, meter="M" * 500), "bad_record"),
    "event number beyond what JSON readers hold": (record(4, by=2**53), "bad_record"),
    "event name odd": (record(4, event="DROP TABLE"), "bad_record"),
    "event fields in a box": (record(4, fields={"a": 1}), "bad_record"),
    "hex odd": (change(exchanges=[{**change()["exchanges"][0], "request": "ABC"}]), "bad_record"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batch_is_refused_with_its_kind(name):
    body, code = BAD_BATCHES[name]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(FeedError) as refused:
        m.decode_batch(data)
    assert refused.value.code == code
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_schema_and_decoder_agree_on_what_a_shape_is():
    """What the schema alone cannot say (sequence, calendar, nesting, size) is left to the code."""
    beyond_schema = ("bad_seq", "too_large", "not_json")
    words = ("deep", "event number", "time that cannot", "time of an event")
    for name, (body, code) in BAD_BATCHES.items():
        if code in beyond_schema or isinstance(body, bytes) or name.startswith(words):
            continue
        if "newline" in name:
            continue  # `$` lets a last line end pass in this validator, the decoder does not
        assert not schema_of("feed").is_valid(body), name


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_feed_error(data):
    for decode in (
        m.decode_batch,
        m.decode_to_consumer,
        m.decode_from_consumer,
        m.decode_status,
        decode_read_request,
        decode_read_reply,
    ):
        with pytest.raises(FeedError):
            decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_changed_field_is_a_message_or_a_feed_error(data):
    wire = json.loads(m.encode_batch(batch()))
    place = data.draw(st.sampled_from([wire, *wire["records"], *wire["exchanges"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    try:
        decoded = m.decode_batch(json.dumps(wire).encode())
    except FeedError:
        return
    assert m.decode_batch(m.encode_batch(decoded)) == decoded


@given(
    st.dictionaries(
        st.text(max_size=10).filter(lambda k: k not in m._RESERVED), json_values, max_size=4
    )
)
def test_event_fields_come_back_as_they_were(fields):
    one = batch()
    one.records[4].fields = fields
    try:
        data = m.encode_batch(one)
    except FeedError:
        assert not travels(fields)
        return
    assert travels(fields)
    assert m.decode_batch(data).records[4].fields == fields


def travels(value):
    """Whether every number of a JSON value is one that all readers hold."""
    if isinstance(value, dict | list):
        return all(map(travels, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) < 2**53


@pytest.mark.parametrize("name", ["seq", "kind", "event", "at", "fields"])
def test_event_fields_cannot_take_the_place_of_the_records_own(name):
    one = batch()
    one.records[4].fields = {name: 1}
    with pytest.raises(FeedError, match=name):
        m.encode_batch(one)


def test_batch_with_a_hole_is_not_even_encoded():
    one = batch()
    del one.records[2]
    with pytest.raises(FeedError) as refused:
        m.encode_batch(one)
    assert refused.value.code == "bad_seq"


def test_read_ids_are_the_same_at_both_ends():
    read, freeze, series = batch().records[1:4]
    (one,) = identify(read)
    assert one.read_id == READ_ID
    assert one.key == ("M-0001", "active_import_total", MIDNIGHT_MS, None)
    frozen = identify(freeze)
    assert [f.key.point for f in frozen] == ["active_import_total", "active_export_total"]
    assert frozen[1].value is None
    assert [f.unit for f in frozen] == ["kWh", "kWh"]
    assert len({f.read_id for f in frozen}) == 2
    curve = identify(series)
    assert [c.key.time_ms - curve[0].key.time_ms for c in curve] == [0, 900_000, 1_800_000]
    assert {c.key.interval_s for c in curve} == {900}
    assert curve[0].key.time_ms == MIDNIGHT_MS - 8 * 3_600_000


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"value": "12345.68"}, "bad_id"),
        ({"revision": 1}, "bad_id"),
        ({"meter": "M-0002"}, "bad_id"),
        ({"time": "2026-02-30T00:00:00Z"}, "bad_record"),
    ],
)
def test_read_id_that_is_not_the_hash_of_its_record_is_refused(more, code):
    record = msgspec.structs.replace(batch().records[1], **more)
    with pytest.raises(FeedError) as refused:
        identify(record)
    assert refused.value.code == code


def test_read_id_does_not_hang_on_how_a_number_is_written():
    read = batch().records[1]
    longer = msgspec.structs.replace(
        read, value="12345.6700", multiplier="1.0", time="2026-11-25T08:00:00.000+08:00"
    )
    assert identify(longer)[0].read_id == identify(read)[0].read_id


def test_freeze_of_a_point_nobody_knows_is_refused():
    record = msgspec.structs.replace(batch().records[2], values={"di:00010000": "1"})
    with pytest.raises(FeedError) as refused:
        identify(record)
    assert refused.value.code == "unknown_point"


BAD_NAMES = ["", "A", "a/b", "a+", "#", "a b", "$share", "a\n", "\u00e9", "x" * 65]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_stand_in_a_topic_are_refused(name):
    with pytest.raises(FeedError):
        check_name(name)
    with pytest.raises(FeedError):
        Topics(name)
    with pytest.raises(FeedError):
        Topics("he1").feed(name)


@pytest.mark.parametrize("topic", ["$share/g/meter/v1/he1/feed/x", "$SYS/#", "", "a" * 600])
def test_filters_that_do_not_belong_to_the_feed_are_refused(topic):
    with pytest.raises(FeedError):
        check_filter(topic)


def test_topics_are_those_of_the_description():
    topics = Topics("he1")
    described = yaml.safe_load((ROOT / "docs" / "feed.yaml").read_text())["channels"]
    names = {"{headend}": "he1", "{consumer}": "billing", "{asker}": "desk"}
    addresses = {}
    for key, channel in described.items():
        addresses[key] = channel["address"]
        for mark, name in names.items():
            addresses[key] = addresses[key].replace(mark, name)
    assert addresses == {
        "feed": topics.feed("billing"),
        "receipts": topics.receipts("billing"),
        "status": topics.status,
        "readRequests": topics.read_requests,
        "replies": topics.replies + "desk",
    }
    assert topics.consumer_of_receipt(addresses["receipts"]) == "billing"
    assert topics.consumer_of_receipt(addresses["feed"]) is None
    assert topics.consumer_of_receipt("meter/v1/he1/receipts/a/b") is None


def test_description_names_schemas_that_exist_and_resolves():
    text = (ROOT / "docs" / "feed.yaml").read_text()
    described = yaml.safe_load(text)
    assert described["asyncapi"].startswith("3.")
    for message in described["components"]["messages"].values():
        assert (ROOT / "docs" / message["payload"]["$ref"]).is_file()
    pending = [described]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            target = value.get("$ref", "")
            if target.startswith("#/"):
                found = described
                for part in target[2:].split("/"):
                    found = found[part]
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
