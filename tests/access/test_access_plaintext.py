"""Plain text stays on this machine, at both ends, unless the configuration allows it by name."""

import socket

import pytest
from access_bench import billing, delivered, head_end

from headend.config import ConfigErrors, load_config
from headend.domain.errors import ConfigError
from headend.messages.broker import BrokerSpec
from headend.messages.configured import configured_broker
from headend.messages.pipe import Pipe, PipeLost
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.waiting import eventually

HERE = ("localhost", "127.0.0.1", "127.9.8.7", "::1")
ELSEWHERE = (
    "localhost.example.com",
    "127.0.0.1.example.com",
    "127.0.0.1.nip.example",
    "localhost.",
    "localhost.localdomain",
    "ip6-localhost",
    "xlocalhost",
    "127.1",
    "127.0.0.01",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "::",
    "::2",
    "::ffff:127.0.0.1",
    "fe80::1",
    "192.168.0.1",
    "10.127.0.0.1",
    "broker",
    "loopback",
)
CONFIG = """\
headend: {{name: he1, zone: Asia/Shanghai, data: data}}
meters: []
feed:
  broker: "mqtt://{host}:1883"{more}
billing: {{database: "sqlite:///b.db", headends: [he1]}}
"""


def load(folder, host, more=""):
    path = folder / "headend.yaml"
    shown = f"[{host}]" if ":" in host else host
    path.write_text(CONFIG.format(host=shown, more=more))
    return load_config(path)


@pytest.mark.parametrize("host", HERE)
def test_plain_text_to_this_machine_needs_no_permission(tmp_path, host):
    config = load(tmp_path, host)
    assert configured_broker(config).must_be_loopback
    assert configured_broker(config, for_billing=True).host == host


@pytest.mark.parametrize("host", ELSEWHERE)
def test_what_only_looks_like_this_machine_is_refused_at_both_ends(tmp_path, host):
    with pytest.raises(ConfigErrors, match="unencrypted") as caught:
        load(tmp_path, host)
    (error,) = caught.value.errors
    assert error.key == "feed"
    assert "mqtts://" in error.hint
    with pytest.raises(ConfigError, match="plain text"):
        BrokerSpec(host)
    config = load(tmp_path, host, "\n  allow_plaintext: true")
    for for_billing in (False, True):
        assert configured_broker(config, for_billing=for_billing).allow_plaintext


@pytest.mark.parametrize("word", ["yes", '"true"', "1"])
def test_the_permission_is_a_plain_true(tmp_path, word):
    with pytest.raises(ConfigErrors, match="must be true or false"):
        load(tmp_path, "broker", f"\n  allow_plaintext: {word}")


@pytest.fixture
def both_families(tmp_path):
    port = free_port()
    with Mosquitto(
        tmp_path / "mosquitto", extra=[f"listener {port} ::1", "allow_anonymous true"]
    ) as one:
        one.port_v6 = port
        yield one


async def test_the_feed_runs_over_ipv6_too(tmp_path, both_families):
    spec = BrokerSpec("::1", both_families.port_v6)
    assert spec.name == f"[::1]:{both_families.port_v6}"
    async with head_end(tmp_path, spec) as he, billing(tmp_path, spec) as bill:
        await he.write(10)
        await delivered(he, bill, 10)


async def test_an_address_that_was_allowed_is_used(tmp_path, both_families):
    """0.0.0.0 leads to this machine, and no configuration says so: it needs the permission."""
    spec = BrokerSpec("0.0.0.0", both_families.port, allow_plaintext=True)
    async with head_end(tmp_path, spec) as he, billing(tmp_path, spec) as bill:
        await he.write(10)
        await delivered(he, bill, 10)


@pytest.mark.parametrize("end", ["head-end", "billing"])
async def test_a_localhost_that_leads_elsewhere_gets_no_byte(
    tmp_path, both_families, monkeypatch, end
):
    """A hosts file or a name server may say what it likes."""
    asked = socket.getaddrinfo

    def lying(host, *rest, **more):
        found = asked("127.0.0.1" if host == "localhost" else host, *rest, **more)
        if host != "localhost":
            return found
        return [(*entry[:4], ("192.0.2.9", entry[4][1])) for entry in found]

    def nobody_connects(*_args, **_more):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "getaddrinfo", lying)
    monkeypatch.setattr(socket, "create_connection", nobody_connects)
    spec = BrokerSpec("localhost", both_families.port)
    run = head_end if end == "head-end" else billing
    async with run(tmp_path, spec) as ours:
        await eventually(lambda: ours.state.failures >= 2)
        assert ours.state.code == "not_local"
        assert "localhost is 192.0.2.9 here, not this machine" in ours.state.text


async def test_a_permitted_name_is_not_looked_into(monkeypatch):
    """With the permission given any address will do; here nobody listens."""
    spec = BrokerSpec("localhost", free_port(), allow_plaintext=True)
    with pytest.raises(PipeLost, match="Connection refused") as caught:
        async with Pipe(spec, client_id="a"):
            pass
    assert caught.value.code == "unreachable"
