"""What billing's database URL may say, and what is refused with a hint."""

from pathlib import Path

import pytest

from headend.billing.spec import DatabaseSpec, configured_database
from headend.config import load_config
from headend.config.database_url import PostgresPlace, SqlitePlace, parse_database
from headend.config.errors import ConfigErrors
from headend.domain.errors import ConfigError

HEAD = "headend: {name: he1, zone: UTC, data: .}\nfeed: {broker: 'mqtt://127.0.0.1'}\n"


def load(folder: Path, billing: str):
    path = folder / "headend.yaml"
    path.write_text(f"{HEAD}billing: {{{billing}, headends: [he1]}}\n")
    return load_config(path)


def refused(folder: Path, billing: str) -> ConfigError:
    with pytest.raises(ConfigErrors) as caught:
        load(folder, billing)
    (error,) = caught.value.errors
    assert error.line == 3
    return error


@pytest.mark.parametrize(
    ("url", "user", "host", "port", "database"),
    [
        ("postgresql://u@127.0.0.1:5433/b", "u", "127.0.0.1", 5433, "b"),
        ("postgresql+psycopg://u@db.example/b", "u", "db.example", 5432, "b"),
        ("postgresql://u%40x@[::1]:1/b%2Bc", "u@x", "::1", 1, "b+c"),
        ("postgresql://u@[::1]/b", "u", "::1", 5432, "b"),
        ("postgresql:///b", None, None, 5432, "b"),
        ("postgresql://u@/b?host=/run/postgresql", "u", "/run/postgresql", 5432, "b"),
        ("postgresql://u@%2Frun%2FPG:7/b", "u", "/run/PG", 7, "b"),
    ],
)
def test_a_server_is_named_as_its_own_tools_name_it(url, user, host, port, database):
    assert parse_database(url) == PostgresPlace(database, user, host, port)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:s3cret@h/b", "holds a password"),
        ("postgresql://u@h/b?password=s3cret", "password does not stand"),
        ("postgresql://u@h/b?passfile=s3cret", "passfile does not stand"),
        ("postgresql://u@h/b?sslpassword=s3cret", "sslpassword does not stand"),
        ("postgresql://u@h/b#s3cret", "behind #"),
        ("mysql://u:s3cret@h/b", "mysql:// is not a database URL"),
        ("postgres://u:s3cret@h/b", "postgres:// is not a database URL"),
        ("postgresql+asyncpg://u:s3cret@h/b", "the driver asyncpg is not used"),
        ("postgresql:u:s3cret@h/b", "not a database URL"),
        ("s3cret", "not a database URL"),
        ("postgresql://[u:s3cret@h/b", "not a database URL"),
        ("postgresql://u@h", "names no database"),
        ("postgresql://u@h/a/b", "names no database"),
        ("postgresql://u@h:0/b", "port"),
        ("postgresql://u@h:70000/b", "port"),
        ("postgresql://u@h:x/b", "port"),
        ("postgresql://u@h,i/b", "several hosts"),
        ("postgresql://u@h/b?host=/tmp", "host twice"),
        ("postgresql://u@h/b?sslmod=require", "sslmod is not known"),
        ("postgresql://u@h/b?sslmode=verify", "sslmode=verify is not known"),
        ("postgresql://u@h/b?sslmode=require&sslmode=disable", "sslmode stands twice"),
        ("postgresql://u@h/b?sslrootcert=", "sslrootcert is empty"),
        ("postgresql://u@h/b?sslcert=x", "sslcert and sslkey belong together"),
        ("postgresql://u@h/b%00c", "zero byte"),
    ],
)
def test_what_is_refused_says_why_and_repeats_no_secret(tmp_path, url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_database(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(refused(tmp_path, f'database: "{url}"'))


@pytest.mark.parametrize("host", ["db.example", "10.0.0.7", "[2001:db8::1]"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_a_weak_connection_beyond_this_machine_has_to_be_allowed_by_name(tmp_path, host, mode):
    url = f'database: "postgresql://u@{host}/b?sslmode={mode}"'
    error = refused(tmp_path, url)
    assert "readings would go" in error.message
    assert "allow_plaintext: true" in (error.hint or "")
    with pytest.raises(ConfigError, match="allow_plaintext"):
        DatabaseSpec.of(f"postgresql://u@{host}/b?sslmode={mode}")
    load(tmp_path, f"{url}, allow_plaintext: true")


def test_beyond_this_machine_name_and_certificate_are_checked_unless_told_otherwise(tmp_path):
    (tmp_path / "ca.pem").write_text("")
    for more, mode in (("", "verify-full"), ("&sslmode=verify-ca", "verify-ca")):
        url = f"postgresql://u@db.example/b?sslrootcert=ca.pem{more}"
        spec = configured_database(load(tmp_path, f'database: "{url}"'))
        assert spec.place.sslmode_used == mode
        assert spec.place.files == {"sslrootcert": (tmp_path / "ca.pem").resolve()}
    error = refused(tmp_path, 'database: "postgresql://u@db.example/b"')
    assert "who signed the certificate" in error.message
    assert "sslrootcert=FILE" in (error.hint or "")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "", "%2Frun%2Fpostgresql"])
def test_on_this_machine_nothing_has_to_be_encrypted(tmp_path, host):
    place = configured_database(load(tmp_path, f'database: "postgresql://u@{host}/b"')).place
    assert place.sslmode_used == "prefer"


def test_files_that_are_not_there_are_told(tmp_path):
    url = "postgresql://u@db.example/b?sslrootcert=ca.pem"
    assert "there is no file" in refused(tmp_path, f'database: "{url}"').message
    error = refused(tmp_path, 'database: "postgresql:///b", password_file: pw')
    assert (error.key, "there is no file" in error.message) == ("billing.password_file", True)


@pytest.mark.parametrize("more", ["password_file: pw", "allow_plaintext: true"])
def test_what_a_file_of_sqlite_has_no_use_for_is_refused(tmp_path, more):
    (tmp_path / "pw").write_text("x")
    assert "of no use" in refused(tmp_path, f'database: "sqlite:///b.db", {more}').message


def test_sqlite_paths_are_relative_to_the_configuration(tmp_path):
    config = load(tmp_path, 'database: "sqlite:///./data/b.db"')
    assert configured_database(config).place == SqlitePlace(str(tmp_path / "data" / "b.db"))


def test_nothing_of_a_spec_is_a_secret(tmp_path):
    pw = tmp_path / "pw"
    pw.write_text("s3cret\n")
    pw.chmod(0o600)
    config = load(tmp_path, 'database: "postgresql://u@127.0.0.1/b", password_file: pw')
    spec = configured_database(config)
    assert spec.password_file == pw.resolve()
    assert "s3cret" not in repr(spec) + str(spec) + repr(config)
