"""TLS on the broker connection at both ends: who is let in, who is not, why, and the way back."""

import asyncio
import logging
import socket
import ssl
import warnings
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from access_bench import billing, delivered, head_end

from headend.config.secret_files import client_context
from headend.messages.broker import BrokerSpec, TlsSpec
from headend.messages.pipe import Pipe, PipeLost
from tests.support.certificates import FAR_AHEAD, LONG_AGO, Authority, Identity
from tests.support.mosquitto import Mosquitto, TlsListener
from tests.support.waiting import eventually

ENDS = ("head-end", "billing")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


@pytest.fixture
def broker(tmp_path, authority):
    tls = TlsListener(authority, authority.server())
    with Mosquitto(tmp_path / "mosquitto", tls=tls, users={"someone": "s3cret"}) as one:
        yield one


async def test_certificates_carry_the_feed_from_end_to_end(tmp_path, broker, authority, caplog):
    caplog.set_level(logging.DEBUG)
    he1, bill = authority.client("he1"), authority.client("billing")
    async with (
        head_end(tmp_path, broker.tls.spec(he1)) as ours,
        billing(tmp_path, broker.tls.spec(bill)) as theirs,
    ):
        await ours.write(50)
        await delivered(ours, theirs, 50)
        assert ours.state.is_connected
        assert theirs.state.is_connected
        assert await ours.has_events()
        assert theirs.alarms() == {}
    for secret in (he1.key_file, bill.key_file):
        assert secret.read_text().splitlines()[1] not in caplog.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_name_and_an_address_of_the_certificate_are_both_taken(broker, authority, host):
    spec = broker.tls.spec(authority.client("he1"), host=host)
    async with Pipe(spec, client_id="a") as pipe:
        assert pipe.connected


class Refusals:
    """Each case: what stands at the broker and what we bring, the code, and words of the reason."""

    @staticmethod
    def wrong_name(broker, authority):
        server = authority.server("elsewhere.example", file="elsewhere")
        broker.tls.server.replace_by(server)
        return (
            broker.tls.spec(authority.client("he1")),
            "broker_name",
            ("the broker's certificate is not for localhost", "alternative names"),
        )

    @staticmethod
    def wrong_address(broker, authority):
        broker.tls.server.replace_by(authority.server("localhost", file="by-name"))
        spec = broker.tls.spec(authority.client("he1"), host="127.0.0.1")
        return spec, "broker_name", ("the broker's certificate is not for 127.0.0.1",)

    @staticmethod
    def expired_broker(broker, authority):
        broker.tls.server.replace_by(authority.server(file="old", valid=LONG_AGO))
        return (
            broker.tls.spec(authority.client("he1")),
            "broker_expired",
            ("the broker's certificate", "has expired", "renew it at the broker"),
        )

    @staticmethod
    def broker_of_the_future(broker, authority):
        broker.tls.server.replace_by(authority.server(file="early", valid=FAR_AHEAD))
        return broker.tls.spec(authority.client("he1")), "broker_not_yet_valid", ("clock",)

    @staticmethod
    def wrong_authority(broker, authority):
        other = Authority(authority.folder, "other")
        spec = broker.tls.spec(authority.client("he1"), ca_file=other.ca_file)
        return (
            spec,
            "broker_authority",
            ("the broker's certificate is not signed by", "other.pem", "ca_file"),
        )

    @staticmethod
    def not_of_the_systems_authorities(broker, authority):
        spec = broker.tls.spec(authority.client("he1"), ca_file=None)
        return spec, "broker_authority", ("this system's authorities", "ca_file")

    @staticmethod
    def no_certificate(broker, authority):
        return (
            broker.tls.spec(),
            "own_missing",
            ("wants a certificate of ours and none is configured", "cert_file and key_file"),
        )

    @staticmethod
    def own_of_another_authority(broker, authority):
        other = Authority(authority.folder, "other")
        return (
            broker.tls.spec(other.client("he1")),
            "own_authority",
            ("other-he1.pem is not signed by an authority that the broker knows",),
        )

    @staticmethod
    def own_expired(broker, authority):
        spec = broker.tls.spec(authority.client("he1", valid=LONG_AGO))
        return spec, "own_expired", ("ca-he1.pem has expired", "renew it")

    @staticmethod
    def plain_text_to_the_tls_port(broker, authority):
        spec = BrokerSpec("127.0.0.1", broker.tls.port)
        return spec, "cut", ("without an answer", "TLS listener", "mqtts://")

    @staticmethod
    def tls_to_the_plain_port(broker, authority):
        spec = broker.tls.spec(authority.client("he1"), port=broker.port)
        return spec, "cut", ("in the TLS handshake", "plain text", "port of its TLS listener")

    @staticmethod
    def key_of_another(broker, authority):
        ours = authority.client("he1")
        ours.key_file.write_bytes(authority.client("other").key_file.read_bytes())
        return broker.tls.spec(ours), "file", ("key_file", "does not fit the certificate")

    @staticmethod
    def key_gone(broker, authority):
        ours = authority.client("he1")
        ours.key_file.unlink()
        return broker.tls.spec(ours), "file", ("key_file", "ca-he1.key is not there")

    @staticmethod
    def key_open_to_all(broker, authority):
        ours = authority.client("he1")
        ours.key_file.chmod(0o644)
        return broker.tls.spec(ours), "file", ("can be read by everybody", "chmod 600")

    @staticmethod
    def wrong_password(broker, authority):
        return (
            _password(broker, "not it"),
            "login_refused",
            ("it refuses user someone with the password in", "Not authorized"),
        )

    @staticmethod
    def no_user(broker, authority):
        spec = BrokerSpec("127.0.0.1", broker.port)
        return spec, "login_refused", ("a connection without a user", "Not authorized")


def _password(broker, text):
    path = broker.folder / "password"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return BrokerSpec("127.0.0.1", broker.port, username="someone", password_file=path)


CASES = [name for name in vars(Refusals) if not name.startswith("_")]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("end", ENDS)
async def test_who_is_not_let_in_is_told_why_in_plain_words(
    tmp_path, broker, authority, caplog, case, end
):
    """Once in the log however often it is tried, and for as long as it stands in the status."""
    caplog.set_level(logging.DEBUG)
    spec, code, words = getattr(Refusals, case)(broker, authority)
    broker.stop()  # what it holds of certificates is read at its start
    broker.start()
    run = head_end if end == "head-end" else billing
    async with run(tmp_path, spec) as ours:
        await eventually(lambda: ours.state.failures >= 3)
        state = ours.state
        assert not state.is_connected
        assert state.code == code
        for word in words:
            assert word in state.text
        if end == "head-end":
            report = ours.publisher.report()
            assert (report["connected"], report["code"]) == (False, code)
            assert report["message"] == state.text
    lines = [r.getMessage() for r in caplog.records if "(trying again)" in r.getMessage()]
    assert len(lines) == 1
    assert state.text in lines[0]
    assert "not it" not in caplog.text


RECOVERED = {
    "own_expired": lambda b, a, spec: _renew(spec, a.client("he1", file="renewed")),
    "own_of_another_authority": lambda b, a, spec: _renew(spec, a.client("he1", file="resigned")),
    "key_of_another": lambda b, a, spec: _renew(spec, a.client("he1", file="renewed")),
    "wrong_authority": lambda b, a, spec: spec.tls.ca_file.write_bytes(a.ca_file.read_bytes()),
    "expired_broker": lambda b, a, spec: _renew_broker(b, a.server(file="fresh")),
    "wrong_name": lambda b, a, spec: _renew_broker(b, a.server(file="fresh")),
    "wrong_password": lambda b, a, spec: spec.password_file.write_text("s3cret\n"),
}


def _renew(spec, identity):
    Identity(spec.tls.cert_file, spec.tls.key_file).replace_by(identity)


def _renew_broker(broker, identity):
    broker.tls.server.replace_by(identity)
    broker.stop()
    broker.start()


@pytest.mark.parametrize("case", RECOVERED)
async def test_what_is_put_right_on_the_disk_counts_at_the_next_try(
    tmp_path, broker, authority, case
):
    """Neither end is restarted. An alarm told it, and another event that it is over."""
    spec, code, _ = getattr(Refusals, case)(broker, authority)
    broker.stop()
    broker.start()
    async with head_end(tmp_path, spec) as ours, billing(tmp_path, spec) as theirs:
        await ours.write(10)
        await eventually(lambda: ours.state.failures >= 2 and theirs.state.failures >= 2)
        await eventually(lambda: ours.has_events(("alarm", "broker_refused")))
        ((_, fields),) = await ours.events()
        assert fields["code"] == code
        assert fields["reason"] == ours.state.text
        refused = ("", "broker_refused", spec.name)
        await eventually(lambda: refused in theirs.alarms())
        assert theirs.alarms()[refused][0].startswith(f"{code}: ")
        RECOVERED[case](broker, authority, spec)
        await eventually(lambda: ours.state.is_connected and theirs.state.is_connected)
        await eventually(
            lambda: ours.has_events(
                ("alarm", "broker_refused"), ("alarm_cleared", "broker_refused")
            )
        )
        await delivered(ours, theirs, 10)
        await eventually(lambda: theirs.alarms()[refused][0].startswith("over since "))
        assert theirs.alarms()[refused][1] == 1


async def test_a_certificate_replaced_while_connected_counts_from_the_next_connection(
    tmp_path, broker, authority
):
    ours = authority.client("he1")
    async with head_end(tmp_path, broker.tls.spec(ours)) as one:
        await eventually(lambda: one.state.is_connected)
        ours.replace_by(Authority(authority.folder, "other").client("he1"))
        broker.kill()
        broker.start()
        await eventually(lambda: one.state.code == "own_authority")
        ours.replace_by(authority.client("he1", file="again"))
        await eventually(lambda: one.state.is_connected)


def an_old_listener(identity):
    """One connection of a listener that speaks TLS 1.1 and nothing higher; its socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener, listener.accept()[0] as plain, suppress(OSError):
            context.wrap_socket(plain, server_side=True)

    Thread(target=serve).start()
    return listener.getsockname()[1]


async def test_nothing_below_tls_1_2_is_spoken(authority):
    port = an_old_listener(authority.server())
    spec = BrokerSpec("localhost", port, tls=TlsSpec(ca_file=authority.ca_file))
    with pytest.raises(PipeLost, match=r"no TLS 1\.2 or later could be agreed on") as caught:
        async with Pipe(spec, client_id="a"):
            pass
    assert caught.value.code == "tls"


@pytest.fixture
def no_more_than(monkeypatch):
    """Makes our own end speak no higher version."""

    def limit(version):
        def limited(*files):
            context = client_context(*files)
            context.maximum_version = version
            return context

        monkeypatch.setattr("headend.messages.broker.client_context", limited)

    return limit


VERSIONS = {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_tls_1_2_and_1_3_are_spoken(broker, authority, no_more_than, version):
    no_more_than(version)
    async with Pipe(broker.tls.spec(authority.client("he1")), client_id="a") as pipe:
        await pipe.publish("t", b"x")
        assert pipe._client.socket().version() == VERSIONS[version]


@pytest.mark.parametrize("case", ["no_certificate", "own_of_another_authority", "own_expired"])
async def test_the_reason_is_told_by_tls_1_2_too(broker, authority, no_more_than, case):
    no_more_than(ssl.TLSVersion.TLSv1_2)
    spec, code, words = getattr(Refusals, case)(broker, authority)
    with pytest.raises(PipeLost) as caught:
        async with Pipe(spec, client_id="a"):
            pass
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.text


async def test_a_tls_listener_that_says_no_in_tls_is_recognised(authority):
    """Some listeners answer plain text with an alert of TLS before they close."""

    async def alert(reader, writer):
        await reader.read(100)
        writer.write(bytes([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46]))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(alert, "127.0.0.1", 0)
    async with server:
        spec = BrokerSpec("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(PipeLost, match="use mqtts://") as caught:
            async with Pipe(spec, client_id="a"):
                pass
    assert caught.value.code == "tls_there"


async def test_a_plain_server_that_answers_in_plain_text_is_recognised(authority):
    async def talk(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        spec = BrokerSpec("localhost", port, tls=TlsSpec(ca_file=authority.ca_file))
        with pytest.raises(PipeLost, match="not in TLS") as caught:
            async with Pipe(spec, client_id="a"):
                pass
    assert caught.value.code == "no_tls_there"


def test_the_default_context_checks_names_and_certificates():
    context = client_context(None, None, None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_no_code_of_ours_ever_switches_the_checks_off():
    root = Path(__file__).parents[2] / "headend"
    words = ("CERT_NONE", "check_hostname = False", "tls_insecure_set", "_create_unverified")
    found = [
        str(path)
        for path in sorted(root.rglob("*.py"))
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []
