"""Who a process is at the broker: a user with a password, a certificate with its key, or both."""

from pydantic import model_validator

from headend.config.sections.base import FilePath, Section, Text, problem


class BrokerIdentity(Section):
    """The keys that `feed` and `billing.broker` share. Files hold the secrets, never the keys.

    That `cert_file` and `key_file` stand together, and fit, is checked with the files themselves.
    """

    username: Text | None = None
    password_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    @model_validator(mode="after")
    def _a_user_has_a_password(self) -> "BrokerIdentity":
        if (self.username is None) != (self.password_file is None):
            raise problem("username and password_file belong together")
        return self
