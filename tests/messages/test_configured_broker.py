"""The configuration's broker, as both ends of the feed reach it."""

import pytest

from headend.config import load_config
from headend.domain.errors import ConfigError
from headend.messages.configured import configured_broker

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
    (tmp_path / "ca.pem").write_text("a certificate")
    spec = broker_of(tmp_path, 'feed: {broker: "mqtts://192.0.2.7", ca_file: ca.pem}\n')
    assert spec.port == 8883
    assert spec.tls is not None
    assert spec.tls.ca_file == tmp_path / "ca.pem"


def test_a_configuration_without_a_feed_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no feed section"):
        broker_of(tmp_path, "")
