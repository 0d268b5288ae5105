"""Weeks in minutes: what looks at something every few seconds looks less often here.

Nothing it finds is needed sooner in a district, and a virtual week has 600,000 seconds. What reads,
judges, keeps and publishes is as it is.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest import mock

from headend.acquisition.gap_closer import GapCloser
from headend.acquisition.identity_watch import IdentityWatch, WatchTimes
from headend.acquisition.outage_watch import OutageWatch
from headend.journal import JournalSettings

_SECONDS = {
    "headend.feed.publisher.RECEIPTS_LOOK_S": 300.0,
    "headend.acquisition.duekeeper.LOOK_AGAIN_S": 600.0,
    "headend.acquisition.clock_watch.STEP_S": 300.0,
    "headend.acquisition.device_watch.LOOK_S": 900.0,
    "headend.acquisition.outage_watch.HELD_EVERY_S": 900.0,
    "headend.acquisition.poller.WAIT_MAX_S": 250.0,
    "headend.acquisition.memory.WRITE_EVERY_S": 900.0,
    "headend.notify.LOOK_S_MAX": 600.0,
    "headend.bus.bus.STEP_S_MAX": 150.0,
    "headend.bus.configured.REOPEN_MAX_S": 30.0,
    "headend.messages.connection.FILES_LOOK_S": 60.0,
}
_MADE = {
    "headend.daemon.OutageWatch": partial(OutageWatch, step_s=300.0),
    "headend.backfill_desk.GapCloser": partial(GapCloser, look_every_s=900.0),
    "headend.declaration_commands.IdentityWatch": partial(
        IdentityWatch, times=WatchTimes(step_s=600.0)
    ),
    # Virtual time stands while a commit is awaited: waiting for others to share it is no use.
    "headend.daemon.JournalSettings": partial(JournalSettings, group_gap_ms=0, group_wait_ms=0),
}


@contextmanager
def unhurried() -> Iterator[None]:
    """As long as this lasts."""
    with ExitStack() as stack:
        for target, value in {**_SECONDS, **_MADE}.items():
            stack.enter_context(mock.patch(target, value))
        yield
