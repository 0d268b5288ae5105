"""The configuration's broker as a pipe needs it, for either end of the feed."""

from headend.config import Config
from headend.config.secret_files import FileFault
from headend.domain.errors import ConfigError
from headend.messages.broker import BrokerSpec, MqttVersion, TlsSpec


def configured_broker(config: Config, *, for_billing: bool = False) -> BrokerSpec:
    """How to reach the feed's broker, as the head-end or as billing.

    Billing is who `billing.broker` says, and where that is left out who `feed` says. Every file is
    read once, so that a process does not start with one it cannot use: ConfigError with file, line
    and key; also when there is no feed.
    """
    feed = config.feed
    if feed is None:
        raise ConfigError("there is no feed section", file=str(config.path), key="feed")
    own = config.billing.broker if for_billing and config.billing is not None else None
    who, place = (feed, "feed") if own is None else (own, "billing.broker")
    where = feed.broker_spec
    tls = None
    if where.tls:
        tls = TlsSpec(
            ca_file=None if feed.ca_file is None else config.file(feed.ca_file),
            cert_file=None if who.cert_file is None else config.file(who.cert_file),
            key_file=None if who.key_file is None else config.file(who.key_file),
        )
    spec = BrokerSpec(
        host=where.host,
        port=where.port,
        # The embedded broker knows MQTT 3.1.1 only, and takes its time to say so.
        version=MqttVersion.V311 if where.embedded else MqttVersion.AUTO,
        username=who.username,
        password_file=None if who.password_file is None else config.file(who.password_file),
        tls=tls,
        allow_plaintext=feed.allow_plaintext,
    )
    try:
        spec.check_files()
    except FileFault as fault:
        key = f"{'feed' if fault.key == 'ca_file' else place}.{fault.key}"
        raise config.error(key, f"{fault.path} {fault.message}", fault.hint) from fault
    return spec
