"""Credentials of systemd as `*_file`: where they lead, and what is said when they lead nowhere."""

import pytest

from headend.config import ConfigErrors, load_config
from headend.config.credentials import credential_name, place
from headend.domain.errors import ConfigError
from headend.messages.configured import configured_broker

TEXT = """\
headend: {{name: he1, zone: Asia/Shanghai, data: ./data}}
feed:
  broker: "mqtt://127.0.0.1:1883"
  username: he1
  password_file: "{path}"
"""


@pytest.fixture
def config(tmp_path):
    def write(path):
        file = tmp_path / "headend.yaml"
        file.write_text(TEXT.format(path=path))
        return file

    return write


@pytest.fixture
def handed_in(tmp_path, monkeypatch):
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "secret_mqtt").write_text("open sesame\n")
    (folder / "secret_mqtt").chmod(0o440)  # as systemd leaves it where the file system has ACLs
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


SPELLINGS = ("$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}", "%d")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_credential_is_the_password_of_the_broker(config, handed_in, spelling):
    loaded = load_config(config(f"{spelling}/secret_mqtt"))
    broker = configured_broker(loaded)
    assert broker.password_file == handed_in / "secret_mqtt"
    assert broker.password() == "open sesame"


def test_checking_a_configuration_needs_no_credential(config, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    load_config(config("$CREDENTIALS_DIRECTORY/secret_mqtt"))


def test_outside_of_a_service_it_is_said_who_has_credentials(config, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = config("$CREDENTIALS_DIRECTORY/secret_mqtt")
    loaded = load_config(path)
    with pytest.raises(ConfigError) as caught:
        configured_broker(loaded)
    said = str(caught.value)
    assert str(path) in said
    assert "$CREDENTIALS_DIRECTORY/secret_mqtt" in said
    assert "LoadCredential=" in said
    assert "/run/credentials/headend.service" in said


def test_a_credential_that_was_not_handed_in_is_named_with_those_that_were(config, handed_in):
    loaded = load_config(config("$CREDENTIALS_DIRECTORY/mqtt"))
    with pytest.raises(ConfigError, match="there is no credential mqtt") as caught:
        configured_broker(loaded)
    assert "gave: secret_mqtt" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["$CREDENTIALS_DIRECTORY", "%d", "%d/..", "%d/.", "%d/a/b", "$CREDENTIALS_DIRECTORY/../x"],
)
def test_what_is_no_name_of_a_credential_is_an_error_with_its_line(config, path):
    with pytest.raises(ConfigErrors) as caught:
        load_config(config(path))
    (error,) = caught.value.errors
    assert (error.line, error.key) == (5, "feed.password_file")
    assert "names no credential" in error.message


def test_an_empty_directory_says_that_nothing_was_handed_in(tmp_path):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(ConfigError, match="gave none"):
        place(tmp_path.__class__("%d/x"), tmp_path, environ)


def test_a_directory_that_is_closed_or_away_hands_nothing_in(tmp_path):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "away")}
    with pytest.raises(ConfigError, match="gave none"):
        place(tmp_path.__class__("%d/x"), tmp_path, environ)


def test_other_paths_are_left_as_they_are(tmp_path):
    path = tmp_path.__class__("secrets/%d")
    assert credential_name(path) is None
    assert place(path, tmp_path, {}) == tmp_path / "secrets" / "%d"
