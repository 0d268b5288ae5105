"""The line to a PostgreSQL server: who is on the other end is proved, or nothing is sent."""

import re
import shutil
import socket
import threading

import pytest
from billing_builder import FixedClock
from billing_databases import PostgresDatabase

from headend.billing.database import DatabaseAway, open_writer
from headend.billing.spec import DatabaseSpec
from headend.cli.main import exit_code
from tests.support.certificates import LONG_AGO, Authority
from tests.support.postgresql import PostgreSQL


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


class TlsServer(PostgreSQL):
    """A server that takes TLS only, with a certificate of our choice."""

    def use(self, identity, authority=None) -> None:
        """Before the start, or while it runs: certificate and key, and who signs for clients."""
        for source, name in ((identity.cert_file, "s.crt"), (identity.key_file, "s.key")):
            self._give(source, name)
        if authority is not None:
            self._give(authority.ca_file, "clients.crt")
        if self.process is not None:
            self.execute("SELECT pg_reload_conf()")

    def _give(self, source, name) -> None:
        target = self.folder / name
        shutil.copy(source, target)
        target.chmod(0o600)
        shutil.chown(target, self.data.owner(), self.data.group())


@pytest.fixture(scope="module")
def server(authority):
    hba = (
        "local all all trust",
        "hostssl all bycert 127.0.0.1/32 cert map=all",
        "hostssl all all 127.0.0.1/32 trust",
    )
    made = TlsServer(hba=hba, settings={
        "ssl": "on", "ssl_cert_file": "../s.crt", "ssl_key_file": "../s.key",
        "ssl_ca_file": "../clients.crt",
    })  # fmt: skip
    made.make()
    (made.data / "pg_ident.conf").write_text("all /^(.*)$ bycert\n")
    made.use(authority.server("localhost"), authority)
    made.start()
    yield made
    made.__exit__()


def spec(server, role, *, host="localhost", **options) -> DatabaseSpec:
    query = "&".join(f"{key}={value}" for key, value in options.items())
    return DatabaseSpec.of(f"postgresql://{role}@{host}:{server.port}/billing?{query}")


def opened(server, role, **options) -> str | None:
    """The TLS version that is spoken."""
    database = open_writer(spec(server, role, **options), clock=FixedClock(), software="test")
    with database.begin() as connection:
        sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        version = connection.exec_driver_sql(sql).scalar_one()
    database.close()
    return version


def refusal(server, role, **options) -> str:
    with pytest.raises(DatabaseAway) as caught:
        opened(server, role, **options)
    assert caught.value.is_lasting
    assert exit_code(caught.value) == 4
    return str(caught.value)


@pytest.fixture
def role(server):
    return server.place().role


def test_a_certificate_of_the_right_authority_and_name_is_taken(server, role, authority):
    options = {"sslmode": "verify-full", "sslrootcert": authority.ca_file}
    assert re.match(r"TLSv1\.[23]", opened(server, role, **options))


def test_a_certificate_of_another_name_is_refused(server, role, authority):
    options = {"sslmode": "verify-full", "sslrootcert": authority.ca_file, "host": "127.0.0.1"}
    said = refusal(server, role, **options)
    assert "does not match host name" in said
    assert "name the host" in said
    assert opened(server, role, **{**options, "sslmode": "verify-ca"})


def test_a_certificate_of_another_authority_is_refused(server, role, tmp_path):
    other = Authority(tmp_path / "other")
    said = refusal(server, role, sslmode="verify-full", sslrootcert=other.ca_file)
    assert "certificate verify failed" in said
    assert "sslrootcert" in said


def test_an_expired_certificate_is_refused_and_its_successor_taken(server, role, authority):
    options = {"sslmode": "verify-full", "sslrootcert": authority.ca_file}
    server.use(authority.server("localhost", file="old", valid=LONG_AGO))
    try:
        said = _until(lambda: _refused(server, role, **options))
        assert "certificate verify failed" in said
    finally:
        server.use(authority.server("localhost"))
    _until(lambda: _refused(server, role, **options) is None)


def _until(condition):
    """The server takes a new certificate a moment after it was told to."""
    for _ in range(200):
        if value := condition():
            return value
    raise AssertionError("the server still shows its old certificate")


def _refused(server, role, **options) -> str | None:
    try:
        opened(server, role, **options)
    except DatabaseAway as error:
        return str(error)
    return None


def test_a_server_without_tls_is_refused_where_it_is_asked_for(postgresql_server, authority):
    role = postgresql_server.place().role
    options = {"sslmode": "verify-full", "sslrootcert": authority.ca_file}
    said = refusal(postgresql_server, role, **options)
    assert "does not support SSL" in said
    assert "switch TLS on" in said


def test_our_own_certificate_is_shown_to_a_server_that_asks_for_it(
    server, authority, monkeypatch, tmp_path
):
    server.execute("CREATE ROLE bycert LOGIN", "CREATE SCHEMA AUTHORIZATION bycert")
    identity = authority.client("billing")
    options = {"sslmode": "verify-full", "sslrootcert": authority.ca_file}
    monkeypatch.setenv("HOME", str(tmp_path))  # no certificate of the user's own
    assert "certificate" in refusal(server, "bycert", **options)
    ours = {"sslcert": identity.cert_file, "sslkey": identity.key_file}
    assert opened(server, "bycert", **options, **ours)


def test_a_server_that_says_it_has_no_tls_gets_nothing_but_the_question(authority):
    """Somebody on the way answers N to the question for TLS: no name, no password follows."""
    got = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as client:
                got.append(client.recv(4096))
                client.sendall(b"N")
                got.append(client.recv(4096))

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        url = f"postgresql://u@127.0.0.1:{port}/b?sslmode=verify-full"
        database = DatabaseSpec.of(f"{url}&sslrootcert={authority.ca_file}")
        with pytest.raises(DatabaseAway, match="does not support SSL"):
            open_writer(database, clock=FixedClock(), software="test")
        thread.join(timeout=10)
    assert got == [bytes.fromhex("0000000804D2162F"), b""]


def test_on_this_machine_tls_is_used_where_the_server_has_it(server):
    assert opened(server, PostgresDatabase(server.place()).place.role)
