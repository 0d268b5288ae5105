"""What an error below HTTP means: to be tried again, or a fault in the configuration."""

import ssl

import aiohttp

from headend.timeseries.outcome import Misconfigured, Outcome, TryAgain
from headend.timeseries.target import Target


def failure(error: Exception, target: Target) -> Outcome:
    """The outcome of a write that got no answer. Texts hold the address and nothing secret."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Misconfigured(f"the server's certificate is refused: {_why(error)}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Misconfigured(
            f"no TLS with the server: {_why(error)}; look at the url, http or https"
        )
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return TryAgain(f"no connection within {target.connect_timeout_s:g} s")
    if isinstance(error, TimeoutError):
        # A server that takes longer than this for so much may do with less.
        return TryAgain(f"no answer within {target.timeout_s:g} s", big=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return TryAgain(f"no connection: {_why(error)}")
    if isinstance(error, aiohttp.InvalidURL) or not isinstance(
        error, aiohttp.ClientError | OSError
    ):
        return Misconfigured("the url, user name or token cannot be sent as it is")
    # Some servers do not say 413: they hang up in the middle of what is too long.
    return TryAgain(f"the connection was lost: {_why(error)}", big=True)


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause: BaseException = error.certificate_error
        return str(getattr(cause, "verify_message", "") or cause)
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        return f"{error.host}:{error.port} {getattr(cause, 'strerror', None) or cause}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server hung up"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what came is no HTTP answer"
    return str(error) or type(error).__name__
