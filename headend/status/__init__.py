"""The status page and the metrics of a running daemon: looked at, never changed.

Everything shown is either at hand on the event loop (buses, feed, tasks) or read from the
journal's file by a few threads, within a time limit and kept for some seconds. Nothing here can
hold up a bus.
"""

from headend.status.server import StatusServer

__all__ = ["StatusServer"]
