"""The windows a kill is placed in, and who may be killed there."""

from enum import StrEnum


class Window(StrEnum):
    """Between which two steps of a reading's way a process dies."""

    BEFORE_COMMIT = "before_commit"  # the journal is about to commit readings
    COMMIT_TO_PUBLISH = "commit_to_publish"  # committed, its batch not yet handed to the broker
    PUBLISH_TO_PUBACK = "publish_to_puback"  # handed over, no PUBACK seen
    BEFORE_BILLING_COMMIT = "before_billing_commit"  # billing is about to commit a group
    BILLING_COMMIT_TO_RECEIPT = "billing_commit_to_receipt"  # durable at billing, no receipt sent
    RECEIPT_TO_CURSOR = "receipt_to_cursor"  # the receipt came, the cursor is not committed
    SERIES_TO_SERVER = "series_to_server"  # lines are about to go to the time-series database
    SERIES_TO_CURSOR = "series_to_cursor"  # they are there, the writer's cursor has not moved


SERIES_WINDOWS = (Window.SERIES_TO_SERVER, Window.SERIES_TO_CURSOR)
SPINE_WINDOWS = tuple(window for window in Window if window not in SERIES_WINDOWS)

VICTIMS = ("daemon", "consumer", "broker")
SERVERS = ("influxdb", "postgresql")

WATCHERS = {
    Window.BEFORE_COMMIT: "daemon",
    Window.COMMIT_TO_PUBLISH: "daemon",
    Window.PUBLISH_TO_PUBACK: "daemon",
    Window.BEFORE_BILLING_COMMIT: "consumer",
    Window.BILLING_COMMIT_TO_RECEIPT: "consumer",
    Window.RECEIPT_TO_CURSOR: "daemon",
    Window.SERIES_TO_SERVER: "daemon",
    Window.SERIES_TO_CURSOR: "daemon",
}
"""Whose process stands in the window and strikes."""

PLACES = {Window.RECEIPT_TO_CURSOR: ("taken", "written")}
"""Windows with more than one spot."""
