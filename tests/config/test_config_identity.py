"""Certificates, keys and passwords of both ends: what is wrong is told with file, line and key."""

import os

import pytest

from headend.config import ConfigErrors, load_config
from headend.config.secret_files import FileFault, client_context, read_secret
from headend.domain.errors import ConfigError
from headend.messages.configured import configured_broker
from tests.support.certificates import LONG_AGO, Authority, encrypted_copy

BEFORE = """\
headend: {name: he1, zone: Asia/Shanghai, data: data}
buses: {a: {link: "tcp://127.0.0.1:4001"}}
meters: []
plans: {}
"""
FEED = """\
feed:
  broker: "mqtts://localhost:8883"
  ca_file: ca.pem
  cert_file: ca-he1.pem
  key_file: ca-he1.key
"""
BILLING = """\
billing:
  database: "sqlite:///b.db"
  headends: [he1]
  broker:
    cert_file: ca-billing.pem
    key_file: ca-billing.key
"""
FEED_LINE = BEFORE.count("\n") + 1
BILLING_LINE = FEED_LINE + FEED.count("\n")


@pytest.fixture
def authority(tmp_path):
    one = Authority(tmp_path)
    one.client("he1")
    one.client("billing")
    return one


def load(folder, text):
    path = folder / "headend.yaml"
    path.write_text(BEFORE + text)
    return load_config(path)


def refused(folder, text):
    with pytest.raises(ConfigErrors) as caught:
        load(folder, text)
    return caught.value.errors


def only_error(folder, text):
    (error,) = refused(folder, text)
    return error


def test_each_end_has_an_identity_of_its_own(tmp_path, authority):
    config = load(tmp_path, FEED + BILLING)
    ours, theirs = configured_broker(config), configured_broker(config, for_billing=True)
    assert ours.tls.cert_file == tmp_path / "ca-he1.pem"
    assert theirs.tls.cert_file == tmp_path / "ca-billing.pem"
    assert ours.tls.ca_file == theirs.tls.ca_file == tmp_path / "ca.pem"
    assert (ours.host, ours.port) == (theirs.host, theirs.port) == ("localhost", 8883)


def test_billing_with_an_identity_of_its_own_uses_nothing_of_the_head_end(tmp_path, authority):
    (tmp_path / "pw").write_text("s3cret\n")
    (tmp_path / "pw").chmod(0o600)
    feed = FEED + "  username: he1\n  password_file: pw\n"
    theirs = configured_broker(load(tmp_path, feed + BILLING), for_billing=True)
    assert (theirs.username, theirs.password_file) == (None, None)
    by_password = BILLING[: BILLING.index("    cert_file")]
    by_password += "    username: billing\n    password_file: pw\n"
    theirs = configured_broker(load(tmp_path, feed + by_password), for_billing=True)
    assert (theirs.username, theirs.password()) == ("billing", "s3cret")
    assert theirs.tls.cert_file is None


def test_billing_without_one_is_who_the_feed_section_says(tmp_path, authority):
    config = load(tmp_path, FEED + 'billing: {database: "sqlite:///b.db", headends: [he1]}\n')
    assert configured_broker(config, for_billing=True) == configured_broker(config)


@pytest.mark.parametrize("key", ["cert_file", "key_file"])
@pytest.mark.parametrize("section", ["feed", "billing.broker"])
def test_half_a_pair_is_told_where_it_stands(tmp_path, authority, section, key):
    text = "".join(
        line
        for line in (FEED + BILLING).splitlines(keepends=True)
        if not line.lstrip().startswith(key)
        or line.startswith("    ") != (section == "billing.broker")
    )
    error = only_error(tmp_path, text)
    left = {"cert_file": "key_file", "key_file": "cert_file"}[key]
    assert error.key == f"{section}.{left}"
    assert "belong together" in error.hint
    line = (tmp_path / "headend.yaml").read_text().splitlines()[error.line - 1]
    assert line.strip().startswith(left)


@pytest.mark.parametrize("name", ["ca.pem", "ca-he1.pem", "ca-he1.key", "ca-billing.key"])
def test_a_missing_file_is_told(tmp_path, authority, name):
    (tmp_path / name).unlink()
    error = only_error(tmp_path, FEED + BILLING)
    assert name in error.message
    assert error.line > FEED_LINE


def test_a_key_that_does_not_fit_is_told(tmp_path, authority):
    (tmp_path / "ca-he1.key").write_bytes((tmp_path / "ca-billing.key").read_bytes())
    error = only_error(tmp_path, FEED)
    assert (error.key, error.line) == ("feed.key_file", FEED_LINE + 4)
    assert "does not fit the certificate" in error.message


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_password(tmp_path, authority):
    encrypted_copy(tmp_path / "ca-he1.key").replace(tmp_path / "ca-he1.key")
    error = only_error(tmp_path, FEED)
    assert (error.key, error.line) == ("feed.key_file", FEED_LINE + 4)
    assert "encrypted" in error.message
    assert "openssl pkey" in error.hint


@pytest.mark.parametrize(
    ("name", "key", "what"),
    [
        ("ca.pem", "ca_file", "holds no certificate"),
        ("ca-he1.pem", "cert_file", "holds no certificate"),
        ("ca-he1.key", "key_file", "holds no private key"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"not what it should be\n", b"\xff\x00" * 100])
def test_a_file_of_the_wrong_content_is_told(tmp_path, authority, name, key, what, content):
    (tmp_path / name).write_bytes(content)
    error = only_error(tmp_path, FEED)
    assert error.key == f"feed.{key}"
    assert what in error.message


@pytest.mark.parametrize(
    ("mode", "taken"),
    [
        (0o400, True),
        (0o600, True),
        (0o640, True),
        (0o644, False),
        (0o604, False),
        (0o660, False),
        (0o602, False),
    ],
)
def test_a_key_is_refused_that_everybody_reads_or_others_write(tmp_path, authority, mode, taken):
    (tmp_path / "ca-billing.key").chmod(mode)
    if taken:
        assert configured_broker(load(tmp_path, FEED + BILLING), for_billing=True)
        return
    error = only_error(tmp_path, FEED + BILLING)
    assert (error.key, error.line) == ("billing.broker.key_file", BILLING_LINE + 5)
    assert f"mode {mode:o}" in error.message
    assert "chmod 600" in error.hint


def test_a_password_file_that_everybody_reads_is_refused(tmp_path, authority):
    (tmp_path / "pw").write_text("s3cret\n")
    (tmp_path / "pw").chmod(0o644)
    error = only_error(tmp_path, FEED + "  username: he1\n  password_file: pw\n")
    assert error.key == "feed.password_file"
    assert "everybody" in error.message
    assert "s3cret" not in str(error)


def test_a_file_of_the_other_user_is_told_by_the_process_that_needs_it(tmp_path, authority):
    """Billing's key belongs to billing's user: the head-end starts, and billing says it."""
    fault = FileFault("key_file", tmp_path / "ca-billing.key", "x", "y", is_private=True)

    def may_not_read(_ca, cert_file, _key):
        if cert_file is not None and "billing" in cert_file.name:
            raise fault
        return client_context(None, None, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headend.config.checks.client_context", may_not_read)
        patch.setattr("headend.messages.broker.client_context", may_not_read)
        config = load(tmp_path, FEED + BILLING)
        configured_broker(config)
        with pytest.raises(ConfigError) as caught:
            configured_broker(config, for_billing=True)
    assert caught.value.key == "billing.broker.key_file"
    assert caught.value.line == BILLING_LINE + 5


def test_a_file_that_may_not_be_read_is_private(tmp_path, authority, monkeypatch):
    def no_entry(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.open", no_entry)
        with pytest.raises(FileFault, match="cannot be read: Permission denied") as caught:
            client_context(authority.ca_file, None, None)
    assert caught.value.is_private


def test_an_expired_certificate_starts_the_process_and_shows_at_the_connection(tmp_path):
    """It may be renewed while the process runs, and meters are read meanwhile."""
    authority = Authority(tmp_path)
    authority.client("he1", valid=LONG_AGO)
    assert configured_broker(load(tmp_path, FEED)).tls is not None


def test_certificates_for_a_plain_connection_are_a_mistake(tmp_path, authority):
    errors = refused(tmp_path, FEED.replace("mqtts://localhost:8883", "mqtt://localhost"))
    assert {e.key for e in errors} == {"feed.ca_file", "feed.cert_file", "feed.key_file"}
    assert "mqtts://" in errors[0].hint


def test_an_unknown_key_of_billings_identity_is_told_with_the_nearest(tmp_path, authority):
    error = only_error(tmp_path, FEED + BILLING.replace("key_file", "keyfile"))
    assert error.key == "billing.broker.keyfile"
    assert "key_file" in error.hint


def test_a_secret_is_bounded_text(tmp_path):
    path = tmp_path / "pw"
    for content, what in ((b"x" * 5000, "larger"), (b"\xff", "UTF-8"), (b"\n", "empty")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(FileFault, match=what):
            read_secret(path)
    path.write_bytes(b"two words \r\n")
    assert read_secret(path) == "two words "
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(FileFault, match="no plain file"):
        read_secret(path)
