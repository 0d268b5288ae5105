"""What a codec raises. A root of its own: the head-end's errors never mix with these.

`code` is a short snake_case name for programs and tests; the message is for people.
"""


class ProtocolError(Exception):
    """Root of everything a codec raises on purpose."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class LocalProtocolError(ProtocolError):
    """We asked for something the protocol forbids or this codec cannot say. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other side's bytes are not what they should be.

    `raw` holds the bytes that were judged, `offset` the place in them that is wrong (None when the
    whole is meant).
    """

    def __init__(
        self, message: str, *, code: str, raw: bytes = b"", offset: int | None = None
    ) -> None:
        self.raw = raw
        self.offset = offset
        super().__init__(message, code=code)


class ChecksumError(RemoteProtocolError):
    """The check value does not fit the bytes."""

    def __init__(
        self, message: str, *, got: int, expected: int, raw: bytes = b"", offset: int | None = None
    ) -> None:
        self.got = got
        self.expected = expected
        super().__init__(message, code="checksum", raw=raw, offset=offset)


class BadContent(RemoteProtocolError):
    """A whole frame whose content is impossible or not what was asked for. No value comes of it."""


class ErrorReply(RemoteProtocolError):
    """The device understood and refused. `reasons` are the names of the set bits of `error_byte`.

    With `password` among the reasons the request must never be sent again by a machine: meters
    count wrong passwords and lock themselves.
    """

    def __init__(
        self,
        message: str,
        *,
        reasons: tuple[str, ...],
        error_byte: int,
        raw: bytes = b"",
        offset: int | None = None,
    ) -> None:
        self.reasons = reasons
        self.error_byte = error_byte
        super().__init__(message, code="refused", raw=raw, offset=offset)
