"""Opens ports and delivers their bytes with their parity marks; says when a port is gone.

It does not interpret bytes, keeps no queue of requests and never opens a port again by itself:
the bus decides that.
"""

from headend.transport.factory import make_link
from headend.transport.link import Link, Receiver, Returning

__all__ = ["Link", "Receiver", "Returning", "make_link"]
