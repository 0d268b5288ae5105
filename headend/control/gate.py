"""Who may write to a meter, and when to stop: the one place that says yes.

A refused password is never sent to the same meter again until the password's file was changed,
by no process: what was refused is read from the audit record. A job ends after a number of
refusals over all its meters, because meters lock themselves after a few.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from headend.domain.errors import PolicyError

REASON_MIN = 3
REASON_MAX = 500
BY_MAX = 100

PASSWORD_REFUSED = "password_refused"  # noqa: S105 - the name of an outcome


class Gate:
    """`enabled`: the configuration's word. `refused`: lines of the audit record, in order."""

    def __init__(
        self, *, enabled: bool, refusals_max: int, lines: Iterable[Mapping[str, Any]]
    ) -> None:
        self._enabled = enabled
        self._refusals_max = refusals_max
        self._refused: dict[str, str] = {}  # subject -> what named the password
        for line in lines:
            if line.get("outcome") == PASSWORD_REFUSED:
                self._refused[str(line["subject"])] = str(line.get("password_of", ""))

    def admit(self, *, by: str, reason: str) -> None:
        """PolicyError unless control is on, and somebody says who and why."""
        if not self._enabled:
            msg = "control is off: nothing is written to a meter (control.enabled: true allows it)"
            raise PolicyError(msg)
        if not by.strip() or len(by) > BY_MAX:
            msg = f"who does this? A name of at most {BY_MAX} characters"
            raise PolicyError(msg)
        if not REASON_MIN <= len(reason.strip()) <= REASON_MAX:
            msg = f"why is this done? A reason of {REASON_MIN} to {REASON_MAX} characters"
            raise PolicyError(msg)

    def admit_password(self, subject: str, password_of: str) -> None:
        """PolicyError when this meter has refused this password before."""
        if self._refused.get(subject) == password_of:
            msg = (
                f"{subject} has refused this password: it is not sent again, because meters lock "
                "themselves. Write the right one into control.password_file"
            )
            raise PolicyError(msg)

    def was_refused(self, subject: str, password_of: str) -> None:
        """Remember that a meter did not take the password."""
        self._refused[subject] = password_of

    def job(self) -> "Job":
        """A row of meters that are written to one after the other."""
        return Job(self._refusals_max)


class Job:
    """Counts what was refused over all meters of one job."""

    def __init__(self, refusals_max: int) -> None:
        self._refusals_max = refusals_max
        self.refusals = 0

    def refused(self) -> None:
        """One more."""
        self.refusals += 1

    def go_on(self) -> None:
        """PolicyError when enough meters have refused."""
        if self.refusals >= self._refusals_max:
            msg = (
                f"{self.refusals} meters have refused the password: the job ends here, before more "
                "of them lock themselves (control.refusals_max)"
            )
            raise PolicyError(msg)
