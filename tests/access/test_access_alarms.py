"""What a broker refuses is noticed, alarmed once, never taken for delivered, delivered later."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from access_bench import FAST, QUICK, billing, delivered, head_end

from headend.billing.views import BillingView
from headend.domain.clock import SystemClock
from headend.messages.broker import MqttVersion
from headend.messages.connect_words import Code, Why
from headend.messages.connection import Backoff, keep_connected
from headend.messages.pipe import ConnectRefused, PipeLost, PublishRefused
from headend.messages.records import encode
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import eventually

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
USERS = {"he1": "one", "billing": "two", "archive": "three"}
HEADEND = (
    "readwrite meter/v1/he1/status",
    "write meter/v1/he1/feed/+",
    "write meter/v1/he1/replies/#",
    "read meter/v1/he1/receipts/+",
    "read meter/v1/he1/requests/read",
)
BILLING = (
    "read meter/v1/he1/feed/billing",
    "read meter/v1/he1/status",
    "write meter/v1/he1/receipts/billing",
)
FEED, RECEIPTS = "meter/v1/he1/feed/billing", "meter/v1/he1/receipts/billing"
STATUS = "meter/v1/he1/status"
RAISED, CLEARED = ("alarm", "publish_refused"), ("alarm_cleared", "publish_refused")
MISSED, CAME = ("alarm", "receipts_missing"), ("alarm_cleared", "receipts_missing")
SOON = replace(FAST, receipts_missing_s=0.6)


@pytest.fixture
def broker(tmp_path):
    acl = {"he1": HEADEND, "billing": BILLING}
    with Mosquitto(tmp_path / "mosquitto", users=USERS, acl=acl) as one:
        yield one


def without(rules, *topics):
    """The rules but those for these topics."""
    return [rule for rule in rules if not any(rule.endswith(topic) for topic in topics)]


def forbid(broker, user, rules):
    broker.acl = {**broker.acl, user: rules}
    broker.allow(user)


async def test_a_refused_feed_is_alarmed_once_kept_and_delivered_when_allowed(tmp_path, broker):
    forbid(broker, "he1", without(HEADEND, "feed/+"))
    async with (
        head_end(tmp_path, broker.spec("he1")) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        await he.write(45)
        refused = he.publisher.streams["billing"].counters
        await eventually(lambda: refused.refused_by_broker >= 4)
        assert await he.has_events(RAISED)
        ((_, fields),) = await he.events()
        assert fields == {
            "alarm": "publish_refused",
            "topic": FEED,
            "consumer": "billing",
            "reason": "Not authorized",
        }
        assert he.cursor().receipted_seq == 0
        assert bill.readings() == 0
        (standing,) = he.publisher.report()["alarms"]
        assert (standing["alarm"], standing["topic"]) == ("publish_refused", FEED)
        assert he.publisher.status(online=True).alarms == ["publish_refused"]
        broker.allow("he1", "write meter/v1/he1/feed/+")
        await delivered(he, bill, 45)
        await eventually(lambda: he.has_events(RAISED, CLEARED))
        await eventually(he.is_receipted)
        assert he.publisher.report()["alarms"] == []
        # The alarm and its end are two records of the stream, and brought about nothing more.
        assert he.cursor().last_seq == 45 + 2
        await eventually(lambda: refused.receipts > 0)


def shape(name):
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text())


async def test_what_is_said_of_alarms_and_connections_has_its_described_shape(tmp_path, broker):
    """The retained status, the daemon's answer, and billing's own status."""
    forbid(broker, "he1", without(HEADEND, "feed/+"))
    forbid(broker, "billing", without(BILLING, "receipts/billing"))
    connection = shape("feed_status")["properties"]["connection"]
    async with (
        head_end(tmp_path, broker.spec("he1"), settings=SOON) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        jsonschema.validate(he.publisher.report(), connection)
        await he.write(5)
        await eventually(lambda: he.has_events(RAISED, MISSED))
        report = he.publisher.report()
        jsonschema.validate(report, connection)
        assert len(report["alarms"]) == 2
        said = json.loads(encode(he.publisher.status(online=True)))
        jsonschema.validate(said, shape("status"))
        assert said["alarms"] == ["publish_refused", "receipts_missing"]
        broker.allow("he1", "write meter/v1/he1/feed/+")
        key = ("he1", "receipt_refused", RECEIPTS)
        await eventually(lambda: key in bill.alarms())
        with BillingView(bill.url) as view:
            rows = [dict(row) for row in view.status()["alarms"]]
        jsonschema.validate(rows, shape("billing_status")["properties"]["alarms"])


async def test_an_acl_taken_away_while_running_is_noticed(tmp_path, broker):
    async with (
        head_end(tmp_path, broker.spec("he1")) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        await he.write(10)
        await delivered(he, bill, 10)
        for round_no in (1, 2):
            forbid(broker, "he1", without(HEADEND, "feed/+"))
            await eventually(lambda: _refuses(he))
            broker.allow("he1", "write meter/v1/he1/feed/+")
            await delivered(he, bill, he._written)
            await eventually(lambda n=round_no: he.has_events(*[RAISED, CLEARED] * n))


async def _refuses(he):
    await he.write(1)
    return he.publisher.alarms.is_raised("publish_refused", FEED)


async def test_a_refused_status_is_alarmed_with_its_topic(tmp_path, broker):
    forbid(broker, "he1", [*without(HEADEND, "he1/status"), f"read {STATUS}"])
    async with (
        head_end(tmp_path, broker.spec("he1")) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        await he.write(5)
        await eventually(lambda: he.has_events(RAISED))
        ((_, fields),) = await he.events()
        assert fields["topic"] == STATUS
        broker.allow("he1", f"write {STATUS}")
        await eventually(lambda: he.has_events(RAISED, CLEARED))
        await delivered(he, bill, 5)


async def test_batches_that_pass_do_not_end_the_alarm_of_one_that_does_not(tmp_path, broker):
    """A broker that takes some messages and refuses others: one alarm, not one a try.

    Each alarm and each clearing is a record more to publish: they must never feed themselves.
    """
    async with head_end(tmp_path, broker.spec("he1")) as he:
        stream = he.publisher.streams["billing"]
        for _ in range(5):
            he.publisher._acknowledged(stream, 5, _answer(None))
            he.publisher._acknowledged(stream, 10, _answer("Quota exceeded"))
            he.publisher._acknowledged(stream, 15, _answer("Quota exceeded"))
        await eventually(lambda: he.has_events(RAISED))
        assert he.publisher.alarms.is_raised("publish_refused", FEED)
        he.publisher._acknowledged(stream, 10, _answer(None))
        await eventually(lambda: he.has_events(RAISED, CLEARED))
        # The pause after a refusal goes on growing until the consumer receipts.
        assert stream.blocked_s > 0


def _answer(refusal):
    done = asyncio.get_running_loop().create_future()
    if refusal is None:
        done.set_result(None)
    else:
        done.set_exception(PublishRefused("refused", topic=FEED, reason=refusal))
    return done


async def test_an_alarm_about_one_stream_is_carried_by_the_others(tmp_path, broker):
    """And brings about no alarm of its own there."""
    one_feed = [r.replace("feed/+", "feed/archive") for r in HEADEND]
    forbid(broker, "he1", one_feed)
    forbid(broker, "archive", [rule.replace("billing", "archive") for rule in BILLING])
    consumers = ("billing", "archive")
    async with head_end(tmp_path, broker.spec("he1"), consumers=consumers) as he:
        await he.write(5)
        await eventually(lambda: he.has_events(RAISED))
        await eventually(lambda: he.publisher.streams["billing"].counters.refused_by_broker >= 4)
        assert he.cursor("archive").last_seq == 6
        assert await he.has_events(RAISED)


async def test_what_mqtt_3_1_1_hides_shows_by_missing_receipts(tmp_path, broker):
    """The broker says nothing of what it drops; that nobody receipts is seen all the same."""
    forbid(broker, "he1", without(HEADEND, "feed/+"))
    spec = broker.spec("he1", version=MqttVersion.V311)
    async with (
        head_end(tmp_path, spec, settings=SOON) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        await he.write(45)
        await eventually(lambda: he.has_events(MISSED))
        ((_, fields),) = await he.events()
        assert fields["consumer"] == "billing"
        assert 0 < fields["backlog"] <= 45
        assert fields["waited_s"] >= 0
        assert he.cursor().receipted_seq == 0
        assert bill.readings() == 0
        (standing,) = he.publisher.report()["alarms"]
        assert standing["alarm"] == "receipts_missing"
        broker.allow("he1", "write meter/v1/he1/feed/+")
        await delivered(he, bill, 45)
        await eventually(lambda: he.has_events(MISSED, CAME))
        await eventually(he.is_receipted)
        assert he.cursor().last_seq == 45 + 2


async def test_a_consumer_that_is_away_for_long_is_an_alarm_until_it_receipts(tmp_path, broker):
    async with head_end(tmp_path, broker.spec("he1"), settings=SOON) as he:
        await he.write(3)
        await eventually(lambda: he.has_events(MISSED))
        ((_, fields),) = await he.events()
        assert fields["broker"] == "connected"
        # Nothing more is said, however long it lasts, and the alarm's own record is no new reason.
        he.publisher.streams["billing"].unreceipted_since -= 3600
        await he.write(1)
        async with billing(tmp_path, broker.spec("billing")) as bill:
            await delivered(he, bill, 4)
            await eventually(lambda: he.has_events(MISSED, CAME))


async def test_a_broker_that_is_away_for_long_shows_as_missing_receipts(tmp_path, broker):
    broker.stop()
    async with head_end(tmp_path, broker.spec("he1"), settings=SOON) as he:
        await he.write(3)
        await eventually(lambda: he.has_events(MISSED))
        ((_, fields),) = await he.events()
        assert fields["broker"] == "unreachable"
        broker.start()
        async with billing(tmp_path, broker.spec("billing")):
            await eventually(lambda: he.has_events(MISSED, CAME))


async def test_a_stream_with_nothing_to_receipt_never_alarms(tmp_path, broker):
    async with (
        head_end(tmp_path, broker.spec("he1"), settings=SOON) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        await he.write(3)
        await delivered(he, bill, 3)
        he.publisher.streams["billing"].at._waiting_since -= 3600
        await he.write(3)
        await delivered(he, bill, 6)
        assert await he.has_events()


async def test_refused_receipts_are_noticed_by_billing_and_by_the_head_end(tmp_path, broker):
    forbid(broker, "billing", without(BILLING, "receipts/billing"))
    key = ("he1", "receipt_refused", RECEIPTS)
    async with (
        head_end(tmp_path, broker.spec("he1"), settings=SOON) as he,
        billing(tmp_path, broker.spec("billing")) as bill,
    ):
        await he.write(10)
        await eventually(lambda: key in bill.alarms())
        assert bill.alarms()[key] == ("Not authorized", 1)
        await eventually(lambda: he.has_events(MISSED))
        assert he.cursor().receipted_seq == 0
        assert bill.consumer.totals.receipts == 0
        broker.allow("billing", f"write {RECEIPTS}")
        await delivered(he, bill, 10)
        await eventually(lambda: bill.alarms()[key][0].startswith("over since "))
        assert "Not authorized" in bill.alarms()[key][0]
        assert bill.alarms()[key][1] == 1
        await eventually(lambda: he.has_events(MISSED, CAME))


async def test_an_alarm_outlives_a_restart_and_is_cleared_by_the_next_life(tmp_path, broker):
    forbid(broker, "he1", without(HEADEND, "feed/+"))
    async with head_end(tmp_path, broker.spec("he1")) as he:
        await he.write(5)
        await eventually(lambda: he.has_events(RAISED))
        await he.end()
        await he.begin()
        await eventually(lambda: he.publisher.streams["billing"].counters.refused_by_broker >= 2)
        assert await he.has_events(RAISED)
        await he.end()
        broker.allow("he1", "write meter/v1/he1/feed/+")
        await he.begin()
        await eventually(lambda: he.has_events(RAISED, CLEARED))


async def test_the_alarm_of_a_consumer_that_is_no_longer_configured_ends(tmp_path, broker):
    async with head_end(tmp_path, broker.spec("he1"), settings=SOON) as he:
        await he.write(1)
        await eventually(lambda: he.has_events(MISSED))
    async with head_end(tmp_path, broker.spec("he1"), consumers=("archive",)) as he:
        await eventually(lambda: he.has_events(MISSED, CAME))
        (_, (_, fields)) = await he.events()
        assert fields["reason"] == "no longer configured"


class RefusingPipe:
    """A broker that does not take our password."""

    def __init__(self, why=None):
        self.why = why or Why(Code.LOGIN_REFUSED, "it refuses user he1: Not authorized")

    async def __aenter__(self):
        if self.why.code is Code.LOGIN_REFUSED:
            raise ConnectRefused("b:1883", self.why, reason="Not authorized")
        raise PipeLost("b:1883", self.why)

    async def __aexit__(self, *_exc):
        return None


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were kept, without waiting for them; the eighth ends the test."""
    kept = []

    async def no_pause(pause_s, files, stamp):
        kept.append(pause_s)
        if len(kept) == 8:
            raise EnoughTries

    monkeypatch.setattr("headend.messages.connection._pause", no_pause)
    return kept


class EnoughTries(Exception):
    """The test has seen enough."""


async def test_a_refused_password_is_not_hammered(pauses):
    with pytest.raises(EnoughTries):
        await keep_connected(
            RefusingPipe, _no_session, name="t", clock=SystemClock(), backoff=Backoff(spread=0)
        )
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]


async def test_a_broker_that_is_away_is_tried_sooner(pauses):
    def away():
        return RefusingPipe(Why(Code.UNREACHABLE, "connection refused"))

    with pytest.raises(EnoughTries):
        await keep_connected(
            away, _no_session, name="t", clock=SystemClock(), backoff=Backoff(spread=0)
        )
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]


async def _no_session(_pipe):
    raise AssertionError("there was never a connection")


async def test_a_password_that_is_put_right_counts_at_once(tmp_path, broker):
    """The pause after a refused login is long; a new file of the password ends it."""
    spec = broker.spec("he1")
    spec.password_file.write_text("wrong\n")
    patient = replace(QUICK, login_first_s=3600.0, login_max_s=3600.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("access_bench.QUICK", patient)
        async with head_end(tmp_path, spec) as he:
            await eventually(lambda: he.has_events(("alarm", "broker_refused")))
            assert he.state.failures == 1
            spec.password_file.write_text("one\n")
            await eventually(lambda: he.state.is_connected)
            await eventually(
                lambda: he.has_events(
                    ("alarm", "broker_refused"), ("alarm_cleared", "broker_refused")
                )
            )
