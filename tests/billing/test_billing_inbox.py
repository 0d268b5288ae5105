"""The pure rules, and ten hostile messages: each refused clearly, the stream unharmed."""

import json

import pytest
from billing_builder import EPOCH_A, IMPORT, T0, batch, freeze, read, reads

from headend.billing.inbox import Decision, Place, decide, event_id, place, unpack
from headend.domain.clock import iso
from headend.messages.records import decode_batch


def row(value="10", **more):
    return unpack(decode_batch(batch([read(1, value, **more)]))).rows[0]


@pytest.mark.parametrize(
    ("first", "last", "through", "expected"),
    [
        (1, 1, 0, Place.NEXT),
        (5, 9, 4, Place.NEXT),
        (4, 9, 4, Place.OVERLAP),
        (1, 9, 8, Place.OVERLAP),
        (1, 4, 4, Place.REPEAT),
        (2, 3, 9, Place.REPEAT),
        (6, 9, 4, Place.HOLE),
        (2, 2, 0, Place.HOLE),
    ],
)
def test_the_place_of_a_batch_in_its_stream(first, last, through, expected):
    assert place(first, last, through) is expected


def test_what_becomes_of_a_reading():
    held = row("10", revision=2)
    assert decide(held, None) is Decision.NEW
    assert decide(row("10", revision=2), held) is Decision.KNOWN
    assert decide(row("11", revision=3), held) is Decision.REPLACE
    assert decide(row("11", revision=1), held, in_history=True) is Decision.KNOWN
    assert decide(row("11", revision=1), held) is Decision.CONFLICT
    assert decide(row("11", revision=2), held) is Decision.CONFLICT
    assert decide(row("10.00", revision=1), held) is Decision.SAME


def test_flags_and_lateness_are_no_content():
    held = row("10")
    assert row("10", flags=["clock_stale"]).read_id == held.read_id


def test_an_event_is_the_same_whatever_the_order_of_its_fields():
    assert event_id("alarm", 1, {"a": 1, "b": 2}) == event_id("alarm", 1, {"b": 2, "a": 1})
    assert event_id("alarm", 1, {"a": 1}) != event_id("alarm", 1, {"a": 2})


def changed(payload: bytes, **changes) -> bytes:
    """A good batch with fields of its first record (or, as `batch_…`, of itself) changed."""
    message = json.loads(payload)
    for name, value in changes.items():
        if name.startswith("batch_"):
            message[name.removeprefix("batch_")] = value
        else:
            message["records"][0][name] = value
    return json.dumps(message).encode()


GOOD = reads(3, 3)
HOSTILE = {
    "not JSON": (b"\xff\xfe{", "not_json"),
    "cut off": (GOOD[: len(GOOD) // 2], "not_json"),
    "another schema": (b'{"schema":"feed/9"}', "wrong_schema"),
    "another head-end's name": (changed(GOOD, batch_headend="he2"), "wrong_stream"),
    "another consumer's name": (changed(GOOD, batch_consumer="analysis"), "wrong_stream"),
    "too large": (b'{"schema":"feed/1","x":"' + b"x" * 300_000 + b'"}', "too_large"),
    "numbers with a hole": (changed(GOOD, batch_last_seq=9), "bad_seq"),
    "an id that is not the content's": (changed(GOOD, value="999.99"), "bad_id"),
    "a value that is no number": (changed(GOOD, value="1e5"), "bad_record"),
    "a number beyond all registers": (changed(GOOD, seq=2**70), "bad_record"),
    "a value with status null": (changed(GOOD, status="null"), "bad_record"),
    "an unknown status": (changed(GOOD, status="good"), "bad_record"),
    "a multiplier of zero": (changed(GOOD, multiplier="0"), "bad_record"),
    "a day that never was": (changed(GOOD, time="2026-02-30T00:00:00Z"), "bad_record"),
    "an instant beyond the calendar": (
        changed(GOOD, time="9999-12-31T23:59:59-23:59"),
        "bad_record",
    ),
    "an instant of another age": (changed(GOOD, time="0999-12-31T00:00:00Z"), "bad_record"),
    "a meter with control characters": (changed(GOOD, meter="M\x00\x1b[2J"), "bad_record"),
    "an exchange that is not hex": (
        changed(GOOD, batch_exchanges=[{"ref": "x", "request": "ZZ"}]),
        "bad_record",
    ),
    "a record of no known kind": (changed(GOOD, kind="bill"), "bad_record"),
    "a bomb of brackets": (b"[" * 100_000, "wrong_schema"),
    "an event that is a bomb of brackets": (
        changed(GOOD, kind="event", event="alarm", at="2026-03-01T00:00:00Z").replace(
            b'"obis": "1.8.0"', b'"obis": ' + b"[" * 900 + b"]" * 900
        ),
        "bad_record",
    ),
    "a compact record with an unknown point": (
        batch([freeze(3, {"made_up_point": "1"})]),
        "unknown_point",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_refused_clearly_and_the_stream_goes_on(inbox, name):
    payload, code = HOSTILE[name]
    inbox.take(reads(1, 2))
    before = inbox.rows("reading")
    result = inbox.take(payload)
    assert [r.code for r in result.refusals] == [code]
    assert result.receipts == {}
    assert inbox.rows("reading") == before
    assert [letter[3] for letter in inbox.rows("dead_letter")] == [code]
    assert inbox.take(reads(3, 5)).receipts == {("he1", EPOCH_A): 5}


def test_a_reading_is_stored_as_it_was_sent():
    stored = row("0.260", due_ms=T0, flags=["a", "b"], evidence="x9")
    assert stored.key == ("M-1", IMPORT, T0, 0)
    assert (stored.value, stored.flags, stored.evidence) == ("0.260", "a,b", "x9")
    assert iso(stored.due_ms) == iso(T0)
