"""Authorities and certificates made for one test, on disk as a configuration names them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

LONG_AGO = (datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
FAR_AHEAD = (datetime(2090, 1, 1, tzinfo=UTC), datetime(2091, 1, 1, tzinfo=UTC))
Validity = tuple[datetime, datetime]


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    cert_file: Path
    key_file: Path

    def replace_by(self, other: "Identity") -> None:
        """Put another identity's certificate and key in the place of this one's, as people do."""
        for ours, theirs in (
            (self.key_file, other.key_file),
            (self.cert_file, other.cert_file),
        ):
            fresh = ours.with_suffix(".new")
            fresh.write_bytes(theirs.read_bytes())
            fresh.chmod(0o600)
            fresh.replace(ours)


@dataclass
class Authority:
    """One certificate authority with its folder."""

    folder: Path
    name: str = "ca"
    _ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ca.cert_pem.write_to_path(self.ca_file)

    @property
    def ca_file(self) -> Path:
        """The authority's own certificate."""
        return self.folder / f"{self.name}.pem"

    def server(self, *names: str, file: str = "server", valid: Validity | None = None) -> Identity:
        """A broker's certificate for these names and addresses (localhost, 127.0.0.1, ::1)."""
        return self._issue(file, names or ("localhost", "127.0.0.1", "::1"), None, valid)

    def client(self, name: str, *, file: str | None = None, valid: Validity | None = None):
        """A client's certificate whose common name is its user at the broker."""
        return self._issue(file or name, (f"{name}.client.example",), name, valid)

    def _issue(self, file, names, common_name, valid) -> Identity:
        before, after = valid or (None, None)
        leaf = self._ca.issue_cert(
            *names, common_name=common_name, not_before=before, not_after=after
        )
        made = Identity(
            self.folder / f"{self.name}-{file}.pem", self.folder / f"{self.name}-{file}.key"
        )
        made.cert_file.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        made.key_file.write_bytes(leaf.private_key_pem.bytes())
        made.key_file.chmod(0o600)
        return made


def encrypted_copy(key_file: Path, password: bytes = b"pass phrase") -> Path:
    """The same key, encrypted, beside it."""
    key = load_pem_private_key(key_file.read_bytes(), None)
    copy = key_file.with_suffix(".encrypted.key")
    copy.write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(password)
        )
    )
    copy.chmod(0o600)
    return copy
