"""What can be wrong with billing's database."""

from headend.domain.errors import HeadendError, ServerAway


class BillingDatabaseError(HeadendError):
    """Billing's database cannot be used as it is; asking again does not help."""


class DatabaseAway(BillingDatabaseError, ServerAway):
    """The database cannot work now: not reached, restarting, no room, read-only, locked.

    What was asked has not happened, or its outcome is unknown (a commit whose answer was lost).
    Either way it is right to ask again. `is_lasting`: it will be so until a person changes
    something; `setting` names the key of the configuration when the fault is there.
    """

    def __init__(
        self, message: str, *, hint: str = "", is_lasting: bool = False, setting: str | None = None
    ) -> None:
        self.message = message
        self.hint = hint
        self.is_lasting = is_lasting or setting is not None
        self.setting = setting
        super().__init__(f"{message} ({hint})" if hint else message)


class DatabaseBusy(DatabaseAway):
    """Another process is the database's one writer."""
