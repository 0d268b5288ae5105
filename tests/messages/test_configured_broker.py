"""The configuration's broker, as both ends of the feed reach it."""

import pytest

from headend.config import load_config
from headend.config.sections import base
from headend.domain.errors import ConfigError
from headend.messages.configured import configured_broker
from headend.messages.topics import check_name
from tests.support.certificates import Authority

BEFORE_FEED = """\
headend: {name: he1, zone: Asia/Shanghai, data: data}
buses: {a: {link: "tcp://127.0.0.1:4001"}}
meters: []
plans: {}
"""


def broker_of(folder, feed):
    path = folder / "headend.yaml"
    path.write_text(BEFORE_FEED + feed)
    return configured_broker(load_config(path))


def test_plain_text_that_the_configuration_allows_is_allowed(tmp_path):
    feed = 'feed: {broker: "mqtt://192.0.2.7:1883", allow_plaintext: true}\n'
    spec = broker_of(tmp_path, feed)
    assert (spec.host, spec.port, spec.tls) == ("192.0.2.7", 1883, None)


def test_plain_text_beyond_this_machine_is_refused_unless_allowed(tmp_path):
    with pytest.raises(ConfigError, match="unencrypted"):
        broker_of(tmp_path, 'feed: {broker: "mqtt://192.0.2.7:1883"}\n')


def test_tls_uses_the_configured_authority(tmp_path):
    Authority(tmp_path)
    spec = broker_of(tmp_path, 'feed: {broker: "mqtts://192.0.2.7", ca_file: ca.pem}\n')
    assert spec.port == 8883
    assert spec.tls is not None
    assert spec.tls.ca_file == tmp_path / "ca.pem"


def test_a_configuration_without_a_feed_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no feed section"):
        broker_of(tmp_path, "")


@pytest.mark.parametrize("name", ["he1", "a", "north_2-x", "9", "-", "a" * 64])
def test_a_name_that_the_configuration_takes_can_stand_in_a_topic(name):
    assert base._FEED_NAME.fullmatch(name)
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("headend.name", BEFORE_FEED.replace("he1", "He1")),
        (
            "feed.consumers[0].name",
            BEFORE_FEED
            + 'feed: {broker: "embedded://127.0.0.1:1883", '
            + "consumers: [{name: a.b, classes: [billing]}]}\n",
        ),
        (
            "billing.headends[0]",
            BEFORE_FEED + "billing: {database: 'sqlite:///b.db', headends: [He2]}\n",
        ),
    ],
)
def test_a_name_that_no_topic_takes_is_told_when_the_configuration_is_read(tmp_path, key, text):
    path = tmp_path / "headend.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="small letters") as caught:
        load_config(path)
    assert key in str(caught.value)
