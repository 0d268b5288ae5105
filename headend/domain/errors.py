"""The head-end's own errors. Each says what happened, where, and what to do next.

`protocols` has a root of its own (`protocols.errors.ProtocolError`); the two never mix.
"""


class HeadendError(Exception):
    """Root of everything the head-end raises on purpose."""


class ConfigError(HeadendError):
    """A configuration that cannot be used.

    `file`, `line` (1-based, None when the file as a whole is meant) and `key` (dotted path)
    say where; `hint` says what would be right.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.file = file
        self.line = line
        self.key = key
        self.hint = hint
        super().__init__(self._text())

    def _text(self) -> str:
        where = ":".join(str(p) for p in (self.file, self.line) if p is not None)
        parts = [p for p in (where, self.key, self.message) if p]
        text = ": ".join(parts)
        return f"{text} ({self.hint})" if self.hint else text


class BusError(HeadendError):
    """An exchange on a bus did not give a usable reply."""

    def __init__(self, message: str, *, bus: str) -> None:
        self.bus = bus
        super().__init__(message)


class NoAnswer(BusError):
    """Nothing usable came within the time allowed, over all attempts.

    `diagnosis` tells silence apart from damage: `silence`, `incomplete`, `damaged`, `echo_only`,
    `foreign` (frames came, none was the answer), `unreached` (a gateway answered that it does not
    reach the device), `dead_waiting` (a meter that was silent before is
    probed slowly; nothing was sent now).
    """

    def __init__(
        self, message: str, *, bus: str, waited_ms: float, attempts: int, diagnosis: str
    ) -> None:
        self.waited_ms = waited_ms
        self.attempts = attempts
        self.diagnosis = diagnosis
        super().__init__(message, bus=bus)


class PortGone(BusError):
    """The port is not there (pulled out, connection refused or closed). It is tried again."""


class PortBusy(BusError):
    """Somebody else holds the port."""


class DeadlinePassed(BusError):
    """The request waited in the queue longer than its deadline allowed; nothing was sent."""


class QueueFull(BusError):
    """The bus has more waiting requests than its bound; nothing was sent."""


class Refused(HeadendError):
    """The device answered with a refusal. `reasons` are the names of the set bits.

    An authentication refusal is never sent again.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons
        super().__init__(message)


class Busy(Refused):
    """The device has no time now and said so, however often it was asked within reason."""


class BadReply(HeadendError):
    """A whole, matching reply whose content is impossible (length, BCD digits). No value."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class JournalError(HeadendError):
    """The journal could not do what was asked."""


class JournalFull(JournalError):
    """No room on the disk for this class of entry; nothing of it was written."""


class JournalDamaged(JournalError):
    """The journal file failed its integrity check. `set_aside` is where it was moved."""

    def __init__(self, message: str, *, set_aside: str | None = None) -> None:
        self.set_aside = set_aside
        super().__init__(message)


class FeedError(HeadendError):
    """A message of the feed that cannot be taken. `code` names the kind."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class ServerAway(HeadendError):
    """A server we need is not reached, does not let us in, or cannot work now. Ask again."""


class PolicyError(HeadendError):
    """Our own rules forbid it."""
