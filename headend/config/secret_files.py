"""The files behind a connection: authorities, a certificate with its key, a password.

They are read when they are needed and never kept; what is wrong with one is said in plain words,
with the configuration key that names it. The same rules hold when the configuration is read, when
a process starts, and at each connection.
"""

import ssl
import stat
from pathlib import Path

from headend.domain.errors import HeadendError

SECRET_BYTES_MAX = 4096


class FileFault(HeadendError):
    """A file cannot be used. `key` names it as the configuration does; `hint` says what to do.

    `is_private`: it is there, and this user may not read it.
    """

    def __init__(
        self, key: str, path: Path, message: str, hint: str, *, is_private: bool = False
    ) -> None:
        self.key = key
        self.path = path
        self.message = message
        self.hint = hint
        self.is_private = is_private
        super().__init__(f"{key} {path} {message}: {hint}")


def client_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> ssl.SSLContext:
    """A client's TLS, version 1.2 or later, that checks the other end's certificate and name.

    Without `ca_file` the system's authorities count. FileFault for a file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, ca_file)
    if (cert_file is None) != (key_file is None):
        given, path = ("key_file", key_file) if cert_file is None else ("cert_file", cert_file)
        assert path is not None
        raise FileFault(given, path, "stands alone", "cert_file and key_file belong together")
    if cert_file is not None and key_file is not None:
        _load_identity(context, cert_file, key_file)
    return context


def read_secret(path: Path, key: str = "password_file") -> str:
    """The secret in a file; its trailing line end does not belong to it. FileFault."""
    check_private(path, key)
    data = _read(path, key, SECRET_BYTES_MAX)
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise FileFault(key, path, "is not UTF-8 text", "write the secret as text") from None
    if not text:
        raise FileFault(key, path, "is empty", "write the secret into it")
    return text


def check_private(path: Path, key: str) -> None:
    """FileFault when everybody may read a secret's file, or others than its owner may write it.

    Its group may read it: that is how one file is shared with a daemon's user.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unreadable(key, path, error) from error
    hint = "chmod 600, or 640 with a group of its own"
    if mode & stat.S_IROTH:
        raise FileFault(key, path, f"can be read by everybody (mode {mode:o})", hint)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FileFault(key, path, f"can be written by others (mode {mode:o})", hint)


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    _read(path, "ca_file")
    try:
        context.load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        hint = "the authority's certificate, as text (PEM) that begins with BEGIN CERTIFICATE"
        raise FileFault("ca_file", path, "holds no certificate", hint) from error


def _load_identity(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    check_private(key_file, "key_file")
    key = _read(key_file, "key_file")
    _read(cert_file, "cert_file")
    # Asked for a password the library would wait at the terminal.
    if b"ENCRYPTED" in key:
        hint = (
            f"a service has nobody to type it: openssl pkey -in {key_file} -out plain.key, "
            "with mode 600"
        )
        raise FileFault("key_file", key_file, "is encrypted with a password", hint)
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:  # ssl.SSLError is one
        raise _bad_pair(error, cert_file, key_file) from error


def _bad_pair(error: OSError, cert_file: Path, key_file: Path) -> FileFault:
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        hint = f"it is the key of another certificate than {cert_file}"
        return FileFault("key_file", key_file, "does not fit the certificate", hint)
    if reason in ("CA_MD_TOO_WEAK", "EE_KEY_TOO_SMALL"):
        hint = "have it made again, with a key and a signature of today"
        return FileFault("cert_file", cert_file, "is too weak to be used", hint)
    only_cert = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        only_cert.load_verify_locations(cert_file)
    except OSError:
        hint = "our own certificate, as text (PEM) that begins with BEGIN CERTIFICATE"
        return FileFault("cert_file", cert_file, "holds no certificate", hint)
    hint = "the certificate's private key, as text (PEM) that begins with BEGIN PRIVATE KEY"
    return FileFault("key_file", key_file, "holds no private key", hint)


def _read(path: Path, key: str, bytes_max: int = 1024 * 1024) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise FileFault(key, path, "is no plain file", "is it the right path?")
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise _unreadable(key, path, error) from error
    if len(data) > bytes_max:
        raise FileFault(key, path, f"is larger than {bytes_max} bytes", "is it the right file?")
    return data


def _unreadable(key: str, path: Path, error: OSError) -> FileFault:
    if isinstance(error, FileNotFoundError):
        return FileFault(key, path, "is not there", "put it there, or correct the path")
    is_private = isinstance(error, PermissionError)
    hint = "give it to the user that runs this" if is_private else "is it the right file?"
    message = f"cannot be read: {error.strerror or error}"
    return FileFault(key, path, message, hint, is_private=is_private)
