"""Why there is no connection to the broker: a code for programs and a sentence for people.

The sentence says which certificate or file is meant, what was expected, and what to do. Nothing
secret stands in it.
"""

import socket
import ssl
from enum import StrEnum
from typing import NamedTuple

from headend.config.secret_files import FileFault
from headend.messages.broker import BrokerSpec
from headend.messages.sockets import NotLocal


class Code(StrEnum):
    """What stands between us and the broker."""

    LOST = "lost"  # a connection that stood has broken
    UNREACHABLE = "unreachable"  # nobody there: name, network, port
    SILENT = "silent"  # somebody accepts and says nothing
    CUT = "cut"  # somebody accepts and closes without an answer
    LOGIN_REFUSED = "login_refused"
    REFUSED = "refused"  # the broker says no for another reason
    FILE = "file"  # one of our files cannot be used
    NOT_LOCAL = "not_local"  # a name that should mean this machine does not
    BROKER_NAME = "broker_name"
    BROKER_EXPIRED = "broker_expired"
    BROKER_NOT_YET_VALID = "broker_not_yet_valid"
    BROKER_AUTHORITY = "broker_authority"
    BROKER_CERTIFICATE = "broker_certificate"  # something else is wrong with it
    OWN_MISSING = "own_missing"
    OWN_EXPIRED = "own_expired"
    OWN_AUTHORITY = "own_authority"
    OWN_REFUSED = "own_refused"
    NO_TLS_THERE = "no_tls_there"
    TLS_THERE = "tls_there"
    TLS = "tls"  # the two ends cannot agree


# Waiting mends these; everything else waits for a person.
_PASSING = frozenset({Code.LOST, Code.UNREACHABLE, Code.SILENT, Code.CUT})


def needs_a_person(code: Code) -> bool:
    """Whether this goes on until somebody changes something."""
    return code not in _PASSING


class Why(NamedTuple):
    """One reason."""

    code: Code
    text: str


# Numbers of OpenSSL's certificate verification (x509_vfy.h).
_EXPIRED, _NOT_YET_VALID = 10, 9
_HOST_MISMATCH, _ADDRESS_MISMATCH = 62, 64
_NO_ISSUER = frozenset({2, 18, 19, 20, 21})

_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": Code.OWN_MISSING,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": Code.OWN_MISSING,
    "TLSV1_ALERT_UNKNOWN_CA": Code.OWN_AUTHORITY,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": Code.OWN_EXPIRED,
    "SSLV3_ALERT_BAD_CERTIFICATE": Code.OWN_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": Code.OWN_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": Code.OWN_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": Code.OWN_REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": Code.OWN_REFUSED,
}
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
_USE_TLS_PORT = "give the port of its TLS listener, or mqtt:// if it is a plain one on this machine"
_USE_TLS = "use mqtts:// if this is one"


def why_cut_after_handshake(spec: BrokerSpec) -> Why:
    """The TLS handshake went well, and then the broker closed without a word."""
    if spec.tls is not None and spec.tls.cert_file is None:
        return _own_certificate(Code.OWN_MISSING, spec)
    return Why(Code.CUT, "it closed the connection without an answer, right after the handshake")


def why_tls_answer() -> Why:
    """Plain text was answered with a TLS record."""
    return Why(Code.TLS_THERE, f"it speaks TLS on this port: {_USE_TLS}")


def why_no_connection(error: Exception, spec: BrokerSpec) -> Why:
    """What an error while connecting, or before the broker answered, means."""
    if isinstance(error, FileFault):
        return Why(Code.FILE, str(error))
    if isinstance(error, NotLocal):
        return Why(Code.NOT_LOCAL, str(error))
    is_cut = isinstance(error, ssl.SSLEOFError | EOFError | ConnectionError)
    if is_cut and not isinstance(error, ConnectionRefusedError):
        return _cut(spec)
    if isinstance(error, ssl.SSLError):
        return _handshake(error, spec)
    return Why(Code.UNREACHABLE, f"cannot be reached: {_said(error)}")


def _handshake(error: ssl.SSLError, spec: BrokerSpec) -> Why:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _broker_certificate(error, spec)
    if error.reason in _ALERTS:
        return _own_certificate(_ALERTS[error.reason], spec)
    if error.reason in _NOT_TLS:
        return Why(Code.NO_TLS_THERE, f"it answers, and not in TLS: {_USE_TLS_PORT}")
    return Why(Code.TLS, f"no TLS 1.2 or later could be agreed on ({error.reason})")


def _cut(spec: BrokerSpec) -> Why:
    if spec.tls is not None:
        text = "it closed the connection in the TLS handshake, as a listener for plain text does"
        return Why(Code.CUT, f"{text}: {_USE_TLS_PORT}")
    text = "it closed the connection without an answer, as a TLS listener does to plain text"
    return Why(Code.CUT, f"{text}: {_USE_TLS}")


def why_login_refused(reason: str, spec: BrokerSpec) -> Why:
    """What a refusal in the broker's answer (a reason code's name) means."""
    if reason in _LOGIN:
        if spec.username is not None:
            who = f"user {spec.username} with the password in {spec.password_file}"
        elif spec.tls is not None and spec.tls.cert_file is not None:
            who = f"the certificate {spec.tls.cert_file}"
        else:
            who = "a connection without a user"
        return Why(Code.LOGIN_REFUSED, f"it refuses {who}: {reason}")
    return Why(Code.REFUSED, f"it refused the connection: {reason}")


_LOGIN = frozenset(
    {"Bad user name or password", "Not authorized", "Banned", "Bad authentication method"}
)


def _broker_certificate(error: ssl.SSLCertVerificationError, spec: BrokerSpec) -> Why:
    number = error.verify_code
    if number in (_HOST_MISMATCH, _ADDRESS_MISMATCH):
        return Why(
            Code.BROKER_NAME,
            f"the broker's certificate is not for {spec.host}: connect by a name that it holds, or "
            f"have it made with {spec.host} among its alternative names",
        )
    if number == _EXPIRED:
        return Why(
            Code.BROKER_EXPIRED,
            "the broker's certificate (or that of its authority) has expired: renew it at the "
            "broker; if it has not, this machine's clock is wrong",
        )
    if number == _NOT_YET_VALID:
        return Why(
            Code.BROKER_NOT_YET_VALID,
            "the broker's certificate is not valid yet: set this machine's clock, or wait",
        )
    if number in _NO_ISSUER:
        assert spec.tls is not None
        ours = spec.tls.ca_file
        whose = "this system's authorities" if ours is None else f"the authority in {ours}"
        return Why(
            Code.BROKER_AUTHORITY,
            f"the broker's certificate is not signed by {whose}: name the authority that signed it "
            "as ca_file; if nobody changed it, somebody else answers there",
        )
    return Why(
        Code.BROKER_CERTIFICATE,
        f"the broker's certificate cannot be believed: {error.verify_message}",
    )


def _own_certificate(code: Code, spec: BrokerSpec) -> Why:
    assert spec.tls is not None
    ours = spec.tls.cert_file
    if ours is None:
        return Why(
            Code.OWN_MISSING,
            "the broker wants a certificate of ours and none is configured: set cert_file and "
            "key_file",
        )
    text = {
        Code.OWN_MISSING: "was not taken; the two ends may have no TLS version or cipher in common",
        Code.OWN_EXPIRED: "has expired, says the broker: renew it",
        Code.OWN_AUTHORITY: "is not signed by an authority that the broker knows: have it signed "
        "by that one, or give the broker (cafile) the one that signed it",
        Code.OWN_REFUSED: "was refused by the broker: it may be revoked, or made for another use",
    }[code]
    return Why(Code.OWN_REFUSED if code is Code.OWN_MISSING else code, f"our {ours} {text}")


def _said(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"its name is not known here ({error.strerror})"
    if isinstance(error, TimeoutError):
        return "no answer to the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
