"""The configuration's broker as a pipe needs it; the same at both ends of the feed."""

from headend.config import Config
from headend.domain.errors import ConfigError
from headend.messages.broker import BrokerSpec, MqttVersion, TlsSpec


def configured_broker(config: Config) -> BrokerSpec:
    """How to reach the feed's broker; ConfigError when there is no feed."""
    feed = config.feed
    if feed is None:
        raise ConfigError("there is no feed section", file=str(config.path), key="feed")
    where = feed.broker_spec
    ca_file = None if feed.ca_file is None else config.file(feed.ca_file)
    return BrokerSpec(
        host=where.host,
        port=where.port,
        # The embedded broker knows MQTT 3.1.1 only, and takes its time to say so.
        version=MqttVersion.V311 if where.embedded else MqttVersion.AUTO,
        username=feed.username,
        password_file=None if feed.password_file is None else config.file(feed.password_file),
        tls=TlsSpec(ca_file=ca_file) if where.tls else None,
        allow_plaintext=feed.allow_plaintext,
    )
